"""Inverse of a unit lower triangular matrix inside one program: exact substitution, in blocks.

The same method as `ops/chunking/triangular.py`, for the same reason: no step forms a power of A, so no intermediate
is larger than the result, also for equal keys and beta = 2. All products are plain float32 ("ieee").
"""

import triton
import triton.language as tl


@triton.jit
def unit_lower_inverse(A: tl.tensor, C: tl.constexpr) -> tl.tensor:
    """Compute (I + A)^-1 of strictly lower triangular A `[C, C]` float32, C = 16, 32, 64 or 128."""
    T = substitute(block_diagonal(A, C, 16, 0), C // 16)
    if C >= 32:
        T = merge(T, A, C, 16)
    if C >= 64:
        T = merge(T, A, C, 32)
    if C >= 128:
        T = merge(T, A, C, 64)
    return tl.reshape(T, (C, C))


@triton.jit
def block_diagonal(A: tl.tensor, C: tl.constexpr, b: tl.constexpr, SHIFT: tl.constexpr) -> tl.tensor:
    """Take, of each row of b x b blocks of A, the block SHIFT left of the diagonal (or zeros): `[C / b, b, b]`."""
    blocks = tl.reshape(A, (C // b, b, C // b, b))
    row = tl.arange(0, C // b)[:, None, None, None]
    column = tl.arange(0, C // b)[None, None, :, None]
    return tl.sum(tl.where(column == row - SHIFT, blocks, 0.0), axis=2)


@triton.jit
def substitute(A: tl.tensor, n: tl.constexpr) -> tl.tensor:
    """Invert I + A for A `[n, 16, 16]`, by forward substitution, one column of A at a time."""
    row = tl.arange(0, 16)[None, :, None]
    column = tl.arange(0, 16)[None, None, :]
    T = tl.where(row == column, 1.0, tl.zeros((n, 16, 16), dtype=tl.float32))
    for j in range(15):
        A_j = tl.sum(tl.where(column == j, A, 0.0), axis=2)
        T_j = tl.sum(tl.where(row == j, T, 0.0), axis=1)
        T -= A_j[:, :, None] * T_j[:, None, :]
    return T


@triton.jit
def merge(T: tl.tensor, A: tl.tensor, C: tl.constexpr, b: tl.constexpr) -> tl.tensor:
    """Merge inverses `[C / b, b, b]` of the diagonal blocks to those of blocks of twice the size.

    [[L1, 0], [B, L2]]^-1 = [[T1, 0], [-T2 B T1, T2]].
    """
    n: tl.constexpr = C // b // 2
    T1, T2 = evens_and_odds(T, n, b)
    _, B = evens_and_odds(block_diagonal(A, C, b, 1), n, b)
    if n == 1:
        below = tl.dot(tl.reshape(T2, (b, b)), tl.reshape(B, (b, b)), input_precision="ieee")
        below = tl.dot(below, tl.reshape(T1, (b, b)), input_precision="ieee")
        below = tl.reshape(below, (1, b, b))
    else:
        below = tl.dot(tl.dot(T2, B, input_precision="ieee"), T1, input_precision="ieee")
    top = side_by_side(T1, tl.zeros((n, b, b), dtype=tl.float32), n, b)
    bottom = side_by_side(-below, T2, n, b)
    both = tl.permute(tl.join(top, bottom), (0, 3, 1, 2))
    return tl.reshape(both, (n, 2 * b, 2 * b))


@triton.jit
def evens_and_odds(x: tl.tensor, n: tl.constexpr, b: tl.constexpr) -> tuple[tl.tensor, ...]:
    """Split x `[2n, b, b]` into blocks 0, 2, 4, ... and 1, 3, 5, ..."""
    return tl.split(tl.permute(tl.reshape(x, (n, 2, b, b)), (0, 2, 3, 1)))


@triton.jit
def side_by_side(left: tl.tensor, right: tl.tensor, n: tl.constexpr, b: tl.constexpr) -> tl.tensor:
    """Join blocks `[n, b, b]` to `[left, right]`, `[n, b, 2b]`."""
    return tl.reshape(tl.permute(tl.join(left, right), (0, 1, 3, 2)), (n, b, 2 * b))
