"""The short convolution in front of recurrent mixers, as a module."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from longlode.mixers.norm import L2_EPS
from longlode.ops.short_conv import short_conv, short_conv_step

if TYPE_CHECKING:
    from longlode.mixers.context import SequenceContext


class ShortConv(nn.Module):
    """Depthwise causal convolution over the last W tokens, then SiLU; weight `[D, 1, W]`, as in fla.

    With `unit_norm` each head of so many channels is then divided by its length, as by `mixers.norm.l2_norm`.
    """

    def __init__(self, dim: int, conv_size: int, unit_norm: int | None = None) -> None:
        """Make filters of `conv_size` taps for `dim` channels, in heads of `unit_norm` channels of unit length."""
        super().__init__()
        self.unit_norm = unit_norm
        self.weight = nn.Parameter(torch.empty(dim, 1, conv_size))

    def uniform_values(self) -> Tensor:
        """Draw a weight that keeps the size of its input, uniform in +-1/sqrt(W), for a `Mixer.initial_values`.

        Models of delta rules draw it from N(0, initializer_range) instead, as fla does: their keys and queries are
        normalised, and so is what is read. Elsewhere outputs so small would not outgrow the epsilon of the norms.
        """
        bound: float = self.weight.shape[-1] ** -0.5
        return torch.empty_like(self.weight).uniform_(-bound, bound)

    def forward(
        self, x: Tensor, state: Tensor | None = None, context: "SequenceContext | None" = None
    ) -> tuple[Tensor, Tensor]:
        """Map x `[B, T, D]` to (y `[B, T, D]`, the last W - 1 inputs of each document `[N, D, W - 1]`).

        Where `context` has a mask, x must be 0 at padding; the last inputs are then the last real ones.
        """
        weight = self.weight[:, 0].to(x.dtype)
        norm: dict[str, Any] = {"unit_norm": self.unit_norm, "eps": L2_EPS}
        cu_seqlens, mask = (None, None) if context is None else (context.documents, context.mask)
        if context is not None:
            state = context.shard.halo(x, self.weight.shape[-1] - 1, state)
        if x.shape[1] == 1 and state is not None and cu_seqlens is None:
            y_t, after = short_conv_step(x[:, 0], weight, state=state, **norm)
            y = y_t[:, None]
        else:
            y, after = short_conv(x, weight, state=state, cu_seqlens=cu_seqlens, **norm)
        return y, after if mask is None else _last_real_inputs(x, state, mask, after)


def _last_real_inputs(x: Tensor, state: Tensor | None, mask: Tensor, after: Tensor) -> Tensor:
    """Compute `after` as if each row ended with its last real token."""
    before = torch.zeros_like(after) if state is None else state
    inputs = torch.cat((before, x.mT.to(before.dtype)), dim=2)
    places = torch.arange(1, x.shape[1] + 1, device=x.device)
    end = (mask * places).amax(1)
    index = end[:, None] + torch.arange(after.shape[2], device=x.device)
    return inputs.gather(2, index[:, None].expand_as(after))
