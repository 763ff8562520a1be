"""The short convolution in front of recurrent mixers, as a module."""

import torch
from torch import Tensor, nn

from longlode.ops.short_conv import short_conv, short_conv_step


class ShortConv(nn.Module):
    """Depthwise causal convolution over the last W tokens, then SiLU; weight `[D, 1, W]`, as in fla."""

    def __init__(self, dim: int, conv_size: int) -> None:
        """Filters of `conv_size` taps for `dim` channels."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, 1, conv_size))

    def forward(
        self, x: Tensor, state: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """x `[B, T, D]` -> (y `[B, T, D]`, the last W - 1 inputs of each document `[N, D, W - 1]`)."""
        weight = self.weight[:, 0].to(x.dtype)
        if x.shape[1] == 1 and state is not None and cu_seqlens is None:
            y_t, state = short_conv_step(x[:, 0], weight, state=state)
            return y_t[:, None], state
        return short_conv(x, weight, state=state, cu_seqlens=cu_seqlens)
