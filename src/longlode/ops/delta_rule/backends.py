"""Which backend of the delta rule can be used where, and whether compiled kernels are right on this machine.

Nothing here imports triton, or loads the compiled library, before it is asked for. Compilers have miscompiled kernels
of exactly this kind on Hopper, silently and for months, so "auto" takes kernels only after they agreed with the
chunkwise path on the device at hand; `longlode doctor --ops` compares every backend with the float64 recurrence.
"""

import importlib.util
import logging
import os
from functools import cache
from typing import Any

import torch

from longlode.ops.delta_rule import native
from longlode.ops.delta_rule.chunkwise import delta_rule_chunkwise

_log = logging.getLogger(__name__)

_INTERPRET = "or set TRITON_INTERPRET=1 before Python starts to run it, very slowly, on the CPU"
# Relative error (L2) against the chunkwise path in float32, far above rounding, far below a wrong gradient.
_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
_TOKENS, _HEADS = 600, 2  # more chunks than lie between two kept states, and a last one that is not full
_NATIVE_SIZES = (48, 32)  # both widths of register tile, and K != V


@cache
def why_no_triton() -> str:
    """ "" if the Triton backend can run in this process on some device, else why not and what to do."""
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
    """As `why_no_triton`, for tensors on `device` and of `dtype`; None asks about any."""
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
    """ "" if the compiled CPU kernels can run for tensors on `device` and of `dtype` (None: any), else why not."""
    if device is not None and torch.device(device).type != "cpu":
        return f"it got tensors on {device} and runs on the CPU; use backend='auto' or 'chunkwise'"
    reason = native.why_no_native()
    return reason or native.unsupported(native.DTYPES[0] if dtype is None else dtype, 16, 16, None)


def pick_for_device(q: torch.Tensor, v: torch.Tensor, gated: bool, chunk_size: int | None) -> str:
    """The backend that "auto" means for these tensors: "native" (CPU), "triton" (CUDA) or "chunkwise".

    Kernels are taken where they can run the call and passed the self-check on the device, once a process (on CUDA for
    each size and dtype); where not, "chunkwise", and the log says once why: as a warning where kernels should have
    been there, as information where the call is not one for them.
    """
    size = (q.shape[-1], v.shape[-1], chunk_size)
    if q.device.type == "cuda":
        reason = why_no_triton() or _unsupported(q, v, chunk_size)
        reason = reason or triton_fault(q.device, size[0], size[1], q.dtype, gated)
        return _or_chunkwise("triton", reason, logging.WARNING)
    # A graph that torch.compile makes, or a stand-in for a tensor, has no memory to point into.
    if q.device.type != "cpu" or torch.compiler.is_compiling() or type(q) not in _PLAIN:
        return "chunkwise"
    reason = native.unsupported(q.dtype, *size)
    if reason or os.environ.get(native.SWITCH) == "off":
        return _or_chunkwise("native", reason or native.why_no_native(), logging.INFO)
    return _or_chunkwise("native", native.why_no_native() or native_fault(), logging.WARNING)


def steps_natively(tensors: tuple[torch.Tensor | None, ...]) -> bool:
    """Whether one token of these arguments of `delta_rule_step` goes to the compiled kernels.

    Without gradients, in float32, and where the state is small enough that one thread is as good as many.
    """
    q, _, v, _, g, state = tensors
    assert q is not None
    assert v is not None
    assert state is not None
    if state.numel() > _STEP_NUMBERS or any(x is not None and x.dtype != torch.float32 for x in tensors):
        return False
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in tensors):
        return False
    return pick_for_device(q, v, g is not None, None) == "native"


_STEP_NUMBERS = 1 << 20  # 4 MB of state
_PLAIN = (torch.Tensor, torch.nn.Parameter)


@cache
def triton_fault(device: torch.device, K: int, V: int, dtype: torch.dtype, gated: bool) -> str:
    """Compare kernels and chunkwise path on `device`, once; "" if they agree, else what was wrong.

    Half of the keys are random with beta to 2, half are equal with beta = 1; output, state and all gradients count.
    """
    from longlode.ops.delta_rule.triton import delta_rule_triton

    return _fault("Triton", delta_rule_triton, device, K, V, dtype, gated)


@cache
def native_fault() -> str:
    """As `triton_fault`, for the compiled CPU kernels: one code serves all sizes, so one comparison does (15 ms)."""
    device = torch.device("cpu")
    return _fault("compiled", native.delta_rule_native, device, *_NATIVE_SIZES, torch.float32, True)


def _fault(
    kind: str, run: object, device: torch.device, K: int, V: int, dtype: torch.dtype, gated: bool
) -> str:
    inputs = _check_inputs(device, K, V, dtype, gated)
    wide = {name: x.float() for name, x in inputs.items()}
    try:
        found = _results(run, inputs)
    except Exception as error:  # a compiler or driver fault of any kind must not take the user's run down
        return f"the {kind} kernels failed their self-check on {device} with {type(error).__name__}: {error}"
    expected = _results(delta_rule_chunkwise, wide)
    for name in expected:
        difference = (found[name].float() - expected[name]).norm() / expected[name].norm()
        if not float(difference) <= _LIMITS[dtype]:
            return (
                f"the {kind} kernels failed their self-check on {device}: {name} is off by {float(difference):.1e} "
                f"(limit {_LIMITS[dtype]:.0e}) at K = {K}, V = {V}, {dtype}"
            )
    return ""


def _unsupported(q: torch.Tensor, v: torch.Tensor, chunk_size: int | None) -> str:
    from longlode.ops.delta_rule.triton import unsupported

    return unsupported(q.dtype, q.shape[-1], v.shape[-1], chunk_size)


def _check_inputs(
    device: torch.device, K: int, V: int, dtype: torch.dtype, gated: bool
) -> dict[str, torch.Tensor]:
    # Named, because torch.set_default_device would make numbers where this generator cannot go.
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
    """Output, final state and gradients of one backend's function."""
    assert callable(run)
    # The first call of a training step stands under autocast, where the path compared with would compute in bfloat16.
    precise = torch.autocast(inputs["q"].device.type, enabled=False)
    with precise, torch.inference_mode(False), torch.enable_grad():
        x = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        scale = inputs["q"].shape[-1] ** -0.5
        o, final = run(*(x["q"], x["k"], x["v"], x["beta"], x.get("g"), scale, x["state"], None, None))
        weights = [
            torch.linspace(-1, 1, y.numel(), device=y.device).view_as(y).to(y.dtype) for y in (o, final)
        ]
        # A scalar: given gradients of outputs, torch imports a third of a second of symbolic algebra to compare shapes.
        loss = (o * weights[0]).sum() + (final * weights[1]).sum()
        grads = torch.autograd.grad(loss, list(x.values()))
    named = {f"the gradient of {name}": grad for name, grad in zip(x, grads, strict=True)}
    return {"the output": o.detach(), "the final state": final.detach(), **named}


def _or_chunkwise(name: str, reason: str, level: int) -> str:
    if reason:
        _log_once(level, {"triton": "CUDA", "native": "the CPU"}[name], name, reason)
        return "chunkwise"
    return name


@cache
def _log_once(level: int, device: str, name: str, reason: str) -> None:
    _log.log(level, "delta_rule with backend='auto' uses 'chunkwise' on %s, not %r: %s", device, name, reason)
