"""The same jobs on a Ray cluster: `--engine ray`, extra `[ray]`.

Each worker is an actor that makes its reader once. It writes a part to a folder of its own node and sends the bytes to
this process, which puts them into the output folder: nodes need the input, by the same path or URL, and the package,
but no shared output. Nothing else differs: parts have the names and the bytes that local processes give. A node that
dies takes no result along; its jobs are done by others. A job whose worker has died three times fails, and a re-run
tries it again.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from longlode.core.errors import BackendError
from longlode.core.records import atomic_path
from longlode.mining.engine.pulse import Listen
from longlode.mining.engine.workers import Job, Outcome, Worker, WorkerSpec

MOST_DEATHS = 3
"""Workers that may die of one job before it is given up."""
_MOST_FALSE_STARTS = 16
"""Workers in a row that may fail to start."""
_POLL_SECONDS = 0.5
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_DIED = f"its worker died {MOST_DEATHS} times: killed, out of memory, or its node was lost"

logger = logging.getLogger(__name__)


def run_on_ray(
    jobs: Iterator[Job], spec: WorkerSpec, num_workers: int, listen: Listen | None = None
) -> Iterator[Outcome]:
    """Do all jobs on the cluster that RAY_ADDRESS names, or on one of this machine; as `pool.run_jobs`.

    Raises: BackendError without ray, or when no cluster can be reached; ModelError and the like from making the reader.
    """
    first = next(jobs, None)
    if first is None:  # all is done, which takes no cluster
        return
    ray = _ray()
    crew = _Crew(ray, spec, num_workers)
    try:
        yield from crew.work_off(chain([first], jobs), listen)
    finally:
        crew.end()


@dataclass(eq=False)
class _Task:
    """A job in hand, or waiting for another try. deaths: of workers that had it."""

    job: Job
    deaths: int = 0


class _Crew:
    """The actors of a run, and their jobs.

    An actor gets a job once it runs: the cluster may have no place for it yet.
    """

    def __init__(self, ray: Any, spec: WorkerSpec, num_workers: int) -> None:
        self._ray, self._spec = ray, spec
        self._packed = ray.put(spec)
        self._starting: dict[Any, Any] = {}  # by the sign that it runs
        self._idle: list[Any] = []
        self._in_hand: dict[Any, tuple[Any, _Task]] = {}
        self._again: list[_Task] = []
        self._false_starts = 0
        for _ in range(num_workers):
            self._hire()

    def work_off(self, jobs: Iterator[Job], listen: Listen | None) -> Iterator[Outcome]:
        """Yield an outcome for each job, in the order of completion."""
        is_over = False
        while self._in_hand or self._again or not is_over:
            while self._idle and (self._again or not is_over):
                task = self._again.pop() if self._again else None
                if task is None:
                    job = next(jobs, None)
                    is_over = job is None
                    task = None if job is None else _Task(job)
                if task is not None:
                    actor = self._idle.pop()
                    self._in_hand[actor.run.remote(task.job)] = actor, task
            if self._in_hand or self._again or not is_over:
                done, _ = self._ray.wait([*self._in_hand, *self._starting], timeout=_POLL_SECONDS)
                if listen is not None:
                    listen({})
                for sign in done:
                    outcome = self._start(sign) if sign in self._starting else self._take(sign)
                    if outcome is not None:
                        yield outcome

    def _start(self, sign: Any) -> Outcome | None:
        """Count an actor that runs as idle; hire another for one that could not start. There is no outcome yet."""
        actor = self._starting.pop(sign)
        try:
            self._ray.get(sign)
        except self._ray.exceptions.RayError as error:
            self._false_starts += 1
            if self._false_starts >= _MOST_FALSE_STARTS:
                raise BackendError(
                    f"workers on the Ray cluster do not start: {error}. Is longlode installed on its nodes?"
                ) from None
            self._hire()
            return None
        self._false_starts = 0
        self._idle.append(actor)
        return None

    def _take(self, result: Any) -> Outcome | None:
        """Put the bytes of a result into the output folder; None if its worker died, and the job waits again."""
        actor, task = self._in_hand.pop(result)
        errors = self._ray.exceptions
        try:
            outcome, data = self._ray.get(result)
        except (errors.RayActorError, errors.ObjectLostError, errors.OutOfMemoryError) as error:
            task.deaths += 1
            logger.warning("a worker on Ray was lost (%s); its unit is tried again", type(error).__name__)
            self._ray.kill(actor)
            self._hire()
            if task.deaths >= MOST_DEATHS:
                return Outcome(task.job, None, _DIED)
            self._again.append(task)
            return None
        except errors.RayTaskError as error:
            raise error.cause from None
        self._idle.append(actor)
        if data is not None:
            with atomic_path(task.job.path(self._spec.out)) as temporary:
                temporary.write_bytes(data)
        return replace(outcome, job=task.job)

    def _hire(self) -> None:
        settings = self._spec.settings
        has_gpus = self._ray.cluster_resources().get("GPU", 0) > 0
        wanted = {"num_cpus": settings.threads, "num_gpus": int(has_gpus and self._spec.scorer.reads_model)}
        actor = self._ray.remote(_RemoteWorker).options(**wanted).remote(self._packed)
        self._starting[actor.ready.remote()] = actor

    def end(self) -> None:
        """Stop the actors."""
        busy = [actor for actor, _ in self._in_hand.values()]
        for actor in [*self._idle, *self._starting.values(), *busy]:
            self._ray.kill(actor)


class _RemoteWorker:
    """A worker in a process of the cluster."""

    def __init__(self, spec: WorkerSpec) -> None:
        for name in _THREAD_VARIABLES:
            os.environ[name] = str(spec.settings.threads)
        self._folder = Path(tempfile.mkdtemp(prefix="longlode-ray-"))
        self._worker = Worker(replace(spec, out=self._folder))

    def ready(self) -> bool:
        """Return True: it runs."""
        return True

    def run(self, job: Job) -> tuple[Outcome, bytes | None]:
        """Do a job. Returns: its outcome, and the bytes of its result. Raises: as `Worker.run`."""
        path = job.path(self._folder)
        path.parent.mkdir(parents=True, exist_ok=True)
        outcome = self._worker.run(job)
        data = path.read_bytes() if outcome.info is not None else None
        path.unlink(missing_ok=True)
        return outcome, data

    def __del__(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _ray() -> Any:
    """Import ray and connect to its cluster. Raises: BackendError."""
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise BackendError(
            "--engine ray needs Ray, which is not installed; pip install 'longlode[ray]'."
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(log_to_driver=False, configure_logging=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise BackendError(
                f"no Ray cluster can be reached ({error}). Run `ray start --head`, or set RAY_ADDRESS."
            ) from None
    return ray
