"""First values of a data-dependent decay exp(-exp(A_log) softplus(x + dt_bias)), as Mamba-2 draws them."""

import math

import torch
from torch import Tensor

_RATES = (1.0, 16.0)
_STEPS = (1e-3, 1e-1)


def initial_decay(A_log: Tensor, dt_bias: Tensor) -> dict[str, Tensor]:
    """Values for both parameters: rates in [1, 16], steps log-uniform in [1e-3, 0.1] (arXiv 2405.21060)."""
    rate = torch.empty_like(A_log).uniform_(*_RATES)
    low, high = (math.log(step) for step in _STEPS)
    step = torch.empty_like(dt_bias).uniform_(low, high).exp()
    # The inverse of softplus, so that softplus(dt_bias) is the drawn step.
    return {"A_log": rate.log(), "dt_bias": step + torch.log(-torch.expm1(-step))}
