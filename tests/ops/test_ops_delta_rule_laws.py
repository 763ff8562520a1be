"""Laws of the recurrence, on inputs that hypothesis draws."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ops_cases import largest_difference, make_inputs, relative_error, results

from longlode.ops.delta_rule import delta_rule

TOLERANCE = 1e-10
small = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 1000)
chunks = st.sampled_from([4, 8, 16, 32])


def span(inputs, tokens):
    """The arguments cut to a span of tokens, without a state."""
    return {n: x if x is None else x[:, tokens] for n, x in inputs.items() if n != "state"}


@small
@given(seed=seeds, C=chunks, T=st.integers(1, 70), gated=st.booleans(), H=st.integers(1, 3))
def test_chunks_equal_recurrence(seed, C, T, gated, H):
    inputs = make_inputs(2, T, H, 3, 2, gated=gated, seed=seed)
    expected = results(inputs, backend="reference")
    assert largest_difference(results(inputs, chunk_size=C), expected) < TOLERANCE


@small
@given(seed=seeds, C=chunks, T=st.integers(2, 70), cut=st.floats(0, 1), gated=st.booleans())
def test_pieces_equal_whole(seed, C, T, cut, gated):
    inputs = make_inputs(2, T, 2, 3, 4, gated=gated, seed=seed)
    t = 1 + int(cut * (T - 2))
    o, final = delta_rule(**inputs, chunk_size=C)
    o_1, middle = delta_rule(**span(inputs, slice(0, t)), state=inputs["state"], chunk_size=C)
    o_2, end = delta_rule(**span(inputs, slice(t, T)), state=middle, chunk_size=C)
    assert relative_error(torch.cat((o_1, o_2), 1), o) < TOLERANCE
    assert relative_error(end, final) < TOLERANCE


@small
@given(
    seed=seeds, C=chunks, lengths=st.lists(st.integers(1, 40), min_size=1, max_size=6), gated=st.booleans()
)
def test_packed_equals_separate(seed, C, lengths, gated):
    inputs = make_inputs(1, sum(lengths), 2, 3, 4, gated=gated, N=len(lengths), seed=seed)
    offsets = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    o, final = delta_rule(**inputs, cu_seqlens=torch.tensor(offsets, dtype=torch.int32), chunk_size=C)
    for n, start in enumerate(offsets[:-1]):
        tokens = slice(start, offsets[n + 1])
        o_n, final_n = delta_rule(**span(inputs, tokens), state=inputs["state"][n : n + 1], chunk_size=C)
        assert relative_error(o[:, tokens], o_n) < TOLERANCE
        assert relative_error(final[n : n + 1], final_n) < TOLERANCE


@small
@given(seed=seeds, T=st.integers(1, 70))
def test_zero_beta_leaves_the_state(seed, T):
    inputs = make_inputs(2, T, 2, 3, 4, seed=seed)
    inputs["beta"] = torch.zeros_like(inputs["beta"])
    o, final = delta_rule(**inputs, scale=1.0)
    assert torch.equal(final, inputs["state"])
    assert relative_error(o, torch.einsum("bthk,bhkv->bthv", inputs["q"], inputs["state"])) < TOLERANCE


@small
@given(seed=seeds, T=st.integers(1, 48))
def test_orthonormal_keys_recall_each_value(seed, T):
    inputs = make_inputs(1, T, 1, T, 5, seed=seed)
    basis = torch.linalg.qr(inputs["k"][0, :, 0]).Q
    inputs |= {"k": basis[None, :, None], "beta": torch.ones(1, T, 1, dtype=torch.float64), "state": None}
    _, final = delta_rule(**inputs)
    assert relative_error(basis @ final[0, 0], inputs["v"][0, :, 0]) < TOLERANCE


@small
@given(seed=seeds, T=st.integers(2, 60), cut=st.floats(0, 1), gated=st.booleans())
def test_affine_maps_compose(seed, T, cut, gated):
    """A span acts on the state as S -> M S + H: M from zero values and identity, H from a zero state."""
    K = V = 4
    inputs = make_inputs(1, T, 1, K, V, gated=gated, seed=seed)

    def affine(tokens):
        part = span(inputs, tokens)
        H = delta_rule(**part)[1]
        identity = torch.eye(K, dtype=torch.float64).view(1, 1, K, K)
        M = delta_rule(**{**part, "v": torch.zeros_like(part["v"])}, state=identity)[1]
        return M[0, 0], H[0, 0]

    t = 1 + int(cut * (T - 2))
    (M_1, H_1), (M_2, H_2), (M, H) = affine(slice(0, t)), affine(slice(t, T)), affine(slice(0, T))
    assert float((M_2 @ M_1 - M).abs().max()) < TOLERANCE
    assert float((M_2 @ H_1 + H_2 - H).abs().max()) < TOLERANCE
    final = delta_rule(**inputs)[1][0, 0]
    assert float((M @ inputs["state"][0, 0] + H - final).abs().max()) < TOLERANCE


def test_future_tokens_change_nothing():
    inputs = make_inputs(1, 70, 2, 4, 4, gated=True)
    o, _ = delta_rule(**inputs)
    changed = {name: x.clone() for name, x in inputs.items()}
    for name in ("q", "k", "v", "beta", "g"):
        changed[name][:, 41:] = 0.5
    assert torch.equal(delta_rule(**changed)[0][:, :41], o[:, :41])


def test_repeats_are_bitwise_equal():
    offsets = torch.tensor([0, 1, 90, 130, 200])
    inputs = make_inputs(1, 200, 4, 16, 16, gated=True, N=4, dtype=torch.float32)
    for options in ({"cu_seqlens": offsets}, {}):
        if not options:
            inputs["state"] = inputs["state"][:1]
        first = results(inputs, **options, backend="chunkwise")
        for _ in range(3):
            again = results(inputs, **options, backend="chunkwise")
            assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_document_never_sees_another():
    offsets = torch.tensor([0, 33, 50, 100])
    inputs = make_inputs(1, 100, 2, 4, 4, N=3)
    o, final = delta_rule(**inputs, cu_seqlens=offsets)
    poisoned = {name: x if x is None else x.clone() for name, x in inputs.items()}
    for name in ("q", "k", "v", "beta"):
        poisoned[name][:, 33:50] = float("nan")
    o_2, final_2 = delta_rule(**poisoned, cu_seqlens=offsets)
    assert torch.equal(o_2[:, :33], o[:, :33])
    assert torch.equal(o_2[:, 50:], o[:, 50:])
    assert torch.equal(final_2[[0, 2]], final[[0, 2]])
    assert bool(o_2[:, 33:50].isnan().all())
