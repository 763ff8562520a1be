"""Exchanges of tensors between the ranks that share a sequence, and the bytes that they move.

`GroupTransport` is a process group of torch.distributed (gloo, NCCL); `simulate.py` has one of threads. Gradients are
no matter of this file (see `exchange.py`).
"""

import itertools
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from longlode.core.errors import ConfigError, RankError


@dataclass
class Traffic:
    """Bytes that this rank received from others, and calls, by kind of exchange ("fold", "fold backward", ...)."""

    num_bytes: Counter[str] = field(default_factory=Counter)
    num_calls: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, received: int) -> None:
        """Count one exchange."""
        self.num_bytes[kind] += received
        self.num_calls[kind] += 1

    @property
    def total_bytes(self) -> int:
        """Bytes received in all exchanges."""
        return sum(self.num_bytes.values())


class Transport(ABC):
    """Exchanges between P ranks. Every rank calls the same ones in the same order.

    Attributes: rank, num_ranks: this rank and P. traffic: what this rank received.
    Raises: RankError in any exchange when another rank has failed or does not answer in time.
    """

    rank: int
    num_ranks: int

    def __init__(self) -> None:
        """Begin counting."""
        self.traffic = Traffic()

    def all_gather(self, x: Tensor, kind: str) -> list[Tensor]:
        """Return the tensors that all ranks gave, of one shape and dtype, in order of ranks."""
        return self.begin_all_gather(x, kind)()

    def begin_all_gather(self, x: Tensor, kind: str) -> Callable[[], list[Tensor]]:
        """Begin an `all_gather`; the returned function waits for it. Until then x must not be changed."""
        x = x.contiguous()
        self.traffic.add(kind, (self.num_ranks - 1) * x.nbytes)
        return self._begin_all_gather(x, kind)

    def exchange(
        self,
        sends: Mapping[int, Tensor],
        shapes: Mapping[int, Sequence[int]],
        like: Tensor,
        kind: str,
    ) -> dict[int, Tensor]:
        """Send tensors to ranks, receive tensors of known `shapes` from ranks, with the dtype and device of `like`.

        Nothing is sent for tensors without elements.
        """
        return self.begin(sends, shapes, like, kind)()

    def begin(
        self,
        sends: Mapping[int, Tensor],
        shapes: Mapping[int, Sequence[int]],
        like: Tensor,
        kind: str,
    ) -> Callable[[], dict[int, Tensor]]:
        """Begin an `exchange`; the returned function waits for it and returns what was received.

        Until then what is sent must not be changed.
        """
        sends = {rank: x.contiguous() for rank, x in sends.items() if x.numel()}
        out = {rank: like.new_empty(tuple(shape)) for rank, shape in shapes.items()}
        wanted = {rank: x for rank, x in out.items() if x.numel()}
        self.traffic.add(kind, sum(x.nbytes for x in wanted.values()))
        wait = self._begin(sends, wanted, kind)

        def received() -> dict[int, Tensor]:
            wait()
            return out

        return received

    def all_reduce(self, x: Tensor, kind: str) -> Tensor:
        """Return the sum of all ranks' tensors, added in order of ranks: the same bits everywhere.

        Every rank adds up one slice and sends the others the result, so each receives twice the bytes of x at most.
        """
        flat = x.flatten()
        bounds = [flat.numel() * r // self.num_ranks for r in range(self.num_ranks + 1)]
        others = [r for r in range(self.num_ranks) if r != self.rank]
        slices = [flat[a:b] for a, b in itertools.pairwise(bounds)]
        own = slices[self.rank]
        parts = self.exchange({r: slices[r] for r in others}, dict.fromkeys(others, own.shape), x, kind)
        parts[self.rank] = own
        total = parts[0].clone()
        for rank in range(1, self.num_ranks):
            total += parts[rank]
        shapes = {r: slices[r].shape for r in others}
        sums = self.exchange(dict.fromkeys(others, total), shapes, x, kind)
        sums[self.rank] = total
        return torch.cat([sums[r] for r in range(self.num_ranks)]).view_as(x)

    @abstractmethod
    def _begin_all_gather(self, x: Tensor, kind: str) -> Callable[[], list[Tensor]]: ...

    @abstractmethod
    def _begin(self, sends: Mapping[int, Tensor], out: Mapping[int, Tensor], kind: str) -> Callable[[], None]:
        """Begin to send, and to write what is received into `out`; the returned function waits for both."""


class GroupTransport(Transport):
    """Exchanges over a process group of torch.distributed."""

    def __init__(self, group: dist.ProcessGroup | None = None, timeout_s: float = 600.0) -> None:
        """Use `group` (None: all ranks). timeout_s: seconds after which a rank that does not answer counts as lost."""
        super().__init__()
        if not dist.is_initialized():
            raise ConfigError(
                "torch.distributed is not initialised; start with torchrun and call "
                "torch.distributed.init_process_group first (or use longlode.parallel.simulate)."
            )
        self.group = dist.group.WORLD if group is None else group
        self.rank, self.num_ranks = dist.get_rank(self.group), dist.get_world_size(self.group)
        self.timeout = timedelta(seconds=timeout_s)
        if dist.get_backend(self.group) == "nccl":
            # NCCL wants all ranks in the first call of a group, and exchanges may be between a few of them.
            dist.barrier(self.group)

    def _begin_all_gather(self, x: Tensor, kind: str) -> Callable[[], list[Tensor]]:
        if self.num_ranks == 1:
            return lambda: [x]
        out = [torch.empty_like(x) for _ in range(self.num_ranks)]
        try:
            work = dist.all_gather(out, x, group=self.group, async_op=True)
        except RuntimeError as error:
            raise self._lost(kind, error) from error

        def wait() -> list[Tensor]:
            try:
                self._finish([work])
            except RuntimeError as error:
                raise self._lost(kind, error) from error
            return out

        return wait

    def _begin(self, sends: Mapping[int, Tensor], out: Mapping[int, Tensor], kind: str) -> Callable[[], None]:
        # Receives first, and both in order of ranks; pairs of ranks keep the order of their messages.
        calls = [dist.P2POp(dist.irecv, x, group=self.group, group_peer=r) for r, x in sorted(out.items())]
        calls += [dist.P2POp(dist.isend, x, group=self.group, group_peer=r) for r, x in sorted(sends.items())]
        try:
            works = dist.batch_isend_irecv(calls) if calls else []
        except RuntimeError as error:
            raise self._lost(kind, error) from error

        def wait() -> None:
            try:
                self._finish(works)
            except RuntimeError as error:
                raise self._lost(kind, error) from error

        return wait

    def _finish(self, works: Sequence[dist.Work | None]) -> None:
        for work in works:
            if work is not None:
                work.wait(self.timeout)

    def _lost(self, kind: str, error: RuntimeError) -> RankError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return RankError(
            f"Rank {self.rank} of {self.num_ranks} lost another rank in the exchange {kind!r} ({reason}); a rank "
            f"failed, or did not answer within {self.timeout.total_seconds():.0f} s. Its own log has the cause."
        )
