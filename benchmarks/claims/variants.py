"""DeltaNet without its short convolutions, and with the published feature maps that it is compared with.

For training from scratch only: whole rows, no padding, no state to go on from.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import MixerOutput, State, setting
from longlode.mixers.context import SequenceContext
from longlode.mixers.delta_net import DeltaNet, DeltaNetConfig
from longlode.mixers.norm import l2_norm
from longlode.ops.delta_rule import delta_rule


@dataclass(frozen=True, kw_only=True)
class VariantConfig(DeltaNetConfig):
    """DeltaNet with parts of it replaced."""

    name = "delta_net_variant"

    convolve: bool = setting("Put short convolutions in front.", True)
    sum_of_elu: bool = setting(
        "Queries and keys are 1 + ELU, divided by its sum, instead of SiLU, divided by its Euclidean norm.",
        False,
    )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "DeltaNetVariant":
        """See `MixerConfig.build`."""
        return DeltaNetVariant(self, hidden_size)


class DeltaNetVariant(DeltaNet):
    """DeltaNet by the variant's config."""

    config: VariantConfig

    def __init__(self, config: VariantConfig, hidden_size: int) -> None:
        """As DeltaNet; no convolutions where the config has none."""
        super().__init__(config, hidden_size)
        if not config.convolve:
            del self.q_conv1d, self.k_conv1d, self.v_conv1d

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """Map x `[B, T, D]`; the state that comes back is empty."""
        heads = self.config.num_heads
        q, k, v = (self._before(x, part) for part in "qkv")
        q, k = (self._features(part.unflatten(-1, (heads, -1))) for part in (q, k))
        beta, _ = self._strength_and_decay(x, None)
        o, _ = delta_rule(q, k, functional.silu(v).unflatten(-1, (heads, -1)), beta)
        return MixerOutput(self.o_proj(self.o_norm(o).flatten(-2)), {})

    def _before(self, x: Tensor, part: str) -> Tensor:
        """Project x to the queries, keys or values, and convolve them over the last tokens."""
        projection: nn.Linear = getattr(self, f"{part}_proj")
        y: Tensor = projection(x)
        if not self.config.convolve:
            return y
        weight = getattr(self, f"{part}_conv1d").weight
        padded = functional.pad(y.mT, (weight.shape[-1] - 1, 0))
        return functional.conv1d(padded, weight, groups=y.shape[-1]).mT

    def _features(self, y: Tensor) -> Tensor:
        if not self.config.sum_of_elu:
            return l2_norm(functional.silu(y))
        positive = 1 + functional.elu(y)
        return positive / positive.sum(-1, keepdim=True)


@dataclass(frozen=True, kw_only=True)
class WithoutConvolution(VariantConfig):
    """No short convolutions."""

    name = "delta_net_without_convolution"
    convolve: bool = setting("Put short convolutions in front.", False)


@dataclass(frozen=True, kw_only=True)
class SumOfElu(VariantConfig):
    """1 + ELU, divided by its sum."""

    name = "delta_net_sum_of_elu"
    sum_of_elu: bool = setting("Queries and keys are 1 + ELU, divided by its sum.", True)


WITHOUT_CONVOLUTION = f"{__name__}:WithoutConvolution"
SUM_OF_ELU = f"{__name__}:SumOfElu"
"""Addresses, as a list of layers takes them."""
