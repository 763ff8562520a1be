"""Checks on the surroundings of a call: transforms, tracing, forward-mode derivatives, tensors without plain memory.

A compiled kernel reads addresses. Under a tracer, a transform of torch.func or a forward-mode derivative it would
read invalid memory or lose a derivative, silently. `required_interface` finds what a call allows, and why; `resolved`
turns lazily negated and zero tensors into plain ones; `neutral_surroundings` is for self-checks.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _disable_current_modes

from longlode.core.errors import ConfigError


class Interface(IntEnum):
    """Kinds of access of an implementation to its tensors; each works in more surroundings than the one before.

    MEMORY: it reads and writes addresses.  FUNCTION: torch operations inside a `torch.autograd.Function` with a
    backward of its own.  OPERATIONS: torch operations only, which every transform of torch supports.
    """

    MEMORY = 0
    FUNCTION = 1
    OPERATIONS = 2


_PLAIN = (torch.Tensor, torch.nn.Parameter)
# Modes that record or imitate operations. A mode that only observes (a FLOP counter) changes no result.
_TRACING_MODES = tuple(torch._C._TorchDispatchModeKey.__members__.values())


def required_interface(tensors: Iterable[torch.Tensor | None]) -> tuple[Interface, str]:
    """Return the first interface allowed for a call on these tensors, and the reason why none before it is."""
    if torch.compiler.is_compiling():
        return Interface.FUNCTION, "torch.compile or torch.export is tracing the call"
    if torch._C._are_functorch_transforms_active():
        return Interface.OPERATIONS, "a transform of torch.func (grad, vmap, jvp, functionalize) is active"
    present = [x for x in tensors if x is not None]
    if forward_ad._current_level >= 0 and any(map(_has_tangent, present)):
        return Interface.OPERATIONS, "an argument carries a forward-mode derivative"
    if torch.jit.is_tracing():
        return Interface.FUNCTION, "torch.jit.trace is tracing the call"
    if torch._C._len_torch_dispatch_stack() and any(map(torch._C._get_dispatch_mode, _TRACING_MODES)):
        return Interface.FUNCTION, "the call is being traced (make_fx, FakeTensorMode or functionalization)"
    for x in present:
        if type(x) not in _PLAIN:
            return Interface.FUNCTION, f"an argument is a {type(x).__name__}, not a plain tensor"
        if torch._is_functional_tensor(x):
            return Interface.FUNCTION, "an argument is a functional tensor, which has no memory"
    return Interface.MEMORY, ""


def _has_tangent(x: torch.Tensor) -> bool:
    return forward_ad.unpack_dual(x).tangent is not None


def resolved(x: torch.Tensor | None) -> torch.Tensor | None:
    """Return `x`, or a plain tensor of the same numbers if it is a lazy negative or a zero tensor without memory."""
    if x is None or torch.compiler.is_compiling():
        return x
    if x._is_zerotensor():
        # The sum with a dense tensor has memory (a clone of a zero tensor has none), and keeps the graph of x.
        x = x + torch.zeros(x.shape, dtype=x.dtype, device=x.device)
    return x.resolve_neg() if x.is_neg() else x


def fixed_sizes(x: torch.Tensor) -> tuple[int, ...]:
    """Return `x.shape` as plain integers.

    Under torch.jit.trace a shape holds tensors, under symbolic tracing unknown numbers; the layout of chunks can use
    neither. Raises: ConfigError on symbolic sizes.
    """
    if torch.compiler.is_compiling():
        return tuple(x.shape)
    tracing = torch._C._get_tracing_state()
    if tracing is not None:
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
    sizes = tuple(x.shape)
    if tracing is not None:
        torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]
    if any(isinstance(size, torch.SymInt) for size in sizes):
        raise ConfigError(
            f"an argument has the symbolic shape {list(sizes)}; expected fixed sizes, because chunks are laid out by "
            "them. Trace with fixed shapes."
        )
    return sizes


def why_not_neutral() -> str:
    """Return "" if `neutral_surroundings` can be entered here, else the reason why not."""
    if torch.compiler.is_compiling():
        return "torch.compile or torch.export is tracing"
    if torch._C._are_functorch_transforms_active():
        return "a transform of torch.func is active"
    if torch.jit.is_tracing():
        return "torch.jit.trace is tracing"
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        return "a CUDA graph is being captured"
    return ""


@contextmanager
def neutral_surroundings(device_type: str) -> Iterator[None]:
    """Run the block as at the top of a program: no autocast, modes, saved-tensor hooks or inference mode; gradients on.

    Otherwise the hooks of a checkpoint would count tensors saved in the block as the checkpointed function's own.
    Raises: AssertionError if `why_not_neutral` gives a reason.
    """
    assert not why_not_neutral(), why_not_neutral()
    with ExitStack() as stack:
        stack.enter_context(_disable_current_modes())
        stack.enter_context(torch._C.DisableTorchFunction())
        stack.enter_context(torch.autocast(device_type, enabled=False))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        # Where hooks are disabled there are none to suspend; only the innermost pair is ever called.
        if torch._C._autograd._saved_tensors_hooks_is_enabled():  # type: ignore[attr-defined]
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(_unchanged, _unchanged))
        yield


def _unchanged(x: Any) -> Any:
    return x
