"""Loads, stores and decays of one chunk, shared by all kernels."""

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
"""True if Triton's interpreter runs the kernels of this process (TRITON_INTERPRET=1 when they were imported)."""


@triton.jit
def chunk_rows(
    start: tl.tensor, end: tl.tensor, h: tl.tensor, H: tl.tensor, C: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Locate the C tokens from `start` in `[tokens, H]`.

    Returns: the first row (64 bits), the others' distance from it (32 bits, the same for every chunk, so that a loop
    does not recompute it), and a mask of the tokens before `end`.
    """
    i = tl.arange(0, C)
    return start * H + h, i * H, i < (end - start).to(tl.int32)


@triton.jit
def tile_places(
    x: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    first: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Compute addresses of columns `first` to `first + BLOCK` of rows `row + rows` of `x` `[..., WIDTH]`."""
    return x + row * WIDTH + first + (rows[:, None] * WIDTH + tl.arange(0, BLOCK)[None, :])


@triton.jit
def load_tile(
    x: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    inside: tl.tensor,
    first: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Load the tile at `tile_places`; zero in rows outside and columns that do not exist."""
    mask = inside[:, None]
    if WIDTH % BLOCK != 0:
        mask = mask & (first + tl.arange(0, BLOCK) < WIDTH)[None, :]
    return tl.load(tile_places(x, row, rows, first, WIDTH, BLOCK), mask=mask, other=0.0)


@triton.jit
def store_tile(
    x: tl.tensor,
    value: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    inside: tl.tensor,
    first: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Store a tile, the inverse of `load_tile`; rounds to the dtype of `x`."""
    mask = inside[:, None]
    if WIDTH % BLOCK != 0:
        mask = mask & (first + tl.arange(0, BLOCK) < WIDTH)[None, :]
    low = rounded(value, x.dtype.element_ty)
    tl.store(tile_places(x, row, rows, first, WIDTH, BLOCK), low, mask=mask)


@triton.jit
def load_column(x: tl.tensor, row: tl.tensor, rows: tl.tensor, inside: tl.tensor) -> tl.tensor:
    """Load rows `row + rows` of `x` `[...]` as float32; zero outside."""
    return tl.load(x + row + rows, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def chunk_decays(
    g: tl.tensor, row: tl.tensor, rows: tl.tensor, inside: tl.tensor, GATED: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Compute G `[C]` (the running sum of the log-decays, float64), e^G and e^{G_C - G} `[C, 1]`, e^{G_C}.

    Without GATED these are unused zeros.

    The sums are float64 so that the difference of two neighbours keeps its digits after a decay of e^-1000; -inf is
    cut to -1e4, whose exponential is 0, so that no difference is inf - inf.
    """
    if GATED:
        x = tl.maximum(load_column(g, row, rows, inside), -1e4).to(tl.float64)
        G, G_C = tl.cumsum(x, axis=0), tl.sum(x, axis=0)
        from_start = tl.exp(G.to(tl.float32))[:, None]
        to_end = tl.exp((G_C - G).to(tl.float32))[:, None]
        through = tl.exp(G_C.to(tl.float32))
    else:
        G, from_start, to_end, through = 0.0, 0.0, 0.0, 0.0
    return G, from_start, to_end, through


@triton.jit
def chunk_of_document(
    owners: tl.tensor, documents: tl.tensor, chunk: tl.tensor, C: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Return the first token of a chunk and the end of its document; `documents` as in `ChunkTables`."""
    document = documents + 3 * tl.load(owners + chunk)
    start = tl.load(document) + (chunk - tl.load(document + 1)) * C
    return start, tl.load(document + 3)


@triton.jit
def pair_decay(G: tl.tensor) -> tl.tensor:
    """Compute e^{G_i - G_j} `[C, C]` for i >= j; 1 above the diagonal, to be masked, as it could overflow."""
    return tl.exp(tl.minimum(G[:, None] - G[None, :], 0.0).to(tl.float32))


@triton.jit
def pair_decay_transposed(G: tl.tensor) -> tl.tensor:
    """Compute e^{G_j - G_i} `[C, C]` for i <= j, the transpose of `pair_decay`."""
    return tl.exp(tl.minimum(G[None, :] - G[:, None], 0.0).to(tl.float32))


@triton.jit
def product(a: tl.tensor, b: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """Multiply matrices in float32; PRECISION is Triton's name for the treatment of float32 operands.

    The interpreter's `dot` multiplies the bits of bfloat16 as integers; there the operands are converted to float32
    first, which changes no product.
    """
    if INTERPRETED:
        result = tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:
        result = tl.dot(a, b, input_precision=PRECISION)
    return result


@triton.jit
def rounded(x: tl.tensor, dtype: tl.constexpr) -> tl.tensor:
    """Convert float32 x to `dtype` (float32 or bfloat16), rounded to nearest, ties to even.

    The interpreter's cast to bfloat16 truncates the low bits, an error of one sign that accumulates; there x is rounded
    first, on its bits as integers.
    """
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)
