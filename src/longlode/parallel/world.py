"""The ranks of a run: the processes that work with one model together, and all that they say to each other.

Ranks form a grid of data ranks x sequence ranks; rank = data_rank * sequence_ranks + sequence_rank. Data ranks take
different rows of a batch; sequence ranks of one data rank take different pieces of the same rows. As every loss is
divided by the weight of the whole batch, gradients are summed over all ranks, whatever the grid.

Rank 0 alone writes. What the ranks do next (stop, save, skip) is agreed on, never decided by each for itself.
"""

import atexit
import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from longlode.core import errors
from longlode.core.errors import BackendError, ConfigError, LonglodeError, RankError
from longlode.ops.devices import pick_device

T = TypeVar("T")

_BUCKET_BYTES = 32 << 20


class World:
    """A grid of ranks. `ALONE` is the world of one process; `joined` makes that of a process under torchrun."""

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        *,
        sequence_ranks: int = 1,
        group: Any = None,
        timeout_seconds: float = 0.0,
    ) -> None:
        """Place a rank in the grid.

        Args: group: the process group of all ranks, None for torch's default group. timeout_seconds: its limit, for
          messages.
        Raises: ConfigError if the ranks do not fill the grid.
        """
        if size % sequence_ranks:
            raise ConfigError(
                f"{size} ranks were started, expected a multiple of the {sequence_ranks} sequence ranks "
                "(parallel.sequence). Start as many with torchrun --nproc-per-node."
            )
        self.rank, self.size = rank, size
        self.sequence_ranks, self.data_ranks = sequence_ranks, size // sequence_ranks
        self.data_rank, self.sequence_rank = divmod(rank, sequence_ranks)
        self.group = group
        self.timeout_seconds = timeout_seconds

    @property
    def is_main(self) -> bool:
        """True in the rank that writes."""
        return self.rank == 0

    def agree(self, values: Sequence[float]) -> list[float]:
        """Return the largest of each value over the ranks; a rank without an opinion gives -inf or 0."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)  # on the CPU, where gloo carries it
        with self.watched():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return found.tolist()

    def sum(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sum scalars over the ranks, in one exchange. All ranks give the same names."""
        if self.size == 1:
            return dict(values)
        names = sorted(values)
        stacked = torch.stack([values[name].detach().double() for name in names])
        with self.watched():
            dist.all_reduce(stacked, group=self.group)
        return dict(zip(names, stacked.unbind(), strict=True))

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients of replicated parameters over the ranks, in buckets.

        A parameter that no rank used keeps no gradient, so that the optimizer passes over it as on one rank; where
        only some ranks used it, the others count as 0.
        """
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = self.agree([float(parameter.grad is not None) for parameter in trained])
        gradients = []
        for parameter, is_used in zip(trained, used, strict=True):
            if is_used:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        with self.watched():
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.flatten() for gradient in bucket])
                dist.all_reduce(flat, group=self.group)
                sizes = [gradient.numel() for gradient in bucket]
                for gradient, summed in zip(bucket, flat.split(sizes), strict=True):
                    gradient.copy_(summed.view_as(gradient))

    def copy_from_main(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of rank 0, in place."""
        if self.size == 1:
            return
        with self.watched(), torch.no_grad():
            for tensor in tensors:
                whole = tensor.contiguous()
                dist.broadcast(whole, 0, group=self.group)
                if whole is not tensor:
                    tensor.copy_(whole)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return this CPU tensor of every rank, in order; equal shapes."""
        if self.size == 1:
            return [tensor]
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        with self.watched():
            dist.all_gather(found, tensor, group=self.group)
        return found

    def on_main(self, do: Callable[[], T]) -> T:
        """Call `do` on rank 0; return its result on all ranks, or raise its error on all.

        The result is plain data. Errors of longlode keep their class; so no rank waits for one that has given up.
        """
        if self.size == 1:
            return do()
        message: Any = None
        failure: BaseException | None = None
        if self.is_main:
            try:
                message = ("done", do())
            except Exception as error:
                failure, message = error, ("failed", type(error).__name__, str(error))
        message = self.share(message)
        if failure is not None:
            raise failure
        if message[0] == "failed":
            raise getattr(errors, message[1], LonglodeError)(f"On rank 0: {message[2]}")
        return message[1]

    def share(self, value: Any, rank: int = 0) -> Any:
        """Return on all ranks the plain data, or tensors, that one rank gives; what others give counts for nothing."""
        if self.size == 1:
            return value
        message = [value]
        with self.watched():
            dist.broadcast_object_list(message, rank, group=self.group)
        return message[0]

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn an exchange that fails, or does not end in time, into a RankError."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_exchange(error):
                raise
            reason = str(error).strip().split("\n")[0]
            raise RankError(
                f"Rank {self.rank} got no answer from another of the {self.size} ranks within "
                f"{self.timeout_seconds:g} seconds, or that rank has ended ({reason[:200]}). Its own output says why. "
                "Nothing of the step in progress was saved; start all ranks again with --resume."
            ) from error


ALONE = World()
"""The world of one process: nothing is exchanged."""


@contextlib.contextmanager
def joined(timeout_seconds: float = 1800.0, sequence_ranks: int = 1) -> Iterator[World]:
    """Join the ranks that torchrun has started; `ALONE` where it has not.

    A process group that exists is used with its own time limit. One made here stays until the process ends, for later
    runs, and is closed by an error, so that the other ranks learn of it at once. Tensors on a CUDA device are exchanged
    by NCCL, all others by gloo.
    Raises: RankError if the others do not come; BackendError without torch.distributed.
    """
    if dist.is_available() and dist.is_initialized():
        yield World(
            dist.get_rank(),
            dist.get_world_size(),
            sequence_ranks=sequence_ranks,
            timeout_seconds=timeout_seconds,
        )
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or "RANK" not in os.environ:
        yield World(sequence_ranks=sequence_ranks) if sequence_ranks > 1 else ALONE
        return
    if not dist.is_available():
        raise BackendError(
            "torchrun started several ranks, but this torch has no torch.distributed; start one process."
        )
    rank = int(os.environ["RANK"])
    world = World(rank, size, sequence_ranks=sequence_ranks, timeout_seconds=timeout_seconds)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    with world.watched():
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    atexit.register(_leave)
    try:
        yield world
    except BaseException:
        _leave()
        raise


def device_of_rank(name: str) -> torch.device:
    """Return the device called `name`; under torchrun "auto" and "cuda" are the CUDA device of this rank.

    Raises: as `pick_device`.
    """
    local = os.environ.get("LOCAL_RANK")
    if name in ("auto", "cuda") and local is not None and torch.cuda.is_available():
        name = f"cuda:{int(local) % torch.cuda.device_count()}"
    return pick_device(name)


def _leave() -> None:
    if dist.is_initialized():
        with contextlib.suppress(RuntimeError):  # the others may have ended already
            dist.destroy_process_group()


def _is_of_exchange(error: RuntimeError) -> bool:
    """Return True if an error comes from the exchange between ranks: torch raises plain RuntimeErrors for gloo."""
    kinds = tuple(
        kind for name in ("DistError", "DistBackendError") if (kind := getattr(dist, name, None)) is not None
    )
    text = str(error).lower()
    return isinstance(error, kinds) or any(
        word in text for word in ("gloo", "nccl", "connection", "timed out")
    )


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Cut a list of gradients into buckets of one dtype and about 32 MiB."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(one.nbytes for one in bucket) + gradient.nbytes > _BUCKET_BYTES
        if bucket and (full or bucket[0].dtype != gradient.dtype or bucket[0].device != gradient.device):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
