"""The laws that every mixer obeys, in float64, and broken mixers that they reject."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, DeltaNet, FullAttention, Mixer, MixerSettings, SlidingWindowAttention

SETTINGS = MixerSettings(hidden_size=12, num_heads=4, num_kv_heads=2, head_dim=6, window=5)
VARIANTS = {
    "D": ("D", SETTINGS),
    "D, beta to 2, gated output": (
        "D",
        replace(SETTINGS, allow_neg_eigval=True, use_output_gate=True, conv_size=3),
    ),
    "G": ("G", SETTINGS),
    "G, wide values, gated output": ("G", replace(SETTINGS, expand_v=1.5, use_output_gate=True)),
    "S": ("S", SETTINGS),
    "S, window of one": ("S", replace(SETTINGS, window=1)),
    "A": ("A", SETTINGS),
    "A, other heads, biases": (
        "A",
        replace(SETTINGS, attn_num_heads=2, attn_head_dim=8, num_kv_heads=1, qkv_bias=True),
    ),
    "L": ("L", SETTINGS),
    "C": ("C", SETTINGS),
    "M": ("M", SETTINGS),
}
T = 19
TIGHT = {"rtol": 0, "atol": 1e-12}


def build(kind: type[Mixer], settings: MixerSettings, seed: int = 0) -> Mixer:
    """A float64 mixer whose parameters are large enough that every part of it matters."""
    torch.manual_seed(seed)
    mixer = kind(settings).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0, 0.5)
        for name, value in mixer.initial_values().items():
            getattr(mixer, name).copy_(value)
    return mixer


def inputs(rows: int, tokens: int = T, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        rows, tokens, SETTINGS.hidden_size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def assert_same_state(got: dict, want: dict) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, **TIGHT)


def causality(mixer: Mixer) -> None:
    x = inputs(2)
    y, _ = mixer(x)
    for t in (3, T - 1):
        changed = x.clone()
        changed[:, t:] = inputs(2, seed=9)[:, t:]
        y_changed, _ = mixer(changed)
        torch.testing.assert_close(y_changed[:, :t], y[:, :t], **TIGHT)
        assert (y_changed[:, t] - y[:, t]).abs().max() > 1e-3


def pieces(mixer: Mixer) -> None:
    x = inputs(2)
    whole, state_whole = mixer(x)
    for cuts in ([7], [1, 2, 9], [4, 5, 18]):
        state, parts = None, []
        for start, stop in zip([0, *cuts], [*cuts, T], strict=True):
            y, state = mixer(x[:, start:stop], state)
            parts.append(y)
        torch.testing.assert_close(torch.cat(parts, 1), whole, **TIGHT)
        assert_same_state(state, state_whole)


def steps(mixer: Mixer) -> None:
    x = inputs(2)
    whole, state_whole = mixer(x)
    state = None
    for t in range(T):
        y_t, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(y_t, whole[:, t], **TIGHT)
    assert_same_state(state, state_whole)


def packing(mixer: Mixer) -> None:
    x, offsets = inputs(1), [0, 2, 3, 11, T]
    packed, _ = mixer(x, cu_seqlens=torch.tensor(offsets, dtype=torch.int32))
    separate = [mixer(x[:, start:stop])[0] for start, stop in pairwise(offsets)]
    torch.testing.assert_close(packed, torch.cat(separate, 1), **TIGHT)


def left_padding(mixer: Mixer) -> None:
    x, lengths = inputs(3), [T, 6, 1]
    mask = torch.arange(T) >= T - torch.tensor(lengths)[:, None]
    # What stands at padding may be anything, even what a layer below could not compute.
    x = x.masked_fill(~mask[..., None], float("nan"))
    y, state = mixer(x, mask=mask)
    after, _ = mixer(inputs(3, 2, seed=5), state)
    for row, length in enumerate(lengths):
        alone, state_alone = mixer(x[row : row + 1, T - length :])
        torch.testing.assert_close(y[row : row + 1, T - length :], alone, **TIGHT)
        after_alone, _ = mixer(inputs(3, 2, seed=5)[row : row + 1], state_alone)
        torch.testing.assert_close(after[row : row + 1], after_alone, **TIGHT)


def right_padding(mixer: Mixer) -> None:
    """A row read in pieces of its own length, beside longer ones, is that row alone."""
    lengths = [[T, 6, 1], [1, 4, 0], [2, 0, 5]]
    state, alone = None, [None] * 3
    for piece, real in enumerate(lengths):
        x = inputs(3, max(real), seed=piece)
        mask = torch.arange(max(real)) < torch.tensor(real)[:, None]
        y, state = mixer(x.masked_fill(~mask[..., None], float("nan")), state, mask=mask)
        for row, length in enumerate(real):
            if not length:
                continue
            y_alone, state_alone = mixer(x[row : row + 1, :length], alone[row])
            torch.testing.assert_close(y[row : row + 1, :length], y_alone, **TIGHT)
            alone[row] = state_alone
    after, _ = mixer(inputs(3, 2, seed=5), state)
    for row in range(3):
        want, _ = mixer(inputs(3, 2, seed=5)[row : row + 1], alone[row])
        torch.testing.assert_close(after[row : row + 1], want, **TIGHT)


def cost_slope(mixer: Mixer) -> None:
    """Matrix products of a long and of a longer text differ by what the closed form says.

    Attention counts with its plain kernel, which also multiplies what a query may not see: up to twice the claim.
    """
    counted, claimed = [], []
    for tokens in (512, 2048):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            mixer(inputs(1, tokens))
        counted.append(counter.get_total_flops() / tokens)
        claimed.append(mixer.flops_per_token(tokens))
    slope, slack = claimed[1] - claimed[0], 0.1 * counted[0]
    assert slope - slack <= counted[1] - counted[0] <= 2.1 * slope + slack


LAWS: list[Callable[[Mixer], None]] = [
    causality,
    pieces,
    steps,
    packing,
    left_padding,
    right_padding,
    cost_slope,
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_mixer_obeys(variant, law):
    letter, settings = VARIANTS[variant]
    law(build(MIXERS[letter], settings))


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_flow_through_the_state(variant):
    letter, settings = VARIANTS[variant]
    mixer, x = build(MIXERS[letter], settings), inputs(2)
    parameters = list(mixer.parameters())
    whole = torch.autograd.grad(mixer(x)[0].square().sum(), parameters)
    first, state = mixer(x[:, :8])
    middle, state = mixer(x[:, 8:9], state)
    last, _ = mixer(x[:, 9:], state)
    loss = torch.cat((first, middle, last), 1).square().sum()
    for got, want in zip(torch.autograd.grad(loss, parameters), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_leaves_finite_gradients(variant):
    letter, settings = VARIANTS[variant]
    mixer, x = build(MIXERS[letter], settings), inputs(2).requires_grad_()
    mask = torch.arange(T) >= torch.tensor([0, 12])[:, None]
    loss = mixer(x, mask=mask)[0][mask].square().sum()
    for gradient in torch.autograd.grad(loss, [x, *mixer.parameters()]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("letter", ["D", "G", "L", "C", "M"])
def test_packed_documents_continue_from_their_own_states(letter):
    mixer, x, offsets = build(MIXERS[letter], SETTINGS), inputs(1), [0, 6, 7, T]
    _, states = mixer(inputs(3, 4, seed=7))
    y, after = mixer(x, states, torch.tensor(offsets))
    for n, (start, stop) in enumerate(pairwise(offsets)):
        alone, after_alone = mixer(x[:, start:stop], {name: t[n : n + 1] for name, t in states.items()})
        torch.testing.assert_close(y[:, start:stop], alone, **TIGHT)
        assert_same_state({name: t[n : n + 1] for name, t in after.items()}, after_alone)


@pytest.mark.parametrize("variant", VARIANTS)
def test_closed_forms_equal_the_built_mixer(variant):
    letter, settings = VARIANTS[variant]
    mixer = build(MIXERS[letter], settings)
    assert mixer.count_params(settings) == sum(p.numel() for p in mixer.parameters())
    for tokens in (1, 2, 4, 5, 6, T):
        for dtype in (torch.float64, torch.float32):
            _, state = mixer.to(dtype)(inputs(1, tokens).to(dtype))
            assert mixer.state_bytes(tokens, dtype) == sum(t.nbytes for t in state.values()), (tokens, dtype)
    linear = sum(2 * m.weight.numel() for m in mixer.modules() if isinstance(m, torch.nn.Linear))
    inner = settings.num_heads * settings.head_dim
    for tokens in (1, 5, 50):
        if letter in "DG":
            convolved = 2 * inner + settings.num_heads * settings.value_dim
            mixing = 2 * convolved * settings.conv_size + 6 * inner * settings.value_dim
        elif letter in "LCM":
            convolved = inner + 2 * settings.head_dim if letter == "M" else 0
            keys = settings.head_dim // 2 if letter == "C" else settings.head_dim
            mixing = 2 * convolved * settings.conv_size + 4 * inner * keys
        else:
            window = settings.window if letter == "S" else tokens
            inner = settings.query_heads * settings.query_dim
            mixing = sum(4 * inner * min(t, window) for t in range(1, tokens + 1)) / tokens
        assert mixer.flops_per_token(tokens) == pytest.approx(linear + mixing)


def test_only_full_attention_grows_with_the_text():
    for letter, kind in MIXERS.items():
        growth = [kind.count_state_bytes(SETTINGS, tokens, torch.float32) for tokens in (100, 100_000)]
        assert (growth[1] > growth[0]) == (letter == "A")


def test_a_mixer_leaves_the_state_it_was_given():
    for letter, kind in MIXERS.items():
        mixer = build(kind, SETTINGS)
        _, state = mixer(inputs(2, 7))
        before = {name: value.clone() for name, value in state.items()}
        mixer(inputs(2, 3), state)
        mixer.step(inputs(2, 1)[:, 0], state)
        for name, value in before.items():
            assert torch.equal(state[name], value), (letter, name)


def test_impossible_combinations_are_refused():
    x, offsets, mask = inputs(1), torch.tensor([0, T]), torch.ones(1, T, dtype=torch.bool)
    for kind in MIXERS.values():
        with pytest.raises(ConfigError, match="cu_seqlens"):
            build(kind, SETTINGS)(x, None, offsets, mask)
    attention = build(FullAttention, SETTINGS)
    _, state = attention(x)
    with pytest.raises(ConfigError, match="cu_seqlens"):
        attention(x, state, offsets)


class SeesTheFuture(FullAttention):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        y, state = super().forward(x, state, cu_seqlens, mask)
        return y + 0.01 * x.flip(1), state


class ForgetsTheConvolution(DeltaNet):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        kept = {"memory": state["memory"]} if state else None
        return super().forward(x, kept, cu_seqlens, mask)


class KeepsOneTokenTooFew(SlidingWindowAttention):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        y, state = super().forward(x, state, cu_seqlens, mask)
        return y, {name: t[:, 1:] if t.dim() > 1 and t.shape[1] > 3 else t for name, t in state.items()}


class IgnoresDocuments(DeltaNet):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        return super().forward(x, state, None, mask)


class ZeroesPaddingTooLate(DeltaNet):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        return super().forward(x.nan_to_num(1.0), state, cu_seqlens)


class ComparesAllPairs(DeltaNet):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        y, after = super().forward(x, state, cu_seqlens, mask)
        return y + 0 * (x @ x.mT).sum(), after


class CountsPaddingAsInput(DeltaNet):
    def forward(self, x, state=None, cu_seqlens=None, mask=None):
        y, after = super().forward(x, state, cu_seqlens, mask)
        if mask is not None:
            x = x.masked_fill(~mask[..., None], 0)
            after["conv_v"] = self.v_conv1d(self.v_proj(x), state["conv_v"] if state else None)[1]
        return y, after


@pytest.mark.parametrize(
    ("broken", "law"),
    [
        (SeesTheFuture, causality),
        (ForgetsTheConvolution, pieces),
        (ForgetsTheConvolution, steps),
        (KeepsOneTokenTooFew, pieces),
        (IgnoresDocuments, packing),
        (ZeroesPaddingTooLate, left_padding),
        (CountsPaddingAsInput, right_padding),
        (ComparesAllPairs, cost_slope),
    ],
)
def test_the_laws_reject_a_broken_mixer(broken, law):
    with pytest.raises(AssertionError):
        law(build(broken, SETTINGS))
