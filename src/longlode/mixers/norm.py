"""Normalisations shared by mixers and the backbone."""

import torch
from torch import Tensor, nn

from longlode.ops.dtypes import at_least_float32
from longlode.ops.fused import rms_norm

__all__ = ["L2_EPS", "RMSNorm", "at_least_float32", "l2_norm"]

L2_EPS = 1e-6


def l2_norm(x: Tensor) -> Tensor:
    """Divide x by the root of its squared length plus eps, along the last dimension, in x's dtype.

    The eps is inside the root: a row of zeros (padding) then gives zeros and a finite gradient.
    """
    wide = at_least_float32(x)
    return (wide * torch.rsqrt(wide.square().sum(-1, keepdim=True) + L2_EPS)).to(x.dtype)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight along the last dimension (arXiv 1910.07467)."""

    def __init__(self, dim: int, eps: float) -> None:
        """Make a norm over `dim` numbers, with weights of 1."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Normalise x `[..., dim]`; the result has x's dtype, or the one given."""
        return rms_norm(x, self.weight, self.eps, dtype)

    def extra_repr(self) -> str:
        """Return the size and eps, for print(model)."""
        return f"{self.weight.shape[0]}, eps={self.eps}"
