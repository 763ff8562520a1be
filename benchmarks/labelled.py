"""The labelled set of the mining benchmarks: coherent documents and controls whose label is known by construction.

Coherent documents are the left-out ones (`in_heldout(id, 0.5)`, the starter scorer's split) of the development corpus,
each cut to one contiguous stretch of `num_chars` characters. Controls are made from the same left-out documents
(`longlode.corpus.controls`), or are documents that are lists by nature (kind `lowdep-*`; none was trained on).
"""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from longlode.core.errors import InputError
from longlode.corpus import Document, controls, in_heldout, read

HELDOUT_FRACTION = 0.5
TRAINED_ON = (
    "books",
    "code_sqlalchemy.jsonl",
    "tech_peps.jsonl",
    "latex_openlogic.jsonl",
    "legal_report.jsonl",
    "meetings_ami.jsonl",
    "loogle_wiki_sample.jsonl",
)
"""What `recipes/make_starter.py` is given, below the data folder; ids, and so the split, follow from it."""
LISTS = "lowdep.jsonl"
COHERENT = "coherent"
DOMAINS = {
    "code-file": "code",
    "code-package": "code",
    "tech-spec": "technical",
    "latex-textbook-part": "textbook",
    "legal-report": "legal",
    "meeting": "meeting",
    "longdep_qa": "encyclopedia",
    "shortdep_qa": "encyclopedia",
}


@dataclass(frozen=True)
class Labelled:
    """One document of the set: its id, the label ("coherent" or a negative's name), domain and text."""

    id: str
    label: str
    domain: str
    text: str


def data_folder() -> Path:
    """The development corpus: `LONGLODE_DATA`, else `../shared/data` beside the repository. Raises InputError."""
    folder = Path(os.environ.get("LONGLODE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "books").is_dir():
        raise InputError(
            f"There is no development corpus at {folder}; set LONGLODE_DATA to a folder that holds "
            f"{', '.join((*TRAINED_ON, LISTS))}."
        )
    return folder


def labelled_set(*, num_chars: int = 60_000, seed: int = 0, extra: bool = False) -> list[Labelled]:
    """The whole set, the same for a seed.

    Args: num_chars, length of every document (about 16,000 tokens of the starter's tokenizer at 60,000); extra, also
      the harder negatives (shuffled, renamed, repeated, spliced documents).
    """
    folder = data_folder()
    rng = random.Random(seed)
    heldout = [
        item
        for item in read([str(folder / name) for name in TRAINED_ON])
        if isinstance(item, Document) and in_heldout(item.id, HELDOUT_FRACTION)
    ]
    coherent = [Labelled(d.id, COHERENT, domain_of(d), stretch(d.text, num_chars, rng)) for d in heldout]
    lists = [
        Labelled(d.id, "lists", str(d.metadata["kind"]), stretch(d.text, num_chars, rng))
        for d in read([str(folder / LISTS)])
        if isinstance(d, Document)
    ]
    logs = [
        Labelled(f"log-{n}", "logs", "log", controls.synthetic_log(num_chars=num_chars, rng=rng))
        for n in range(25)
    ]
    result = coherent + splices("spliced", controls.spliced, heldout, num_chars, rng) + lists + logs
    return result + harder(heldout, coherent, num_chars, rng) if extra else result


def domain_of(document: Document) -> str:
    """What a document is: by its `kind`; a file without one is a book."""
    return DOMAINS.get(str(document.metadata.get("kind")), "book")


def stretch(text: str, num_chars: int, rng: random.Random) -> str:
    """One contiguous stretch at a random place."""
    start = rng.randrange(max(1, len(text) - num_chars))
    return text[start : start + num_chars]


def splices(
    label: str, make: Callable[..., str], heldout: list[Document], num_chars: int, rng: random.Random
) -> list[Labelled]:
    """For each left-out document one splice of its domain; domains with a single document give none."""
    made = []
    for domain in sorted({domain_of(d) for d in heldout}):
        texts = [d.text for d in heldout if domain_of(d) == domain]
        if len(texts) > 1:
            made += [
                Labelled(f"{label}-{domain}-{n}", label, domain, make(texts, num_chars=num_chars, rng=rng))
                for n in range(len(texts))
            ]
    return made


def harder(
    heldout: list[Document], coherent: list[Labelled], num_chars: int, rng: random.Random
) -> list[Labelled]:
    """Negatives that keep more of the original."""
    made = splices("spliced-documents", controls.spliced_documents, heldout, num_chars, rng)
    for item in coherent:
        made.append(
            Labelled(f"shuffled-{item.id}", "shuffled", item.domain, controls.shuffled(item.text, rng=rng))
        )
        repeated = controls.repeated(item.text, num_chars=num_chars, rng=rng)
        made.append(Labelled(f"repeated-{item.id}", "repeated", item.domain, repeated))
        if item.domain == "book":
            made.append(
                Labelled(f"renamed-{item.id}", "renamed", "book", controls.renamed(item.text, rng=rng))
            )
    return made
