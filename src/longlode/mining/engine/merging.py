"""Merging of finished parts: many small files become few, and every unit keeps its name.

Consecutive units form a group, which ends where the content says so: after a unit whose name has a certain
remainder. So the groups depend on the input alone, and a file more or less in the middle changes only the groups
beside it. When all units of a group are done, their rows are written into one file in the order of the units, and
their own files removed.

    parts/FINGERPRINT.parquet        one unit
    parts/FINGERPRINT-64.parquet     a group of 64 units; its metadata has the `PartInfo` of each
    plan/FINGERPRINT-64.units        the units of that group and their rows, to find a row's document again
    plan/verified.parts              sizes and times of merged parts that are known to be whole (`verified.py`)

The units after the last group keep a file each.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from longlode.core.fingerprints import fingerprint
from longlode.core.sealed_json import read_sealed, seal, write_sealed
from longlode.corpus import Unit
from longlode.mining.engine.parts import (
    PARTS_FOLDER,
    PartInfo,
    copy_rows,
    merge_parts,
    part_path,
    read_info,
    read_units,
)
from longlode.mining.engine.tally import Tally
from longlode.mining.engine.verified import VerifiedParts
from longlode.mining.engine.workers import Job, Outcome, WorkerSpec

PLAN_FOLDER = "plan"
_LEARN_SECONDS = 5.0
"""Least time between two looks for parts that other runs have merged."""
_MOST = 4
"""Groups end at this many times their mean number of units at the latest."""


@dataclass(eq=False)
class Group:
    """Consecutive units. infos: of those that are done, by fingerprint. is_closed: no unit follows in it."""

    jobs: list[Job] = field(default_factory=list)
    infos: dict[str, PartInfo] = field(default_factory=dict)
    is_closed: bool = False
    merged: str = ""

    @property
    def name(self) -> str:
        """Fingerprint of its part when it is merged."""
        return f"{fingerprint([job.fingerprint for job in self.jobs])}-{len(self.jobs)}"

    def entries(self) -> Iterator[dict[str, Any]]:
        """Entries of the record."""
        if self.merged:
            yield {"part": f"{self.merged}.parquet"}
        for job in self.jobs:
            if job.fingerprint in self.infos:
                yield {"part": f"{job.fingerprint}.parquet", "unit": job.unit.to_json()}


class Merger:
    """The units of a run in groups, which it merges when they are done."""

    def __init__(self, spec: WorkerSpec, size: int, tally: Tally) -> None:
        """Look what is there. Args: size, mean number of units in a group (1: nothing is merged); tally, of the run."""
        self._out, self._size, self._tally = spec.out, size, tally
        self._verified = VerifiedParts(spec.out, PLAN_FOLDER, verify=spec.settings.verify)
        names = {path.stem for path in (spec.out / PARTS_FOLDER).glob("*.parquet")}
        self._merged_before = {name for name in names if "-" in name}
        self._single_before = names - self._merged_before
        self._elsewhere: dict[str, str] = {}  # unit -> name of a merged part that has it
        self._learned: set[str] = set()
        self._learned_at = -_LEARN_SECONDS
        self._whole: dict[str, bool] = {}
        self._group_of: dict[str, Group] = {}
        self.groups: list[Group] = []

    def jobs(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs in order, without those of groups that an earlier run has merged."""
        group, held = self._open(), []
        for job in jobs:
            group.jobs.append(job.bare())
            self._group_of[job.fingerprint] = group
            if self._merged_before:  # the whole group has to be known, to look if it is merged already
                held.append(job.bare())
            else:
                yield job
            if self._ends_after(group, job):
                group.is_closed = True
                if not self._take_merged(group):
                    yield from held
                self._merge_if_done(group)
                group, held = self._open(), []
        yield from held

    def done(self, outcome: Outcome) -> None:
        """Note that a job is done, and merge its group if that was the last."""
        group = self._group_of.pop(outcome.job.fingerprint, None)
        if group is not None and outcome.info is not None:
            group.infos[outcome.job.fingerprint] = outcome.info
            self._merge_if_done(group)

    def recover(self, job: Job) -> PartInfo | None:
        """Find the rows of a unit in a merged part of other groups or runs, and give it a part of its own."""
        self._learn()
        name = self._elsewhere.get(job.fingerprint)
        if name is None:
            return None
        if name not in self._whole:
            self._whole[name] = self._verified.info(name) is not None
        return copy_rows(self._path(name), job.path(self._out)) if self._whole[name] else None

    def _learn(self) -> None:
        """Note which units the merged parts have; not at once, as a run that goes on finds its groups by name."""
        if time.monotonic() - self._learned_at < _LEARN_SECONDS:
            return
        self._learned_at = time.monotonic()
        names = {path.stem for path in (self._out / PARTS_FOLDER).glob("*-*.parquet")}
        for name in sorted(names - self._learned):
            self._elsewhere |= {unit.fingerprint: name for unit in read_units(self._path(name))}
        self._learned |= names

    def finish(self) -> list[dict[str, Any]]:
        """Remove the merged parts of other groups whose units are all here; those of other settings stay.

        Returns: the parts, as the record lists them.
        """
        self._remove_others()
        self._verified.save()
        return [entry for group in self.groups for entry in group.entries()]

    def _remove_others(self) -> None:
        current = {group.merged for group in self.groups}
        others = self._merged_before - current
        if not others:
            return
        here = {unit.fingerprint for name in current if name for unit in read_units(self._path(name))}
        here |= {name for group in self.groups for name in group.infos}
        for name in others:
            if {unit.fingerprint for unit in read_units(self._path(name))} <= here:
                self._path(name).unlink(missing_ok=True)
                units_path(self._out, name).unlink(missing_ok=True)
                self._verified.forget(name)

    def _open(self) -> Group:
        self.groups.append(Group())
        return self.groups[-1]

    def _ends_after(self, group: Group, job: Job) -> bool:
        by_content = int(job.unit.fingerprint, 16) % self._size == 0
        return self._size > 1 and (by_content or len(group.jobs) >= _MOST * self._size)

    def _path(self, name: str) -> Path:
        return part_path(self._out, name)

    def _take_merged(self, group: Group) -> bool:
        """Count a group as done if an earlier run has merged it; removes what was left of its single parts."""
        name = group.name
        info = self._verified.info(name) if name in self._merged_before else None
        if info is None:
            return False
        self._describe(group, name, [unit.num_rows for unit in info.units])
        for job, unit in zip(group.jobs, info.units, strict=True):
            self._tally.enter(job)
            self._tally.end(Outcome(job, unit), is_reused=True)
            self._forget(job)
        self._shrink(group, name)
        return True

    def _merge_if_done(self, group: Group) -> None:
        if not group.is_closed or len(group.jobs) < 2 or len(group.infos) < len(group.jobs) or group.merged:
            return
        name = group.name
        infos = [group.infos[job.fingerprint] for job in group.jobs]
        try:
            self._describe(group, name, [info.num_rows for info in infos])
            merge_parts(self._path(name), [job.path(self._out) for job in group.jobs], infos)
        except (OSError, pa.ArrowException) as error:
            if read_info(self._path(name)) is None:  # else another run has merged it meanwhile
                what = f"finished parts could not be merged: {error}"
                self._tally.failed.append(Outcome(group.jobs[0], None, what))
                return
        self._verified.wrote(name)
        for job in group.jobs:
            job.path(self._out).unlink(missing_ok=True)
        self._shrink(group, name)

    def _describe(self, group: Group, name: str, rows: list[int]) -> None:
        """Write which units a merged part has; anew if its files have moved since."""
        value = {"units": [job.unit.to_json() for job in group.jobs], "rows": rows}
        path = units_path(self._out, name)
        if not path.is_file() or path.read_bytes() != seal(value):
            write_sealed(path, value)

    def _forget(self, job: Job) -> None:
        self._group_of.pop(job.fingerprint, None)
        if job.fingerprint in self._single_before:  # killed after the group was merged
            job.path(self._out).unlink(missing_ok=True)

    def _shrink(self, group: Group, name: str) -> None:
        group.merged = name
        group.jobs, group.infos = [], {}


def units_path(out: Path, name: str) -> Path:
    """Path of the list of units of a merged part. Args: name, of the part without its suffix."""
    return out / PLAN_FOLDER / f"{name}.units"


def merged_units(out: Path, name: str) -> tuple[list[Unit], list[int]] | None:
    """The units of a merged part, and the number of rows of each; None if that is not known any more."""
    found = read_sealed(units_path(out, name))
    return None if found is None else ([Unit.from_json(one) for one in found["units"]], found["rows"])
