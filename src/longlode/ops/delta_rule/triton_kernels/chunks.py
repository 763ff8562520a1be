"""T = (I + A)^-1 of every chunk: all chunks and heads at once, before any state is known."""

import triton
import triton.language as tl

from longlode.ops.delta_rule.triton_kernels.inverse import unit_lower_inverse
from longlode.ops.delta_rule.triton_kernels.tiles import (
    chunk_decays,
    chunk_of_document,
    chunk_rows,
    load_column,
    load_tile,
    pair_decay,
    product,
    rounded,
)


@triton.jit(do_not_specialize=["H"])
def inverses_kernel(
    k: tl.tensor,
    beta: tl.tensor,
    g: tl.tensor,
    inverses: tl.tensor,
    documents: tl.tensor,
    owners: tl.tensor,
    H: tl.tensor,
    K: tl.constexpr,
    BK: tl.constexpr,
    C: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Program (chunk, head): write T `[C, C]`; in bfloat16 as two parts, high and low (see `times_inverse`)."""
    chunk, h = tl.program_id(0), tl.program_id(1)
    dtype = inverses.dtype.element_ty
    start, end = chunk_of_document(owners, documents, chunk, C)
    row, rows, inside = chunk_rows(start, end, h, H, C)
    keys = load_tile(k, row, rows, inside, 0, K, BK)
    A = product(keys, tl.trans(keys), PRECISION) * load_column(beta, row, rows, inside)[:, None]
    if GATED:
        G, _, _, _ = chunk_decays(g, row, rows, inside, GATED)
        A *= pair_decay(G)
    i = tl.arange(0, C)
    T = unit_lower_inverse(tl.where(i[:, None] > i[None, :], A, 0.0), C)
    square = i[:, None] * C + i[None, :]
    parts: tl.constexpr = 2 if dtype == tl.bfloat16 else 1
    place = inverses + (chunk.to(tl.int64) * H + h) * (parts * C * C) + square
    high = rounded(T, dtype)
    tl.store(place, high)
    if parts == 2:
        tl.store(place + C * C, rounded(T - high.to(tl.float32), dtype))
