"""How each negative of the labelled set is made from coherent documents (`longlode.synthetic.controls`).

spliced             pieces of ~500 characters of one kind
spliced-documents   whole short documents, chapters, sections or definitions of one kind, begun and ended
shuffled            one document's paragraphs (code: definitions) in random order
lists               quotations, change logs, commit logs; generated tables
logs                generated
boilerplate         pages of one site around unrelated snippets
repeated            one paragraph with small edits, again and again
renamed             fluent text whose names are new every 500 characters
chat                turns of conversations in random order, speakers kept
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from benchmarks.labelled import Cutter, Labelled, Source
from longlode.synthetic import controls, generated

NEGATIVES = (
    "spliced",
    "spliced-documents",
    "shuffled",
    "lists",
    "logs",
    "boilerplate",
    "repeated",
    "renamed",
    "chat",
)
NUM_GENERATED = 16
"""Of each kind that is generated, on each side."""
FEWEST_BLOCKS = 12
"""A document of fewer blocks is not shuffled: too much of its order would be left."""
FEWEST_NAMES = 1 / 600
"""Changed words for each character at least, for a text to count as renamed: a name every 100 words or so."""
NOT_RENAMED = ("technical", "textbook")
"""Domains whose thread is carried by terms, not by names."""

SPOKEN = 0.2
"""Share of a document that is spoken at least, for its turns to make a chat."""

_LeftOut = Counter[tuple[str, str]]


def negatives(
    sources: Sequence[Source],
    lists: Sequence[Source],
    wanted: Counter[str],
    cutter: Cutter,
    side: tuple[str, int],
    left_out: _LeftOut,
) -> Iterator[Labelled]:
    """All negatives of one side (its name, and the seed); what is too short or unfit is counted in `left_out`.

    Args: wanted, coherent documents of each domain: as many splices of it are made, at least two and at most one a
      source.

    Every maker draws from a generator of its own, seeded by what it makes, so that no negative depends on another.
    """
    seed = f"{side[1]}:{side[0]}"
    makers = (
        _spliced(sources, wanted, cutter, seed),
        _spliced_documents(sources, wanted, cutter, seed),
        _shuffled(sources, cutter, seed),
        _lists(lists, cutter, seed),
        _logs(cutter, seed),
        _boilerplate(sources, cutter, seed),
        _repeated(sources, cutter, seed),
        _renamed(sources, cutter, seed),
        _chats(sources, cutter, seed),
    )
    for label, maker in zip(NEGATIVES, makers, strict=True):
        for name, domain, text in maker:
            found = None if text is None else cutter.cut(text)
            if found is None:
                left_out[label, domain] += 1
            else:
                yield Labelled(f"{label}/{side[0]}/{name}", label, domain, *found)


_Made = Iterator[tuple[str, str, str | None]]
"""Name, domain and text; None for a text that could not be made."""


def _rng(cutter: Cutter, *parts: object) -> random.Random:
    return random.Random(":".join(map(str, (cutter.num_tokens, *parts))))


def _chars(cutter: Cutter) -> int:
    """Characters that hold the wanted tokens in any text."""
    return 6 * cutter.num_tokens


def _by_domain(sources: Sequence[Source]) -> Iterator[tuple[str, list[Source]]]:
    """Domains with two documents or more."""
    for domain, group in groupby(
        sorted(sources, key=lambda source: source.domain), lambda source: source.domain
    ):
        members = list(group)
        if len(members) > 1:
            yield domain, members


def _spliced(sources: Sequence[Source], wanted: Counter[str], cutter: Cutter, seed: str) -> _Made:
    for domain, members in _by_domain(sources):
        texts = [source.text for source in members]
        for n in range(min(len(members), max(2, wanted[domain]))):
            name = f"{domain}-{n}"
            rng = _rng(cutter, seed, "spliced", name)
            yield name, domain, controls.spliced(texts, num_chars=_chars(cutter), rng=rng)


def _spliced_documents(sources: Sequence[Source], wanted: Counter[str], cutter: Cutter, seed: str) -> _Made:
    for domain, members in _by_domain(sources):
        shelves = [
            controls.short_documents(source.text, rng=_rng(cutter, seed, "short", source.id))
            for source in members
        ]
        if sum(map(bool, shelves)) < 2:
            continue
        for n in range(min(len(members), max(2, wanted[domain]))):
            name = f"{domain}-{n}"
            rng = _rng(cutter, seed, "spliced-documents", name)
            yield name, domain, controls.spliced_documents(shelves, num_chars=_chars(cutter), rng=rng)


def _stretches(
    sources: Sequence[Source], cutter: Cutter, seed: str, label: str
) -> Iterator[tuple[Source, str | None]]:
    """An independent stretch of each document, with more at its end than is wanted where the document has so much."""
    for source in sources:
        begun = cutter.stretch(source.text, _rng(cutter, seed, label, "stretch", source.id))
        yield source, begun


def _shuffled(sources: Sequence[Source], cutter: Cutter, seed: str) -> _Made:
    for source, text in _stretches(sources, cutter, seed, "shuffled"):
        cut = None if text is None else cutter.cut(text)
        # A stretch of the wanted length is shuffled, and what follows it makes up for a token lost at a seam.
        if cut is None or text is None or len(controls.blocks(cut[0])) < FEWEST_BLOCKS:
            yield source.id, source.domain, None
            continue
        rng = _rng(cutter, seed, "shuffled", source.id)
        spare = text[len(cut[0]) : len(cut[0]) + 400]
        yield source.id, source.domain, controls.shuffled(cut[0], rng=rng) + spare


def _repeated(sources: Sequence[Source], cutter: Cutter, seed: str) -> _Made:
    for source, text in _stretches(sources, cutter, seed, "repeated"):
        rng = _rng(cutter, seed, "repeated", source.id)
        made = None if text is None else controls.repeated(text[:20_000], num_chars=_chars(cutter), rng=rng)
        yield source.id, source.domain, made


def _renamed(sources: Sequence[Source], cutter: Cutter, seed: str) -> _Made:
    chosen = [source for source in sources if source.domain not in NOT_RENAMED]
    for source, text in _stretches(chosen, cutter, seed, "renamed"):
        made = None
        if text is not None:
            made = controls.renamed(text, rng=_rng(cutter, seed, "renamed", source.id))
            changed = sum((Counter(text.split()) - Counter(made.split())).values())
            made = made if changed >= FEWEST_NAMES * len(text) else None
        yield source.id, source.domain, made


def _lists(lists: Sequence[Source], cutter: Cutter, seed: str) -> _Made:
    for source, text in _stretches(lists, cutter, seed, "lists"):
        yield source.id, source.domain, text
    for n in range(NUM_GENERATED // 2):
        rng = _rng(cutter, seed, "table", n)
        yield f"table-{n}", "table", generated.synthetic_table(num_chars=_chars(cutter), rng=rng)


def _logs(cutter: Cutter, seed: str) -> _Made:
    for n in range(NUM_GENERATED):
        rng = _rng(cutter, seed, "log", n)
        yield f"{n}", "log", generated.synthetic_log(num_chars=_chars(cutter), rng=rng)


def _boilerplate(sources: Sequence[Source], cutter: Cutter, seed: str) -> _Made:
    texts = [source for source in sources if not controls.looks_like_code(source.text)] or list(sources)
    for n in range(NUM_GENERATED):
        rng = _rng(cutter, seed, "boilerplate", n)
        snippets = []
        for _ in range(max(8, _chars(cutter) // 1000)):
            text = rng.choice(texts).text
            start = rng.randrange(max(1, len(text) - 1500))
            snippets.append(text[start : start + 1500].partition(" ")[2])
        yield f"{n}", "page", generated.boilerplate_pages(snippets, num_chars=_chars(cutter), rng=rng)


def _chats(sources: Sequence[Source], cutter: Cutter, seed: str) -> _Made:
    """Shuffled turns of each conversation, and of four together; dialogue of a book counts as a conversation."""
    spoken = {source: controls.turns(source.text) for source in sources}
    talks = [source for source, turns in spoken.items() if sum(map(len, turns)) > SPOKEN * len(source.text)]
    for source in talks:
        rng = _rng(cutter, seed, "chat", source.id)
        yield (
            source.id,
            source.domain,
            controls.mixed_turns([spoken[source]], num_chars=_chars(cutter), rng=rng),
        )
    for domain, members in _by_domain(talks):
        for n in range(len(members) // 2):
            rng = _rng(cutter, seed, "chat", domain, n)
            several = [spoken[source] for source in rng.sample(members, min(4, len(members)))]
            yield f"{domain}-{n}", domain, controls.mixed_turns(several, num_chars=_chars(cutter), rng=rng)
