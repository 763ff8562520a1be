"""The chunk form equals the recurrence, in float64, to rounding: outputs, states and every gradient."""

import math

import pytest
import torch
from ops_cases import largest_difference, make_inputs, relative_error, results

from longlode.ops.delta_rule import delta_rule, delta_rule_step

TOLERANCE = 1e-10
CHUNKS = (4, 16, 32, 64)
OFFSETS = {C: torch.tensor([0, 1, C, 2 * C, 3 * C + 1, 6 * C + 3, 6 * C + 4]) for C in CHUNKS}


def read_before_write(q, k, v, beta, *, g=None, state=None, **_):
    """A wrong variant: the same recurrence, but o_t reads the state of the token before."""
    o, final = delta_rule(q, k, v, beta, g=g, state=state, backend="reference")
    outputs = []
    S = state
    for t in range(q.shape[1]):
        decay = 1.0 if g is None else g[:, t].exp()[..., None, None]
        outputs.append(torch.einsum("bhkv,bhk->bhv", decay * S, q[:, t]) * q.shape[-1] ** -0.5)
        _, S = delta_rule_step(
            q[:, t], k[:, t], v[:, t], beta[:, t], g=None if g is None else g[:, t], state=S
        )
    return torch.stack(outputs, 1) + 0.0 * o, final


def test_recurrence_equals_the_equations_in_plain_python():
    K, V, T = 2, 3, 4
    x = make_inputs(1, T, 1, K, V, gated=True)
    q, k, v = ([row.tolist() for row in x[name][0, :, 0]] for name in ("q", "k", "v"))
    beta, g = (x[name][0, :, 0].tolist() for name in ("beta", "g"))
    S = x["state"][0, 0].tolist()
    expected = []
    for t in range(T):
        S = [[math.exp(g[t]) * entry for entry in row] for row in S]
        error = [v[t][j] - sum(S[i][j] * k[t][i] for i in range(K)) for j in range(V)]
        S = [[S[i][j] + beta[t] * k[t][i] * error[j] for j in range(V)] for i in range(K)]
        expected.append([K**-0.5 * sum(S[i][j] * q[t][i] for i in range(K)) for j in range(V)])
    o, final = delta_rule(**x, backend="reference")
    assert relative_error(o[0, :, 0], torch.tensor(expected)) < 1e-6
    assert relative_error(o[0, :, 0], torch.tensor(expected, dtype=torch.float64)) < 1e-14
    assert relative_error(final[0, 0], torch.tensor(S, dtype=torch.float64)) < 1e-14


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("C", CHUNKS)
def test_lengths_around_the_chunk(C, gated):
    for T in sorted({1, 2, C - 1, C, C + 1, 2 * C + 3}):
        inputs = make_inputs(2, T, 3, 5, 7, gated=gated, seed=T)
        expected = results(inputs, backend="reference")
        assert largest_difference(results(inputs, chunk_size=C), expected) < TOLERANCE, T


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("C", CHUNKS)
def test_packed_documents_around_the_chunk(C, gated):
    offsets = OFFSETS[C]
    inputs = make_inputs(1, int(offsets[-1]), 2, 6, 4, gated=gated, N=6)
    expected = results(inputs, backend="reference", cu_seqlens=offsets)
    assert largest_difference(results(inputs, chunk_size=C, cu_seqlens=offsets), expected) < TOLERANCE


def test_many_short_documents_and_several_tiles():
    lengths = [1, 3, 300, 2, 5, 1, 64, 33, 32, 31, 7] * 3
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    inputs = make_inputs(1, sum(lengths), 9, 4, 4, gated=True, N=len(lengths))
    expected = results(inputs, backend="reference", cu_seqlens=offsets)
    assert largest_difference(results(inputs, cu_seqlens=offsets), expected) < TOLERANCE


@pytest.mark.parametrize(("K", "V"), [(1, 1), (16, 5), (3, 40), (64, 16)])
def test_key_and_value_sizes(K, V):
    inputs = make_inputs(3, 70, 1, K, V, gated=True)
    assert largest_difference(results(inputs), results(inputs, backend="reference")) < TOLERANCE


def test_scale_and_missing_state():
    inputs = make_inputs(2, 37, 2, 4, 3)
    del inputs["state"]
    for scale in (None, 1.0, -0.3):
        expected = results(inputs, backend="reference", scale=scale)
        assert largest_difference(results(inputs, scale=scale), expected) < TOLERANCE
    zeros = {**inputs, "state": torch.zeros(2, 2, 4, 3, dtype=torch.float64)}
    assert torch.equal(delta_rule(**zeros)[0], delta_rule(**inputs)[0])


def test_non_contiguous_inputs():
    inputs = make_inputs(2, 45, 3, 4, 6, gated=True)
    expected = results(inputs)
    strided = {name: x.transpose(0, -1).contiguous().transpose(0, -1) for name, x in inputs.items()}
    assert not strided["q"].is_contiguous()
    assert largest_difference(results(strided), expected) < TOLERANCE
    expanded = {**inputs, "k": inputs["k"][:, :1].expand_as(inputs["k"])}
    assert largest_difference(results(expanded), results(expanded, backend="reference")) < TOLERANCE


def test_gradient_from_one_result_alone():
    inputs = make_inputs(2, 40, 2, 4, 3)
    for index in (0, 1):

        def one_result(*args, _index=index, **options):
            o, final = delta_rule(*args, **options)
            return (o, final.detach()) if _index == 0 else (o.detach(), final)

        expected = results(inputs, run=one_result, backend="reference")
        assert largest_difference(results(inputs, run=one_result), expected) < TOLERANCE


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("offsets", [None, [0, 1, 3, 7]])
def test_gradcheck(gated, offsets):
    N = 1 if offsets is None else 3
    inputs = make_inputs(1, 7, 2, 2, 3, gated=gated, N=N)
    leaves = {name: x.requires_grad_() for name, x in inputs.items() if x is not None}
    offsets = None if offsets is None else torch.tensor(offsets)

    def run(*tensors):
        return delta_rule(**dict(zip(leaves, tensors, strict=True)), cu_seqlens=offsets, chunk_size=4)

    assert torch.autograd.gradcheck(run, tuple(leaves.values()))


def test_comparison_rejects_reading_before_writing():
    inputs = make_inputs(1, 9, 2, 4, 3, gated=True)
    expected = results(inputs, backend="reference")
    assert largest_difference(results(inputs, run=read_before_write), expected) > 1e-2


@pytest.mark.parametrize("gated", [False, True])
def test_step_by_step_equals_whole(gated):
    x = make_inputs(2, 20, 3, 4, 5, gated=gated)
    o, final = delta_rule(**x, backend="reference")
    S = x["state"]
    for t in range(20):
        token = {name: x[name][:, t] for name in ("q", "k", "v", "beta")}
        o_t, S = delta_rule_step(**token, g=x["g"][:, t] if gated else None, state=S)
        assert relative_error(o_t, o[:, t]) < 1e-12
    assert relative_error(S, final) < 1e-12


@pytest.mark.parametrize("backend", ["reference", "chunkwise"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_dtypes_of_results(backend, dtype):
    inputs = make_inputs(1, 5, 2, 4, 3, gated=True, dtype=dtype)
    inputs["beta"], inputs["state"] = inputs["beta"].float(), inputs["state"].float()
    found = results(inputs, backend=backend)
    assert found["o"].dtype == dtype
    assert found["final_state"].dtype == torch.float32
    for name, x in inputs.items():
        assert found[f"d{name}"].dtype == x.dtype


def test_autocast_does_not_reach_the_state():
    inputs = make_inputs(1, 50, 2, 8, 8, dtype=torch.float32)
    plain = results(inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert largest_difference(results(inputs), plain) == 0.0
