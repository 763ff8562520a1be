"""The flow of jobs through a run: what is done already is taken, the rest is done here or by other runs."""

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from longlode.core.records import remove_leftovers
from longlode.mining.engine.claims import Claims, claiming
from longlode.mining.engine.parts import PartInfo
from longlode.mining.engine.pool import run_jobs
from longlode.mining.engine.tally import Progress, Tally
from longlode.mining.engine.workers import Job, Outcome, WorkerSpec

_POLL_SECONDS = 0.5
_REPORT_SECONDS = 0.2


def do_jobs(
    jobs: Iterable[Job],
    spec: WorkerSpec,
    num_workers: int,
    tally: Tally,
    progress: Progress | None = None,
    *,
    done: Callable[[Outcome], None] = lambda outcome: None,
    recover: Callable[[Job], PartInfo | None] = lambda job: None,
) -> None:
    """Make sure that every job has its result: take those that verify, do the others.

    Jobs that another run on the folder has in hand are waited for; they are done here if that run ends without them.

    Args: done, called with every outcome, in the order of completion; recover, finds a result elsewhere.
    Raises: as `run_jobs`; a job that fails is listed in the tally.
    """
    with claiming(spec.out, tally.describe, spec.settings.lease_seconds) as claims:
        flow = _Flow(spec, num_workers, tally, progress, done, recover, claims)
        flow.work_off(jobs)
        tally.look(progress)
    for folder in flow.folders:
        remove_leftovers(folder)


class _Flow:
    """One call of `do_jobs`; arguments as there."""

    def __init__(
        self,
        spec: WorkerSpec,
        num_workers: int,
        tally: Tally,
        progress: Progress | None,
        done: Callable[[Outcome], None],
        recover: Callable[[Job], PartInfo | None],
        claims: Claims,
    ) -> None:
        self._spec, self._num_workers = spec, num_workers
        self._tally, self._progress = tally, progress
        self._done, self._recover = done, recover
        self._claims = claims
        self._taken: list[Job] = []  # by other runs
        self._last_report = time.monotonic()
        self.folders = {spec.out}

    def work_off(self, jobs: Iterable[Job]) -> None:
        """Do all jobs, then those that other runs left."""
        self._run(self._pending(self._entered(jobs)))
        while self._taken:
            waiting, self._taken = self._taken, []
            before = len(waiting)
            self._run(self._pending(waiting))
            if len(self._taken) == before:
                time.sleep(_POLL_SECONDS)
            self._tally.look(self._progress)

    def _entered(self, jobs: Iterable[Job]) -> Iterator[Job]:
        for job in jobs:
            self._tally.enter(job)
            self.folders.add(job.path(self._spec.out).parent)
            yield job

    def _pending(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Yield the jobs to do here, once they are claimed; the others are counted as done, or noted as taken."""
        is_first = True
        for job in jobs:
            info = job.info(self._spec.out) or self._recover(job)
            if info is None and self._claims.take(job.fingerprint):
                # Another run may have finished it since, and given it back.
                info = job.info(self._spec.out)
                if info is None:
                    if is_first:
                        self._tally.look(self._progress)
                    is_first = False
                    yield job
                    continue
                self._claims.release(job.fingerprint)
            if info is None:
                self._taken.append(job.bare())
                continue
            self._end(Outcome(job, info), is_reused=True)
            if not is_first or time.monotonic() - self._last_report > _REPORT_SECONDS:
                self._last_report = time.monotonic()
                self._tally.look(self._progress)

    def _run(self, jobs: Iterator[Job]) -> None:
        look = partial(self._tally.look, self._progress)
        for outcome in run_jobs(jobs, self._spec, self._num_workers, look):
            self._claims.release(outcome.job.fingerprint)
            self._tally.saw(outcome.size, self._spec.settings.batch_segments)
            self._end(outcome)
            self._tally.look(self._progress)

    def _end(self, outcome: Outcome, *, is_reused: bool = False) -> None:
        self._tally.end(outcome, is_reused=is_reused)
        self._done(outcome)
