"""The Triton kernels, run by Triton's interpreter on the CPU: cases for `test_ops_delta_rule_triton.py`.

Not collected on its own: whether kernels are interpreted is settled for a whole process when triton is first
imported, so that test starts a process of its own, with TRITON_INTERPRET=1, for this file.
"""

import os

import pytest
import torch
from ops_cases import largest_difference, make_inputs, relative_error, results
from test_ops_delta_rule_grouped import grouped, head_by_head

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1 from the start of the process", allow_module_level=True)

from longlode.core.errors import BackendError
from longlode.ops.delta_rule import available_backends, delta_rule
from longlode.ops.delta_rule import triton as backend

CHUNKS = backend.CHUNK_SIZES
OPTIONS = {"backend": "triton"}
# Equal keys with beta = 2 never forget, and sums of +-2 cancel: float32 keeps about four digits, in numpy's order
# of summation. Nilpotent doubling keeps none.
FLOAT32_TOLERANCE = {"random": 1e-5, "equal": 5e-4, "near": 5e-4}


def exact_and_ours(inputs, **options):
    exact = results({n: x if x is None else x.double() for n, x in inputs.items()}, backend="reference")
    return exact, results(inputs, **OPTIONS, **options)


def plain_recurrence(q, k, v, beta, *, g=None, state=None):
    """The recurrence with every operation in the inputs' own dtype: what low precision is measured against."""
    S, outputs = state, []
    for t in range(q.shape[1]):
        if g is not None:
            S = g[:, t].exp()[..., None, None] * S
        error = v[:, t] - torch.einsum("bhkv,bhk->bhv", S, k[:, t])
        S = S + torch.einsum("bhk,bhv->bhkv", k[:, t], beta[:, t, :, None] * error)
        outputs.append(q.shape[-1] ** -0.5 * torch.einsum("bhkv,bhk->bhv", S, q[:, t]))
    return torch.stack(outputs, 1), S


def cut_inverse(tensor):
    """A wrong variant: T of a chunk kept in one bfloat16 number per entry."""
    tensor[:, :, 1:] = 0
    return tensor


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("keys", ["random", "equal", "near"])
@pytest.mark.parametrize("C", CHUNKS)
def test_float32_equals_recurrence(C, keys, gated):
    inputs = make_inputs(1, C + 5, 2, 16, 16, gated=gated, keys=keys, dtype=torch.float32)
    exact, ours = exact_and_ours(inputs, chunk_size=C)
    assert largest_difference(ours, exact) < FLOAT32_TOLERANCE[keys]


@pytest.mark.parametrize(("B", "T"), [(2, 1), (3, 15), (2, 17), (1, 150)])
def test_lengths_around_chunks_and_checkpoints(B, T):
    inputs = make_inputs(B, T, 1, 16, 16, gated=True, dtype=torch.float32)
    exact, ours = exact_and_ours(inputs, chunk_size=16)
    assert largest_difference(ours, exact) < 1e-5


@pytest.mark.parametrize(("K", "V"), [(16, 64), (64, 16), (48, 40), (5, 3)])
def test_key_and_value_sizes(K, V):
    inputs = make_inputs(1, 37, 1, K, V, gated=True, dtype=torch.float32)
    exact, ours = exact_and_ours(inputs, chunk_size=32)
    assert largest_difference(ours, exact) < 1e-5


def test_packed_documents():
    offsets = torch.tensor([0, 1, 16, 31, 64, 65, 97])
    inputs = make_inputs(1, 97, 1, 16, 16, gated=True, N=6, dtype=torch.float32)
    wide = {name: x.double() for name, x in inputs.items()}
    exact = results(wide, backend="reference", cu_seqlens=offsets)
    ours = results(inputs, **OPTIONS, cu_seqlens=offsets, chunk_size=16)
    assert largest_difference(ours, exact) < 1e-5


def test_a_document_never_sees_another():
    offsets = torch.tensor([0, 20, 30, 50])
    inputs = make_inputs(1, 50, 1, 16, 16, N=3, dtype=torch.float32)
    clean = results(inputs, **OPTIONS, cu_seqlens=offsets, chunk_size=16)
    for name in ("q", "k", "v", "beta"):
        inputs[name][:, 20:30] = float("nan")
    poisoned = results(inputs, **OPTIONS, cu_seqlens=offsets, chunk_size=16)
    for name in ("o", "dq", "dk", "dv", "dbeta"):
        assert torch.equal(poisoned[name][:, :20], clean[name][:, :20]), name
        assert torch.equal(poisoned[name][:, 30:], clean[name][:, 30:]), name
    assert torch.equal(poisoned["final_state"][[0, 2]], clean["final_state"][[0, 2]])


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("keys", ["random", "equal", "near"])
def test_bfloat16_is_as_good_as_plain_bfloat16(keys, gated):
    inputs = make_inputs(1, 140, 1, 16, 16, gated=gated, keys=keys, dtype=torch.bfloat16)
    exact, ours = exact_and_ours(inputs, chunk_size=64)
    plain = results(inputs, run=plain_recurrence)
    for name in exact:
        allowed = (3 if name.startswith("d") else 2) * relative_error(plain[name], exact[name])
        assert relative_error(ours[name], exact[name]) <= allowed, (name, allowed)


def test_bfloat16_comparison_rejects_an_inverse_of_one_part(monkeypatch):
    inverses = backend._Launch.inverses
    monkeypatch.setattr(backend._Launch, "inverses", lambda self: cut_inverse(inverses(self)))
    inputs = make_inputs(1, 140, 1, 16, 16, keys="equal", dtype=torch.bfloat16, seed=1)
    exact, ours = exact_and_ours(inputs, chunk_size=64)
    plain = results(inputs, run=plain_recurrence)
    assert relative_error(ours["o"], exact["o"]) > 2 * relative_error(plain["o"], exact["o"])


def test_comparison_rejects_a_lost_correction(monkeypatch):
    """Two gradients kernels' worth of errors: with R forgotten, dq and dk must not pass."""
    recompute = backend._Launch.recompute

    def forgetful(self, *arguments):
        states, corrections = recompute(self, *arguments)
        return states, corrections.zero_()

    monkeypatch.setattr(backend._Launch, "recompute", forgetful)
    inputs = make_inputs(1, 20, 1, 16, 16, dtype=torch.float32)
    exact, ours = exact_and_ours(inputs, chunk_size=16)
    assert relative_error(ours["dk"], exact["dk"]) > 1e-2


def test_strong_decay_and_resets():
    inputs = make_inputs(1, 40, 1, 16, 16, gated=True, dtype=torch.float32)
    inputs["g"][:, ::7] = -1000.0
    exact, ours = exact_and_ours(inputs, chunk_size=32)
    assert largest_difference(ours, exact) < 1e-5
    inputs["g"][:, ::7] = float("-inf")
    o, final = delta_rule(**inputs, **OPTIONS, chunk_size=32)
    assert relative_error(o, exact["o"]) < 1e-5
    assert relative_error(final, exact["final_state"]) < 1e-5


def test_no_state_no_gradient_and_strides():
    inputs = make_inputs(2, 20, 2, 16, 16, dtype=torch.float32)
    del inputs["state"]
    exact = delta_rule(**{n: x if x is None else x.double() for n, x in inputs.items()}, backend="reference")
    strided = {
        n: x if x is None else x.transpose(0, -1).contiguous().transpose(0, -1) for n, x in inputs.items()
    }
    for scale in (None, 1.0):
        o, final = delta_rule(**strided, **OPTIONS, scale=scale)
        assert relative_error(o, exact[0] * (1.0 if scale is None else 4.0)) < 1e-5
        assert relative_error(final, exact[1]) < 1e-5


def test_grouped_values():
    inputs = {name: x.float() for name, x in grouped(1, 40, 2, 2, 16, 16, gated=True).items()}
    assert largest_difference(results(inputs, **OPTIONS), results(inputs, run=head_by_head)) < 1e-5


def test_repeats_are_bitwise_equal():
    inputs = make_inputs(1, 40, 2, 16, 16, gated=True, dtype=torch.bfloat16)
    first, again = results(inputs, **OPTIONS), results(inputs, **OPTIONS)
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_dtypes_of_results():
    inputs = make_inputs(1, 5, 1, 16, 16, gated=True, dtype=torch.bfloat16)
    inputs["beta"], inputs["state"] = inputs["beta"].float(), inputs["state"].double()
    found = results(inputs, **OPTIONS)
    assert (found["o"].dtype, found["final_state"].dtype) == (torch.bfloat16, torch.float32)
    for name, x in inputs.items():
        assert found[f"d{name}"].dtype == x.dtype


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.float64}, r"q is torch\.float64; expected float32 or bfloat16.*chunkwise"),
        ({"dtype": torch.float32, "chunk_size": 128}, "chunk_size is 128; expected None or one of"),
        ({"dtype": torch.float32, "K": 300}, "K is 300 and V is 16; expected at most 256"),
    ],
)
def test_refused_calls(options, message):
    inputs = make_inputs(1, 3, 1, options.get("K", 16), 16, dtype=options["dtype"])
    with pytest.raises(BackendError, match=message):
        delta_rule(**inputs, **OPTIONS, chunk_size=options.get("chunk_size"))


def test_second_derivative_is_refused():
    inputs = make_inputs(1, 3, 1, 16, 16, dtype=torch.float32)
    q = inputs.pop("q").requires_grad_()
    o, _ = delta_rule(q, **inputs, **OPTIONS)
    (dq,) = torch.autograd.grad(o.sum() + (q**2).sum(), q, create_graph=True)
    with pytest.raises(BackendError, match=r"no second derivative.*use backend='reference'"):
        torch.autograd.grad(dq.sum(), q)


def test_backend_is_usable_here_and_auto_stays_off_it():
    assert available_backends()["triton"] == ""
    inputs = make_inputs(1, 20, 1, 16, 16, dtype=torch.float32)
    on_cpu = "chunkwise" if available_backends()["native"] else "native"
    assert torch.equal(delta_rule(**inputs)[0], delta_rule(**inputs, backend=on_cpu)[0])
