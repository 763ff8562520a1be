"""Beginnings of documents, from files that longlode wrote: explain.json and the output of a selection."""

from collections.abc import Mapping, Sequence
from typing import Any

from longlode.report.documents import identity_of
from longlode.report.read import Gathered
from longlode.report.scores import Corpus
from longlode.report.selection import Identity, beginnings
from longlode.report.text import clipped


def excerpts(
    gathered: Gathered, corpora: Sequence[Corpus], explained: Sequence[Sequence[Mapping[str, Any]]]
) -> tuple[dict[Identity, str], str]:
    """Beginnings of documents, and a sentence on their origin and on why other documents have none.

    Args: explained, for each folder what its explain.json holds.
    """
    found: dict[Identity, str] = {}
    for documents in explained:
        for one in documents:
            segments = one.get("segments")
            text = segments[0] if isinstance(segments, list) and segments else one.get("beginning")
            if isinstance(text, str):
                found[identity_of(one)] = text
    num_explained, files = len(found), []
    for corpus in corpora:
        kept = _kept(gathered, corpus)
        if kept and corpus.decisions:
            files.append(clipped(corpus.decisions.documents.name, 60))
            found = kept | found
    sources = [f"the {num_explained:,} explained documents"] if num_explained else []
    sources += [f"the kept documents in {name}" for name in files]
    rest = "a scores folder keeps no text, so other documents have none"
    return found, f"Excerpts are from {' and '.join(sources)}; {rest}." if sources else (
        "No excerpts: a scores folder keeps no text. Selected documents get one when the report is also given the "
        "folder of their selection."
    )


def _kept(gathered: Gathered, corpus: Corpus) -> dict[Identity, str]:
    """Beginnings of the documents that a selection kept, by id; ids that two documents share are left out."""
    if corpus.decisions is None:
        return {}
    by_id: dict[str, list[Identity]] = {}
    for identity in corpus.identities:
        by_id.setdefault(identity[2], []).append(identity)
    wanted = {
        name: same[0]
        for name, same in by_id.items()
        if len(same) == 1 and same[0] not in corpus.decisions.dropped
    }
    settings = corpus.found.record.get("settings")
    field = settings.get("text_field") if isinstance(settings, Mapping) else None
    begun = beginnings(gathered, corpus.decisions.documents, set(wanted), str(field or "text"))
    return {wanted[name]: text for name, text in begun.items()}
