"""S4D, the diagonal state space model (arXiv 2206.11893): a recurrence that is also a convolution over the whole text.

    A = -exp(log_rate) + i frequency;   a = exp(dt A);   b = (a - 1) / A        N / 2 complex numbers per channel
    s_t = a s_{t-1} + b x_t;   u_t = 2 Re(c . s_t) + skip x_t;   y = GLU(Linear(GELU(u)))

One half of each conjugate pair is kept, hence 2 Re. Over C tokens the recurrence is a convolution with the kernel
2 Re(c a^t b), done by FFT, plus the decayed state before them; so memory does not grow with the text.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from longlode.mixers.base import (
    Mixer,
    MixerConfig,
    MixerOutput,
    MixerTraits,
    ParameterRule,
    State,
    empty_state,
    setting,
    zero_padding,
)
from longlode.mixers.context import SequenceContext
from longlode.mixers.norm import at_least_float32
from longlode.mixers.segment_map import SegmentMap

CHUNK = 128
"""Tokens of one FFT."""
_STEPS = (1e-3, 1e-1)
# S4 trains the state matrix and its step more slowly than the rest, and never decays them.
SLOW = ParameterRule(decays=False, lr_scale=0.1)
"""Treatment of a state matrix by the optimizer."""


@dataclass(frozen=True, kw_only=True)
class S4DConfig(MixerConfig):
    """The diagonal state space model (arXiv 2206.11893)."""

    name = "s4d"

    state_size: int = setting(
        "N, real numbers of state per channel; half as many complex ones are kept.", 64, least=2
    )

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return S4D(self, hidden_size)


class S4D(Mixer):
    """The mixer described at the top of this file; its channels are those of the residual stream."""

    traits = MixerTraits(shards="map", twice_differentiable=True)
    float32_parameters: ClassVar[tuple[str, ...]] = ("log_rate", "frequency", "log_step", "output_weights")
    kept_parameters = ("skip",)

    def __init__(self, config: S4DConfig, hidden_size: int) -> None:
        """A diagonal state matrix, a step and output weights per channel; a linear layer with a gate."""
        super().__init__()
        self.config = config
        self.num_modes = config.state_size // 2
        wide = torch.promote_types(torch.get_default_dtype(), torch.float32)
        shape = (hidden_size, self.num_modes)
        self.log_rate = nn.Parameter(torch.empty(shape, dtype=wide))
        self.frequency = nn.Parameter(torch.empty(shape, dtype=wide))
        self.log_step = nn.Parameter(torch.empty(hidden_size, dtype=wide))
        self.output_weights = nn.Parameter(torch.empty(*shape, 2, dtype=wide))
        self.skip = nn.Parameter(torch.empty(hidden_size))
        self.o_proj = nn.Linear(hidden_size, 2 * hidden_size)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`. State: memory, complex `[N, D, modes, 1]`."""
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None:
            # A kernel reaches across document boundaries, so each document gets a separate row.
            output = self(context.unpack(x), state, context.rows)
            return output._replace(y=context.repack(output.y))
        x = zero_padding(x, context.mask)
        get_memory = context.shard.begin_fold(lambda: self._map(x, context), (state or {}).get("memory"))
        with torch.autocast(x.device.type, enabled=False):
            chunks, dynamics = _chunks(x), self._dynamics(min(CHUNK, x.shape[1]))
            inside = _inside(chunks, dynamics)
            before, memory = self._advance(chunks, dynamics, get_memory(), context)
            skip = self.skip.to(chunks[0].dtype)[:, None]
            parts = [one + other + skip * x_c for one, other, x_c in zip(inside, before, chunks, strict=True)]
            u = torch.cat(parts, dim=2).mT.to(x.dtype)
        y = functional.glu(self.o_proj(functional.gelu(u)), dim=-1)
        return MixerOutput(y, {"memory": memory})

    def segment_map(self, x: Tensor, context: SequenceContext | None = None) -> SegmentMap:
        """See `Mixer.segment_map`: the state decays by a^T, mode by mode."""
        context = context or SequenceContext.of(x)
        if context.cu_seqlens is not None:
            return self.segment_map(context.unpack(x), context.rows)
        return self._map(zero_padding(x, context.mask), context)

    def _map(self, x: Tensor, context: SequenceContext) -> SegmentMap:
        log_a = self._log_a()
        log_decay = real_lengths(context)[:, None, None].to(log_a.real.dtype) * log_a
        return SegmentMap(self._added(x, context), log_decay=log_decay)

    def _log_a(self) -> Tensor:
        """Compute dt A, complex `[D, modes]`."""
        return self.log_step.exp()[:, None] * torch.complex(-self.log_rate.exp(), self.frequency)

    def _dynamics(self, size: int) -> "Dynamics":
        """Compute the dynamics over at most `size` tokens."""
        log_a = self._log_a()
        b = torch.expm1(log_a) / torch.complex(-self.log_rate.exp(), self.frequency)
        powers = (log_a[..., None] * torch.arange(size + 1, device=log_a.device)).exp()
        return _Modes(log_a, b, torch.view_as_complex(self.output_weights), powers)

    def _advance(
        self, chunks: list[Tensor], dynamics: "Dynamics", memory: Tensor | None, context: SequenceContext
    ) -> tuple[list[Tensor], Tensor]:
        """Reads of the tokens before each chunk, `[B, D, C]`, and the memory after the last real tokens."""
        s = dynamics.zeros(len(chunks[0])) if memory is None else memory[..., 0]
        lengths, reads, start = real_lengths(context), [], 0
        for part in chunks:
            num_tokens = part.shape[2]
            reads.append(dynamics.read(s, num_tokens))
            num_real = (lengths - start).clamp(0, num_tokens)
            # Shifted so that the last real token of each row is last, after zeros.
            source = torch.arange(num_tokens, device=part.device) - (num_tokens - num_real[:, None])
            shifted = part.gather(2, source.clamp(min=0)[:, None].expand_as(part)) * (source >= 0)[:, None]
            s = dynamics.advance(s, shifted, None if context.mask is None else num_real)
            start += num_tokens
        return reads, s[..., None]

    def _added(self, x: Tensor, context: SequenceContext) -> Tensor:
        """Compute the memory that x alone leaves."""
        with torch.autocast(x.device.type, enabled=False):
            dynamics = self._dynamics(min(CHUNK, x.shape[1]))
            return self._advance(_chunks(x), dynamics, None, context)[1]

    def initial_values(self) -> dict[str, Tensor]:
        """S4D-Lin: A = -1/2 + i pi n; steps log-uniform in [1e-3, 0.1]; normal output weights; a normal skip."""
        low, high = (math.log(step) for step in _STEPS)
        modes = torch.arange(self.num_modes, device=self.frequency.device, dtype=self.frequency.dtype)
        return {
            "log_rate": torch.full_like(self.log_rate, math.log(0.5)),
            "frequency": (math.pi * modes).expand_as(self.frequency),
            "log_step": torch.empty_like(self.log_step).uniform_(low, high),
            "output_weights": torch.randn_like(self.output_weights) * 0.5**0.5,
            "skip": torch.randn_like(self.skip),
        }

    def parameter_rules(self) -> dict[str, ParameterRule]:
        """The state matrix and its step learn slowly and do not decay; output weights and skip do not decay."""
        slow = dict.fromkeys(("log_rate", "frequency", "log_step"), SLOW)
        return {**super().parameter_rules(), **slow}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: complex products with every mode, read and written, and the FFTs."""
        per_channel = 16 * self.num_modes + 3 * 5 * 2 * math.log2(2 * CHUNK)
        return self.skip.numel() * per_channel

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: complex numbers of float32 at least, the same at every length."""
        complex_dtype = torch.complex128 if dtype == torch.float64 else torch.complex64
        return empty_state(complex_dtype, memory=(1, self.skip.numel(), self.num_modes, 1))


class Dynamics(Protocol):
    """A discrete state space model per channel: s' = A s + B x, u = C s', over chunks of tokens."""

    def kernel(self) -> Tensor:
        """Compute C A^t B, real `[D, size]`."""

    def zeros(self, num_rows: int) -> Tensor:
        """Return the state before a text, `[B, D, N]`."""

    def read(self, s: Tensor, num_tokens: int) -> Tensor:
        """Compute C A^(t + 1) s, real `[B, D, num_tokens]`."""

    def advance(self, s: Tensor, shifted: Tensor, num_real: Tensor | None) -> Tensor:
        """Return the state after the `num_real` `[B]` tokens (None: all) at the end of shifted `[B, D, T]`."""


class _Modes(NamedTuple):
    """The diagonal model: dt A, B, C `[D, modes]` and powers of a `[D, modes, size + 1]`, complex."""

    log_a: Tensor
    b: Tensor
    c: Tensor
    powers: Tensor

    def kernel(self) -> Tensor:
        return 2 * torch.einsum("dn,dnt->dt", self.c * self.b, self.powers[..., :-1]).real

    def zeros(self, num_rows: int) -> Tensor:
        return self.log_a.new_zeros(num_rows, *self.log_a.shape)

    def read(self, s: Tensor, num_tokens: int) -> Tensor:
        return 2 * torch.einsum("bdn,dnt->bdt", self.c * s, self.powers[..., 1 : num_tokens + 1]).real

    def advance(self, s: Tensor, shifted: Tensor, num_real: Tensor | None) -> Tensor:
        if num_real is None:
            num_real = torch.full((len(s),), shifted.shape[2], device=s.device)
        powers = self.powers[..., : shifted.shape[2]].flip(-1)
        written = torch.einsum("bdt,dnt->bdn", shifted.to(powers.dtype), powers)
        return (num_real[:, None, None].to(shifted.dtype) * self.log_a).exp() * s + self.b * written


def _chunks(x: Tensor) -> list[Tensor]:
    """Chunks of x, `[B, D, C]`, float32 or wider; by one split, whose gradient is one concatenation."""
    return [part.mT for part in at_least_float32(x).split(CHUNK, dim=1)]


def _inside(chunks: list[Tensor], dynamics: Dynamics) -> list[Tensor]:
    """Outputs of each chunk's tokens alone, `[B, D, C]`; they need no state."""
    size = chunks[0].shape[2]
    spectrum = torch.fft.rfft(dynamics.kernel(), n=2 * size)
    return [
        torch.fft.irfft(torch.fft.rfft(part, n=2 * size) * spectrum, n=2 * size)[..., : part.shape[2]]
        for part in chunks
    ]


def real_lengths(context: SequenceContext) -> Tensor:
    """Count the tokens of each row `[B]` up to the last real one (padding in front is 0 and writes nothing)."""
    if context.mask is None:
        return torch.full((context.num_rows,), context.num_tokens, device=context.device)
    return (context.mask * torch.arange(1, context.num_tokens + 1, device=context.device)).amax(1)
