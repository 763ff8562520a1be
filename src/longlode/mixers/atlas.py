"""Atlas (arXiv 2505.23735): a deep memory that is trained on a window of recent tokens while it reads.

    q, k, v = silu(conv(Linear(x)));  q, k of unit norm per head;  phi(k) = k, or (k, products of its pairs)
    S_t = theta_t S_{t-1} + sum over the last c tokens i of gamma_i grad 1/2 |M(phi(k_i)) - v_i|^2      (Omega rule)
    M_t = alpha_t M_{t-1} - eta_t O(S_t);   O: the identity (sgd), or Newton-Schulz orthogonalisation (muon)
    o_t = M_t(phi(q_t));   y = Linear(RMSNorm per head (o))

M is a matrix (`linear`) or a two-layer network W2^T silu(W1^T .) whose first weights are learned (`mlp`); eta, alpha,
theta, gamma are sigmoids of Linear(x) per head. The gradients of a chunk of `chunk_size` tokens are taken at the
memory before the chunk, as the paper does for speed; everything else is exact, token by token, so that a chunk is
matrix products. With chunk_size = 1 gradients are taken at M_{t-1}, and a loop runs over tokens.

Other settings of the same code: window = 1, optimizer = "sgd", feature_degree = 1 is Titans (arXiv 2501.00663); that
with no momentum, no decay, memory = "linear", chunk_size = 1 is the delta rule exactly (`delta_net.py`).

Muon orthogonalises a matrix of features by hidden numbers per token, which is most of the cost; of degree 2 there are
K + K (K + 1) / 2 features, so that is (K + 3) / 2 times as much, and not the default.

What differs from the paper: gamma depends on the token alone, not on its distance; the network has no residual path;
the coefficients of the features are those of exp(q . k), fixed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from longlode.core.errors import ConfigError
from longlode.mixers.base import Mixer, MixerConfig, MixerOutput, MixerTraits, State, empty_state, setting
from longlode.mixers.chunk_scan import scan_chunks
from longlode.mixers.context import SequenceContext
from longlode.mixers.document_rows import DocumentRows, last_entries, pick, zero_where
from longlode.mixers.norm import RMSNorm, at_least_float32, l2_norm
from longlode.mixers.short_conv import ShortConv
from longlode.ops.surroundings import Interface, required_interface

# Muon's quintic polynomial, and the root that starts decays near one, as in gated linear attention.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5
_NORM_EPS = 1e-7
_CACHED_NUMBERS = 2**18
_DECAY_ROOT = 16


@dataclass(frozen=True, kw_only=True)
class AtlasConfig(MixerConfig):
    """A memory trained on a window of tokens while it reads (arXiv 2505.23735)."""

    name = "atlas"

    num_heads: int = setting("H, heads.", least=1, shared="num_heads")
    head_dim: int = setting("K = V, width of a key.", least=1, shared="head_dim")
    window: int = setting("c, tokens that the memory is trained on at every token.", 8, least=1)
    chunk_size: int = setting("Tokens whose gradients are taken at the same memory.", 16, least=1)
    memory: str = setting('"mlp" or "linear".', "mlp")
    expansion: float = setting("F / V, width of the network's hidden layer over that of a value.", 2.0)
    feature_degree: int = setting("1: keys as they are; 2: and the products of their pairs.", 1, least=1)
    optimizer: str = setting('"muon" or "sgd".', "muon")
    step_size: float = setting("Largest eta.", 0.1, least=0)
    use_momentum: bool = setting("Carry the gradients on by theta; without it theta = 0.", True)
    use_decay: bool = setting("Let the memory fade by alpha; without it alpha = 1.", True)
    conv_size: int = setting("W, tokens that the short convolutions see.", 4, least=2, shared="conv_size")
    norm_eps: float = setting("Added to the mean square in RMSNorm.", 1e-6, shared="norm_eps")

    def __post_init__(self) -> None:
        """See `MixerConfig`; choices by name are checked too."""
        super().__post_init__()
        for name, allowed in (("memory", ("mlp", "linear")), ("optimizer", ("muon", "sgd"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; expected {' or '.join(allowed)}.")
        if self.feature_degree > 2:
            raise ConfigError(f"feature_degree is {self.feature_degree}; expected 1 or 2.")

    @property
    def num_features(self) -> int:
        """P, numbers in phi(k)."""
        K = self.head_dim
        return K if self.feature_degree == 1 else K + K * (K + 1) // 2

    @property
    def weight_shapes(self) -> list[tuple[int, int]]:
        """Shapes of a head's weight matrices."""
        P, V = self.num_features, self.head_dim
        hidden = max(1, round(self.expansion * V))
        return [(P, V)] if self.memory == "linear" else [(P, hidden), (hidden, V)]

    def build(self, hidden_size: int, layer_idx: int = 0, num_layers: int = 1) -> Mixer:
        """See `MixerConfig.build`."""
        return Atlas(self, hidden_size)


class _Tokens(NamedTuple):
    """Inputs of a chunk of m tokens, which read the tokens of J places, their own among them.

    q `[N, H, m, K]`; logarithms of theta and alpha, eta `[N, H, m]`; k, v `[N, H, J, K]`, gamma `[N, H, J]`; place
    `[N, J]`: positions in the document, -1 where there is no token.
    """

    q: Tensor
    log_theta: Tensor
    log_alpha: Tensor
    eta: Tensor
    k: Tensor
    v: Tensor
    gamma: Tensor
    place: Tensor


class _Memory(NamedTuple):
    """Weights, momenta (none without momentum) and the weights before the chunk, each one tensor per matrix."""

    weights: list[Tensor]
    momenta: list[Tensor]
    anchors: list[Tensor]

    @property
    def flat(self) -> list[Tensor]:
        """All tensors, in the order of the fields."""
        return [one for tensors in self for one in tensors]

    def like(self, flat: Sequence[Tensor]) -> "_Memory":
        """Convert what `flat` of such a memory returned."""
        rest = iter(flat)
        return _Memory(*([next(rest) for _ in tensors] for tensors in self))


class Atlas(Mixer):
    """The mixer described at the top of this file."""

    traits = MixerTraits()

    def __init__(self, config: AtlasConfig, hidden_size: int) -> None:
        """Projections and convolutions as those of DeltaNet, gates, initial weights of a deep memory."""
        super().__init__()
        self.config = config
        inner = config.num_heads * config.head_dim
        self.q_proj = nn.Linear(hidden_size, inner, bias=False)
        self.k_proj = nn.Linear(hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(hidden_size, inner, bias=False)
        self.b_proj = nn.Linear(hidden_size, config.num_heads, bias=False)
        self.q_conv1d = ShortConv(inner, config.conv_size)
        self.k_conv1d = ShortConv(inner, config.conv_size)
        self.v_conv1d = ShortConv(inner, config.conv_size)
        if config.use_momentum:
            self.theta_proj = nn.Linear(hidden_size, config.num_heads)
        if config.use_decay:
            self.alpha_proj = nn.Linear(hidden_size, config.num_heads)
        if config.window > 1:
            self.gamma_proj = nn.Linear(hidden_size, config.num_heads)
        if config.memory == "mlp":
            up, down = config.weight_shapes
            self.first_up = nn.Parameter(torch.empty(config.num_heads, *up))
            self.first_down = nn.Parameter(torch.empty(config.num_heads, *down))
        self.o_norm = RMSNorm(config.head_dim, config.norm_eps)
        self.o_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(
        self, x: Tensor, state: State | None = None, context: SequenceContext | None = None
    ) -> MixerOutput:
        """See `Mixer.forward`.

        State: conv_q, conv_k, conv_v `[N, H K, W - 1]`; of each matrix of a head memory_i, momentum_i and anchor_i (the
        memory before the chunk) `[N, H, ...]`; k, v `[N, c - 1, H, K]`, gamma `[N, c - 1, H]` of the window; position.
        """
        context, before = context or SequenceContext.of(x), state or {}
        rows = DocumentRows(context)
        x = rows.take(x)
        q, conv_q = self.q_conv1d(self.q_proj(x), before.get("conv_q"), rows.context)
        k, conv_k = self.k_conv1d(self.k_proj(x), before.get("conv_k"), rows.context)
        v, conv_v = self.v_conv1d(self.v_proj(x), before.get("conv_v"), rows.context)
        heads = (self.config.num_heads, -1)
        q, k, v = (at_least_float32(u.unflatten(-1, heads)) for u in (q, k, v))
        start = before.get("position")
        start = torch.zeros_like(rows.lengths) if start is None else start
        gates = self._gates(x, rows.real)
        new = {"k": l2_norm(k), "v": v, "gamma": gates.pop("gamma")}
        num_past = self.config.window - 1
        window = {
            name: torch.cat((self._window(before, name, value), value), 1) for name, value in new.items()
        }
        first = self._first(before, len(start), v)
        o, memory = self._scan(l2_norm(q), window, gates, start, rows, first, bool(before))
        y = self.o_proj(self.o_norm(o.to(x.dtype)).flatten(-2))
        after = {"conv_q": conv_q, "conv_k": conv_k, "conv_v": conv_v, "position": start + rows.lengths}
        after |= {
            name: last_entries(value, num_past + rows.lengths, num_past) for name, value in window.items()
        }
        return MixerOutput(rows.put(y), after | self._named(memory))

    def _gates(self, x: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Compute logarithms of theta and alpha, eta and gamma `[N, T, H]`; padding does not change the memory."""
        eta = self.config.step_size * at_least_float32(self.b_proj(x)).sigmoid()
        zero, gamma = torch.zeros_like(eta), torch.ones_like(eta)
        if self.config.window > 1:
            gamma = at_least_float32(self.gamma_proj(x)).sigmoid()
        log_theta = log_alpha = zero
        if self.config.use_momentum:
            log_theta = functional.logsigmoid(at_least_float32(self.theta_proj(x)))
        if self.config.use_decay:
            log_alpha = functional.logsigmoid(at_least_float32(self.alpha_proj(x))) / _DECAY_ROOT
        gates = {"log_theta": log_theta, "log_alpha": log_alpha, "eta": eta, "gamma": gamma}
        return {name: zero_where(gate, ~real) for name, gate in gates.items()}

    def _window(self, before: State, name: str, new: Tensor) -> Tensor:
        """Return the state's entries for the last c - 1 tokens, zeros at the start."""
        if name in before:
            return before[name]
        return new.new_zeros(new.shape[0], self.config.window - 1, *new.shape[2:])

    def _first(self, before: State, num_rows: int, like: Tensor) -> _Memory:
        """Return the memory before the piece."""
        shapes, H = self.config.weight_shapes, self.config.num_heads
        kinds: dict[str, list[Tensor]] = {"memory": [], "momentum": [], "anchor": []}
        for i, shape in enumerate(shapes):
            if before:
                for kind, tensors in kinds.items():
                    tensors.extend(before[name] for name in [f"{kind}_{i}"] if name in before)
                continue
            weights = like.new_zeros(num_rows, H, *shape)
            if self.config.memory == "mlp":
                first = self.first_down if i else self.first_up
                weights = first.to(like.dtype).expand_as(weights)
            kinds["memory"].append(weights)
            kinds["anchor"].append(weights)
            if self.config.use_momentum:
                kinds["momentum"].append(like.new_zeros(num_rows, H, *shape))
        return _Memory(kinds["memory"], kinds["momentum"], kinds["anchor"])

    def _named(self, memory: _Memory) -> State:
        """Convert the memory to entries of a state."""
        kinds = {"memory": memory.weights, "momentum": memory.momenta, "anchor": memory.anchors}
        return {f"{kind}_{i}": one for kind, tensors in kinds.items() for i, one in enumerate(tensors)}

    def _scan(
        self,
        q: Tensor,
        window: State,
        gates: dict[str, Tensor],
        start: Tensor,
        rows: DocumentRows,
        memory: _Memory,
        moved: bool,
    ) -> tuple[Tensor, _Memory]:
        """Compute outputs `[N, T, H, V]` and the memory after the piece, chunk by chunk, chunks counted per row.

        Args: moved: whether rows may stand inside a chunk, because something was read before.
        """
        C, num_past, num_tokens = self.config.chunk_size, self.config.window - 1, q.shape[1]
        phase = start % C
        # Rows stand at different tokens of their chunks; in front of a row as many empty places as it has behind it.
        shift = torch.zeros_like(phase) if num_tokens == 1 else phase
        width = num_tokens + (int(shift.max()) if moved else 0)
        index = torch.arange(width, device=q.device) - shift[:, None]
        inside = index.clamp(0, num_tokens - 1)
        real = (index >= 0) & (index < rows.lengths[:, None])
        spread = {name: zero_where(pick(gate, inside), ~real) for name, gate in gates.items()}
        queries = pick(q, inside)
        past = torch.arange(-num_past, 0, device=q.device) + start[:, None]
        place = torch.cat((past, torch.where(real, index + start[:, None], -1)), 1)
        history = {
            name: torch.cat((value[:, :num_past], pick(value[:, num_past:], inside)), 1)
            for name, value in window.items()
        }
        begins = range(0, width, C)
        # Empty positions may lie between a chunk and its window.
        firsts = [0 if begin == 0 else max(0, begin - (width - num_tokens)) for begin in begins]
        ends = [min(begin + C, width) for begin in begins]
        places = [place[:, first : num_past + end] for first, end in zip(firsts, ends, strict=True)]
        moves = [
            real[:, begin:end].any(1) & ((phase == 0) if begin == 0 else True)
            for begin, end in zip(begins, ends, strict=True)
        ]

        def step(at: int, part: Sequence[Tensor], carry: Sequence[Tensor]) -> tuple[Tensor, Sequence[Tensor]]:
            before = memory.like(carry)
            turned = moves[at][:, None, None, None]
            anchors = [
                torch.where(turned, new, old) for new, old in zip(before.weights, before.anchors, strict=True)
            ]
            o, after = self._read(_Tokens._make([*part, places[at]]), before._replace(anchors=anchors))
            return o, after.flat

        own = [queries, *(spread[name] for name in ("log_theta", "log_alpha", "eta"))]
        near = [history[name] for name in ("k", "v", "gamma")]
        spans = [
            [(begin, end)] * len(own) + [(first, num_past + end)] * len(near)
            for begin, first, end in zip(begins, firsts, ends, strict=True)
        ]
        o, last = scan_chunks(step, spans, [one.transpose(1, 2) for one in (*own, *near)], memory.flat)
        back = torch.arange(num_tokens, device=q.device) + shift[:, None]
        return pick(o.transpose(1, 2), back), memory.like(last)

    def _read(self, tokens: _Tokens, memory: _Memory) -> tuple[Tensor, _Memory]:
        """Compute outputs `[N, H, m, V]` of a chunk, and the memory after it."""
        # A memory is trained in float32: orthogonalisation would magnify the rounding of half precision.
        with torch.autocast(tokens.q.device.type, enabled=False):
            return self._train_and_read(tokens, memory)

    def _train_and_read(self, tokens: _Tokens, memory: _Memory) -> tuple[Tensor, _Memory]:
        num_new = tokens.q.shape[2]
        features = self._features(tokens.k)
        here, there = tokens.place[:, -num_new:, None], tokens.place[:, None]
        near = (here >= 0) & (there >= 0) & (here >= there) & (here - there < self.config.window)
        terms = tokens.gamma[..., None, :] * near[:, None]
        weights, momenta, x = [], [], self._features(tokens.q)
        for i, (left, right) in enumerate(_gradients(features, tokens.v, memory.anchors)):
            momentum = memory.momenta[i] if memory.momenta else None
            path = _muon if self.config.optimizer == "muon" else _sgd
            read, last, carried = path(left, right, terms, tokens, memory.weights[i], momentum)
            x = read(functional.silu(x) if i else x)
            weights.append(last)
            momenta.extend([] if carried is None else [carried])
        return x, _Memory(weights, momenta, memory.anchors)

    def _features(self, k: Tensor) -> Tensor:
        """Compute phi(k) `[..., P]`, for which phi(q) . phi(k) = q . k + (q . k)^2 / 2."""
        if self.config.feature_degree == 1:
            return k
        i, j = torch.triu_indices(k.shape[-1], k.shape[-1], device=k.device)
        products = k[..., i] * k[..., j]
        return torch.cat((k, torch.where(i == j, math.sqrt(0.5) * products, products)), dim=-1)

    def initial_values(self) -> dict[str, Tensor]:
        """Convolutions, and weights of a deep memory, that keep the size of what passes through them."""
        convs = {f"{part}_conv1d.weight": getattr(self, f"{part}_conv1d").uniform_values() for part in "qkv"}
        if self.config.memory == "linear":
            return convs
        parameters = {"first_up": self.first_up, "first_down": self.first_down}
        drawn = {name: torch.randn_like(one) * one.shape[1] ** -0.5 for name, one in parameters.items()}
        return convs | drawn

    def mixing_flops_per_token(self, num_tokens: int) -> float:
        """See `Mixer.mixing_flops_per_token`: products of a chunk, muon's of a matrix per token."""
        config, total = self.config, 0.0
        C, J = config.chunk_size, config.chunk_size + config.window - 1
        for P, V in config.weight_shapes:
            total += 2 * P * V * J / C + 2 * P * V
            if config.optimizer == "sgd":
                total += 2 * J * (P + V) + 6 * P * V / C * J
            else:
                small, large = sorted((P, V))
                total += 2 * P * V * (J + C + 1)
                total += _NEWTON_SCHULZ_STEPS * (4 * small * small * large + 2 * small**3)
        return config.num_heads * total

    def state_layout(self, num_tokens: int, dtype: torch.dtype) -> State:
        """See `Mixer.state_layout`: the same at every length; the memory is float32 at least."""
        config, H, K = self.config, self.config.num_heads, self.config.head_dim
        conv, past = (1, H * K, config.conv_size - 1), (1, config.window - 1, H)
        wide = torch.promote_types(dtype, torch.float32)
        kinds = ["memory", "anchor"] + (["momentum"] if config.use_momentum else [])
        memory = {
            f"{kind}_{i}": (1, H, *shape) for kind in kinds for i, shape in enumerate(config.weight_shapes)
        }
        return (
            empty_state(dtype, conv_q=conv, conv_k=conv, conv_v=conv)
            | empty_state(torch.int64, position=(1,))
            | empty_state(wide, k=(*past, K), v=(*past, K), gamma=past, **memory)
        )


def _gradients(features: Tensor, v: Tensor, anchors: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Compute gradients of 1/2 |M(features) - v|^2 at the anchors, per matrix a pair (left, right): left right^T."""
    if len(anchors) == 1:
        return [(features, features @ anchors[0] - v)]
    up, down = anchors
    inner = features @ up
    gate = inner.sigmoid()
    hidden = inner * gate
    error = hidden @ down - v
    slope = gate * (1 + inner * (1 - gate))
    return [(features, (error @ down.mT) * slope), (hidden, error)]


_Path = tuple[Callable[[Tensor], Tensor], Tensor, Tensor | None]
"""A function that computes x_t^T M_t for all tokens `[N, H, m, P]`; the last M, and the last S with momentum."""


def _spans(log_decay: Tensor) -> Tensor:
    """Multiply the decays after s up to t in row t, column s, 0 above the diagonal: `[N, H, m, m]`."""
    num = log_decay.shape[-1]
    sums = log_decay[..., None].expand(*log_decay.shape, num).tril(-1).cumsum(-2)
    return sums.exp().tril()


def _coefficients(terms: Tensor, tokens: _Tokens, momentum: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients in S_t = from_start_t S_0 + sum_i carried_ti grad_i, and M_t = ... - sum_s steps_ts O(S_s)."""
    steps = _spans(tokens.log_alpha) * tokens.eta[..., None, :]
    if momentum is None:
        return torch.zeros_like(tokens.eta), terms, steps
    return tokens.log_theta.cumsum(-1).exp(), _spans(tokens.log_theta) @ terms, steps


def _sgd(
    left: Tensor, right: Tensor, terms: Tensor, tokens: _Tokens, first: Tensor, momentum: Tensor | None
) -> _Path:
    """Take plain steps: M_t is a sum of outer products, formed only for the last token."""
    from_start, carried, steps = _coefficients(terms, tokens, momentum)
    fade, written = tokens.log_alpha.cumsum(-1).exp(), steps @ carried
    start = torch.zeros_like(first) if momentum is None else momentum
    moved = (steps @ from_start[..., None])[..., 0]

    def read(x: Tensor) -> Tensor:
        old = fade[..., None] * (x @ first) - moved[..., None] * (x @ start)
        return old - (written * (x @ left.mT)) @ right

    end = [one[..., -1, None, None] for one in (fade, moved, from_start)]
    last = end[0] * first - end[1] * start - left.mT @ (written[..., -1, :, None] * right)
    if momentum is None:
        return read, last, None
    return read, last, end[2] * momentum + left.mT @ (carried[..., -1, :, None] * right)


def _muon(
    left: Tensor, right: Tensor, terms: Tensor, tokens: _Tokens, first: Tensor, momentum: Tensor | None
) -> _Path:
    """Take orthogonalised steps, `[N, H, m, P, V]`: one matrix per token."""
    from_start, carried, steps = _coefficients(terms, tokens, momentum)
    sums = (carried[..., None, :] * left.mT[:, :, None]) @ right[:, :, None]
    if momentum is not None:
        sums = sums + from_start[..., None, None] * momentum[:, :, None]
    moves = (steps @ orthogonalise(sums).flatten(-2)).view_as(sums)
    weights = tokens.log_alpha.cumsum(-1).exp()[..., None, None] * first[:, :, None] - moves

    def read(x: Tensor) -> Tensor:
        return (x[..., None, :] @ weights)[..., 0, :]

    # Copies: a view would keep the matrices of all tokens of the chunk as long as the state lives.
    return read, weights[:, :, -1].clone(), None if momentum is None else sums[:, :, -1].clone()


def orthogonalise(x: Tensor) -> Tensor:
    """Take five Newton-Schulz steps of Muon: singular values of x `[..., P, V]` become about 1, zeros stay.

    Source: K. Jordan and others, "Muon", 2024; the quintic polynomial 3.4445 x - 4.7750 x^3 + 2.0315 x^5.
    """
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    batch = x.shape
    x = x.reshape(-1, *x.shape[-2:])
    x = x * torch.rsqrt(x.square().sum((-2, -1), keepdim=True) + _NORM_EPS**2)
    # On a CPU as many matrices at once as stay in the cache through all steps.
    most = _CACHED_NUMBERS // (x.shape[-2] * x.shape[-1]) if x.device.type == "cpu" else len(x)
    plain = required_interface([x])[0] == Interface.OPERATIONS
    parts = x.split(max(1, most))
    done = [_newton_schulz(part)[0] if plain else _NewtonSchulz.apply(part) for part in parts]
    x = torch.cat(done).view(batch)
    return x.mT if tall else x


def _newton_schulz(x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """x `[B, P, V]` -> a x + (b s + c s^2) x, five times, s = x x^T; and of each step x, s and the sum in brackets."""
    a, b, c = _QUINTIC
    steps = []
    for _ in range(_NEWTON_SCHULZ_STEPS):
        square = x @ x.mT
        poly = torch.baddbmm(square, square, square, beta=b, alpha=c)
        steps += [x, square, poly]
        x = torch.baddbmm(x, poly, x, beta=a)
    return x, steps


class _NewtonSchulz(torch.autograd.Function):
    """Compute `_newton_schulz`, with a backward pass of its own.

    Written by hand as s and its polynomial are symmetric, which spares a third of the products backward; sums are
    taken inside the products, which spares passes over memory.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x, steps = _newton_schulz(x)
        ctx.save_for_backward(*steps)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dx: Tensor) -> Tensor:
        a, b, c = _QUINTIC
        steps = ctx.saved_tensors
        for at in range(len(steps) - 3, -1, -3):
            x, square, poly = steps[at : at + 3]
            # d is the gradient of poly plus its transpose, and after it the gradient of s plus its transpose.
            d = dx @ x.mT
            d = d + d.mT
            turned = d @ square
            d = b * d + c * (turned + turned.mT)
            dx = torch.baddbmm(torch.baddbmm(dx, poly, dx, beta=a), d, x)
        return dx
