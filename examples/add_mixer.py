"""Add a token mixer with a parameter of its own, and train it for a few steps.

The mixer is an exponential moving average per channel with a learnt pace: h_t = a h_{t-1} + (1 - a) x_t. It is written
as a loop over tokens, which is all that the interface asks; a fast one would compute chunks of tokens at a time.
"""

from dataclasses import dataclass

import torch
from torch import nn

from longlode.mixers import MIXERS
from longlode.mixers.base import (
    Mixer,
    MixerConfig,
    MixerOutput,
    MixerTraits,
    State,
    empty_state,
    setting,
    zero_padding,
)
from longlode.mixers.context import SequenceContext
from longlode.models import LonglodeConfig, LonglodeForCausalLM


@MIXERS.register
@dataclass(frozen=True, kw_only=True)
class MovingAverageConfig(MixerConfig):
    """Settings of the moving average."""

    name = "moving_average"
    kept: float = setting("Share of the past kept per token before training.", 0.9, least=0.0)

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> "MovingAverage":
        """Build the module for a residual stream of `hidden_size`."""
        return MovingAverage(self, hidden_size)


class MovingAverage(Mixer):
    """h_t = a h_{t-1} + (1 - a) W x_t, a in (0, 1) learnt per channel."""

    traits = MixerTraits(packs=False, twice_differentiable=True)  # one document per row

    def __init__(self, config: MovingAverageConfig, hidden_size: int) -> None:
        """Build the parameters."""
        super().__init__()
        self.config, self.hidden_size = config, hidden_size
        self.in_proj = nn.Linear(hidden_size, hidden_size, bias=False)
        self.pace = nn.Parameter(torch.empty(hidden_size))

    def initial_values(self) -> dict[str, torch.Tensor]:
        """First values of `pace`, the logit of a."""
        return {"pace": torch.full((self.hidden_size,), self.config.kept).logit()}

    def forward(
        self, x: torch.Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """Mix x `[B, T, D]`, going on from `state`."""
        mask = None if context is None else context.mask
        values, a = self.in_proj(zero_padding(x, mask)), self.pace.sigmoid()
        h = state["memory"] if state else torch.zeros_like(values[:, 0])
        outputs = []
        for t in range(x.shape[1]):
            renewed = a * h + (1 - a) * values[:, t]
            h = (
                renewed if mask is None else torch.where(mask[:, t, None], renewed, h)
            )  # padding changes nothing
            outputs.append(h)
        return MixerOutput(torch.stack(outputs, dim=1), {"memory": h})

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Describe the state of one row."""
        return empty_state(dtype, memory=(1, self.hidden_size))

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """Count two multiply-adds per channel."""
        return 4.0 * self.hidden_size


config = LonglodeConfig(layers=["moving_average", "delta_net"], hidden_size=64, num_heads=2, vocab_size=64)
torch.manual_seed(0)
model = LonglodeForCausalLM(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
tokens = torch.randint(64, (4, 16)).repeat(1, 4)  # each row says the same 16 tokens four times
for step in range(30):
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step % 10 == 0 or step == 29:
        print(f"step {step:2}   loss {loss.item():.3f} nats per token")
print(f"{config.num_params:,} parameters")
print(f"state of one row after a million tokens: {config.state_bytes(1_000_000):,} bytes")

# Saved models name the provider of their mixers; this one lives in the script, so only this script can load it.
model.eval()
print("continues:", model.generate(tokens[:1, :20], max_new_tokens=4, do_sample=False)[0, -4:].tolist())
