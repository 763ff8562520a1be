"""Inverse of the unit lower triangular matrices I + A of the chunks: exact substitution, in blocks."""

import torch

BASE_BLOCK = 8


def unit_lower_inverse(A: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Fill `out` with the inverse of `I + A` for strictly lower triangular `A` `[X, C, C]`, C a power of two.

    Diagonal blocks of 8 are inverted by forward substitution, vectorised over all of them; pairs of blocks
    are then merged by [[L1, 0], [B, L2]]^-1 = [[T1, 0], [-T2 B T1, T2]] until one is left. No step forms a
    power of A, so no intermediate number is larger than those of the result: with equal keys the powers reach 3^C
    and cancel, and a method that sums them (nilpotent doubling) loses all digits.
    Reads the strictly lower triangle only. Cost: about C^3 / 3 multiply-adds per matrix.
    """
    X, C, _ = A.shape
    block = min(BASE_BLOCK, C)
    T = out.zero_()
    _diagonal_blocks(T, block).copy_(_substitute(_diagonal_blocks(A, block)))
    while block < C:
        pairs, solved = _diagonal_blocks(A, 2 * block), _diagonal_blocks(T, 2 * block)
        B = pairs[:, :, block:, :block].reshape(-1, block, block)
        T1 = solved[:, :, :block, :block].reshape(-1, block, block)
        T2 = solved[:, :, block:, block:].reshape(-1, block, block)
        merged = torch.bmm(torch.bmm(T2, B), T1).neg_()
        solved[:, :, block:, :block].copy_(merged.view(X, -1, block, block))
        block *= 2
    return T


def _diagonal_blocks(matrices: torch.Tensor, block: int) -> torch.Tensor:
    """Return a view of the diagonal blocks of `[X, C, C]`, as `[X, C / block, block, block]`."""
    tiles = matrices.unflatten(2, (-1, block)).unflatten(1, (-1, block))
    return tiles.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def _substitute(blocks: torch.Tensor) -> torch.Tensor:
    """Invert I + the strictly lower part of each `[X, Y, b, b]` block, by forward substitution."""
    X, Y, b, _ = blocks.shape
    # The blocks become the last dimension in memory, so that each step is one long vector operation over all of them.
    A = blocks.permute(2, 3, 0, 1).reshape(b, b, X * Y)
    T = torch.eye(b, dtype=A.dtype, device=A.device)[:, :, None].repeat(1, 1, X * Y)
    for j in range(b - 1):
        T[j + 1 :, : j + 1].addcmul_(A[j + 1 :, j : j + 1], T[j : j + 1, : j + 1], value=-1)
    return T.view(b, b, X, Y).permute(2, 3, 0, 1)
