"""The self-test behind `longlode doctor --ops`: delta-rule backends against the recurrence, on this machine.

Compilers have miscompiled exactly these kernels. Random keys hide errors that repetitive text reveals, so near-equal
keys with beta up to 2 are part of the test.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

LIMITS = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 3e-2}
"""Largest relative error (L2) of a correct backend; rounding alone gives a tenth of it or less."""
KEYS = ("random", "near-identical")
_B, _T, _H, _K, _V = 2, 150, 2, 32, 48  # T is not a multiple of any chunk, K != V
_NOISE = 1e-4  # size of the differences between near-identical keys


@dataclass(frozen=True)
class OpCheck:
    """Result of one comparison. forward: worst relative error of output and state; gradient: worst of all gradients."""

    backend: str
    device: str
    dtype: str
    keys: str
    forward: float
    gradient: float

    @property
    def passed(self) -> bool:
        """True if both errors are within the limit of the dtype (NaN is not)."""
        return self.forward <= LIMITS[self.dtype] and self.gradient <= LIMITS[self.dtype]


def check_backends() -> list[OpCheck]:
    """Check every backend but the reference, for the devices and dtypes that it supports here."""
    import functools

    import torch

    from longlode.ops.delta_rule import available_backends, delta_rule

    checks = []
    for device in ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]:
        for name in [name for name in available_backends(device) if name != "reference"]:
            dtypes = [x for x in LIMITS if not available_backends(device, getattr(torch, x))[name]]
            checks += check_op(name, device, functools.partial(delta_rule, backend=name), dtypes)
    return checks


def check_op(
    backend: str, device: str, op: Callable[..., Any], dtypes: Iterable[str] = tuple(LIMITS)
) -> list[OpCheck]:
    """Compare `op`, called like `delta_rule`, with the float64 recurrence on the same (rounded) inputs."""
    import functools

    import torch

    from longlode.ops.delta_rule import delta_rule

    exact_op = functools.partial(delta_rule, backend="reference")
    checks = []
    for keys in KEYS:
        for dtype in dtypes:
            rounded = {name: tensor.to(getattr(torch, dtype)) for name, tensor in _inputs(keys).items()}
            got = _outputs_and_gradients(op, {name: tensor.to(device) for name, tensor in rounded.items()})
            exact = _outputs_and_gradients(
                exact_op, {name: tensor.double() for name, tensor in rounded.items()}
            )
            errors = [_relative_error(a, b) for a, b in zip(got, exact, strict=True)]
            checks.append(OpCheck(backend, device, dtype, keys, _worst(errors[:2]), _worst(errors[2:])))
    return checks


def _inputs(keys: str) -> dict[str, Any]:
    """Make float64 arguments of `delta_rule`, with gate and incoming state; the same at every call."""
    import torch

    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    k = normal(_B, _T, _H, _K)
    if keys == "near-identical":
        k = k[:, :1] + _NOISE * k
    return {
        "q": torch.nn.functional.normalize(normal(_B, _T, _H, _K), dim=-1),
        "k": torch.nn.functional.normalize(k, dim=-1),
        "v": normal(_B, _T, _H, _V),
        "beta": 2 * torch.rand(_B, _T, _H, generator=draw, dtype=torch.float64),
        "g": -0.1 * torch.rand(_B, _T, _H, generator=draw, dtype=torch.float64),
        "state": normal(_B, _H, _K, _V),
    }


def _outputs_and_gradients(op: Callable[..., Any], inputs: dict[str, Any]) -> list[Any]:
    """Compute output, final state, and the gradient of a fixed combination of both with respect to every argument."""
    import torch

    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    outputs = op(**leaves)
    weights = [torch.linspace(-1, 1, x.numel(), dtype=x.dtype, device=x.device).view_as(x) for x in outputs]
    gradients = torch.autograd.grad(outputs, list(leaves.values()), weights)
    return [tensor.detach() for tensor in (*outputs, *gradients)]


def _relative_error(got: Any, exact: Any) -> float:
    difference = got.double().cpu() - exact
    return float(difference.norm() / exact.norm())


def _worst(errors: list[float]) -> float:
    """Return the largest; NaN if there is one, which `max` may lose."""
    return max(errors, key=lambda error: (error != error, error))
