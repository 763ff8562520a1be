"""Backends of an op: one record of abilities each, one choice per call, and a record of the backends used.

An op makes a `Backends` of its records, in the order in which "auto" prefers them, and asks it once per call. Asking
by name for a backend that is absent, or cannot run the call, is an error; "auto" takes the first that can, and the log
says once why it was not the one before it. This module is independent of any op.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from longlode.core.errors import BackendError, ConfigError
from longlode.ops.surroundings import (
    Interface,
    neutral_surroundings,
    required_interface,
    why_not_neutral,
)

Request = TypeVar("Request")
_log = logging.getLogger(__name__)
_used: dict[str, dict[str, None]] = {}


def used_backends() -> dict[str, list[str]]:
    """Return the backends used in this process: op -> names, in order of first use; self-checks do not count."""
    return {op: list(names) for op, names in _used.items()}


@dataclass(frozen=True)
class Backend(Generic[Request]):
    """One implementation of an op. Reasons are text that says why not and what to do; "" means none.

    name: the name that users give.
    run: the implementation.
    interface: its requirements on a call's tensors and surroundings.
    device_types: devices on which "auto" considers it; None is any.
    absent: function that returns the reason why it cannot be used in this process at all.
    unsupported: function that returns the reason why it cannot run such a call.
    fault: function that returns the finding of its self-check, for kernels that need one; called for "auto" only.
    """

    name: str
    run: Callable[..., Any]
    interface: Interface
    device_types: tuple[str, ...] | None = None
    absent: Callable[[], str] = str
    unsupported: Callable[[Request], str] = lambda _: ""
    fault: Callable[[Request], str] = lambda _: ""


class Backends(Generic[Request]):
    """The backends of one op."""

    def __init__(self, op: str, *backends: Backend[Request]) -> None:
        """Store `backends` in the order in which "auto" prefers them; the last must run every call."""
        self.op = op
        self.names = tuple(backend.name for backend in backends)
        self._backends = backends
        self._said: set[tuple[str, ...]] = set()

    def pick(
        self, name: str, tensors: tuple[torch.Tensor | None, ...], device: torch.device, request: Request
    ) -> Backend[Request]:
        """Choose the backend for a call on `tensors`: the one called `name`, or for "auto" the first that can run it.

        Raises: ConfigError on an unknown name; BackendError on a backend that is absent or cannot run the call.
        """
        interface, surroundings = required_interface(tensors)
        if name == "auto":
            backend = self._first_that_can(device, request, interface, surroundings)
        else:
            backend = self._named(name)
            reason = backend.absent()
            if reason:
                raise BackendError(f"{self.op} backend {name!r} is not available: {reason}.")
            if backend.interface < interface:
                reason = f"{surroundings}. Use backend={self._at_least(interface)!r}, or 'auto'"
            reason = reason or backend.unsupported(request)
            if reason:
                raise BackendError(f"{self.op} backend {name!r} cannot run this call: {reason}.")
        note_use(self.op, backend.name, device.type)
        return backend

    def forget(self) -> None:
        """Reset the messages already logged, so that they are logged again."""
        self._said.clear()

    def _named(self, name: str) -> Backend[Request]:
        for backend in self._backends:
            if backend.name == name:
                return backend
        raise ConfigError(f"backend is {name!r}; expected 'auto' or one of {sorted(self.names)}.")

    def _at_least(self, interface: Interface) -> str:
        return next(backend.name for backend in self._backends if backend.interface >= interface)

    def _first_that_can(
        self, device: torch.device, request: Request, interface: Interface, surroundings: str
    ) -> Backend[Request]:
        passed: list[tuple[str, str, int]] = []
        for backend in self._backends:
            if backend.device_types is not None and device.type not in backend.device_types:
                continue
            level, reason = logging.INFO, surroundings if backend.interface < interface else ""
            reason = reason or backend.unsupported(request)
            if not reason:
                level, reason = logging.WARNING, backend.absent() or backend.fault(request)
            if not reason:
                self._say_once(device.type, backend.name, passed)
                return backend
            passed.append((backend.name, reason, level))
        raise AssertionError(f"the last backend of {self.op} must run every call")

    def _say_once(self, device_type: str, name: str, passed: list[tuple[str, str, int]]) -> None:
        for other, reason, level in () if torch.compiler.is_compiling() else passed:
            key = (device_type, name, other, reason)
            if key not in self._said:
                self._said.add(key)
                text = "%s with backend='auto' uses %r on %s, not %r: %s"
                _log.log(level, text, self.op, name, device_type, other, reason)


def note_use(op: str, name: str, device_type: str) -> None:
    """Add a backend to `used_backends`, and log its first use."""
    names = _used.setdefault(op, {})
    if name not in names:
        names[name] = None
        _log.info("%s uses backend %r on %s", op, name, device_type)


# The mark set by torch.compiler.assume_constant_result, whose import of torch._dynamo takes a second: a trace runs the
# function once, and does not put it into the graph.
note_use._dynamo_marked_constant = True  # type: ignore[attr-defined]


class SelfCheck:
    """A comparison of kernels with a trusted implementation, made once for each set of arguments and cached.

    The result must not depend on the first caller's settings, so it is computed in `neutral_surroundings`; where these
    cannot be entered, the answer is a reason for this call only.
    """

    def __init__(self, compare: Callable[..., str]) -> None:
        """Store `compare`: arguments, the first of them a device -> "" or the difference. It may raise any error."""
        self._compare = compare
        self._verdicts: dict[tuple[Any, ...], str] = {}

    def __call__(self, device: torch.device, *arguments: Any) -> str:
        """Return "" if the kernels are correct, else their fault."""
        key = (device, *arguments)
        if key not in self._verdicts:
            reason = why_not_neutral()
            if reason:
                return f"its self-check cannot run here: {reason}. Call it once before"
            self._verdicts[key] = self.run(device, *arguments)
        return self._verdicts[key]

    def run(self, device: torch.device, *arguments: Any) -> str:
        """Run the comparison, without the cache."""
        try:
            with neutral_surroundings(device.type):
                return self._compare(device, *arguments)
        except Exception as error:  # no error of a compiler or driver may end the user's run
            return f"its self-check failed on {device} with {type(error).__name__}: {error}"
