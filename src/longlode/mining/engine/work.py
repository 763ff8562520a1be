"""Scoring of one unit of work: its documents in, one row per document out.

Steps: read; answer the requests about the text and drop the text; draw segments of other documents; read the scorer's
requests for groups of documents together; finish. Every input document gives exactly one row; an error in one document
affects no other.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

import numpy as np

from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.core.errors import ConfigError, InputError, ModelError
from longlode.core.fingerprints import text_fingerprint
from longlode.corpus import Document, Unit, Unreadable, read_unit
from longlode.corpus.document import FAILED
from longlode.corpus.formats import LINES
from longlode.mining.baselines import gzip_ratio, repetition
from longlode.mining.engine import pulse
from longlode.mining.engine.parts import SCORE_COLUMNS
from longlode.mining.engine.reading import read_requests
from longlode.mining.engine.settings import ScoreSettings
from longlode.mining.extras import extra_values
from longlode.mining.reader import Reader
from longlode.mining.requests import BatchSize, Reading, Request, Tokens
from longlode.mining.sampling import document_rng, sample_foreign
from longlode.mining.scorers import DocumentScore, Scorer, SegmentedDocument
from longlode.mining.segments import split_segments

STATUSES = ("ok", "too_short", "skipped", "failed")

_ENCODE_DOCUMENTS = 64
_ENCODE_CHARACTERS = 1 << 18
"""Few, as what is read of texts counts as done batch by batch."""
_GROUP_BLOCKS = 4
"""Blocks of `batch_segments` per group of documents: many, so that the incomplete last block is a small share.
"""
_REASON_CHARACTERS = 500
_NO_TOKENS = np.zeros(0, dtype=np.int32)
_NO_POSITIONS = np.zeros(0, dtype=np.int64)
_BLANK: dict[str, Any] = {
    **dict.fromkeys(("num_tokens", "num_segments", "num_pairs", *SCORE_COLUMNS, "score_se")),
    "status": "failed",
    "reason": "not scored",
}
"""The columns of a row that say nothing of where it comes from, before anything is known of its text."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Work:
    """State that a worker needs for any unit. reader is None for scorers that need none; size shrinks by itself."""

    scorer: Scorer
    settings: ScoreSettings
    reader: Reader | None
    size: BatchSize


@dataclass(frozen=True)
class UnitResult:
    """Rows in input order, and the cost: tokens of the documents read, and tokens that the model read for
    them.
    """

    rows: list[dict[str, Any]]
    document_tokens: int
    tokens_alone: int
    tokens_given: int


@dataclass(eq=False)
class _Entry:
    """One input row in progress. `doc` is set while it can still be scored (tokens int32 until they are read).

    place: of its document in the unit. of_text: as of `SegmentedDocument`. was_read, reader_failed: outcome of reading
    it, both False before.
    document_tokens, tokens_alone, tokens_given: 0 until it has been read.
    """

    row: dict[str, Any]
    place: int
    doc: SegmentedDocument | None = None
    text_hash: str = ""
    of_text: tuple[Reading, ...] = ()
    was_read: bool = False
    reader_failed: bool = False
    document_tokens: int = 0
    tokens_alone: int = 0
    tokens_given: int = 0


@dataclass(frozen=True, eq=False)
class _Asked:
    """A document that is about to be read, and the scorer's requests."""

    entry: _Entry
    doc: SegmentedDocument
    requests: Sequence[Request]


def score_unit(
    unit: Unit,
    work: Work,
    rows: Collection[int] | None = None,
    *,
    lost: Mapping[int, str] | None = None,
    is_careful: bool = False,
) -> UnitResult:
    """Score one unit.

    Args: rows, the places in the unit, from 0, of those to score; the others are not encoded, not listed in the result,
      and lend no segments to others. None for all. lost, reasons by place of documents that are not touched, and fail.
      is_careful, take the documents one by one, each announced before, so that one that ends this process is known.
    Raises: InputError when a file has gone, changed since it was planned or cannot be read just now; ModelError
      when the reader fails on every one of several documents, which is the reader's fault (a lost device) and not
      theirs. Either way there is no result, so that a later run tries again.
    """
    settings = work.settings
    found = read_unit(
        unit,
        text_field=settings.text_field,
        encoding=settings.encoding,
        with_metadata=work.scorer.reads_metadata,
    )
    items = check_source(unit, found)
    wanted = None if rows is None else frozenset(rows)
    reasons = lost or {}
    placed = ((n, _given_up(item, reasons.get(n))) for n, item in enumerate(items))
    chosen = ((n, item) for n, item in placed if wanted is None or n in wanted)
    entries = []
    for batch in _load(chosen, work, is_careful):
        entries += batch
        if not work.scorer.reads_model:  # then reading the texts is nearly all of the work
            _count(batch, share_of(unit, [entry.row for entry in batch]))
    assert wanted is None or len(entries) == len(wanted), "rows are places in the unit"
    _draw_foreign(entries, work)
    all_bytes = max(1, _num_bytes(entries))
    if work.scorer.reads_model:
        closed = [entry for entry in entries if entry.doc is None]
        _count(closed, _num_bytes(closed) / all_bytes)
    for group in _groups(entries, 1 if is_careful else work.settings.batch_segments * _GROUP_BLOCKS):
        if is_careful:
            pulse.announce(group[0].place)
        share = _num_bytes(group) / all_bytes if work.scorer.reads_model else 0.0
        pulse.read_next(share)
        _score_group(group, work)
        if work.scorer.reads_model:
            _count(group, share)
    if is_careful:
        pulse.announce(-1)
    _check_reader(entries, work)
    return UnitResult(
        rows=[entry.row for entry in entries],
        document_tokens=sum(entry.document_tokens for entry in entries),
        tokens_alone=sum(entry.tokens_alone for entry in entries),
        tokens_given=sum(entry.tokens_given for entry in entries),
    )


def share_of(unit: Unit, rows: Sequence[Document | dict[str, Any]]) -> float:
    """Share of a unit that some of its rows are, before the others are known: of the bytes of lines, else of the rows.

    Texts are smaller than their lines: the shares of all rows add up to less than 1.
    """
    if unit.kind != LINES or not unit.num_bytes:
        return len(rows) / max(1, unit.stop - unit.start)
    sizes = (row.num_bytes if isinstance(row, Document) else row["num_bytes"] for row in rows)
    return sum(sizes) / unit.num_bytes


def _count(entries: Sequence[_Entry], share: float) -> None:
    """Count documents as done, with the tokens of those that could be scored."""
    tokens = sum(entry.row["num_tokens"] or 0 for entry in entries if entry.was_read or entry.doc is not None)
    pulse.finish_documents(share, len(entries), tokens)


def _num_bytes(entries: Sequence[_Entry]) -> int:
    return sum(entry.row["num_bytes"] for entry in entries)


def check_source(unit: Unit, items: Iterable[Document | Unreadable]) -> Iterator[Document | Unreadable]:
    """Pass items on. Raises: InputError at one that does not come from the planned content."""
    for item in items:
        if isinstance(item, Unreadable) and item.transient:
            path = next((file.path for file in unit.files if file.name == item.file), item.file)
            raise InputError(f"{path}: {item.reason}")
        yield item


def _check_reader(entries: Sequence[_Entry], work: Work) -> None:
    """Raise if several documents failed in the reader, none was read, and it reads no plain text either.

    Then it is at fault, and not they; one that fails alone keeps its row.
    """
    failed = [entry for entry in entries if entry.reader_failed]
    if len(failed) < 2 or any(entry.was_read for entry in entries):
        return
    if not _reads_plain_text(work, max(entry.row["num_segments"] or 0 for entry in failed)):
        raise ModelError(
            f"the reader failed on all of {len(failed)} documents; on the first: {failed[0].row['reason']}"
        )


def _given_up(item: Document | Unreadable, reason: str | None) -> Document | Unreadable:
    """The item, or a row that says why its document is not touched."""
    if reason is None or isinstance(item, Unreadable):
        return item
    return Unreadable(item.id, item.source, item.file, item.row, FAILED, reason, item.num_bytes)


def _reads_plain_text(work: Work, num_segments: int) -> bool:
    """Return True if the reader can serve the scorer's requests about a text of numbers, each at least one token."""
    num_tokens = work.settings.segment * max(num_segments, work.scorer.least_segments, 1)
    text = " ".join(str(number % 7) for number in range(num_tokens))
    [entry] = _enter([(0, Document("plain text", text, "", "", 0))], work)
    asked = None if entry.doc is None else _attempt(entry, "requests", _ask, entry, work)
    if asked is None or not (asked.requests or entry.of_text):
        return False
    return _read([entry], [asked.requests], work)[0] is not None


_Placed = tuple[int, Document | Unreadable]


def _load(items: Iterable[_Placed], work: Work, is_careful: bool) -> Iterator[list[_Entry]]:
    """Encode documents in batches and drop their texts."""
    batch: list[_Placed] = []
    characters = 0
    for place, item in items:
        batch.append((place, item))
        characters += len(item.text) if isinstance(item, Document) else 0
        if is_careful:
            pulse.announce(place)
        if is_careful or len(batch) >= _ENCODE_DOCUMENTS or characters >= _ENCODE_CHARACTERS:
            yield _enter(batch, work)
            batch, characters = [], 0
        if is_careful:
            pulse.announce(-1)  # what happens while the next one is read is not the fault of this one
    yield _enter(batch, work)


def _enter(batch: Sequence[_Placed], work: Work) -> list[_Entry]:
    pulse.step()
    entries = []
    readable = []
    for place, item in batch:
        if isinstance(item, Unreadable):
            blank = {**_place(item), "num_bytes": item.num_bytes, **_BLANK}
            entries.append(_Entry(blank | {"status": item.status, "reason": item.reason}, place))
            continue
        raw = item.text.encode("utf-8", "surrogatepass")  # once for all that is measured of it
        entries.append(_Entry({**_place(item), "num_bytes": len(raw), **_BLANK}, place))
        if raw:
            readable.append((entries[-1], item, raw))
        else:
            _close(entries[-1], "too_short", "the text is empty")
    if work.reader is None:
        for entry, item, raw in readable:
            _attempt(entry, "segments", _cut, entry, item, raw, _NO_TOKENS, work)
    else:
        wanted = [(Tokens(item.text),) for _, item, _ in readable]
        readings = _read([entry for entry, _, _ in readable], wanted, work)
        for (entry, item, raw), found in zip(readable, readings, strict=True):
            if found is not None:
                _attempt(entry, "segments", _cut, entry, item, raw, found[0].tokens, work)
    _read_texts([(entry, item.text) for entry, item, _ in readable if entry.doc is not None], work)
    return entries


def _read_texts(texts: Sequence[tuple[_Entry, str]], work: Work) -> None:
    """Read the scorer's requests about the texts."""
    if type(work.scorer).text_requests is Scorer.text_requests:
        return  # it makes none
    asked = []
    for entry, text in texts:
        requests = _attempt(entry, "requests", _ask_of_text, text, work.scorer)
        if requests is None:
            entry.doc = None
        else:
            asked.append((entry, requests))
    entries = [entry for entry, _ in asked]
    for entry, found in zip(entries, _read(entries, [requests for _, requests in asked], work), strict=True):
        if found is None:
            entry.doc = None
        else:
            entry.of_text = tuple(found)


def _read(
    entries: Sequence[_Entry], asked: Sequence[Sequence[Request]], work: Work
) -> list[list[Any] | None]:
    """Readings of each document, None where it failed."""

    def attempt(number: int, stage: str, step: Callable[[], list[Reading]]) -> list[Reading] | None:
        found = _attempt(entries[number], stage, step)
        entries[number].reader_failed |= found is None and stage == Request.stage
        return found

    return read_requests(work.reader, asked, work.size, attempt)


def _cut(entry: _Entry, item: Document, raw: bytes, tokens: np.ndarray, work: Work) -> None:
    """Cut into segments and choose those to read. Args: raw, the text in UTF-8."""
    segment, least = work.settings.segment, work.scorer.least_segments
    segments = split_segments(tokens, segment)
    entry.text_hash = text_fingerprint(raw)
    entry.row["gzip_ratio"] = gzip_ratio(raw)
    if work.reader is None:
        entry.row["num_tokens"] = int(len(raw) / BYTES_PER_TOKEN)
    else:
        entry.row["num_tokens"], entry.row["num_segments"] = len(tokens), len(segments)
    if len(segments) < least:
        _close(
            entry,
            "too_short",
            f"{len(tokens)} tokens; needed {least * segment} ({least} segments of {segment})",
        )
        return
    if len(segments):
        rng = document_rng(work.settings.seed, item.id, entry.text_hash, "segments")
        positions = np.asarray(work.scorer.choose(len(segments), rng), dtype=np.int64)
        kept = segments[positions]
    else:
        positions, kept = _NO_POSITIONS, segments.astype(np.int64)
    entry.row["repetition"] = repetition(kept) if len(kept) else None
    entry.doc = SegmentedDocument(
        document=Document(item.id, "", item.source, item.file, item.row, item.metadata),
        tokens=kept,
        positions=positions,
        num_total_segments=len(segments),
        all_tokens=tokens,
        foreign=kept[:0],
        repetition=entry.row["repetition"],
        gzip_ratio=entry.row["gzip_ratio"],
    )


def _draw_foreign(entries: Sequence[_Entry], work: Work) -> None:
    """Give each document segments of the unit's others, except of copies of the same text."""
    wanted = work.scorer.num_foreign
    pool = [
        (entry.text_hash, entry.doc.tokens)
        for entry in entries
        if entry.doc is not None and len(entry.doc.tokens)
    ]
    for entry in entries if wanted else ():
        others = [tokens for text_hash, tokens in pool if text_hash != entry.text_hash]
        if entry.doc is not None and others:
            rng = document_rng(work.settings.seed, entry.doc.document.id, entry.text_hash, "foreign")
            entry.doc = replace(entry.doc, foreign=sample_foreign(others, wanted, rng))


def _groups(entries: Sequence[_Entry], num_segments: int) -> Iterator[list[_Entry]]:
    """Whole documents that can be scored, in order, until a group has at least `num_segments` segments."""
    group: list[_Entry] = []
    held = 0
    for entry in entries:
        if entry.doc is None:
            continue
        group.append(entry)
        held += len(entry.doc.tokens) + len(entry.doc.foreign)
        if held >= num_segments:
            yield group
            group, held = [], 0
    if group:
        yield group


def _score_group(group: Sequence[_Entry], work: Work) -> None:
    pulse.step()
    attempts = [_attempt(entry, "requests", _ask, entry, work) for entry in group]
    asked = [one for one in attempts if one is not None]
    readings = _read([one.entry for one in asked], [one.requests for one in asked], work)
    for one, found in zip(asked, readings, strict=True):
        if found is not None:
            one.entry.was_read = True
            one.entry.document_tokens = one.entry.row["num_tokens"]
            for reading in (*found, *one.doc.of_text):
                one.entry.tokens_alone += reading.tokens_alone
                one.entry.tokens_given += reading.tokens_given
            _attempt(one.entry, "score", _finish, one, found, work)
            pulse.step()
    for entry in group:
        entry.doc, entry.of_text = None, ()  # its segments are not needed again


def _ask(entry: _Entry, work: Work) -> _Asked:
    assert entry.doc is not None, "only documents that can be scored are read"
    doc = entry.doc
    if entry.of_text or len(doc.tokens) or len(doc.foreign):
        tokens, foreign = doc.tokens.astype(np.int64), doc.foreign.astype(np.int64)
        doc = replace(doc, tokens=tokens, foreign=foreign, of_text=entry.of_text)
    rng = document_rng(work.settings.seed, doc.document.id, entry.text_hash, "pairs")
    return _Asked(entry, doc, _checked(work.scorer.requests(doc, rng), work.scorer))


def _ask_of_text(text: str, scorer: Scorer) -> Sequence[Request]:
    return _checked(scorer.text_requests(text), scorer)


def _checked(requests: Sequence[Request], scorer: Scorer) -> Sequence[Request]:
    """Requests of the scorer. Raises: ConfigError for one of a type that it did not announce."""
    for request in requests:
        if type(request) not in scorer.asks:
            raise ConfigError(
                f"scorer {scorer.name!r} makes a request of type {type(request).__name__}; expected one of those in "
                f"its `asks`: {', '.join(kind.__name__ for kind in scorer.asks) or 'none'}."
            )
    return requests


def _finish(one: _Asked, readings: Sequence[Reading], work: Work) -> None:
    read = [values for reading in (*one.doc.of_text, *readings) for values in reading.numbers()]
    bad = sum(int((~np.isfinite(values)).sum()) for values in read)
    if bad:
        total = sum(values.size for values in read)
        _close(one.entry, "failed", f"reader: {bad} of {total} values are not finite (NaN or infinite)")
        return
    result = work.scorer.finish(one.doc, readings)
    _check_result(result, work.scorer)
    row = score_fields(result, work.scorer)
    if work.settings.keep_pairs:
        asked = zip(one.requests, readings, strict=True)
        row["pairs"] = [
            pair for request, reading in asked for pair in request.shown_pairs(reading, one.doc.positions)
        ]
    one.entry.row |= row
    _close(one.entry, result.status, result.reason)


def score_fields(result: DocumentScore, scorer: Scorer) -> dict[str, Any]:
    """The columns of a row that a scorer fills, as they are stored.

    Raises: ConfigError for extras that the scorer has not declared.
    """
    row: dict[str, Any] = {"num_pairs": result.num_pairs}
    for name in ("strength_mean", "strength_max_mean", "gain_nats", "specificity_mean", "score_se"):
        value = getattr(result, name)
        row[name] = float(value) if value is not None and math.isfinite(value) else None
    row["score"] = float(result.score) if result.status == "ok" and result.score is not None else None
    return row | extra_values(result.extras, scorer.extra_columns, scorer.name)


def _check_result(result: DocumentScore, scorer: Scorer) -> None:
    if result.status not in STATUSES:
        raise ConfigError(
            f"scorer {scorer.name!r} gave status {result.status!r}; expected one of {STATUSES}."
        )
    if result.status == "ok" and (result.score is None or not math.isfinite(result.score)):
        raise ConfigError(f"scorer {scorer.name!r} gave score {result.score}; expected a finite number.")


def _place(item: Document | Unreadable) -> dict[str, Any]:
    return {"id": item.id, "source": item.source, "file": item.file, "row": item.row}


def _close(entry: _Entry, status: str, reason: str) -> None:
    entry.row["status"], entry.row["reason"] = status, ""
    if not reason:
        return
    text = " ".join(reason.split())[:_REASON_CHARACTERS]
    entry.row["reason"] = text.encode("utf-8", "backslashreplace").decode("utf-8")


def _attempt(
    entry: _Entry, stage: str, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
) -> _T | None:
    """Run one step for one document; an exception becomes that document's status and is not raised."""
    try:
        return step(*args, **kwargs)
    except Exception as error:  # anything a reader, tokenizer or scorer raises belongs to this document
        _close(entry, "failed", f"{stage}: {type(error).__name__}: {error}")
        return None
