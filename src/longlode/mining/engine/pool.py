"""Execution of units in this process, or in a pool of spawned ones that may die or stop without ending the run."""

import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from itertools import chain, islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from longlode.core.errors import BackendError, ConfigError
from longlode.core.processes import end_with_parent
from longlode.mining.engine.pulse import BEAT_SECONDS, Listen, Watch, beat_into, busy, listening
from longlode.mining.engine.ray_cluster import run_on_ray
from longlode.mining.engine.workers import Job, Outcome, Worker, WorkerSpec

logger = logging.getLogger(__name__)

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_DIED = (
    "the worker process died or stopped, again when it had this unit alone: killed, out of memory, a native crash, or "
    "no sign of life"
)

_MOST_LOST = 16
"""Documents that may end their worker before their unit is given up as a whole."""

_T = TypeVar("_T")


def run_jobs(
    jobs: Iterable[Job], spec: WorkerSpec, num_workers: int, listen: Listen | None = None
) -> Iterator[Outcome]:
    """Do all jobs; yields one outcome per job, in the order of completion. A job is asked for when a worker is free.

    With one worker, or one job, everything happens in this process. Args: listen, called with the progress within
    units, in this thread. Raises: ModelError from making the reader;
    BackendError when worker processes cannot start, ConfigError when they cannot load make_reader.
    """
    waiting = iter(jobs)
    if spec.settings.engine == "ray":
        yield from run_on_ray(waiting, spec, num_workers, listen)
        return
    first = list(islice(waiting, 1 if num_workers == 1 else 2))
    waiting = chain(first, waiting)
    if len(first) < 2:
        worker = Worker(spec)
        with listening(listen) as check:
            for job in waiting:
                outcome = worker.run(job)
                check()
                yield outcome
        return
    suspects: list[Job] = []
    while first := list(islice(waiting, 1)):  # again when a death has broken the pool
        yield from _run_pool(chain(first, waiting), suspects, spec, num_workers, listen)
    for job in suspects:  # each was in hand when a worker died: alone, the guilty ones show
        info = job.info(spec.out)
        if info is not None:
            yield Outcome(job, info)
        else:
            yield from _run_alone(job, spec, listen)


def _run_alone(job: Job, spec: WorkerSpec, listen: Listen | None) -> Iterator[Outcome]:
    """Do a job that was in hand when a worker died. Documents that end a worker are found one by one, and given up."""
    dead: list[Job] = []
    yield from _run_pool(iter([job]), dead, spec, 1, listen)
    lost: dict[int, str] = {}
    while dead and len(lost) < _MOST_LOST:
        dead = []
        careful = replace(job, lost=tuple(lost.items()), is_careful=True)
        watch = yield from _run_pool(iter([careful]), dead, spec, 1, listen)
        if dead and (watch.place < 0 or watch.place in lost):
            break  # it did not die of a document: reading the file may end it, or starting
        if dead:
            why = watch.why or "died (killed, out of memory, or a crash in native code)"
            lost[watch.place] = f"the worker process {why} at this document, also when it had it alone"
            logger.warning("%s, document %d: %s", job.unit.files[0].name, watch.place, lost[watch.place])
    if dead:
        yield Outcome(job, None, _DIED)


def _run_pool(
    waiting: Iterator[Job], suspects: list[Job], spec: WorkerSpec, num_workers: int, listen: Listen | None
) -> Generator[Outcome, None, Watch]:
    """Work off `waiting` until it is empty or a worker dies; the jobs in progress then go to `suspects`.

    Returns: what was seen of the workers.
    """
    others = set(multiprocessing.active_children())
    in_hand: dict[Future[Outcome], Job] = {}
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    watch = Watch(ours, spec.settings.silent_seconds, spec.settings.stuck_seconds)
    executor = _executor(context, num_workers, (spec.settings.threads, _pack(spec), theirs))
    try:
        _greet(executor, watch, others)
        is_over = False
        while in_hand or not is_over:
            while not is_over and len(in_hand) < num_workers:
                job = next(waiting, None)
                is_over = job is None
                if job is not None:
                    in_hand[_submit(executor, job)] = job
            if in_hand:
                for future in _wait(in_hand, watch, others, listen):
                    outcome = future.result()
                    del in_hand[future]
                    yield outcome
        executor.shutdown(wait=False)
        _join(others, spec.settings.silent_seconds)
    except BrokenProcessPool:
        finished = [future for future in in_hand if future.done() and future.exception() is None]
        yield from (future.result() for future in finished)
        suspects.extend(job for future, job in in_hand.items() if future not in finished)
        executor.shutdown(wait=False, cancel_futures=True)
        _join(others, 0.0)
        watch.stopped(set())  # read the last signs of the dead
    except BaseException:  # an interrupt or a reader that cannot be made: no reason to finish what is in hand
        executor.shutdown(wait=False, cancel_futures=True)
        _join(others, 0.0)
        raise
    finally:
        ours.close()
        theirs.close()
    return watch


def _submit(executor: ProcessPoolExecutor, job: Job) -> Future[Outcome]:
    """Hand a job to the pool; to a broken one as well, which then says so of this job."""
    try:
        return executor.submit(_run_job, job)
    except BrokenProcessPool as error:
        broken: Future[Outcome] = Future()
        broken.set_exception(error)
        return broken


def _join(others: set[BaseProcess], patience_seconds: float) -> None:
    """Wait for the workers to end, and kill those that do not. Args: others, as of `_wait`."""
    until = time.monotonic() + patience_seconds
    for child in set(multiprocessing.active_children()) - others:
        child.join(max(0.0, until - time.monotonic()))
        child.kill()  # a stopped process does not see anything milder


def _executor(context: SpawnContext, num_workers: int, arguments: tuple[Any, ...]) -> ProcessPoolExecutor:
    """Raises: BackendError where the system has no semaphores for a pool."""
    try:
        return ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=arguments)
    except (OSError, NotImplementedError, ImportError) as error:
        raise BackendError(
            f"worker processes cannot start: {error}. They need semaphores in shared memory (on Linux: /dev/shm, "
            "writable and not full). Use one worker (--workers 1), or make it writable."
        ) from None


def _wait(
    futures: Iterable[Future[_T]], watch: Watch, others: set[BaseProcess], listen: Listen | None = None
) -> set[Future[_T]]:
    """The jobs that are done, at least one. A worker that has stopped is killed, which breaks the pool.

    Args: others, children of this process that are no workers of the pool; listen, as of `run_jobs`.
    """
    while True:
        done, _ = wait(futures, timeout=BEAT_SECONDS, return_when=FIRST_COMPLETED)
        workers = {child.pid: child for child in set(multiprocessing.active_children()) - others}
        pids = {pid for pid in workers if pid is not None}
        for pid, why in watch.stopped(pids).items():
            logger.warning("worker process %d %s; it is replaced", pid, why)
            workers[pid].kill()
        if listen is not None:
            listen(watch.counts(pids))
        if done:
            return done


def _pack(spec: WorkerSpec) -> bytes:
    """Pickle now, unpickle in the worker once its threads are set: that may import torch, which looks at
    them then.
    """
    try:
        return pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"make_reader or the scorer cannot be sent to another process ({error}); define it at the top "
            "level of a module (functools.partial is fine), or use one worker."
        ) from None


_worker: Worker | None = None
"""The worker of this spawned process."""


_packed = b""
"""The spec it is made from, until its first job."""


def _start_worker(threads: int, packed: bytes, pulse: Connection) -> None:
    """Set up a worker. It must not fail: that would look as if every unit killed its worker."""
    global _packed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    end_with_parent()
    beat_into(pulse)
    for name in _THREAD_VARIABLES:
        os.environ[name] = str(threads)
    _packed = packed


def _greet(executor: ProcessPoolExecutor, watch: Watch, others: set[BaseProcess]) -> None:
    """Raises: BackendError when workers cannot start at all, ConfigError when they cannot load the spec."""
    hello = executor.submit(_hello)
    try:
        _wait([hello], watch, others)
        hello.result()
    except BrokenProcessPool:
        raise BackendError(
            "worker processes cannot start (what they said stands above). In a script, make the call under "
            "`if __name__ == '__main__':`; or use one worker."
        ) from None


def _hello() -> None:
    global _worker
    try:
        _worker = Worker(pickle.loads(_packed))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"a worker process cannot load make_reader or the scorer ({error}); define it in a module that "
            "can be imported, or use one worker."
        ) from None


def _run_job(job: Job) -> Outcome:
    if _worker is None:
        _hello()
    assert _worker is not None, "_hello makes it or raises"
    with busy():
        return _worker.run(job)
