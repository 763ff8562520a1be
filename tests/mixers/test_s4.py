"""S4: against its recurrence with dense matrices, HiPPO's own, S4D, and the generating function of its kernel."""

import math

import pytest
import torch
from mixer_laws import (
    D,
    T,
    build,
    gradients_through_the_state,
    inputs,
    left_padding,
    mapping,
    packing_from_states,
    pieces,
    right_padding,
    sharding,
    steps,
)

from longlode.mixers import MIXERS, s4d
from longlode.mixers.s4 import hippo_legs

KIND = MIXERS.get("s4")
M = 3


def make(random=True):
    mixer = build(KIND.from_settings({"state_size": 2 * M}))
    if random:
        with torch.no_grad():
            for name in ("log_rate", "frequency", "low_rank", "input_weights"):
                getattr(mixer, name).normal_(0, 0.7)
            mixer.log_step.normal_(-0.5, 0.5)
    return mixer


def layer(mixer, u):
    """What stands behind the state space model: GELU, and a linear layer with a gate."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    gelu = 0.5 * u * (1 + torch.erf(u / math.sqrt(2)))
    left, right = (gelu @ w["o_proj.weight"].T + w["o_proj.bias"]).chunk(2, dim=1)
    return left / (1 + torch.exp(-right))


def dense(mixer, d):
    """Discrete A, B, C of channel d over all N modes, each with its conjugate, complex."""
    w = {name: parameter.detach()[d] for name, parameter in mixer.named_parameters() if "proj" not in name}

    def both(pairs):
        half = torch.complex(pairs[:, 0], pairs[:, 1])
        return torch.cat((half, half.conj()))

    half = torch.complex(-w["log_rate"].exp(), w["frequency"])
    P, B, C = both(w["low_rank"]), both(w["input_weights"]), both(w["output_weights"])
    A = torch.diag(torch.cat((half, half.conj()))) - torch.outer(P, P.conj())
    dt, eye = math.exp(float(w["log_step"])), torch.eye(2 * M, dtype=A.dtype)
    inverse = torch.linalg.inv(eye - dt / 2 * A)
    return inverse @ (eye + dt / 2 * A), dt * inverse @ B, C


def by_hand(mixer, x):
    u = torch.zeros_like(x)
    for d in range(D):
        A, B, C = dense(mixer, d)
        s = torch.zeros(2 * M, dtype=A.dtype)
        for t in range(len(x)):
            s = A @ s + B * x[t, d]
            u[t, d] = (C @ s).real + mixer.skip.detach()[d] * x[t, d]
    return layer(mixer, u)


@pytest.mark.parametrize("chunk", [1, 4, 5, 128])
def test_against_the_dense_recurrence(monkeypatch, chunk):
    monkeypatch.setattr(s4d, "CHUNK", chunk)
    mixer, x = make(), inputs(2)
    for n in range(2):
        torch.testing.assert_close(mixer(x).y[n], by_hand(mixer, x[n]), rtol=0, atol=1e-11)


def test_it_begins_as_hippo():
    """Output weights C = B^T, in HiPPO's own real coordinates: no eigenvectors, no complex numbers."""
    mixer, x = make(random=False), inputs(1)
    with torch.no_grad():
        mixer.output_weights.copy_(mixer.input_weights * torch.tensor([1.0, -1.0]))
    u = torch.zeros_like(x[0])
    A, B = torch.zeros(2 * M, 2 * M).double(), torch.zeros(2 * M).double()
    for n in range(2 * M):
        B[n] = math.sqrt(2 * n + 1)
        for k in range(n + 1):
            A[n, k] = -(n + 1) if n == k else -math.sqrt((2 * n + 1) * (2 * k + 1))
    for d in range(D):
        dt, eye = math.exp(mixer.log_step[d].item()), torch.eye(2 * M).double()
        inverse, s = torch.linalg.inv(eye - dt / 2 * A), torch.zeros(2 * M).double()
        for t in range(T):
            s = inverse @ ((eye + dt / 2 * A) @ s + dt * B * x[0, t, d])
            u[t, d] = B @ s + mixer.skip[d].item() * x[0, t, d]
    torch.testing.assert_close(mixer(x).y[0], layer(mixer, u), rtol=0, atol=1e-10)


def test_modes_of_hippo_have_its_eigenvalues():
    """HiPPO-LegS is triangular, so its eigenvalues are its diagonal, -1 to -N."""
    modes, p, _ = hippo_legs(8)
    assert modes.imag.min() > 0
    full, low = torch.cat((modes, modes.conj())), torch.cat((p, p.conj()))
    values = torch.linalg.eigvals(torch.diag(full) - torch.outer(low, low.conj())).real.sort().values
    torch.testing.assert_close(values, torch.arange(-8, 0, dtype=torch.float64), rtol=0, atol=1e-6)


def test_without_the_low_rank_term_it_is_s4d():
    """S4D's exponential steps, with the modes and weights for which they are S4's bilinear ones."""
    mixer, x = make(), inputs(2)
    diagonal = build(MIXERS.get("s4d").from_settings({"state_size": 2 * M}))
    with torch.no_grad():
        mixer.low_rank.zero_()
        dt = mixer.log_step.exp()[:, None]
        modes = torch.complex(-mixer.log_rate.exp(), mixer.frequency)
        a = (1 + dt / 2 * modes) / (1 - dt / 2 * modes)
        b = dt / (1 - dt / 2 * modes) * torch.view_as_complex(mixer.input_weights)
        same = a.log() / dt
        c = torch.view_as_complex(mixer.output_weights) * b * same / (a - 1)
        for name in ("log_step", "skip", "o_proj.weight", "o_proj.bias"):
            diagonal.get_parameter(name).copy_(mixer.get_parameter(name))
        diagonal.log_rate.copy_((-same.real).log())
        diagonal.frequency.copy_(same.imag)
        diagonal.output_weights.copy_(torch.view_as_real(c))
    torch.testing.assert_close(mixer(x).y, diagonal(x).y, rtol=0, atol=1e-11)


def test_the_kernel_from_its_generating_function():
    """The paper's way: sum_t K_t z^t = C (I - A^L) (I - A z)^-1 B at the L-th roots of unity, by Woodbury."""
    mixer, L = make(), 16
    kernel = mixer._dynamics(L).kernel().detach()
    for d in range(D):
        A, _, C = dense(mixer, d)
        w = {
            name: parameter.detach()[d] for name, parameter in mixer.named_parameters() if "proj" not in name
        }
        half = torch.complex(-w["log_rate"].exp(), w["frequency"])
        modes = torch.cat((half, half.conj()))
        P, B = (torch.view_as_complex(w[name]) for name in ("low_rank", "input_weights"))
        P, B = torch.cat((P, P.conj())), torch.cat((B, B.conj()))
        rest = C @ (torch.eye(2 * M) - torch.linalg.matrix_power(A, L))
        values = []
        for j in range(L):
            z = torch.exp(torch.tensor(-2j * math.pi * j / L, dtype=torch.complex128))
            if j == L // 2:  # z = -1: (I - A z)^-1 B in the limit, where the transform has a pole
                values.append(rest @ torch.linalg.solve(torch.eye(2 * M) - A * z, dense(mixer, d)[1]))
                continue
            dt = math.exp(float(w["log_step"]))
            cauchy = 1 / (2 / dt * (1 - z) / (1 + z) - modes)
            one, two = (rest * cauchy * B).sum(), (rest * cauchy * P).sum()
            three, four = (P.conj() * cauchy * B).sum(), (P.conj() * cauchy * P).sum()
            values.append(2 / (1 + z) * (one - two * three / (1 + four)))
        by_cauchy = torch.fft.ifft(torch.stack(values)).real
        torch.testing.assert_close(kernel[d], by_cauchy, rtol=0, atol=1e-10)


BLOCK_LAWS = [
    pieces, steps, packing_from_states, left_padding, right_padding, sharding, mapping, gradients_through_the_state
]  # fmt: skip


@pytest.mark.parametrize("law", BLOCK_LAWS)
def test_the_laws_in_small_chunks(monkeypatch, law):
    monkeypatch.setattr(s4d, "CHUNK", 4)
    law(make())


def test_powers_of_its_matrix_stay_exact_under_autocast():
    mixer, x = make().float(), inputs(1, 200).float()
    want = mixer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = mixer(x)
    torch.testing.assert_close(got.state["memory"], want.state["memory"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(got.y.float(), want.y, rtol=0.05, atol=0.05)


def test_its_state_is_real_and_its_matrix_learns_slowly():
    mixer = make()
    assert mixer.state_bytes(10) == mixer.state_bytes(10_000) == D * 2 * M * 4
    rules = mixer.parameter_rules()
    slow = {name for name, rule in rules.items() if rule.lr_scale == 0.1}
    assert slow == {"log_rate", "frequency", "log_step", "low_rank", "input_weights"}
