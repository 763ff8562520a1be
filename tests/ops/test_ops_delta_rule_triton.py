"""The Triton backend: the interpreted cases in a process of their own, choice of backend, and a GPU where one is."""

import importlib
import importlib.metadata
import importlib.util
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ops_cases import make_inputs, relative_error, results

from longlode.core.errors import BackendError
from longlode.ops.delta_rule import available_backends, backends, delta_rule

CASES = Path(__file__).with_name("interpreted_delta_rule.py")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed (it is on Linux, with the dev extra)",
)


def version_of(package):
    return tuple(int(part) for part in importlib.metadata.version(package).split(".")[:2])


@needs_triton
def test_interpreted_kernels():
    if version_of("triton") < (3, 9) and version_of("numpy") >= (2, 4):
        pytest.skip(
            "Triton's interpreter before 3.9 makes integers of arrays, which numpy 2.4 and later refuse"
        )
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", str(CASES), "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


@needs_triton
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_the_backend_is_refused_with_the_reason():
    why_not = available_backends()["triton"]
    assert "needs a CUDA device and torch sees none" in why_not
    assert "TRITON_INTERPRET=1" in why_not
    with pytest.raises(
        BackendError, match=r"'triton' is not available: it needs a CUDA device.*use backend="
    ):
        delta_rule(**make_inputs(1, 3, 1, 16, 16, dtype=torch.float32), backend="triton")


def test_cpu_tensors_are_refused_where_only_a_gpu_can_run(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(backends, "why_no_triton", lambda: "")
    assert available_backends()["triton"] == available_backends("cuda", torch.bfloat16)["triton"] == ""
    assert "q is torch.float64" in available_backends("cuda", torch.float64)["triton"]
    with pytest.raises(
        BackendError, match=r"it got tensors on cpu and needs a CUDA device.*TRITON_INTERPRET"
    ):
        delta_rule(**make_inputs(1, 3, 1, 16, 16, dtype=torch.float32), backend="triton")


def test_auto_falls_back_with_one_warning_that_says_why(monkeypatch, caplog):
    cuda = torch.device("cuda", 0)
    request = backends.Request(cuda, torch.bfloat16, 64, 64, False, None)
    monkeypatch.setattr(backends, "why_no_triton", lambda: "")
    monkeypatch.setattr(backends, "_unsupported_by_triton", lambda _: "")
    fault = ["dk is off by 5.4e-01"]
    monkeypatch.setattr(backends, "triton_fault", lambda *_: fault[0])
    backends.BACKENDS.forget()
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        assert backends.BACKENDS.pick("auto", (), cuda, request).name == "chunkwise"
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "uses 'chunkwise' on cuda, not 'triton': dk is off by 5.4e-01" in caplog.text
    fault[0] = ""
    assert backends.BACKENDS.pick("auto", (), cuda, request).name == "triton"


@pytest.mark.parametrize("gated", [False, True])
def test_self_check_passes_what_agrees_and_names_what_does_not(monkeypatch, gated):
    triton_room = pytest.importorskip("triton") and importlib.import_module("longlode.ops.delta_rule.triton")
    arguments = (torch.device("cpu"), 16, 16, torch.float32, gated)
    check = backends.triton_fault.run
    right = backends.delta_rule_chunkwise
    monkeypatch.setattr(triton_room, "delta_rule_triton", right)
    assert check(*arguments) == ""

    def wrong_key_gradient(q, k, *rest):
        return right(q, 0.999 * k + 0.001 * k.detach(), *rest)

    monkeypatch.setattr(triton_room, "delta_rule_triton", wrong_key_gradient)
    assert "the gradient of k is off by 1.0e-03" in check(*arguments)

    def crash(*_):
        raise RuntimeError("illegal memory access")

    monkeypatch.setattr(triton_room, "delta_rule_triton", crash)
    assert "RuntimeError: illegal memory access" in check(*arguments)


@pytest.mark.gpu
@needs_triton
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("K", "V"), [(16, 16), (64, 64), (128, 128), (64, 128), (256, 256)])
def test_on_a_gpu(K, V, dtype, gated):
    offsets = torch.tensor([0, 1, 64, 129, 1000, 4096])
    inputs = make_inputs(1, 4096, 4, K, V, gated=gated, N=5, beta_max=1.0, dtype=dtype)
    inputs = {name: x if x is None else x.cuda() for name, x in inputs.items()}
    wide = {name: x if x is None else x.double() for name, x in inputs.items()}
    exact = results(wide, backend="chunkwise", cu_seqlens=offsets)
    for C in (16, 32, 64):
        ours = results(inputs, backend="triton", cu_seqlens=offsets, chunk_size=C)
        again = results(inputs, backend="triton", cu_seqlens=offsets, chunk_size=C)
        for name in exact:
            assert relative_error(ours[name], exact[name]) < (1e-4 if dtype == torch.float32 else 3e-2), (
                name,
                C,
            )
            assert torch.equal(ours[name], again[name]), (name, C)
    assert backends.triton_fault(torch.device("cuda"), K, V, dtype, gated) == ""
