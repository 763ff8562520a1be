"""What the op refuses, and what it says then."""

import logging

import pytest
import torch
from ops_cases import make_inputs

from longlode.core.errors import BackendError, ConfigError
from longlode.ops import backends
from longlode.ops.delta_rule import available_backends, delta_rule, delta_rule_step


def arguments(**changes):
    inputs = make_inputs(2, 6, 2, 4, 3, dtype=torch.float32)
    return {**inputs, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": torch.zeros(2, 6, 2, 5)}, r"k has shape \[2, 6, 2, 5\]; expected \[B=2, T=6, H=2, K=4\]"),
        ({"v": torch.zeros(2, 6, 3)}, r"v has shape .* expected \[B=2, T=6, HV, V\]"),
        (
            {"v": torch.zeros(2, 6, 3, 3), "beta": torch.zeros(2, 6, 3)},
            "v has 3 heads and q has 2; .* a multiple",
        ),
        ({"beta": torch.zeros(2, 6, 2, 1)}, "beta has shape"),
        ({"g": torch.zeros(2, 6)}, "g has shape"),
        ({"state": torch.zeros(3, 2, 4, 3)}, r"state has shape .* expected \[N=2, HV=2, K=4, V=3\]"),
        ({"k": torch.zeros(2, 6, 2, 4).double()}, "k is torch.float64 and q is torch.float32"),
        ({"beta": torch.zeros(2, 6, 2, dtype=torch.int64)}, "beta is torch.int64"),
        ({"chunk_size": 48}, "chunk_size is 48; expected None or one of"),
        ({"backend": "cuda"}, "backend is 'cuda'; expected 'auto' or one of"),
        ({"cu_seqlens": torch.tensor([0, 6])}, "cu_seqlens was given with B = 2 rows; expected B = 1"),
    ],
)
def test_refused_arguments(changes, message):
    with pytest.raises(ConfigError, match=message):
        delta_rule(**arguments(**changes))


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 3, 3, 6], r"document 1 empty .*Drop empty documents"),
        ([0, 4, 2, 6], "document 1 empty or backward"),
        ([0, 3, 5], "runs from 0 to 5; expected from 0 to T = 6"),
        ([1, 6], "runs from 1 to 6; expected it to start at 0"),
        ([0], "expected \\[N \\+ 1\\] integers"),
    ],
)
def test_refused_offsets(offsets, message):
    inputs = make_inputs(1, 6, 2, 4, 3)
    inputs["state"] = None
    with pytest.raises(ConfigError, match=message):
        delta_rule(**inputs, cu_seqlens=torch.tensor(offsets))


def test_floating_offsets_are_refused():
    inputs = make_inputs(1, 6, 2, 4, 3)
    with pytest.raises(ConfigError, match=r"dtype torch\.float32"):
        delta_rule(**inputs, cu_seqlens=torch.tensor([0.0, 6.0]))


def test_empty_sequence_is_refused():
    with pytest.raises(ConfigError, match="T is 0"):
        delta_rule(**make_inputs(1, 0, 2, 4, 3))


def test_absent_backend_is_an_error_that_says_what_to_do():
    absent = [name for name, reason in available_backends().items() if reason]
    for name in absent:
        with pytest.raises(BackendError, match=rf"'{name}' is not available.*use"):
            delta_rule(**arguments(), backend=name)
    assert available_backends()["reference"] == available_backends()["chunkwise"] == ""


@pytest.mark.parametrize("through_outputs", [False, True])
def test_second_derivative_is_refused(through_outputs):
    inputs = arguments()
    q = inputs.pop("q").requires_grad_()

    def first_derivative(backend):
        o, _ = delta_rule(q, **inputs, backend=backend)
        loss = (o**2).sum() if through_outputs else (o.sum() + (q**2).sum())
        return torch.autograd.grad(loss, q, create_graph=True)[0]

    torch.autograd.grad(first_derivative("reference").sum(), q)
    with pytest.raises(BackendError, match=r"no second derivative.*use backend='reference'"):
        torch.autograd.grad(first_derivative("chunkwise").sum(), q)


def test_backend_is_logged_once(caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="longlode.ops.backends")
    monkeypatch.setattr(backends, "_used", {})
    for _ in range(2):
        delta_rule(**arguments(), backend="reference")
    assert [r.getMessage() for r in caplog.records] == ["delta_rule uses backend 'reference' on cpu"]


def test_step_refuses_wrong_shapes():
    x = arguments()
    with pytest.raises(ConfigError, match="q has shape"):
        delta_rule_step(x["q"], x["k"], x["v"], x["beta"], state=x["state"])
    token = {name: x[name][:, 0] for name in ("q", "k", "v", "beta")}
    with pytest.raises(ConfigError, match="state has shape"):
        delta_rule_step(**token, state=x["state"][:1])
    wide = {"v": torch.zeros(2, 3, 3), "beta": torch.zeros(2, 3), "state": torch.zeros(2, 3, 4, 3)}
    with pytest.raises(ConfigError, match="v has 3 heads and q has 2"):
        delta_rule_step(**{**token, **wide})
