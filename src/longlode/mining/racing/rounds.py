"""Rounds of a race on disk: runs of the engine on some of the documents, and their combined results."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from longlode.core.records import remove_leftovers
from longlode.corpus import Unit
from longlode.mining.engine.flow import do_jobs
from longlode.mining.engine.parts import (
    COLUMNS,
    PAIR_FIELDS,
    PARTS_FOLDER,
    PartInfo,
    part_path,
    read_info,
    read_pairs,
    write_part,
)
from longlode.mining.engine.run import make_job
from longlode.mining.engine.tally import Progress, Tally
from longlode.mining.engine.work import score_fields
from longlode.mining.engine.workers import Job, Outcome, WorkerSpec
from longlode.mining.racing.standings import PairRange, RaceRule, Standings
from longlode.mining.scorers.pair_mean import PairMeanScorer
from longlode.mining.selection_rule import BUCKETS, ONE_OF_ID

ROUNDS_FOLDER = "rounds"
_DOCUMENT_COLUMNS = ["id", "source", "num_bytes", "num_tokens", "num_segments"]


class UnfinishedRoundError(Exception):
    """Raised when units of a round failed; `tally` names them."""

    def __init__(self, tally: Tally) -> None:
        """Args: tally, of the round."""
        super().__init__("units of a round failed")
        self.tally = tally


@dataclass(frozen=True)
class _Part:
    """A part of a round. rows: of its unit, None for all."""

    path: Path
    rows: tuple[int, ...] | None
    info: PartInfo

    @property
    def places(self) -> Sequence[int]:
        """The place in the unit of each of its rows."""
        return range(self.info.num_rows) if self.rows is None else self.rows


class RaceRounds:
    """Runner of the rounds, which keeps track of each document's files and combines them. costs: tokens per round."""

    def __init__(
        self,
        spec: WorkerSpec,
        scorer: PairMeanScorer,
        rule: RaceRule,
        units: Sequence[Unit],
        num_workers: int,
        progress: Callable[[int], Progress] | None,
    ) -> None:
        """Args: spec, of the run as a whole; scorer, its own; the others as of `race`."""
        self._spec = spec
        self._scorer = scorer
        self._rule = rule
        self._units = units
        self._num_workers = num_workers
        self._progress = progress
        self._parts: list[list[_Part]] = [[] for _ in units]
        self._smallest_batch: int | None = None
        self.costs: list[dict[str, int]] = []

    def read(self, pair_ranges: Sequence[PairRange]) -> Standings:
        """One round, as `standings.Read`. Raises: UnfinishedRoundError when units failed."""
        number = len(self.costs) + 1
        settings = replace(self._spec.settings, keep_pairs=True)
        spec = replace(self._spec, out=self._spec.out / ROUNDS_FOLDER / str(number), settings=settings)
        jobs = [found for pair_range in pair_ranges for found in self._jobs(spec, pair_range)]
        progress = None if self._progress is None else self._progress(number)
        total = sum(job.unit.num_bytes for _, job in jobs)
        tally, infos = Tally(lambda: total), dict[str, PartInfo]()

        def keep(outcome: Outcome) -> None:
            if outcome.info is not None:
                infos[outcome.job.fingerprint] = outcome.info

        do_jobs([job for _, job in jobs], spec, self._num_workers, tally, progress, done=keep)
        if tally.failed:
            raise UnfinishedRoundError(Tally(lambda: 0, failed=tally.failed, num_units=len(self._units)))
        sizes = [size for size in (self._smallest_batch, tally.smallest_batch) if size is not None]
        self._smallest_batch = min(sizes, default=None)
        done = [
            (unit, _Part(part_path(spec.out, job.fingerprint), job.rows, infos[job.fingerprint]))
            for unit, job in jobs
        ]
        self.costs.append(
            {
                name: sum(getattr(part.info, name) for _, part in done)
                for name in ("tokens_alone", "tokens_given")
            }
        )
        for unit, part in done:
            self._parts[unit].append(part)
        if number == 1:
            self._enter()
        num_failed = sum(self._count(unit, part) for unit, part in done)
        if num_failed or number == 1:
            self._group()
        return self._standings

    def _jobs(self, spec: WorkerSpec, pair_range: PairRange) -> Iterator[tuple[int, Job]]:
        """The units of a round, each with its number; a unit of which no document is to be read has none."""
        scorer = self._scorer.within(pair_range.start, pair_range.stop)
        if pair_range.documents is None:
            yield from ((n, make_job(unit, spec, scorer=scorer)) for n, unit in enumerate(self._units))
            return
        numbers, firsts = np.unique(
            np.searchsorted(self._starts, pair_range.documents, side="right") - 1, return_index=True
        )
        for number, members in zip(numbers.tolist(), np.split(pair_range.documents, firsts[1:]), strict=True):
            rows = tuple((members - self._starts[number]).tolist())
            yield number, make_job(self._units[number], spec, rows=rows, scorer=scorer)

    def _enter(self) -> None:
        """Collect the documents from the first round."""
        tables = [
            pq.read_table(parts[0].path, columns=_DOCUMENT_COLUMNS, partitioning=None)
            for parts in self._parts
        ]
        sizes = [table.num_rows for table in tables]
        self._starts = np.cumsum([0, *sizes])[:-1]
        self._documents = pa.concat_tables(tables).append_column("place", pa.array(np.arange(sum(sizes))))
        self._is_scored = np.ones(sum(sizes), dtype=bool)
        segments = self._documents.column("num_segments").to_pylist()
        num_all = [self._scorer.num_all_pairs(count or 0) for count in segments]
        self._standings = Standings.blank(np.array(num_all, dtype=np.int64))

    def _count(self, unit: int, part: _Part) -> int:
        """Add a unit's part to the standings. Returns: how many of its documents have no score."""
        statuses = (
            pq.read_table(part.path, columns=["status"], partitioning=None).column("status").to_pylist()
        )
        for place, status, pairs in zip(part.places, statuses, read_pairs(part.path), strict=True):
            document = self._starts[unit] + place
            if status == "ok":
                self._standings.add(document, self._scorer.values(*perplexities(pairs)))
            else:
                self._is_scored[document] = False
        return sum(status != "ok" for status in statuses)

    def _group(self) -> None:
        """Put every document that can be selected into its group, by the words of `select`."""
        buckets = ", ".join(BUCKETS[name] for name in self._rule.by)
        scored = pa.array(np.where(self._is_scored, 1.0, np.nan), from_pandas=True)
        rows = self._documents.append_column("value", scored).append_column(
            "part", pa.array([0] * len(scored))
        )
        with duckdb.connect() as base:
            base.register("rows", rows)
            found = base.execute(
                f"""
                SELECT CASE WHEN nth = 1 AND value IS NOT NULL THEN kind ELSE -1 END AS kind
                FROM (SELECT *, row_number() OVER {ONE_OF_ID} AS nth,
                             dense_rank() OVER (ORDER BY [{buckets}]::VARCHAR[]) AS kind FROM rows)
                ORDER BY place
                """
            ).fetchnumpy()["kind"]
        self._standings.group[:] = found

    def write_parts(self, jobs: Sequence[Job]) -> Tally:
        """Combine the pairs of all rounds into the parts of the jobs, one per unit."""
        tally = Tally(lambda: 0, smallest_batch=self._smallest_batch)
        for number, job in enumerate(jobs):
            path = part_path(self._spec.out, job.fingerprint)
            info = read_info(path)
            is_reused = info is not None
            if info is None:
                infos = [part.info for part in self._parts[number]]
                rows = self._rows(number)
                info = PartInfo(
                    fingerprint=job.fingerprint,
                    num_rows=infos[0].num_rows,
                    document_tokens=infos[0].document_tokens,
                    tokens_alone=sum(one.tokens_alone for one in infos),
                    tokens_given=sum(one.tokens_given for one in infos),
                    statuses=dict(sorted(Counter(row["status"] for row in rows).items())),
                )
                write_part(
                    path,
                    rows,
                    info,
                    keep_pairs=self._spec.settings.keep_pairs,
                    extras=self._scorer.extra_columns,
                )
            tally.enter(job)
            tally.end(Outcome(job, info), is_reused=is_reused)
        remove_leftovers(self._spec.out / PARTS_FOLDER)
        return tally

    def _rows(self, unit: int) -> list[dict[str, Any]]:
        """The rows of a unit, each scored from all its pairs."""
        rows: list[dict[str, Any]] = []
        found: list[list[np.ndarray]] = []
        columns = [*COLUMNS.names, *(extra.column for extra in self._scorer.extra_columns)]
        for part in self._parts[unit]:
            read = pq.read_table(part.path, columns=columns, partitioning=None).to_pylist()
            if part.rows is None:
                rows, found = read, [[] for _ in read]
            for place, row, pairs in zip(part.places, read, read_pairs(part.path), strict=True):
                found[place].append(pairs)
                if row["status"] != "ok":
                    rows[place] = row
        for row, pieces in zip(rows, found, strict=True):
            if row["status"] == "ok":
                self._finish(row, np.concatenate(pieces))
        return rows

    def _finish(self, row: dict[str, Any], pairs: np.ndarray) -> None:
        """Fill the columns of a row from its pairs, in the order in which a run without a race lists them."""
        pairs = pairs[np.lexsort((pairs["j"], pairs["i"]))]
        found = self._scorer.finish_pairs(pairs["i"], pairs["j"], *perplexities(pairs), row["num_segments"])
        row |= score_fields(found, self._scorer)
        if self._spec.settings.keep_pairs:
            row["pairs"] = [dict(zip(PAIR_FIELDS, pair, strict=True)) for pair in pairs.tolist()]


def perplexities(pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Perplexity of the target alone and after the source, float64 `[P]`. Args: pairs as of `parts.read_pairs`."""
    return np.exp(pairs["nll_alone"].astype(np.float64)), np.exp(pairs["nll_given"].astype(np.float64))
