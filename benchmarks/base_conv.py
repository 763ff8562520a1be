"""The layer that Zoology puts in front of every mixer it compares, for training from scratch only."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import Mixer, MixerConfig, MixerOutput, State, setting
from longlode.mixers.context import SequenceContext

BASE_CONV = f"{__name__}:BaseConvConfig"
"""Address, as a list of layers takes it."""


@dataclass(frozen=True, kw_only=True)
class BaseConvConfig(MixerConfig):
    """A convolution over a few tokens, multiplied by a projection (Zoology, arXiv 2312.04927)."""

    name = "base_conv"

    kernel_size: int = setting("Tokens that the convolution sees.", 4, least=2)

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "BaseConv":
        """See `MixerConfig.build`."""
        return BaseConv(self, hidden_size)


class BaseConv(Mixer):
    """y_t = (sum over i of w_i x_{t-i}) * Linear(x_t), channel by channel; whole rows, no state to go on from."""

    def __init__(self, config: BaseConvConfig, hidden_size: int) -> None:
        """Make a filter per channel and the projection."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(hidden_size, 1, config.kernel_size))
        self.proj = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """Map x `[B, T, D]`; the state that comes back is empty."""
        padded = functional.pad(x.mT, (self.weight.shape[-1] - 1, 0))
        return MixerOutput(functional.conv1d(padded, self.weight, groups=x.shape[-1]).mT * self.proj(x), {})

    def initial_values(self) -> dict[str, Tensor]:
        """Filters that keep the size of what they see; a projection so small that tokens still stand out beside it."""
        bound: float = self.weight.shape[-1] ** -0.5
        filters = torch.empty_like(self.weight).uniform_(-bound, bound)
        return {"weight": filters, "proj.weight": 0.02 * torch.randn_like(self.proj.weight)}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`."""
        return 2 * self.weight.numel()

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`."""
        return {}
