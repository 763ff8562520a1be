"""Backends of the delta rule: where each can be used, and self-checks of compiled kernels on this machine.

Triton is imported, and the compiled library loaded, only when first used. Compilers have miscompiled kernels
of exactly this kind on Hopper, silently and for months, so "auto" takes kernels only after they agreed with the
chunkwise path on the device at hand; `longlode doctor --ops` compares every backend with the float64 recurrence.
"""

import importlib.util
import os
from functools import cache
from typing import Any, NamedTuple

import torch

from longlode.ops.backends import Backend, Backends, SelfCheck
from longlode.ops.delta_rule import native
from longlode.ops.delta_rule.chunkwise import delta_rule_chunkwise
from longlode.ops.delta_rule.reference import delta_rule_reference
from longlode.ops.delta_rule.step import fused_step
from longlode.ops.surroundings import Interface

_INTERPRET = "or set TRITON_INTERPRET=1 before Python starts to run it, very slowly, on the CPU"
# Relative error (L2) against the chunkwise path in float32, far above rounding, far below a wrong gradient.
_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
_TOKENS, _HEADS = 600, 2  # more chunks than lie between two kept states, the last of them not full
_NATIVE_SIZES = (48, 32)  # both widths of register tile, and K != V
_CPU = torch.device("cpu")
_STEP_NUMBERS = 1 << 20  # 4 MB of state: below, one thread is as fast as several


class Request(NamedTuple):
    """Properties of a `delta_rule` call by which its backend is chosen; dtype is that of q."""

    device: torch.device
    dtype: torch.dtype
    K: int
    V: int
    gated: bool
    chunk_size: int | None


@cache
def why_no_triton() -> str:
    """Return "" if the Triton backend can run in this process on some device, else why not and what to do."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install triton, on Linux); use backend='auto' or 'chunkwise'"
    if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
        return f"it needs a CUDA device and torch sees none; use backend='auto' or 'chunkwise', {_INTERPRET}"
    try:
        import longlode.ops.delta_rule.triton  # noqa: F401
    except ImportError as error:
        return f"importing its kernels failed ({error}); use backend='auto' or 'chunkwise'"
    return ""


def why_no_triton_for(device: torch.device | str | None, dtype: torch.dtype | None) -> str:
    """As `why_no_triton`, for tensors on `device` and of `dtype`; None means any."""
    reason = why_no_triton()
    if reason or (device is None and dtype is None):
        return reason
    from longlode.ops.delta_rule.triton import DTYPES, unsupported
    from longlode.ops.delta_rule.triton_kernels.tiles import INTERPRETED

    kind = None if device is None else torch.device(device).type
    if kind not in (None, "cuda") and not (kind == "cpu" and INTERPRETED):
        return f"it got tensors on {device} and needs a CUDA device; use backend='auto' or 'chunkwise', {_INTERPRET}"
    return unsupported(DTYPES[0] if dtype is None else dtype, 1, 1, None)


def why_no_native_for(device: torch.device | str | None, dtype: torch.dtype | None) -> str:
    """Return "" if the compiled CPU kernels can run on tensors on `device` of `dtype` (None: any), else why not."""
    if device is not None and torch.device(device).type != "cpu":
        return f"it got tensors on {device} and runs on the CPU; use backend='auto' or 'chunkwise'"
    reason = native.why_no_native()
    return reason or native.unsupported(native.DTYPES[0] if dtype is None else dtype, 16, 16, None)


def _compare_triton(device: torch.device, K: int, V: int, dtype: torch.dtype, gated: bool) -> str:
    """Compare kernels and chunkwise path on `device`; return "" if they agree, else the difference.

    Half of the keys are random with beta up to 2, half are equal with beta = 1; output, state and all gradients are
    compared.
    """
    from longlode.ops.delta_rule.triton import delta_rule_triton

    return _difference("Triton", delta_rule_triton, device, K, V, dtype, gated)


def _compare_native(device: torch.device) -> str:
    """As `_compare_triton`, for the compiled CPU kernels; one code serves all sizes, so one comparison suffices."""
    return _difference("compiled", native.delta_rule_native, device, *_NATIVE_SIZES, torch.float32, True)


triton_fault = SelfCheck(_compare_triton)
native_fault = SelfCheck(_compare_native)


def _difference(
    kind: str, run: object, device: torch.device, K: int, V: int, dtype: torch.dtype, gated: bool
) -> str:
    inputs = _check_inputs(device, K, V, dtype, gated)
    wide = {name: x.float() for name, x in inputs.items()}
    found, expected = _results(run, inputs), _results(delta_rule_chunkwise, wide)
    for name in expected:
        difference = (found[name].float() - expected[name]).norm() / expected[name].norm()
        if not float(difference) <= _LIMITS[dtype]:
            return (
                f"the {kind} kernels failed their self-check on {device}: {name} is off by {float(difference):.1e} "
                f"(limit {_LIMITS[dtype]:.0e}) at K = {K}, V = {V}, {dtype}"
            )
    return ""


def _check_inputs(
    device: torch.device, K: int, V: int, dtype: torch.dtype, gated: bool
) -> dict[str, torch.Tensor]:
    # The device is given, because torch.set_default_device may choose one that this generator does not support.
    made: dict[str, Any] = {"generator": torch.Generator("cpu").manual_seed(0), "device": "cpu"}
    q, k = (torch.randn(1, _TOKENS, _HEADS, K, **made) for _ in range(2))
    k[:, _TOKENS // 2 :] = k[:, :1]
    beta = 2 * torch.rand(1, _TOKENS, _HEADS, **made)
    beta[:, _TOKENS // 2 :] = 1.0
    inputs = {
        "q": q,
        "k": k / k.norm(dim=-1, keepdim=True),
        "v": torch.randn(1, _TOKENS, _HEADS, V, **made),
        "beta": beta,
        "state": torch.randn(1, _HEADS, K, V, **made),
    }
    if gated:
        inputs["g"] = -0.1 * torch.rand(1, _TOKENS, _HEADS, **made)
    return {name: x.to(dtype).to(device) for name, x in inputs.items()}


def _results(run: object, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Compute output, final state and gradients of one backend's function."""
    assert callable(run)
    x = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
    scale = inputs["q"].shape[-1] ** -0.5
    o, final = run(*(x["q"], x["k"], x["v"], x["beta"], x.get("g"), scale, x["state"], None, None))
    weights = [torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y).to(y.dtype) for y in (o, final)]
    # A scalar: given gradients of outputs, torch imports symbolic algebra (0.3 s) to compare shapes.
    loss = (o * weights[0]).sum() + (final * weights[1]).sum()
    grads = torch.autograd.grad(loss, list(x.values()))
    named = {f"the gradient of {name}": grad for name, grad in zip(x, grads, strict=True)}
    return {"the output": o.detach(), "the final state": final.detach(), **named}


def _run_triton(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    # Here, not above: the backend is optional, and triton takes a second to import.
    from longlode.ops.delta_rule.triton import delta_rule_triton

    return delta_rule_triton(*arguments)


def _unsupported_by_triton(request: Request) -> str:
    if why_no_triton():
        return ""  # reported by `absent`
    from longlode.ops.delta_rule.triton import unsupported

    reason = why_no_triton_for(request.device, None)
    return reason or unsupported(request.dtype, request.K, request.V, request.chunk_size)


def _unsupported_by_native(request: Request) -> str:
    if request.device.type != "cpu":
        return why_no_native_for(request.device, None)
    reason = native.unsupported(request.dtype, request.K, request.V, request.chunk_size)
    return reason or native.switched_off()


BACKENDS = Backends(
    "delta_rule",
    Backend[Request](
        "triton",
        _run_triton,
        Interface.MEMORY,
        device_types=("cuda",),
        absent=lambda: why_no_triton(),
        unsupported=_unsupported_by_triton,
        fault=lambda r: triton_fault(r.device, r.K, r.V, r.dtype, r.gated),
    ),
    Backend[Request](
        "native",
        native.delta_rule_native,
        Interface.MEMORY,
        device_types=("cpu",),
        absent=native.why_no_native,
        unsupported=_unsupported_by_native,
        fault=lambda _: native_fault(_CPU),
    ),
    Backend[Request]("chunkwise", delta_rule_chunkwise, Interface.FUNCTION),
    Backend[Request]("reference", delta_rule_reference, Interface.OPERATIONS),
)


class StepRequest(NamedTuple):
    """Properties of a `delta_rule_step` call by which its backend is chosen; differentiated: gradients are needed."""

    dtypes: frozenset[torch.dtype]
    K: int
    V: int
    state_numbers: int
    differentiated: bool


def _step_unsupported_by_native(request: StepRequest) -> str:
    if request.differentiated:
        return "gradients are wanted and the compiled step has none"
    if request.dtypes != _FLOAT32:
        return f"an argument is not float32 ({', '.join(sorted(map(str, request.dtypes)))})"
    if request.state_numbers > _STEP_NUMBERS:
        return f"the state has more than {_STEP_NUMBERS} numbers, too many for one thread"
    return native.unsupported(torch.float32, request.K, request.V, None) or native.switched_off()


_FLOAT32 = frozenset({torch.float32})
STEP_BACKENDS = Backends(
    "delta_rule_step",
    Backend[StepRequest](
        "native",
        native.step_native,
        Interface.MEMORY,
        device_types=("cpu",),
        absent=native.why_no_native,
        unsupported=_step_unsupported_by_native,
        fault=lambda _: native_fault(_CPU),
    ),
    Backend[StepRequest]("torch", fused_step, Interface.OPERATIONS),
)
