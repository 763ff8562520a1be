"""Checks on `cu_seqlens`, the offsets of packed documents, shared by every op that takes them."""

import itertools

import torch

from longlode.core.errors import ConfigError


def document_offsets(cu_seqlens: torch.Tensor, num_rows: int, num_tokens: int) -> list[int]:
    """Check `cu_seqlens` and return it as a list `[0, end of document 0, ..., num_tokens]`.

    Args:
      cu_seqlens: integer `[N + 1]`, token offsets; document n is tokens `cu_seqlens[n]` to `cu_seqlens[n +
      1]`. num_rows: B of the packed tensors, which must be 1.
      num_tokens: T of the packed tensors.
    Raises: ConfigError on a wrong shape, dtype, range, order, or an empty document.
    On a CUDA tensor this waits for the device, once.
    """
    if num_rows != 1:
        raise ConfigError(
            f"cu_seqlens was given with B = {num_rows} rows; expected B = 1. Put all documents in one row."
        )
    if cu_seqlens.dim() != 1 or cu_seqlens.numel() < 2 or cu_seqlens.is_floating_point():
        raise ConfigError(
            f"cu_seqlens has shape {list(cu_seqlens.shape)} and dtype {cu_seqlens.dtype}; "
            "expected [N + 1] integers with N >= 1."
        )
    offsets: list[int] = cu_seqlens.tolist()
    if offsets[0] != 0 or offsets[-1] != num_tokens:
        raise ConfigError(
            f"cu_seqlens runs from {offsets[0]} to {offsets[-1]}; expected from 0 to T = {num_tokens}."
        )
    for document, (start, end) in enumerate(itertools.pairwise(offsets)):
        if end <= start:
            raise ConfigError(
                f"cu_seqlens makes document {document} empty or backward (tokens {start} to {end}); "
                "expected strictly increasing offsets. Drop empty documents before packing."
            )
    return offsets
