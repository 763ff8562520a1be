"""Repetitive text: equal and nearly equal keys with beta up to 2, in low precision, at every chunk size.

Random keys are nearly orthogonal and hide an inverse that loses all its digits; these do not.
"""

import pytest
import torch
from ops_cases import largest_difference, make_inputs, relative_error, results

from longlode.ops.chunking.triangular import unit_lower_inverse
from longlode.ops.delta_rule import available_backends, native

no_native = available_backends()["native"]
BACKENDS = ["chunkwise", pytest.param("native", marks=pytest.mark.skipif(bool(no_native), reason=no_native))]
CHUNKS = (4, 8, 16, 32, 64, 128, 256)
T = 300
UNIT = {torch.float32: 2**-24, torch.bfloat16: 2**-9}


def floor(dtype, keys, C, backend="chunkwise"):
    """The error below which a ratio of two errors means nothing.

    A chunk sums C terms: some units of rounding, a quarter more a token. Repeated keys with beta = 2 in
    float32: nothing decays, and a chunk form rounds k . k once and uses it for every pair of tokens, so its
    error has one sign and adds up to some T units; the recurrence rounds afresh each token, sqrt(T) units.
    The compiled kernels form and solve a chunk in float64, and get a sixteenth of that allowance.
    """
    if dtype == torch.float32 and keys != "random":
        return (4 if backend == "chunkwise" else 0.25) * T * UNIT[dtype]
    return (16 + C / 4) * UNIT[dtype] if dtype == torch.float32 else 4 * UNIT[dtype]


def doubling_inverse(A):
    """A wrong variant: the inverse by nilpotent doubling, (I - A)(I + A^2)(I + A^4)..., exact only on paper."""
    C = A.shape[-1]
    T, power = torch.eye(C, dtype=A.dtype) - A, A @ A
    for _ in range(C.bit_length() - 2):
        T, power = T + T @ power, power @ power
    return T


def lower_with_equal_keys(C, dtype, beta):
    return beta * torch.ones(3, C, C, dtype=dtype).tril(-1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("keys", ["random", "equal", "near"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_is_as_good_as_the_recurrence(dtype, keys, gated, backend):
    for beta_max in (1.0, 2.0):
        inputs = make_inputs(1, T, 2, 16, 16, gated=gated, keys=keys, beta_max=beta_max, dtype=dtype)
        exact = results({name: x if x is None else x.double() for name, x in inputs.items()})
        plain = results(inputs, backend="reference")
        for C in CHUNKS if backend == "chunkwise" else native.CHUNK_SIZES:
            ours = results(inputs, chunk_size=C, backend=backend)
            for name in exact:
                factor = 3 if name.startswith("d") else 2
                least = floor(dtype, keys, C, backend)
                allowed = max(factor * relative_error(plain[name], exact[name]), least)
                assert relative_error(ours[name], exact[name]) <= allowed, (name, C, beta_max, allowed)


@pytest.mark.parametrize("keys", ["equal", "near"])
def test_float64_is_exact_with_repeated_keys(keys):
    inputs = make_inputs(1, T, 2, 8, 8, keys=keys)
    expected = results(inputs, backend="reference")
    for C in CHUNKS:
        assert largest_difference(results(inputs, chunk_size=C), expected) < 1e-10


@pytest.mark.parametrize("C", CHUNKS)
@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_inverse_with_equal_keys(C, beta):
    A = lower_with_equal_keys(C, torch.float32, beta)
    exact = torch.linalg.inv(torch.eye(C, dtype=torch.float64) + A.double())
    assert relative_error(unit_lower_inverse(A, out=torch.empty_like(A)), exact) < 1e-6
    noise = torch.randn(3, C, C, generator=torch.Generator().manual_seed(0)).tril(-1)
    A = beta * noise / C**0.5
    exact = torch.linalg.inv(torch.eye(C, dtype=torch.float64) + A.double())
    assert relative_error(unit_lower_inverse(A, out=torch.empty_like(A)), exact) < 1e-4


def test_these_keys_reject_doubling():
    A = lower_with_equal_keys(64, torch.float32, 1.0)
    exact = torch.linalg.inv(torch.eye(64, dtype=torch.float64) + A.double())
    assert relative_error(doubling_inverse(A), exact) > 1.0
    random = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0)).tril(-1) / 64
    exact = torch.linalg.inv(torch.eye(64, dtype=torch.float64) + random.double())
    assert relative_error(doubling_inverse(random), exact) < 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
def test_strong_and_total_decay(backend):
    inputs = make_inputs(1, 100, 2, 16, 16, gated=True, dtype=torch.float32)
    inputs["g"][:, 10] = -1000.0
    inputs["g"][:, 40] = float("-inf")
    inputs["g"][:, 70:75] = -30.0
    exact = results({name: x.double() for name, x in inputs.items()}, backend="reference")
    ours64 = results({name: x.double() for name, x in inputs.items()}, chunk_size=64)
    assert largest_difference(ours64, exact) < 1e-10
    plain = results(inputs, backend="reference")
    ours = results(inputs, chunk_size=64, backend=backend)
    for name in exact:
        allowed = max(3 * relative_error(plain[name], exact[name]), floor(torch.float32, "random", 64))
        assert relative_error(ours[name], exact[name]) <= allowed, name


@pytest.mark.parametrize("backend", BACKENDS)
def test_weak_gradients_of_strong_decay_keep_their_digits(backend):
    inputs = make_inputs(1, 64, 1, 16, 16, gated=True, dtype=torch.float32)
    inputs["g"] -= 30.0
    exact = results({name: x.double() for name, x in inputs.items()}, backend="reference")
    ours = results(inputs, backend=backend)
    assert float(exact["dg"].abs().max()) < 1e-10
    assert relative_error(ours["dg"], exact["dg"]) < 1e-4
