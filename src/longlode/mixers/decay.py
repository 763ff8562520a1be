"""Initial values of a data-dependent decay exp(-exp(A_log) softplus(x + dt_bias)), as Mamba-2 draws them."""

import math

import torch
from torch import Tensor, nn

_RATES = (1.0, 16.0)
_STEPS = (1e-3, 1e-1)


def decay_parameter(num_heads: int) -> nn.Parameter:
    """Make a parameter `[H]` of a decay: float32 (or 64) also in a model built in half precision."""
    return nn.Parameter(
        torch.empty(num_heads, dtype=torch.promote_types(torch.get_default_dtype(), torch.float32))
    )


def initial_decay(A_log: Tensor, dt_bias: Tensor) -> dict[str, Tensor]:
    """Draw both parameters: rates in [1, 16], steps log-uniform in [1e-3, 0.1] (arXiv 2405.21060)."""
    rate = torch.empty_like(A_log).uniform_(*_RATES)
    low, high = (math.log(step) for step in _STEPS)
    step = torch.empty_like(dt_bias).uniform_(low, high).exp()
    # The inverse of softplus, so that softplus(dt_bias) is the drawn step.
    return {"A_log": rate.log(), "dt_bias": step + torch.log(-torch.expm1(-step))}
