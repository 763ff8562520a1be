"""Blocks of the backbone: a mixer, usually a SwiGLU, norms and residuals; and their side outputs."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from longlode.mixers import Mixer, MixerOutput, RMSNorm, SequenceContext
from longlode.models.cache import LayerMemory, LonglodeCache
from longlode.models.config import LonglodeConfig
from longlode.models.layers import LayerConfig
from longlode.ops.dtypes import dtype_of_products
from longlode.ops.fused import swiglu


class SwiGLU(nn.Module):
    """SwiGLU layer: down(silu(gate(x)) * up(x)) (arXiv 2002.05202)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        """Make three matrices without biases."""
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x `[..., D]` to `[..., D]`."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


class LonglodeBlock(GradientCheckpointingLayer):
    """A mixer and a SwiGLU, each after an RMSNorm and with a residual; or another `LayerConfig.block`."""

    def __init__(self, config: LonglodeConfig, layer: LayerConfig, layer_idx: int) -> None:
        """Make block `layer_idx` of the stack."""
        super().__init__()
        self.layer_idx = layer_idx
        self.kind = layer.block
        self.attn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attn: Mixer = layer.mixer.build(config.hidden_size, layer_idx, len(config.layer_types or ()))
        if self.kind == "mixer_mlp":
            self.mlp_norm = RMSNorm(config.hidden_size, config.norm_eps)
        if self.kind != "mixer":
            self.mlp = SwiGLU(config.hidden_size, config.intermediate_size)  # type: ignore[arg-type]
        self.side_names: tuple[str, ...] = ()
        """Names of the tensors that the last call returned after the residual stream, see `SideOutputs`."""

    def forward(
        self, hidden_states: Tensor, context: SequenceContext, cache: LonglodeCache | None = None
    ) -> Tensor | tuple[Tensor, ...]:
        """Update the residual stream `[B, T, D]`, and this layer's state in the cache.

        Returns: the stream, followed by the mixer's side outputs, if any, in one flat tuple, because gradient
          checkpointing passes gradients through nothing else.
        """
        memory = cache.layers[self.layer_idx] if cache is not None else LayerMemory()
        # Linear layers round what they multiply, each of them, and its gradient. Where only they read, it is done once.
        narrow = dtype_of_products(hidden_states)
        normed = self.attn_norm(hidden_states, narrow if self.attn.traits.narrow_input else None)
        mixed: MixerOutput = self.attn(normed, memory.state, context)
        memory.state = mixed.state
        hidden_states = _sum(hidden_states, mixed.y)
        if self.kind == "mixer_mlp":
            hidden_states = _sum(hidden_states, self.mlp(self.mlp_norm(hidden_states, narrow)))
        elif self.kind == "parallel":
            hidden_states = _sum(hidden_states, self.mlp(normed))
        sides = {f"aux_losses.{name}": value for name, value in mixed.aux_losses.items()}
        sides |= {f"metrics.{name}": value for name, value in mixed.metrics.items()}
        if mixed.weights is not None:
            sides["weights"] = mixed.weights
        self.side_names = tuple(sides)
        return (hidden_states, *sides.values()) if sides else hidden_states


def _sum(stream: Tensor, y: Tensor) -> Tensor:
    """Add y to the stream: cast first, since a sum of two dtypes takes torch twice as long, and into the cast."""
    wide = y.to(torch.promote_types(stream.dtype, y.dtype))
    return stream + wide if wide is y else wide.add_(stream)


class SideOutputs:
    """Side outputs of the mixers in one forward pass: auxiliary losses, metrics, attention weights."""

    def __init__(self) -> None:
        """Make an empty collection."""
        self.aux_losses: list[Tensor] = []
        self.metrics: dict[str, Tensor] = {}
        self.weights: list[Tensor | None] = []

    def take(self, block: LonglodeBlock, output: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Store the side outputs of `block`; return the stream."""
        stream, *sides = output if isinstance(output, tuple) else (output,)
        self.weights.append(None)
        for name, value in zip(block.side_names, sides, strict=True):
            kind, _, own_name = name.partition(".")
            if kind == "aux_losses":
                self.aux_losses.append(value)
                self.metrics[f"layer_{block.layer_idx}.{own_name}"] = value.detach()
            elif kind == "metrics":
                self.metrics[f"layer_{block.layer_idx}.{own_name}"] = value.detach()
            else:
                self.weights[-1] = value
        return stream

    @property
    def aux_loss(self) -> Tensor | None:
        """Sum of all auxiliary losses; None when there are none."""
        return torch.stack(self.aux_losses).sum() if self.aux_losses else None
