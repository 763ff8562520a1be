"""Who does the units: this process, or a pool of spawned ones that may die without taking the run along."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from longlode.core.errors import BackendError, ConfigError, LonglodeError, ScorerError
from longlode.corpus import Unit
from longlode.mining.dependency import FORMULAS_VERSION
from longlode.mining.estimators import Estimator
from longlode.mining.parts import PART_FORMAT, PartInfo, part_path, read_info, write_part
from longlode.mining.reading import BatchSize
from longlode.mining.scorer import Scorer
from longlode.mining.settings import ScoreSettings
from longlode.mining.work import Work, score_unit

_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
_DIED = "the worker process died, again when it had this unit alone: killed, out of memory or a native crash"


@dataclass(frozen=True)
class Task:
    """One unit to do, and the fingerprint that names its part.

    rows: as of `score_unit`, None for all of them. estimator: in place of the run's, one that reads in the same way.
    """

    unit: Unit
    fingerprint: str
    rows: tuple[int, ...] | None = None
    estimator: Estimator | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a task: its part's info, or an error text. size: the batch sizes the worker has come
    down to.
    """

    task: Task
    info: PartInfo | None
    error: str = ""
    size: BatchSize | None = None


@dataclass(frozen=True)
class WorkerSpec:
    """All that a worker needs besides its tasks; picklable when make_scorer is."""

    out: Path
    estimator: Estimator
    settings: ScoreSettings
    make_scorer: Callable[[], Scorer] | None
    scorer_fingerprint: str

    def identity(self, estimator: Estimator | None = None) -> dict[str, Any]:
        """Everything but the unit that shapes a part, as JSON. Args: estimator, of a task that has its own."""
        estimator = estimator or self.estimator
        return {
            "settings": self.settings.identity(),
            "estimator": {
                "name": estimator.name,
                "version": estimator.version,
                "options": estimator.options(),
            },
            "scorer": self.scorer_fingerprint if estimator.needs_scorer else None,
            "formulas_version": FORMULAS_VERSION,
            "part_format": PART_FORMAT,
        }


class Worker:
    """Makes its scorer at the first task and keeps it."""

    def __init__(self, spec: WorkerSpec) -> None:
        """Load nothing yet."""
        self._spec = spec
        self._work: Work | None = None

    def run(self, task: Task) -> Outcome:
        """Do one unit and write its part. Raises: ScorerError when there is no usable scorer; nothing
        else.
        """
        if self._work is None:
            settings = self._spec.settings
            size = BatchSize(settings.batch_segments, settings.batch_pairs)
            self._work = Work(self._spec.estimator, settings, self._make_scorer(), size)
        try:
            work = self._work if task.estimator is None else replace(self._work, estimator=task.estimator)
            result = score_unit(task.unit, work, task.rows)
            info = PartInfo(
                fingerprint=task.fingerprint,
                num_rows=len(result.rows),
                document_tokens=result.document_tokens,
                tokens_alone=result.tokens_alone,
                tokens_given=result.tokens_given,
            )
            path = part_path(self._spec.out, task.fingerprint)
            write_part(path, result.rows, info, keep_pairs=self._spec.settings.keep_pairs)
        except Exception as error:  # this unit failed; the others go on, and a re-run tries it again
            return Outcome(task, None, f"{type(error).__name__}: {error}", self._work.size)
        return Outcome(task, info, "", self._work.size)

    def _make_scorer(self) -> Scorer | None:
        spec = self._spec
        if not spec.estimator.needs_scorer or spec.make_scorer is None:
            return None
        try:
            scorer = spec.make_scorer()
        except LonglodeError:
            raise
        except Exception as error:
            raise ScorerError(f"the scorer could not be made: {type(error).__name__}: {error}") from error
        if scorer.fingerprint != spec.scorer_fingerprint:
            raise ScorerError(
                f"make_scorer gave the scorer {scorer.fingerprint!r}; expected {spec.scorer_fingerprint!r}, "
                "by which results are named. Pass the fingerprint of the scorer that make_scorer makes."
            )
        return scorer


def run_tasks(tasks: Sequence[Task], spec: WorkerSpec, num_workers: int) -> Iterator[Outcome]:
    """Do all tasks; outcomes come as they are done, in any order, one per task.

    With one worker everything happens in this process. Raises: ScorerError from making the scorer;
    BackendError when worker processes cannot start, ConfigError when they cannot load make_scorer.
    """
    if num_workers == 1 or len(tasks) <= 1:
        worker = Worker(spec)
        for task in tasks:
            yield worker.run(task)
        return
    suspects: list[Task] = []
    waiting = deque(tasks)
    while waiting:  # again when a death has broken the pool
        yield from _run_pool(waiting, suspects, spec, min(num_workers, len(waiting)))
    for task in suspects:  # each was in hand when a worker died: alone, the guilty ones show
        info = read_info(part_path(spec.out, task.fingerprint))
        if info is not None:
            yield Outcome(task, info)
            continue
        dead: list[Task] = []
        yield from _run_pool(deque([task]), dead, spec, 1)
        for victim in dead:
            yield Outcome(victim, None, _DIED)


def _run_pool(
    waiting: deque[Task], suspects: list[Task], spec: WorkerSpec, num_workers: int
) -> Iterator[Outcome]:
    """Work off `waiting` until it is empty or a worker dies; what was in hand then goes to `suspects`."""
    threads = max(1, available_cpus() // num_workers)
    others = set(multiprocessing.active_children())
    in_hand: dict[Future[Outcome], Task] = {}
    executor = ProcessPoolExecutor(
        num_workers,
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(threads, _pack(spec)),
    )
    try:
        _greet(executor)
        while waiting or in_hand:
            while waiting and len(in_hand) < num_workers:
                in_hand[executor.submit(_run_task, waiting[0])] = waiting[0]
                waiting.popleft()
            done, _ = wait(in_hand, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                del in_hand[future]
                yield outcome
        executor.shutdown()
    except BrokenProcessPool:
        finished = [future for future in in_hand if future.done() and future.exception() is None]
        yield from (future.result() for future in finished)
        suspects.extend(task for future, task in in_hand.items() if future not in finished)
        executor.shutdown(wait=False, cancel_futures=True)
    except BaseException:  # an interrupt or a scorer that cannot be made: no reason to finish what is in hand
        executor.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise


def available_cpus() -> int:
    """CPUs that this process may use."""
    with contextlib.suppress(AttributeError):  # only Linux has it
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _pack(spec: WorkerSpec) -> bytes:
    """Pickle now, unpickle in the worker once its threads are set: that may import torch, which looks at
    them then.
    """
    try:
        return pickle.dumps(spec)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"make_scorer or the estimator cannot be sent to another process ({error}); define it at the top "
            "level of a module (functools.partial is fine), or use one worker."
        ) from None


_worker: Worker | None = None
"""The worker of this spawned process."""


_packed = b""
"""What it is made of, until its first task."""


def _start_worker(threads: int, packed: bytes) -> None:
    """Runs first in a worker. It must not fail: that would look like a death in every unit."""
    global _packed
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers itself
    threading.Thread(target=_die_with_parent, daemon=True).start()
    for name in _THREAD_VARIABLES:
        given = os.environ.get(name, "")
        os.environ[name] = str(min(threads, int(given)) if given.isdigit() and int(given) else threads)
    _packed = packed


def _greet(executor: ProcessPoolExecutor) -> None:
    """Raises: BackendError when workers cannot start at all, ConfigError when they cannot load the spec."""
    try:
        executor.submit(_hello).result()
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
            f"a worker process cannot load make_scorer or the estimator ({error}); define it in a module that "
            "can be imported, or use one worker."
        ) from None


def _die_with_parent() -> None:
    """A pool's worker outlives a parent that is killed, with its model in memory; this one does not."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_task(task: Task) -> Outcome:
    if _worker is None:
        _hello()
    assert _worker is not None, "_hello makes it or raises"
    return _worker.run(task)
