"""Progress of a run: what is done, and what is in hand."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from longlode.mining.engine.parts import PartInfo
from longlode.mining.engine.pulse import Count
from longlode.mining.engine.workers import Job, Outcome
from longlode.mining.requests import BatchSize


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """Progress of a pass over the corpus, including what an earlier run has done.

    units: finished or failed, of the total_units found so far. num_bytes, of total_bytes: of input, within units as
      well (a share of the unit's size, as text is read); the total is an estimate until all units are found.
      documents, tokens: done so far, tokens of the scored ones.
    """

    units: int
    total_units: int
    num_bytes: int
    total_bytes: int
    documents: int
    tokens: int


Progress = Callable[[RunProgress], None]
"""Function called with the progress: at the start, after every unit, and a few times a second in between."""


@dataclass(eq=False)
class Tally:
    """Progress of a run, in full.

    total_bytes: gives the bytes of all its units, also while not all of them are known. shard: as it is given, "" for
    none. num_reused: units whose part existed already.
    """

    total_bytes: Callable[[], int]
    shard: str = ""
    failed: list[Outcome] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    cost: Counter[str] = field(default_factory=Counter)
    num_units: int = 0
    num_done: int = 0
    num_documents: int = 0
    num_reused: int = 0
    smallest_batch: int | None = None
    done_bytes: int = 0
    _sizes: dict[str, int] = field(default_factory=dict)  # of the units found that are not done
    _going: Mapping[str, Count] = field(default_factory=dict)
    _most_bytes: int = 0
    _started: float = field(default_factory=time.monotonic)
    _reused_bytes: int = 0

    def enter(self, job: Job) -> None:
        """Count a unit that was found."""
        self.num_units += 1
        self._sizes[job.fingerprint] = job.unit.num_bytes

    def end(self, outcome: Outcome, *, is_reused: bool = False) -> None:
        """Count a unit that is done, or that failed as a whole."""
        size = self._sizes.pop(outcome.job.fingerprint, 0)
        self.num_done += 1
        self.done_bytes += size
        if outcome.info is None:
            self.failed.append(outcome)
            return
        if is_reused:
            self.num_reused += 1
            self._reused_bytes += size
        self.add(outcome.info)

    def add(self, info: PartInfo) -> None:
        """Add the rows of a part."""
        self.num_documents += info.num_rows
        self.counts.update(info.statuses)
        for name in ("document_tokens", "tokens_alone", "tokens_given"):
            self.cost[name] += getattr(info, name)

    def saw(self, size: BatchSize | None, given: int) -> None:
        """Note the batch size that a worker has come down to from `given` segments."""
        if size is not None and size.segments < given:
            self.smallest_batch = min(self.smallest_batch or size.segments, size.segments)

    def look(self, progress: Progress | None, going: Mapping[str, Count] | None = None) -> None:
        """Report the progress. Args: going, within units, by fingerprint; those of finished ones do not count."""
        self._going = {name: count for name, count in (going or {}).items() if name in self._sizes}
        if progress is not None:
            progress(self.progress())

    def progress(self) -> RunProgress:
        """The progress now."""
        going = [(count, self._sizes.get(name, 0)) for name, count in self._going.items()]
        within = sum(int(count.share * size) for count, size in going)
        self._most_bytes = max(
            self._most_bytes, self.done_bytes + within
        )  # no way back when a unit is tried again
        return RunProgress(
            units=self.num_done,
            total_units=self.num_units,
            num_bytes=self._most_bytes,
            total_bytes=max(self._most_bytes, self.total_bytes()),
            documents=self.num_documents + sum(count.documents for count, _ in going),
            tokens=self.cost["document_tokens"] + sum(count.tokens for count, _ in going),
        )

    def describe(self) -> dict[str, Any]:
        """Return the fields of a run's file; safe to call from another thread."""
        now = self.progress()
        seconds = time.monotonic() - self._started
        new_bytes = now.num_bytes - self._reused_bytes
        rate = new_bytes / seconds if new_bytes > 0 and seconds > 0 else None
        left = None if rate is None else (now.total_bytes - now.num_bytes) / rate
        return {
            "shard": self.shard or None,
            "seconds": round(seconds, 1),
            "bytes_per_second": rate,
            "seconds_left": left if left is None else round(left, 1),
            "units_done": now.units,
            "units_found": now.total_units,
            "units_failed": len(self.failed),
            "last_error": self.failed[-1].error if self.failed else "",
            "bytes_done": now.num_bytes,
            "bytes": now.total_bytes,
            "documents": now.documents,
            "tokens": now.tokens,
            "counts": dict(self.counts),
        }
