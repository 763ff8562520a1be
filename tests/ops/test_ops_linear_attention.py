"""Linear attention: chunks equal the recurrence to 1e-10 in float64, gradients too, and the laws of a state."""

import pytest
import torch
from ops_cases import largest_difference, relative_error

from longlode.core.errors import ConfigError
from longlode.ops.linear_attention import chunkwise, linear_attention, linear_attention_step

DECAYS = ("none", "head", "channel")


def make_inputs(B, T, H, K, V, decay, *, N=None, dtype=torch.float64, strength=1.0, seed=0):
    """Arguments as a dict; strength scales the log-decay."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    shapes = {"none": None, "head": (B, T, H), "channel": (B, T, H, K)}
    inputs = {
        "q": normal(B, T, H, K),
        "k": normal(B, T, H, K),
        "v": normal(B, T, H, V),
        "state": normal(N or B, H, K, V),
    }
    if shapes[decay]:
        inputs["g"] = -strength * torch.rand(shapes[decay], generator=rng, dtype=torch.float64)
    return {name: x.to(dtype) for name, x in inputs.items()}


def results(inputs, **options):
    """Outputs, final state and all gradients of a fixed random functional of both."""
    leaves = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    o, final = linear_attention(**leaves, **options)
    rng = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=rng, dtype=torch.float64).to(x.dtype) for x in (o, final)]
    loss = (o * weights[0]).sum() + (final * weights[1]).sum()
    grads = torch.autograd.grad(loss, list(leaves.values()))
    found = {"o": o, "final_state": final}
    found |= {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {name: x.detach() for name, x in found.items()}


def check_exact(inputs, **options):
    want = results(inputs, backend="reference", **{k: v for k, v in options.items() if k != "chunk_size"})
    assert largest_difference(results(inputs, **options), want) < 1e-10


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("T", [1, 7, 8, 9, 50])
def test_chunks_equal_the_recurrence(decay, T):
    check_exact(make_inputs(2, T, 3, 4, 5, decay), chunk_size=8)
    check_exact(make_inputs(2, T, 3, 4, 5, decay))


@pytest.mark.parametrize("decay", DECAYS)
def test_packed_documents(decay):
    offsets = torch.tensor([0, 3, 4, 37, 45, 60])
    check_exact(make_inputs(1, 60, 2, 4, 3, decay, N=5), cu_seqlens=offsets, chunk_size=8)


@pytest.mark.parametrize("decay", DECAYS)
def test_many_tiles(decay, monkeypatch):
    from longlode.ops.chunking import layout

    layout._kept_plan.cache_clear()
    monkeypatch.setattr(layout, "_CPU_TILE_TOKEN_HEADS", 32)
    try:
        check_exact(make_inputs(3, 70, 2, 4, 3, decay), chunk_size=4)
        offsets = torch.tensor([0, 3, 40, 70])
        check_exact(make_inputs(1, 70, 2, 4, 3, decay, N=3), cu_seqlens=offsets, chunk_size=4)
    finally:
        layout._kept_plan.cache_clear()


@pytest.mark.parametrize("decay", ["head", "channel"])
@pytest.mark.parametrize("strength", [1e-9, 40.0, 2000.0])
def test_decays_from_none_to_all(decay, strength):
    """e^-2000 is 0 in every dtype; a quotient of two such numbers would be NaN."""
    inputs = make_inputs(2, 70, 2, 4, 3, decay, strength=strength)
    check_exact(inputs, chunk_size=32)
    single = linear_attention(**{name: x.float() for name, x in inputs.items()})[0]
    assert relative_error(single, linear_attention(**inputs)[0]) < 1e-5


@pytest.mark.parametrize("decay", ["head", "channel"])
def test_minus_infinity_clears_the_state(decay):
    inputs = make_inputs(1, 20, 2, 4, 3, decay)
    inputs["g"][:, 9] = -torch.inf
    check_exact(inputs, chunk_size=8)
    o, final = linear_attention(**inputs, chunk_size=8)
    tail = {name: x[:, 9:] for name, x in inputs.items() if name != "state"}
    o_tail, final_tail = linear_attention(**tail)
    torch.testing.assert_close(o[:, 9:], o_tail)
    torch.testing.assert_close(final, final_tail)


def test_one_decay_a_channel_contains_one_a_head():
    inputs = make_inputs(2, 40, 3, 4, 5, "head")
    wide = inputs | {"g": inputs["g"][..., None].expand(-1, -1, -1, 4)}
    narrow = linear_attention(**inputs, chunk_size=16)
    for got, want in zip(linear_attention(**wide, chunk_size=16), narrow, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", DECAYS)
def test_in_pieces_and_step_by_step(decay):
    inputs = make_inputs(2, 23, 2, 4, 3, decay)
    state = inputs.pop("state")
    whole, final = linear_attention(**inputs, state=state, chunk_size=8)
    first, middle = linear_attention(**{name: x[:, :9] for name, x in inputs.items()}, state=state)
    rest, last = linear_attention(**{name: x[:, 9:] for name, x in inputs.items()}, state=middle)
    torch.testing.assert_close(torch.cat((first, rest), 1), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(last, final, rtol=0, atol=1e-12)
    for t in range(23):
        o_t, state = linear_attention_step(**{name: x[:, t] for name, x in inputs.items()}, state=state)
        torch.testing.assert_close(o_t, whole[:, t], rtol=0, atol=1e-12)
    torch.testing.assert_close(state, final, rtol=0, atol=1e-12)


@pytest.mark.parametrize("decay", DECAYS)
def test_low_precision_is_near_float64(decay):
    inputs = make_inputs(1, 200, 2, 16, 16, decay, dtype=torch.bfloat16, strength=0.1)
    exact = results({name: x.double() for name, x in inputs.items()})
    got = results(inputs)
    plain = results(inputs, backend="reference")
    for name, want in exact.items():
        assert relative_error(got[name], want) <= 3 * relative_error(plain[name], want) + 1e-6, name
    assert got["o"].dtype == torch.bfloat16
    assert got["final_state"].dtype == torch.float32


@pytest.mark.parametrize("decay", DECAYS)
def test_gradients_by_finite_differences(decay):
    inputs = make_inputs(1, 6, 1, 2, 2, decay)
    names = list(inputs)
    leaves = [x.requires_grad_() for x in inputs.values()]

    def run(*tensors):
        return linear_attention(**dict(zip(names, tensors, strict=True)), chunk_size=4)

    torch.autograd.gradcheck(run, leaves)


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("offsets", [None, [0, 7, 20]])
def test_second_derivatives_equal_those_of_the_recurrence(decay, offsets):
    inputs = make_inputs(1, 20, 2, 4, 3, decay, N=None if offsets is None else 2)
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    cu_seqlens = None if offsets is None else torch.tensor(offsets)

    def second(backend):
        # Keys that hang on the queries: a gradient of q must not hold what q is owed through k.
        tensors = {**leaves, "k": leaves["k"] + 0.3 * leaves["q"]}
        o, final = linear_attention(**tensors, cu_seqlens=cu_seqlens, backend=backend)
        loss = o.sum() + (o**2).sum() + (final**3).sum()
        first = torch.autograd.grad(loss, list(leaves.values()), create_graph=True)
        return torch.autograd.grad(sum((x**2).sum() for x in first), list(leaves.values()))

    for got, want in zip(second("chunkwise"), second("reference"), strict=True):
        assert relative_error(got, want) < 1e-10


@pytest.mark.parametrize("decay", DECAYS)
def test_second_derivatives_by_finite_differences(decay):
    inputs = make_inputs(1, 5, 1, 2, 2, decay)
    leaves = [x.requires_grad_() for x in inputs.values()]

    def run(*tensors):
        return linear_attention(**dict(zip(inputs, tensors, strict=True)), chunk_size=4)

    torch.autograd.gradgradcheck(run, leaves)


def test_autocast_does_not_reach_the_backward():
    inputs = make_inputs(1, 40, 2, 8, 8, "head", dtype=torch.float32)
    plain = results(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert largest_difference(results(inputs), plain) == 0.0


def test_a_wrong_decay_is_noticed(monkeypatch):
    broken = chunkwise._sum_after
    monkeypatch.setattr(chunkwise, "_sum_after", lambda g, dim=2: broken(g, dim) + g)
    for decay in ("head", "channel"):
        with pytest.raises(AssertionError):
            check_exact(make_inputs(1, 20, 1, 4, 3, decay), chunk_size=8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": torch.zeros(1, 5, 2, 3)}, "k has shape"),
        ({"g": torch.zeros(1, 5)}, "g has shape"),
        ({"v": torch.zeros(1, 5, 2, 3, dtype=torch.float64)}, "v is torch.float64 and q is torch.float32"),
        ({"g": torch.zeros(1, 5, 2, dtype=torch.int64)}, "g is torch.int64"),
        ({"state": torch.zeros(2, 2, 4, 3)}, "state has shape"),
        ({"chunk_size": 12}, "chunk_size is 12"),
        ({"backend": "warp"}, r"backend is 'warp'; expected 'auto' or one of \['chunkwise', 'reference'\]"),
        ({"cu_seqlens": torch.tensor([0, 4])}, "from 0 to T = 5"),
    ],
)
def test_wrong_arguments_are_refused(changes, said):
    arguments = {"q": torch.zeros(1, 5, 2, 4), "k": torch.zeros(1, 5, 2, 4), "v": torch.zeros(1, 5, 2, 3)}
    with pytest.raises(ConfigError, match=said):
        linear_attention(**arguments | changes)


def test_a_step_with_wrong_shapes_is_refused():
    q, v, state = torch.zeros(1, 2, 4), torch.zeros(1, 2, 3), torch.zeros(1, 2, 4, 3)
    with pytest.raises(ConfigError, match="g has shape"):
        linear_attention_step(q, q, v, g=torch.zeros(1, 3), state=state)
