"""Checks on dtypes and devices, shared by the recurrent ops."""

import torch

from longlode.core.errors import ConfigError

_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_dtypes(same: dict[str, torch.Tensor], others: dict[str, torch.Tensor | None]) -> None:
    """Check that the tensors of `same` share one floating dtype, the others are floating, and all are on one device.

    Raises: ConfigError naming the first tensor that does not fit.
    """
    first_name, first = next(iter(same.items()))
    for name, tensor in {**same, **others}.items():
        if tensor is None:
            continue
        if tensor.dtype not in _DTYPES or (name in same and tensor.dtype != first.dtype):
            raise ConfigError(
                f"{name} is {tensor.dtype} and {first_name} is {first.dtype}; expected {', '.join(same)} of one "
                "dtype and all of float64, float32, bfloat16 or float16."
            )
        if tensor.device != first.device:
            raise ConfigError(
                f"{name} is on {tensor.device} and {first_name} on {first.device}; expected one device."
            )


def dtype_of_products(x: torch.Tensor) -> torch.dtype:
    """Return the dtype in which a linear layer multiplies x here: that of autocast where it is on, else its own."""
    device = x.device.type
    if x.dtype == torch.float64 or x.is_meta or not torch.is_autocast_enabled(device):  # meta has no autocast
        return x.dtype
    return torch.get_autocast_dtype(device)


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Convert x to float32, or keep float64, for sums and exponentials."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
