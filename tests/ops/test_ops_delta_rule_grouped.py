"""Grouped values: heads of q and k that serve several heads of v, in every backend and in a step."""

import functools

import pytest
import torch
from ops_cases import largest_difference, make_inputs, relative_error, results

from longlode.ops.delta_rule import available_backends, delta_rule, delta_rule_step

UNIT = 2**-24
no_native = available_backends()["native"]
BACKENDS = [
    "reference",
    "chunkwise",
    pytest.param("native", marks=pytest.mark.skipif(bool(no_native), reason=f"native: {no_native}")),
]


def grouped(B, T, H, repeats, K, V, **options):
    """Arguments with `repeats` value heads for each key head."""
    x = make_inputs(B, T, H * repeats, K, V, **options)
    return {name: y[:, :, ::repeats].contiguous() if name in ("q", "k") else y for name, y in x.items()}


def head_by_head(q, k, v, beta, *, g=None, state=None, cu_seqlens=None, shift=0):
    """Each value head alone with its key head; shift: a wrong variant takes the key head of another value head."""
    repeats, outputs, states = v.shape[2] // q.shape[2], [], []
    for head in range(v.shape[2]):
        key, own = ((head + shift) // repeats) % q.shape[2], slice(head, head + 1)
        o, final = delta_rule(
            *(x[:, :, key : key + 1] for x in (q, k)),
            v[:, :, own],
            beta[:, :, own],
            g=None if g is None else g[:, :, own],
            state=None if state is None else state[:, own],
            cu_seqlens=cu_seqlens,
            backend="reference",
        )
        outputs.append(o)
        states.append(final)
    return torch.cat(outputs, 2), torch.cat(states, 1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_equals_each_value_head_alone(backend, gated, repeats):
    inputs = grouped(2, 40, 2, repeats, 16, 32, gated=gated)
    exact = results(inputs, run=head_by_head)
    dtype, limit = (torch.float32, 64 * UNIT) if backend == "native" else (torch.float64, 1e-10)
    given = {name: None if x is None else x.to(dtype) for name, x in inputs.items()}
    assert largest_difference(results(given, backend=backend), exact) < limit
    if repeats > 1:
        broken = functools.partial(head_by_head, shift=1)
        assert largest_difference(results(inputs, run=broken), exact) > 1e-2


@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_documents(backend):
    inputs = grouped(1, 60, 2, 2, 16, 16, gated=True, N=3)
    offsets = torch.tensor([0, 1, 35, 60])
    exact = results(inputs, run=head_by_head, cu_seqlens=offsets)
    dtype, limit = (torch.float32, 64 * UNIT) if backend == "native" else (torch.float64, 1e-10)
    given = {name: x.to(dtype) for name, x in inputs.items()}
    assert largest_difference(results(given, backend=backend, cu_seqlens=offsets), exact) < limit


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_step_by_step_equals_whole(dtype):
    x = grouped(2, 9, 2, 3, 16, 16, gated=True, dtype=dtype)
    o, final = delta_rule(**x, backend="reference")
    S = x["state"]
    for t in range(9):
        o_t, S = delta_rule_step(
            **{name: x[name][:, t] for name in ("q", "k", "v", "beta")}, g=x["g"][:, t], state=S
        )
        assert relative_error(o_t, o[:, t]) < 64 * UNIT
    assert relative_error(S, final) < 64 * UNIT
