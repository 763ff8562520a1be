"""S4 (arXiv 2111.00396): a state space model whose state matrix is diagonal plus low rank, initialised as HiPPO-LegS.

    s' = A s + B x,  u = 2 Re(C . s) + skip x,   A = diag(-exp(log_rate) + i frequency) - P P^*     per channel
    bilinear steps of dt:  A_ = (I - dt/2 A)^-1 (I + dt/2 A),  B_ = (I - dt/2 A)^-1 dt B;   y = GLU(Linear(GELU(u)))

One half of each conjugate pair of modes is kept. The other half enters through P^* s, whose real part alone remains, so
a channel is a real matrix of N x N: A = [[rate, -frequency], [frequency, rate]] - 2 p p^T on (Re s, Im s), p = (Re P,
Im P). Its inverse is that of the diagonal and a correction of rank one (Woodbury).

Over chunks of C tokens the kernel C_ A_^t B_ is a convolution by FFT, and the state before them is read by C_ A_^(t+1)
(`s4d.py`). Both rows of powers are made by doubling. The paper gets the kernel from its generating function at roots of
unity, by Cauchy sums, which is cheaper for a whole text from an empty state; it is in the tests, as a check.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longlode.mixers.base import Mixer, ParameterRule, State, empty_state
from longlode.mixers.context import SequenceContext
from longlode.mixers.s4d import CHUNK, S4D, SLOW, Dynamics, S4DConfig, real_lengths
from longlode.mixers.segment_map import SegmentMap


@dataclass(frozen=True, kw_only=True)
class S4Config(S4DConfig):
    """The state space model of normal plus low rank (arXiv 2111.00396)."""

    name = "s4"

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return S4(self, hidden_size)


class S4(S4D):
    """The mixer described at the top of this file; its channels are those of the residual stream."""

    float32_parameters = (*S4D.float32_parameters, "low_rank", "input_weights")

    def __init__(self, config: S4Config, hidden_size: int) -> None:
        """Make the parameters of S4D, and P and B, complex numbers stored as pairs."""
        super().__init__(config, hidden_size)
        self.low_rank = nn.Parameter(torch.empty_like(self.output_weights))
        self.input_weights = nn.Parameter(torch.empty_like(self.output_weights))

    def _map(self, x: Tensor, context: SequenceContext) -> SegmentMap:
        lengths = real_lengths(context)
        with torch.autocast(x.device.type, enabled=False):
            power, _, _ = self._discrete()
        matrix = torch.eye(power.shape[-1], dtype=power.dtype, device=power.device)
        matrix = matrix.expand(len(lengths), *power.shape)
        with torch.autocast(power.device.type, enabled=False):
            for bit in range(context.num_tokens.bit_length()):
                power = power if bit == 0 else power @ power
                matrix = torch.where(_has_bit(lengths, bit), power @ matrix, matrix)
        return SegmentMap(self._added(x, context), matrix)

    def _discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """A_ `[D, N, N]`, B_ and C_ `[D, N]`, real."""
        dt = self.log_step.exp()[:, None]
        modes = torch.complex(-self.log_rate.exp(), self.frequency)
        inverse = 1 / (1 - dt / 2 * modes)
        p, b, c = (_real(one) for one in (self.low_rank, self.input_weights, self.output_weights))
        # (E + dt p p^T)^-1, E of the diagonal.
        left, right = _times(inverse, p), _times(inverse.conj(), p)
        weight = dt / (1 + dt * (p * left).sum(-1, keepdim=True))
        matrix = _matrix(inverse) - (weight * left)[..., None] * right[..., None, :]
        input_vector = dt * (matrix @ b[..., None])[..., 0]
        signs = torch.ones_like(c)
        signs[..., c.shape[-1] // 2 :] = -1
        eye = torch.eye(c.shape[-1], dtype=c.dtype, device=c.device)
        return 2 * matrix - eye, input_vector, 2 * signs * c

    def _dynamics(self, size: int) -> Dynamics:
        """See `S4D._dynamics`."""
        matrix, b, c = self._discrete()
        powers, reads, writes = [matrix], c[:, None], b[:, None]
        while reads.shape[1] < size:
            reads = torch.cat((reads, reads @ powers[-1]), dim=1)
            writes = torch.cat((writes, writes @ powers[-1].mT), dim=1)
            powers.append(powers[-1] @ powers[-1])
        return _Powers(powers, reads[:, :size] @ matrix, writes[:, :size], c)

    def initial_values(self) -> dict[str, Tensor]:
        """HiPPO-LegS in every channel; output weights, steps and skip as S4D draws them."""
        modes, p, b = hippo_legs(2 * self.num_modes)
        shape, pairs = self.log_rate.shape, self.low_rank.shape
        like = self.log_rate
        own = {
            "log_rate": (-modes.real).log().to(like).expand(shape),
            "frequency": modes.imag.to(like).expand(shape),
            "low_rank": torch.view_as_real(p).to(like).expand(pairs),
            "input_weights": torch.view_as_real(b).to(like).expand(pairs),
        }
        return {**super().initial_values(), **own}

    def parameter_rules(self) -> dict[str, ParameterRule]:
        """The state matrix, its step and its input learn slowly and do not decay."""
        return {**super().parameter_rules(), "low_rank": SLOW, "input_weights": SLOW}

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: reads, writes, FFTs; A^C once per chunk, powers once."""
        N, size = 2 * self.num_modes, min(CHUNK, num_tokens)
        doublings = (size - 1).bit_length()
        once = doublings * 2 * N**3 + 4 * 2**doublings * N**2 + 2 * size * N**2
        per_token = 4 * N + 2 * N**2 / size + 3 * 5 * 2 * math.log2(2 * size)
        return self.skip.numel() * (per_token + once / num_tokens)

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: N numbers of float32 at least per channel, the same at every length."""
        wide = torch.promote_types(dtype, torch.float32)
        return empty_state(wide, memory=(1, self.skip.numel(), 2 * self.num_modes, 1))


class _Powers(NamedTuple):
    """A_^(2^j) `[D, N, N]`; C_ A_^(t+1) and A_^t B_ `[D, size, N]`; C_ `[D, N]`."""

    matrices: list[Tensor]
    reads: Tensor
    writes: Tensor
    c: Tensor

    def kernel(self) -> Tensor:
        return (self.writes @ self.c[..., None])[..., 0]

    def zeros(self, num_rows: int) -> Tensor:
        return self.c.new_zeros(num_rows, *self.c.shape)

    def read(self, s: Tensor, num_tokens: int) -> Tensor:
        return torch.einsum("bdn,dtn->bdt", s, self.reads[:, :num_tokens])

    def advance(self, s: Tensor, shifted: Tensor, num_real: Tensor | None) -> Tensor:
        num_tokens = shifted.shape[2]
        written = torch.einsum("bdt,dtn->bdn", shifted, self.writes[:, :num_tokens].flip(1))
        # A_^num_real s by repeated squaring: A_^(2^j) is applied in rows whose number has bit j.
        for bit in range(num_tokens.bit_length()):
            if num_real is None and not num_tokens >> bit & 1:
                continue
            moved = (self.matrices[bit] @ s[..., None])[..., 0]
            s = moved if num_real is None else torch.where(_has_bit(num_real, bit)[..., 0], moved, s)
        return s + written


def _has_bit(numbers: Tensor, bit: int) -> Tensor:
    """Return True for each of numbers `[B]` that has the bit 2^bit, `[B, 1, 1, 1]`."""
    return ((numbers >> bit) & 1).bool()[:, None, None, None]


def _real(pairs: Tensor) -> Tensor:
    """Convert complex numbers `[D, N / 2, 2]` to (Re, Im) `[D, N]`."""
    return pairs.mT.flatten(-2)


def _times(modes: Tensor, v: Tensor) -> Tensor:
    """Multiply the diagonal `modes`, complex `[D, N / 2]`, with v = (Re, Im) `[D, N]`."""
    product = modes * torch.complex(*v.chunk(2, dim=-1))
    return torch.cat((product.real, product.imag), dim=-1)


def _matrix(modes: Tensor) -> Tensor:
    """Write the diagonal `modes` as a real matrix `[D, N, N]`."""
    real, imag = modes.real.diag_embed(), modes.imag.diag_embed()
    return torch.cat((torch.cat((real, -imag), -1), torch.cat((imag, real), -1)), -2)


def hippo_legs(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute HiPPO-LegS (arXiv 2008.07669) as diag(modes) - P P^*, and B: complex128, half of each conjugate pair.

    A_nk = -sqrt((2n + 1) (2k + 1)) for n > k, -(n + 1) on the diagonal, 0 above; B_n = sqrt(2n + 1). With P_n =
    sqrt(n + 1/2), A + P P^T is -1/2 plus a skew-symmetric matrix, which a unitary one diagonalises.
    """
    n = torch.arange(size, dtype=torch.float64)
    root = (2 * n + 1).sqrt()
    skew = root[:, None] * root / 2
    skew = skew.triu(1) - skew.tril(-1)
    frequency, vectors = torch.linalg.eigh(-1j * skew)
    half = slice(size // 2, None)  # ascending: the second half are those above 0
    into = vectors[:, half].mH
    modes = torch.complex(torch.full_like(frequency, -0.5), frequency)[half]
    return modes, into @ (n + 0.5).sqrt().to(into.dtype), into @ root.to(into.dtype)
