"""The laws that every mixer obeys, as far as its traits claim, in float64. A mixer's own test may run them too."""

from collections.abc import Callable
from itertools import accumulate, pairwise

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from longlode.mixers import Mixer, MixerConfig, SequenceContext, SequenceShard
from longlode.mixers.segment_map import fold

D, T = 12, 19
SHARED = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 6, "window": 5}
"""Settings of a model, which fill in what a config leaves out."""
TIGHT = {"rtol": 0, "atol": 1e-12}


def build(config: MixerConfig, seed: int = 0, kind: type[Mixer] | None = None) -> Mixer:
    """A float64 mixer whose parameters are large enough that every part of it matters.

    Args: kind: a class to make of the config instead of its own, for wrong variants.
    """
    torch.manual_seed(seed)
    mixer = (config.build(D, 1, 3) if kind is None else kind(config, D)).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0, 0.5)
        for module in mixer.modules():
            if isinstance(module, Mixer):
                for name, value in module.initial_values().items():
                    module.get_parameter(name).copy_(value)
    return with_token_ids(mixer) if mixer.traits.reads_token_ids else mixer


def with_token_ids(mixer: Mixer) -> Mixer:
    """The mixer with token ids (4) derived from each token's first numbers, as the laws have no ids."""
    forward = mixer.forward

    def with_ids(x, state=None, context=None):
        context = context or SequenceContext.of(x)
        context.token_ids = (x[..., 0] > 0).long() + 2 * (x[..., 1] > 0).long()
        return forward(x, state, context)

    mixer.forward = with_ids
    return mixer


def inputs(rows: int, tokens: int = T, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, tokens, D, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def packed(x, offsets, **facts):
    return SequenceContext.of(x, cu_seqlens=torch.tensor(offsets, dtype=torch.int32), **facts)


def assert_same_state(got: dict, want: dict) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, **TIGHT)


def gradients(loss, tensors, **options):
    """Of every tensor; zeros for parameters that only a prefix needs."""
    return torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True, **options)


def row(state: dict, n: int) -> dict:
    return {name: value[n : n + 1] for name, value in state.items()}


def causality(mixer: Mixer) -> None:
    x = inputs(2)
    y = mixer(x).y
    for t in (3, T - 1):
        changed = x.clone()
        changed[:, t:] = inputs(2, seed=9)[:, t:]
        y_changed = mixer(changed).y
        torch.testing.assert_close(y_changed[:, :t], y[:, :t], **TIGHT)
        assert (y_changed[:, t] - y[:, t]).abs().max() > 1e-3


def prefix_causality(mixer: Mixer) -> None:
    """A prefix may be read in both directions; what stands behind it is never seen from before."""
    if mixer.traits.causal == "always":
        return
    x, lengths = inputs(2), torch.tensor([6, 0])
    context = SequenceContext.of(x, prefix_lengths=lengths)
    y = mixer(x, None, context).y
    for t in (0, 3, 5, 6, T - 1):
        changed = x.clone()
        changed[:, t] = inputs(2, seed=9)[:, t]
        y_changed = mixer(changed, None, SequenceContext.of(changed, prefix_lengths=lengths)).y
        for n, length in enumerate(lengths.tolist()):
            first = 0 if t < length else t
            torch.testing.assert_close(y_changed[n, :first], y[n, :first], **TIGHT)
        if t < 6:
            assert (y_changed[0, 0] - y[0, 0]).abs().max() > 1e-3, "the prefix should be seen whole"
    alone = mixer(x[1:]).y
    torch.testing.assert_close(y[1:], alone, **TIGHT)


def pieces(mixer: Mixer) -> None:
    x = inputs(2)
    whole = mixer(x)
    for cuts in ([7], [1, 2, 9], [4, 5, 18]):
        state, parts = None, []
        for start, stop in zip([0, *cuts], [*cuts, T], strict=True):
            output = mixer(x[:, start:stop], state)
            state = output.state
            parts.append(output.y)
        torch.testing.assert_close(torch.cat(parts, 1), whole.y, **TIGHT)
        assert_same_state(state, whole.state)


def steps(mixer: Mixer) -> None:
    if not mixer.traits.steps:
        return
    x = inputs(2)
    whole, state = mixer(x), None
    for t in range(T):
        y_t, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(y_t, whole.y[:, t], **TIGHT)
    assert_same_state(state, whole.state)


def packing(mixer: Mixer) -> None:
    if not mixer.traits.packs:
        return
    x, offsets = inputs(1), [0, 2, 3, 11, T]
    separate = torch.cat([mixer(x[:, start:stop]).y for start, stop in pairwise(offsets)], 1)
    for keeps_state in (True, False):
        y = mixer(x, None, packed(x, offsets, keeps_state=keeps_state)).y
        torch.testing.assert_close(y, separate, **TIGHT)


def packing_from_states(mixer: Mixer) -> None:
    """Each packed document goes on from its own state, and leaves one to go on from."""
    if not mixer.traits.packs:
        return
    x, offsets, more = inputs(1), [0, 6, 7, T], inputs(3, 2, seed=5)
    states = mixer(inputs(3, 4, seed=7)).state
    output = mixer(x, states, packed(x, offsets))
    after = mixer(more, output.state).y
    for n, (start, stop) in enumerate(pairwise(offsets)):
        alone = mixer(x[:, start:stop], row(states, n))
        torch.testing.assert_close(output.y[:, start:stop], alone.y, **TIGHT)
        torch.testing.assert_close(after[n : n + 1], mixer(more[n : n + 1], alone.state).y, **TIGHT)


def left_padding(mixer: Mixer) -> None:
    x, lengths = inputs(3), [T, 6, 1]
    mask = torch.arange(T) >= T - torch.tensor(lengths)[:, None]
    # What stands at padding may be anything, even what a layer below could not compute.
    x = x.masked_fill(~mask[..., None], float("nan"))
    output, more = mixer(x, None, SequenceContext.of(x, mask=mask)), inputs(3, 2, seed=5)
    after = mixer(more, output.state).y
    for n, length in enumerate(lengths):
        alone = mixer(x[n : n + 1, T - length :])
        torch.testing.assert_close(output.y[n : n + 1, T - length :], alone.y, **TIGHT)
        torch.testing.assert_close(after[n : n + 1], mixer(more[n : n + 1], alone.state).y, **TIGHT)


def right_padding(mixer: Mixer) -> None:
    """A row read in pieces of its own length, beside longer ones, is that row alone."""
    lengths = [[T, 6, 1], [1, 4, 0], [2, 0, 5]]
    state, alone, more = None, [None] * 3, inputs(3, 2, seed=5)
    for piece, real in enumerate(lengths):
        x = inputs(3, max(real), seed=piece)
        mask = torch.arange(max(real)) < torch.tensor(real)[:, None]
        output = mixer(x.masked_fill(~mask[..., None], float("nan")), state, SequenceContext.of(x, mask=mask))
        state = output.state
        for n, length in enumerate(real):
            if not length:
                continue
            want = mixer(x[n : n + 1, :length], alone[n])
            torch.testing.assert_close(output.y[n : n + 1, :length], want.y, **TIGHT)
            alone[n] = want.state
    after = mixer(more, state).y
    for n in range(3):
        torch.testing.assert_close(after[n : n + 1], mixer(more[n : n + 1], alone[n]).y, **TIGHT)


class _Part(SequenceShard):
    """One of several parts, run after those before it in one process, which left on the board what they would send."""

    def __init__(self, board: list[list], tokens_before: torch.Tensor) -> None:
        self.board, self.tokens_before, self.num_ranks = board, tokens_before, 3
        self.sent: list = []

    def _exchange(self, mine):
        self.sent.append(mine)
        return [sent[len(self.sent) - 1] for sent in self.board]

    def halo(self, x, width, first):
        before = self._exchange(x.mT)
        start = x.new_zeros(x.shape[0], x.shape[2], width) if first is None else first
        return torch.cat([start, *before], dim=2)[:, :, -width:]

    def begin_fold(self, make_map, first):
        before = fold(self._exchange(make_map()), first)
        return lambda: before

    def gather(self, *tensors, last=None):
        before = self._exchange(tensors)
        return tuple(torch.cat(parts, dim=1) for parts in zip(*before, tensors, strict=True))


def sharding(mixer: Mixer) -> None:
    """Parts on several ranks, one of them shorter than a convolution, give what one rank gives; gradients too."""
    if mixer.traits.shards is None:
        return
    x = inputs(2)
    parameters = list(mixer.parameters())
    for state in (None, mixer(inputs(2, 7, seed=7)).state):
        whole, board, parts, lengths = mixer(x, state), [], [], [8, 2, 9]
        for start, length in zip(accumulate([0, *lengths]), lengths, strict=False):
            shard = _Part(list(board), torch.full((2,), start))
            part = x[:, start : start + length]
            parts.append(mixer(part, state, SequenceContext.of(part, shard=shard)).y)
            board.append(shard.sent)
        y = torch.cat(parts, 1)
        torch.testing.assert_close(y, whole.y, **TIGHT)
        wanted = gradients(whole.y.square().sum(), parameters, retain_graph=True)
        for got, want in zip(gradients(y.square().sum(), parameters), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def mapping(mixer: Mixer) -> None:
    """The map of a piece takes any state to where reading the piece takes it; of packed documents one each."""
    if mixer.traits.shards != "map":
        return
    x, offsets = inputs(1), [0, 6, 7, T]
    memory = torch.randn_like(mixer(inputs(3)).state["memory"])
    for context, rows in ((SequenceContext.of(x), memory[:1]), (packed(x, offsets), memory)):
        one = mixer.segment_map(x, context)
        torch.testing.assert_close(
            one(rows), mixer(x, {"memory": rows}, context).state["memory"], rtol=0, atol=1e-10
        )
        torch.testing.assert_close(one(None), mixer(x, None, context).state["memory"], rtol=0, atol=1e-10)
        twice = one.then(one)
        torch.testing.assert_close(twice(rows), one(one(rows)), rtol=0, atol=1e-10)


def second_derivatives(mixer: Mixer) -> None:
    if not mixer.traits.twice_differentiable:
        return
    x = inputs(1, 4).requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda x: mixer(x).y, [x], atol=1e-4, raise_exception=False)


def state_size(mixer: Mixer) -> None:
    """The claimed layout is that of the state; it is constant if that is claimed."""
    for tokens in (1, 2, 4, 5, 6, T):
        for dtype in (torch.float64, torch.float32):
            state = mixer.to(dtype)(inputs(1, tokens).to(dtype)).state
            claimed = mixer.state_layout(tokens, dtype)
            assert {n: (v.shape, v.dtype) for n, v in state.items()} == {
                n: (v.shape, v.dtype) for n, v in claimed.items()
            }
            assert mixer.state_bytes(tokens, dtype) == sum(value.nbytes for value in state.values())
    grows = mixer.state_bytes(100_000) > mixer.state_bytes(100)
    assert grows != mixer.traits.constant_state


def cost_slope(mixer: Mixer) -> None:
    """Matrix products of a long and of a longer text differ by what is claimed.

    Attention counts with its plain kernel, which also multiplies what a query may not see: up to twice the claim. The
    slack is for blocks that the shorter text does not fill.
    """
    counted, claimed = [], []
    for tokens in (512, 2048):
        counter = FlopCounterMode(display=False)
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            mixer(inputs(1, tokens))
        counted.append(counter.get_total_flops() / tokens)
        claimed.append(mixer.flops_per_token(tokens))
    slope, slack = claimed[1] - claimed[0], 0.15 * counted[0]
    least, most = sorted((slope, 2.1 * slope))
    assert least - slack <= counted[1] - counted[0] <= most + slack
    dense = sum(2 * m.weight.numel() for m in mixer.modules() if isinstance(m, torch.nn.Linear))
    assert claimed[0] > dense


def attention_weights(mixer: Mixer) -> None:
    """Weights are those that make the output: rows of what is visible, which sum to one."""
    if not mixer.traits.has_weights:
        return
    x, offsets = inputs(1), [0, 6, 7, T]
    plain = mixer(x)
    output = mixer(x, None, SequenceContext.of(x, wants_weights=True))
    torch.testing.assert_close(output.y, plain.y, **TIGHT)
    assert_same_state(output.state, plain.state)
    assert output.weights.shape[2:] == (T, T)
    torch.testing.assert_close(output.weights.sum(-1), torch.ones_like(output.weights[..., 0]), **TIGHT)
    assert output.weights.triu(1).abs().max() == 0
    context = packed(x, offsets, keeps_state=False, wants_weights=True)
    output = mixer(x, None, context)
    torch.testing.assert_close(output.y, mixer(x, None, packed(x, offsets)).y, **TIGHT)
    assert output.weights[:, :, 6:, :6].abs().max() == 0


def gradients_through_the_state(mixer: Mixer) -> None:
    x, parameters = inputs(2), list(mixer.parameters())
    whole = gradients(mixer(x).y.square().sum(), parameters)
    state, parts = None, []
    for start, stop in ((0, 8), (8, 9), (9, T)):
        output = mixer(x[:, start:stop], state)
        state = output.state
        parts.append(output.y)
    loss = torch.cat(parts, 1).square().sum()
    for got, want in zip(gradients(loss, parameters), whole, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def padding_leaves_finite_gradients(mixer: Mixer) -> None:
    x = inputs(2).requires_grad_()
    mask = torch.arange(T) >= torch.tensor([0, 12])[:, None]
    loss = mixer(x, None, SequenceContext.of(x, mask=mask)).y[mask].square().sum()
    for gradient in gradients(loss, [x, *mixer.parameters()]):
        assert gradient.isfinite().all()


def states_are_left_alone(mixer: Mixer) -> None:
    state = mixer(inputs(2, 7)).state
    before = {name: value.clone() for name, value in state.items()}
    mixer(inputs(2, 3), state)
    mixer.step(inputs(2, 1)[:, 0], state)
    for name, value in before.items():
        assert torch.equal(state[name], value), name


def rules_name_parameters(mixer: Mixer) -> None:
    names = {name for name, _ in mixer.named_parameters()}
    assert set(mixer.parameter_rules()) == names
    assert {*mixer.float32_parameters, *mixer.kept_parameters} <= names


LAWS: list[Callable[[Mixer], None]] = [
    causality,
    prefix_causality,
    pieces,
    steps,
    packing,
    packing_from_states,
    left_padding,
    right_padding,
    sharding,
    mapping,
    second_derivatives,
    state_size,
    cost_slope,
    attention_weights,
    gradients_through_the_state,
    padding_leaves_finite_gradients,
    states_are_left_alone,
    rules_name_parameters,
]
