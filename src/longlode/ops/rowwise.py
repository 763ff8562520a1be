"""Binding of the compiled row-wise kernels for CPUs: short convolution, RMSNorm, SwiGLU, cross entropy, n-gram means.

They are part of the delta rule's library (`delta_rule/native/rowwise.h`), are turned off with it, and read and write
float32 or bfloat16; arithmetic is float32. Results have the same bits on any number of threads. The ops that call
them keep a path in plain torch, which runs where the library is absent, and is what `self_check` compares with.
"""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from longlode.core.errors import BackendError
from longlode.ops.backends import Backend, Backends, SelfCheck
from longlode.ops.delta_rule import native
from longlode.ops.surroundings import Interface

DTYPES = (torch.float32, torch.bfloat16)
LEAST_NUMBERS = 1 << 14
"""Numbers of a tensor from which a kernel is worth its call from Python, of about 20 microseconds."""
MAX_TAPS = 8
MAX_GROUP = 512
_ABI = 2
_KERNELS = (
    "conv_forward",
    "conv_backward",
    "norm_forward",
    "norm_backward",
    "swiglu_forward",
    "swiglu_backward",
    "cross_entropy",
    "match_forward",
    "match_backward",
)
_LIMITS = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
_CPU = torch.device("cpu")


class Rows(ctypes.Structure):
    """A tensor `[rows, D]` or `[batch, rows, D]`, its last dimension contiguous."""

    _fields_ = [(name, ctypes.c_int64) for name in ("data", "batch", "row", "narrow")]


def _call(rows: str, pointers: str, numbers: str, floats: str = "") -> list[tuple[str, Any]]:
    kinds = ((rows, Rows), (pointers, ctypes.c_void_p), (numbers, ctypes.c_int64), (floats, ctypes.c_float))
    return [(name, kind) for names, kind in kinds for name in names.split()]


class ConvCall(ctypes.Structure):
    """Call of `conv_forward` and `conv_backward`; see rowwise.h for the fields of all calls."""

    _fields_ = _call(
        "x y dy dx",
        "weight state dweight dstate segments",
        "num_segments D W group num_normed silu",
        "eps",
    )


class NormCall(ctypes.Structure):
    """Call of `norm_forward` and `norm_backward`."""

    _fields_ = _call("x y dy dx", "weight dweight", "num_rows D", "eps")


class SwigluCall(ctypes.Structure):
    """Call of `swiglu_forward` and `swiglu_backward`."""

    _fields_ = _call("gate up y dy dgate dup", "", "num_rows D")


class LossCall(ctypes.Structure):
    """Call of `cross_entropy`."""

    _fields_ = _call("logits", "targets weights losses", "num_rows D slope")


class MatchCall(ctypes.Structure):
    """Call of `match_forward` and `match_backward`."""

    _fields_ = _call("values y dy dvalues", "order group", "num_tokens D length asked matches")


def rows_of(x: torch.Tensor) -> Rows:
    """Describe a tensor of two or three dimensions; it must outlive the call."""
    batch, row = (0, x.stride(0)) if x.dim() == 2 else x.stride()[:2]
    return Rows(x.data_ptr(), batch, row, int(x.dtype == torch.bfloat16))


def pointer(x: torch.Tensor | None) -> int | None:
    """Return the address of a contiguous tensor."""
    return None if x is None else x.data_ptr()


def as_rows(x: torch.Tensor) -> torch.Tensor:
    """View x `[..., D]` as `[rows, D]`, its last dimension contiguous; copied where it cannot be viewed."""
    x = x.reshape(-1, x.shape[-1])
    return x if x.stride(-1) == 1 else x.contiguous()


def run(kernel: str, call: ctypes.Structure, instruction_set: str | None = None) -> None:
    """Run a kernel; instruction_set: one of `native.instruction_sets()`, None for the best. Raises: BackendError."""
    name = instruction_set or native.instruction_sets()[0]
    rows = _library(native.LIBRARY).longlode_rows
    status = rows(_KERNELS.index(kernel), ctypes.byref(call), name.encode(), torch.get_num_threads())
    if status:
        reasons = {
            1: "out of memory",
            2: f"this CPU or library has no {name!r}",
            3: "a size or pointer is wrong",
        }
        raise BackendError(f"The compiled kernel {kernel} failed: {reasons.get(status, f'status {status}')}.")


@cache
def _library(path: Path) -> ctypes.CDLL:
    library = native.library()
    library.longlode_rows.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int]
    library.longlode_rows.restype = ctypes.c_int
    return library


def why_no_rowwise() -> str:
    """Return "" if the kernels can be used in this process, else why not and what to do."""
    return native.why_no_native() or _why_not_of_this_version(native.LIBRARY)


@cache
def _why_not_of_this_version(path: Path) -> str:
    try:
        version = _library(path).longlode_rows_abi()
    except AttributeError:
        version = 0
    if version != _ABI:
        return f"the compiled library has row-wise interface {version} and this code needs {_ABI}; {native.REBUILD}"
    return ""


class Request(NamedTuple):
    """Properties of a call by which its backend is chosen: dtypes of its rows, and the reason for torch, or ""."""

    dtypes: tuple[torch.dtype, ...]
    reason: str = ""


def _unsupported(request: Request) -> str:
    for dtype in request.dtypes:
        if dtype not in DTYPES:
            return f"an argument is {dtype} and the kernels take float32 and bfloat16"
    return request.reason or native.switched_off()


def backends(
    op: str,
    compiled: Callable[..., Any],
    plain: Callable[..., Any],
    make_inputs: Callable[[torch.dtype], dict[str, Any]],
    as_checked: Callable[[Any], Any] = lambda run_it: run_it,
) -> Backends[Request]:
    """Make the backends of an op: the compiled kernels where they can run and agree with `plain`, else `plain`.

    compiled, plain: functions of the same arguments that return one tensor. make_inputs: makes keyword arguments for
    the self-check, of a dtype; gradients of the tensors among them that require it are compared too. as_checked: makes
    of either function one whose result says all.
    """
    check = SelfCheck(lambda _: _difference(op, as_checked(compiled), as_checked(plain), make_inputs))
    return Backends(
        op,
        Backend[Request](
            "native",
            compiled,
            Interface.MEMORY,
            device_types=("cpu",),
            absent=lambda: why_no_rowwise(),  # looked up at each call: `benchmarks.step_share` replaces it
            unsupported=_unsupported,
            fault=lambda _: check(_CPU),
        ),
        Backend[Request]("torch", plain, Interface.OPERATIONS),
    )


def _difference(
    op: str,
    compiled: Callable[..., Any],
    plain: Callable[..., Any],
    make_inputs: Callable[[torch.dtype], dict[str, Any]],
) -> str:
    """Compare results and gradients in both dtypes; return "" if they agree."""
    for dtype in DTYPES:
        found, expected = (_results(run_it, make_inputs(dtype)) for run_it in (compiled, plain))
        for name in expected:
            wanted = expected[name].float()
            error = float((found[name].float() - wanted).norm() / wanted.norm())
            if not error <= _LIMITS[dtype]:
                return f"the compiled {op} failed its self-check: {name} is off by {error:.1e} in {dtype}"
    return ""


def _results(run_it: Callable[..., Any], inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    y = run_it(**inputs)
    leaves = {n: x for n, x in inputs.items() if isinstance(x, torch.Tensor) and x.requires_grad}
    if not leaves:
        return {"the result": y}
    weights = torch.linspace(-1, 1, y.numel(), device="cpu").view_as(y)
    grads = torch.autograd.grad((y.float() * weights).sum(), list(leaves.values()))
    named = {f"the gradient of {name}": grad for name, grad in zip(leaves, grads, strict=True)}
    return {"the result": y.detach(), **named}


def gradients_by_torch(
    plain: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor | None], dy: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    """Return the gradients of `plain(*inputs)` with a graph of their own, for second derivatives.

    A hand-written backward has no derivative. When autograd asks for a graph (`create_graph=True`), the gradients are
    computed by torch's own operations instead, from the saved inputs.
    """
    wanted = [x for x in inputs if x is not None and x.requires_grad]
    with torch.enable_grad():
        grads = iter(torch.autograd.grad(plain(*inputs), wanted, dy, create_graph=True))
    return tuple(next(grads) if x is not None and x.requires_grad else None for x in inputs)
