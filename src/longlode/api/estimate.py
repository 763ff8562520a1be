"""Estimates of a scoring run's documents, tokens and time, from a timed sample; nothing is written."""

import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from longlode.api.readers import open_source
from longlode.api.scoring import chosen_scorer
from longlode.api.watch import SILENT, Watch
from longlode.core.defaults import ROWS_PER_UNIT, SCORER
from longlode.core.errors import ConfigError

if TYPE_CHECKING:
    from longlode.corpus import Unit
    from longlode.mining import ScoreSettings
    from longlode.mining.engine.work import Work
    from longlode.mining.scorers import Scorer

SAMPLE_SECONDS = 8.0
"""Target time of the sample; one document is scored however long it takes."""
_READ_SHARE = 0.4
_GOLDEN = 0.6180339887498949
_MOST_PLANNED = 1 << 30
"""Bytes of input of which the units are looked for; of more, a sample."""
_SAMPLED_FILES = 16
"""Least number of files in that sample, if there are as many."""
_SAMPLE_ROWS = 8
"""Documents of a unit that are scored at once in the sample."""

_T = TypeVar("_T")


@dataclass(eq=False)
class _Seen:
    """Documents read. documents, num_bytes: by source; unit_bytes: of the units read, as they were planned."""

    documents: Counter[str] = field(default_factory=Counter)
    num_bytes: Counter[str] = field(default_factory=Counter)
    unreadable: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    unit_bytes: int = 0
    unit_rows: int = 0
    seconds: float = 0.0
    units: list["Unit"] = field(default_factory=list)


@dataclass(eq=False)
class _Timed:
    """Documents scored: their number by status, their bytes and tokens, and the seconds it took."""

    statuses: Counter[str] = field(default_factory=Counter)
    num_bytes: int = 0
    num_tokens: int = 0
    seconds: float = 0.0


def estimate(
    inputs: "str | os.PathLike[str] | Iterable[str | os.PathLike[str]]",
    *,
    model: str = "starter",
    scorer: "str | Scorer" = SCORER,
    scorer_options: Mapping[str, Any] | None = None,
    segment: int = 128,
    pairs: int | Literal["default"] | None = "default",
    dtype: str = "auto",
    text_field: str = "text",
    encoding: str = "utf-8",
    limit: int | None = None,
    seed: int = 0,
    workers: int = 1,
    rows_per_unit: int = ROWS_PER_UNIT,
    seconds: float = SAMPLE_SECONDS,
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Estimate documents, tokens and time of scoring these inputs, as `longlode score --dry-run` does; write nothing.

    Args: as of `score`; seconds, approximate least time to spend on the estimate.
    Returns: documents (input rows), readable, bytes (of text), tokens (None if the scorer reads none), units, seconds
      (with `workers`), workers, sources ({source, documents, bytes, tokens}, the largest first), statuses (status ->
      documents), exact (True when every document was read, so that only tokens, statuses and time are estimates),
      sample {documents, tokens, seconds}.
    Raises: as of `score`.
    """
    from longlode.mining import ScoreSettings

    named = [inputs] if isinstance(inputs, str | os.PathLike) else inputs
    settings = ScoreSettings(
        segment=segment, seed=seed, text_field=text_field, encoding=encoding, rows_per_unit=rows_per_unit
    )
    return estimate_scoring(
        [os.fspath(one) for one in named],
        model=model,
        scorer=chosen_scorer(scorer, pairs, scorer_options),
        settings=settings,
        dtype=dtype,
        limit=limit,
        workers=workers,
        seconds=seconds,
        watch=watch,
    )


def estimate_scoring(
    inputs: Sequence[str],
    *,
    model: str,
    scorer: "Scorer",
    settings: "ScoreSettings",
    dtype: str = "auto",
    limit: int | None = None,
    workers: int = 1,
    seconds: float = SAMPLE_SECONDS,
    watch: Watch = SILENT,
) -> dict[str, Any]:
    """Estimate a run as `estimate` does, for a scorer and settings."""
    from longlode.mining.engine.work import Work
    from longlode.mining.requests.base import BatchSize

    if scorer.fits:
        raise ConfigError(
            f"the scorer {scorer.name!r} reads the whole corpus before it scores: no sample tells how long it takes. "
            "Expected another one for a dry run."
        )
    watch.note("looking through the input")
    units, scale = _sample_units(inputs, settings, limit)
    source = open_source(scorer, model, settings, dtype=dtype, watch=watch)
    size = BatchSize(settings.batch_segments, settings.batch_pairs)
    work = Work(scorer, settings, source.reader, size)  # type: ignore[arg-type] # what only encodes is enough here
    seen = _read(units, work, _READ_SHARE * seconds)
    watch.note("scoring a sample of it")
    timed = _time(seen.units, work, (1 - _READ_SHARE) * seconds)
    return _conclude(units, scale, seen, timed, min(workers, len(units)), workers)


def _sample_units(
    inputs: Sequence[str], settings: "ScoreSettings", limit: int | None
) -> "tuple[list[Unit], float]":
    """Units of the whole input, or of the beginnings of files spread over a large one, which is not read as a whole.

    Returns: units, and how many times as large the input is, estimated from the sizes of its files.
    """
    from longlode.corpus import CorpusPlan, find_files

    whole = CorpusPlan(inputs, rows_per_unit=settings.rows_per_unit, limit=limit)
    total = whole.total_bytes
    if limit is not None or total <= _MOST_PLANNED:
        return list(whole.units()), 1.0
    units: list[Unit] = []
    planned = 0
    for file in _spread([one for one in find_files(inputs) if one.kind]):
        of_file = 0
        for unit in CorpusPlan(file.path, rows_per_unit=settings.rows_per_unit).units():
            units.append(unit)
            of_file += unit.num_bytes
            if of_file > _MOST_PLANNED // _SAMPLED_FILES:
                break
        planned += of_file
        if planned > _MOST_PLANNED:
            break
    return units, max(1.0, total / max(1, planned))


def _read(units: Sequence["Unit"], work: "Work", seconds: float) -> _Seen:
    """Read units without scoring them, spread over the input, until the time is over."""
    from longlode.corpus import Document, read_unit

    seen = _Seen()
    started = time.perf_counter()
    for unit in _spread(units):
        for item in read_unit(unit, text_field=work.settings.text_field, encoding=work.settings.encoding):
            seen.rows += 1
            if isinstance(item, Document):
                seen.documents[item.source] += 1
                seen.num_bytes[item.source] += item.num_bytes
            else:
                seen.unreadable[item.status] += 1
        seen.units.append(unit)
        seen.unit_bytes += unit.num_bytes
        seen.unit_rows += unit.stop - unit.start
        seen.seconds = time.perf_counter() - started
        if seen.seconds > seconds:
            break
    return seen


def _time(units: Sequence["Unit"], work: "Work", seconds: float) -> _Timed:
    """Score some documents of each unit until the time is over; the first one twice, as the first pass fills caches."""
    from longlode.corpus import read_unit
    from longlode.mining.engine.work import score_unit

    timed = _Timed()
    until = time.perf_counter() + seconds
    warm = False
    for unit in units:
        reading = time.perf_counter()
        num_rows = sum(
            1 for _ in read_unit(unit, text_field=work.settings.text_field, encoding=work.settings.encoding)
        )
        reading = time.perf_counter() - reading
        if not num_rows:
            continue
        if not warm:
            score_unit(unit, work, rows=(0,))
            warm = True
        step = max(1, num_rows // _SAMPLE_ROWS)
        started = time.perf_counter()
        found = score_unit(unit, work, rows=tuple(range(step // 2, num_rows, step)))
        timed.seconds += max(1e-6, time.perf_counter() - started - reading)
        for row in found.rows:
            timed.statuses[row["status"]] += 1
            timed.num_bytes += row["num_bytes"] or 0
            timed.num_tokens += row["num_tokens"] or 0
        if time.perf_counter() > until:
            break
    return timed


def _spread(units: Sequence[_T]) -> list[_T]:
    """All units, or files, in an order whose every beginning is spread evenly, by multiples of the golden ratio."""
    places = sorted(range(len(units)), key=lambda place: place * _GOLDEN % 1.0)
    return [units[place] for place in places]


def _conclude(
    units: Sequence["Unit"], scale: float, seen: _Seen, timed: _Timed, busy: int, workers: int
) -> dict[str, Any]:
    total_bytes = scale * sum(unit.num_bytes for unit in units)
    total_rows = scale * sum(unit.stop - unit.start for unit in units)
    exact = scale == 1.0 and len(seen.units) == len(units)
    factor = 1.0 if exact else total_bytes / max(1, seen.unit_bytes)
    text_bytes = factor * seen.num_bytes.total()
    rate = timed.num_tokens / timed.num_bytes if timed.num_bytes else 0.0
    documents = seen.rows if exact else round(total_rows * seen.rows / max(1, seen.unit_rows))
    per_byte = timed.seconds / timed.num_bytes if timed.num_bytes else 0.0
    scored = timed.statuses.total()
    sources = [
        {
            "source": name,
            "documents": round(factor * count),
            "bytes": round(factor * seen.num_bytes[name]),
            "tokens": round(factor * seen.num_bytes[name] * rate) if rate else None,
        }
        for name, count in seen.documents.most_common()
    ]
    return {
        "documents": documents,
        "readable": round(factor * seen.documents.total()),
        "bytes": round(text_bytes),
        "tokens": round(text_bytes * rate) if rate else None,
        "units": round(scale * len(units)),
        "seconds": (factor * seen.seconds + text_bytes * per_byte) / max(1, busy),
        "workers": workers,
        "sources": sources,
        "statuses": {name: round(documents * count / scored) for name, count in timed.statuses.most_common()},
        "exact": exact,
        "sample": {"documents": scored, "tokens": timed.num_tokens, "seconds": timed.seconds},
    }
