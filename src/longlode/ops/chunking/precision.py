"""The dtype of states, and of the arithmetic on them."""

import torch


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the state and of all arithmetic: float64 for float64 inputs, float32 for the rest."""
    return torch.float64 if dtype == torch.float64 else torch.float32
