"""Packed documents: their `Offsets`, read from the device once for all ops."""

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

import torch

from longlode.core.errors import ConfigError

_ON_HOST = "longlode_on_host"
"""Attribute of a tensor made by `Offsets.send`: its numbers, and the version of the tensor that has them."""

P = ParamSpec("P")
R = TypeVar("R")


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the host to a device without waiting for it; on the CPU, return it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True)
class Offsets:
    """Token offsets of N documents packed in one row, on the host and on a device.

    Every op accepts one as `cu_seqlens`. A plain tensor is accepted too, but is then copied to the host by each op, and
    on CUDA each copy waits for the device: make one `Offsets` per forward pass with `Offsets.read`.

    host: `(0, end of document 0, ..., number of tokens)`.
    tensor: integers `[N + 1]`, the same numbers; two `Offsets` are equal when `host` is.
    """

    host: tuple[int, ...]
    tensor: torch.Tensor = field(compare=False, repr=False)

    @classmethod
    def read(cls, cu_seqlens: "torch.Tensor | Offsets") -> "Offsets":
        """Check `cu_seqlens`, integers `[N + 1]`, and copy it to the host; `Offsets` are returned as they are.

        Raises: ConfigError on a wrong shape, dtype, start, order, or an empty document.
        """
        if isinstance(cu_seqlens, Offsets):
            return cu_seqlens
        known, version = getattr(cu_seqlens, _ON_HOST, (None, None))
        if known is not None and version == cu_seqlens._version:
            return cls(known, cu_seqlens)
        if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 2 or cu_seqlens.is_floating_point():
            raise ConfigError(
                f"cu_seqlens has shape {list(cu_seqlens.shape)} and dtype {cu_seqlens.dtype}; "
                "expected [N + 1] integers with N >= 1."
            )
        host = tuple(cu_seqlens.tolist())
        cls._check(host)
        return cls(host, cu_seqlens)

    @classmethod
    def send(cls, host: Sequence[int], device: torch.device) -> torch.Tensor:
        """Copy offsets to a device, int32 `[N + 1]`, as a tensor from which `read` takes them without waiting for it.

        A changed or copied tensor is read anew. Raises: ConfigError as `read`.
        """
        numbers = tuple(int(offset) for offset in host)
        cls._check(numbers)
        tensor = send(torch.tensor(numbers, dtype=torch.int32), device)
        setattr(tensor, _ON_HOST, (numbers, tensor._version))
        return tensor

    @staticmethod
    def _check(host: tuple[int, ...]) -> None:
        if host[0] != 0:
            raise ConfigError(f"cu_seqlens runs from {host[0]} to {host[-1]}; expected it to start at 0.")
        for document, (start, end) in enumerate(itertools.pairwise(host)):
            if end <= start:
                raise ConfigError(
                    f"cu_seqlens makes document {document} empty or backward (tokens {start} to {end}); "
                    "expected strictly increasing offsets. Drop empty documents before packing."
                )

    @property
    def num_documents(self) -> int:
        """N, number of documents."""
        return len(self.host) - 1

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all documents together."""
        return self.host[-1]


def document_offsets(
    cu_seqlens: torch.Tensor | Offsets | None, num_rows: int, num_tokens: int
) -> tuple[int, ...] | None:
    """Check `cu_seqlens` against B = `num_rows` and T = `num_tokens` of packed tensors; return its offsets or None.

    Raises: ConfigError as `Offsets.read`, on more than one row, and on offsets that do not end at T.
    """
    if cu_seqlens is None:
        return None
    if num_rows != 1:
        raise ConfigError(
            f"cu_seqlens was given with B = {num_rows} rows; expected B = 1. Put all documents in one row."
        )
    offsets = Offsets.read(cu_seqlens)
    if offsets.num_tokens != num_tokens:
        raise ConfigError(
            f"cu_seqlens runs from 0 to {offsets.num_tokens}; expected from 0 to T = {num_tokens}."
        )
    return offsets.host


def kept(make: Callable[P, R]) -> Callable[P, R]:
    """Cache the last 64 results of `make`, whose tensors depend only on its (hashable) arguments.

    The tensors are made outside inference mode, since autograd cannot save inference tensors. Tracers get uncached
    tensors, which end with the trace, and compilers, which cannot trace a cache, call `make` itself.
    """

    @functools.lru_cache(maxsize=64)
    def remembered(*args: P.args, **kwargs: P.kwargs) -> R:
        with torch._C.DisableTorchFunction(), torch.inference_mode(False):
            return make(*args, **kwargs)

    @functools.wraps(make)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
            return make(*args, **kwargs)
        return remembered(*args, **kwargs)  # type: ignore[arg-type]

    return answer
