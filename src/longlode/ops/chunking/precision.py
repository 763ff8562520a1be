"""Dtype of states, and of the arithmetic on them."""

import torch


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the state and of all arithmetic: float64 for float64 inputs, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
