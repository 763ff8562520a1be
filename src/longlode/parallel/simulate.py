"""Several ranks in one process, as threads: to debug without torchrun, and for fast tests.

    shards = simulate(4, lambda transport: ...)

Every rank runs the same function with its own transport; autograd runs the backward pass of CPU tensors in the thread
that asks for it, so exchanges in a backward pass work too. A rank that raises ends the others.
"""

import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import TypeVar

from torch import Tensor

from longlode.core.errors import ConfigError, RankError
from longlode.parallel.transport import Transport

R = TypeVar("R")

_TICK_S = 0.05


class _Board:
    """One mailbox per ordered pair of ranks, and the first failure."""

    def __init__(self, num_ranks: int, timeout_s: float) -> None:
        self.boxes: dict[tuple[int, int], SimpleQueue[tuple[str, Tensor]]] = {
            (a, b): SimpleQueue() for a in range(num_ranks) for b in range(num_ranks)
        }
        self.timeout_s = timeout_s
        self.failed = threading.Event()


class ThreadTransport(Transport):
    """Exchanges between threads of one process. It also checks that both ends are in the same exchange."""

    def __init__(self, board: _Board, rank: int, num_ranks: int) -> None:
        """Make the transport of one rank."""
        super().__init__()
        self._board, self.rank, self.num_ranks = board, rank, num_ranks
        # As in a process group, the n-th receive from a rank gets the n-th message, whatever is waited for first.
        self._num_begun = [0] * num_ranks
        self._arrived: list[list[tuple[str, Tensor]]] = [[] for _ in range(num_ranks)]

    def _begin_all_gather(self, x: Tensor, kind: str) -> Callable[[], list[Tensor]]:
        others = [rank for rank in range(self.num_ranks) if rank != self.rank]
        for rank in others:
            self._send(rank, x, kind)
        places = {rank: self._place(rank) for rank in others}
        return lambda: [
            x if rank == self.rank else self._receive(rank, places[rank], kind)
            for rank in range(self.num_ranks)
        ]

    def _begin(self, sends: Mapping[int, Tensor], out: Mapping[int, Tensor], kind: str) -> Callable[[], None]:
        for rank, x in sends.items():
            self._send(rank, x, kind)
        places = {rank: self._place(rank) for rank in out}
        return lambda: self._finish(out, places, kind)

    def _finish(self, out: Mapping[int, Tensor], places: Mapping[int, int], kind: str) -> None:
        for rank, x in out.items():
            got = self._receive(rank, places[rank], kind)
            if got.shape != x.shape or got.dtype != x.dtype:
                raise RankError(
                    f"Rank {rank} sent {got.dtype} {list(got.shape)} to rank {self.rank} in the exchange {kind!r}, "
                    f"which expects {x.dtype} {list(x.shape)}. Give all ranks the same plan."
                )
            x.copy_(got)

    def _send(self, rank: int, x: Tensor, kind: str) -> None:
        # A copy: the sender may go on to change its tensor.
        self._board.boxes[self.rank, rank].put((kind, x.detach().clone()))

    def _place(self, rank: int) -> int:
        """Number of the next receive from a rank."""
        self._num_begun[rank] += 1
        return self._num_begun[rank] - 1

    def _receive(self, rank: int, place: int, kind: str) -> Tensor:
        arrived = self._arrived[rank]
        while len(arrived) <= place:
            arrived.append(self._next(rank, kind))
        sent_kind, x = arrived[place]
        arrived[place] = ("", x.new_empty(0))
        if sent_kind != kind:
            raise RankError(
                f"Rank {self.rank} is in the exchange {kind!r} and rank {rank} in {sent_kind!r}; all ranks must "
                "run the same model on pieces of the same plan."
            )
        return x

    def _next(self, rank: int, kind: str) -> tuple[str, Tensor]:
        box, board = self._board.boxes[rank, self.rank], self._board
        deadline = time.monotonic() + board.timeout_s
        while True:
            try:
                return box.get(timeout=_TICK_S)
            except Empty:
                if board.failed.is_set() or time.monotonic() > deadline:
                    why = (
                        "failed" if board.failed.is_set() else f"did not answer within {board.timeout_s:g} s"
                    )
                    raise RankError(
                        f"Rank {self.rank} of {self.num_ranks} lost another rank in the exchange {kind!r}: "
                        f"a rank {why}."
                    ) from None


def simulate(num_ranks: int, work: Callable[[Transport], R], *, timeout_s: float = 60.0) -> list[R]:
    """Run `work(transport)` as every rank, one thread each, and return the results in order of ranks.

    Args:
      work: gets the rank's transport. Tensors that ranks share must not be changed; take gradients with
        `torch.autograd.grad`, or give each rank a copy of the model.
      timeout_s: seconds after which a rank that does not answer ends the others.
    Raises: the error of the first rank that failed by itself, with a note that names the rank.
    """
    if num_ranks < 1:
        raise ConfigError(f"num_ranks is {num_ranks}; expected at least 1.")
    board = _Board(num_ranks, timeout_s)
    results: dict[int, R] = {}
    errors: list[tuple[int, BaseException]] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadTransport(board, rank, num_ranks))
        except BaseException as error:
            errors.append((rank, error))
            board.failed.set()

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(num_ranks)]
    for thread in threads:
        thread.start()
    _join(threads, board)
    if errors:
        # Ranks that only lost another one come after the one that failed.
        rank, error = min(errors, key=lambda one: isinstance(one[1], RankError))
        error.add_note(f"(raised by rank {rank} of {num_ranks})")
        raise error
    return [results[rank] for rank in range(num_ranks)]


def _join(threads: list[threading.Thread], board: _Board) -> None:
    """Wait for all ranks; once one has failed, no longer than the time limit for the others, which may hang."""
    given_up: float | None = None
    for thread in threads:
        while thread.is_alive():
            thread.join(_TICK_S)
            if board.failed.is_set() and given_up is None:
                given_up = time.monotonic() + board.timeout_s
            if given_up is not None and time.monotonic() > given_up:
                return
