"""The kernels' self-test rejects a kernel that is wrong, and says so."""

import torch

from longlode.ops.delta_rule import accuracy, delta_rule
from longlode.ops.delta_rule.accuracy import LIMITS, OpCheck, check_op


def test_the_backends_here_pass(run):
    shown = run("doctor", "--ops")
    assert "checks passed" in shown
    assert "WRONG" not in shown


def test_a_kernel_that_drops_the_incoming_state_fails():
    checks = check_op(
        "broken", "cpu", lambda **inputs: delta_rule(**{**inputs, "state": 0 * inputs["state"]})
    )
    assert not any(check.passed for check in checks)


def test_a_kernel_with_a_wrong_gradient_fails_by_its_gradient_alone():
    def forgets_beta(**inputs):
        return delta_rule(**{**inputs, "beta": inputs["beta"].detach() + 0 * inputs["beta"]})

    checks = check_op("broken", "cpu", forgets_beta)
    assert all(check.forward <= LIMITS[check.dtype] for check in checks)
    assert not any(check.passed for check in checks)


def test_a_kernel_that_is_wrong_on_near_identical_keys_only_fails_there():
    def inverts_badly(**inputs):
        o, state = delta_rule(**inputs)
        near = (inputs["k"] - inputs["k"][:, :1]).abs().amax() < 0.01
        return torch.where(near, o * 1.5, o), state

    failed = {check.keys for check in check_op("broken", "cpu", inverts_badly) if not check.passed}
    assert failed == {"near-identical"}


def test_nan_is_no_pass():
    assert not OpCheck("b", "cpu", "float32", "random", float("nan"), 0.0).passed
    assert not OpCheck("b", "cpu", "float32", "random", 0.0, float("nan")).passed


def test_doctor_refuses_a_wrong_backend(run, monkeypatch):
    wrong = OpCheck("chunkwise", "cpu", "float32", "random", 0.5, 0.5)
    monkeypatch.setattr(accuracy, "check_backends", lambda: [wrong])
    assert "Do not use chunkwise on cpu" in run("doctor", "--ops", status=1)
