"""Cross entropy of a block of logits, which give way to their gradient."""

from typing import Any

import torch

from longlode.ops import rowwise
from longlode.ops.dtypes import at_least_float32
from longlode.ops.surroundings import resolved


def cross_entropy_(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, slope: bool
) -> torch.Tensor:
    """Return -weight log softmax(logits)[target] of each row, float32 at least; has no autograd graph.

    logits: `[n, V]`; with `slope` they are overwritten by the gradient of the sum of the losses with respect to them.
    targets: whole numbers `[n]` from 0 to V - 1. weights: `[n]`, None: 1.
    Raises: BackendError or torch's error on a target outside the vocabulary.
    """
    inputs = (resolved(logits), targets.long(), weights)
    reason = "the tensors are small" if logits.numel() < rowwise.LEAST_NUMBERS else ""
    if logits.stride(-1) != 1:
        reason = "the numbers of a row are apart in memory"
    if weights is not None and weights.dtype == torch.float64:
        reason = "the weights are float64"
    chosen = BACKENDS.pick("auto", inputs, logits.device, rowwise.Request((logits.dtype,), reason))
    with torch.no_grad():
        losses: torch.Tensor = chosen.run(*inputs, slope)
    return losses


def cross_entropy_torch_(
    logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None, slope: bool
) -> torch.Tensor:
    """As `cross_entropy_`, by torch's operations."""
    log_probs = at_least_float32(logits).log_softmax(-1)
    # Not log_probs[rows, targets], which counts negative targets from the end.
    losses = -log_probs.gather(1, targets[:, None])[:, 0]
    if slope:
        asked = (torch.arange(len(log_probs), device=log_probs.device), targets)
        grads = log_probs.exp_()
        grads[asked] -= 1
        if weights is not None:
            grads *= weights[:, None]
        logits.copy_(grads)
    return losses if weights is None else losses * weights


def cross_entropy_native_(
    logits: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor | None,
    slope: bool,
    instruction_set: str | None = None,
) -> torch.Tensor:
    """As `cross_entropy_`, by the compiled kernel. Raises: BackendError on a target outside the vocabulary."""
    losses = torch.empty(len(logits), dtype=torch.float32, device="cpu")
    targets = targets.contiguous()
    weights = None if weights is None else weights.float().contiguous()
    call = rowwise.LossCall(
        logits=rowwise.rows_of(logits),
        targets=targets.data_ptr(),
        weights=rowwise.pointer(weights),
        losses=losses.data_ptr(),
        num_rows=len(logits),
        D=logits.shape[1],
        slope=int(slope),
    )
    rowwise.run("cross_entropy", call, instruction_set)
    return losses


def _check_inputs(dtype: torch.dtype) -> dict[str, Any]:
    draw = torch.Generator("cpu").manual_seed(0)
    logits = 4 * torch.randn(50, 203, generator=draw, device="cpu")
    targets = torch.randint(203, (50,), generator=draw, device="cpu")
    return {
        "logits": logits.to(dtype),
        "targets": targets,
        "weights": torch.rand(50, device="cpu", generator=draw),
    }


def _losses_and_slopes(run_it: Any) -> Any:
    """Wrap an implementation for the self-check: one tensor of the losses, and the slopes scaled as they are."""

    def both(**inputs: Any) -> torch.Tensor:
        logits = inputs.pop("logits").clone()
        losses = run_it(logits, **inputs, slope=True)
        return torch.cat((losses[:, None], logits.float()), dim=1)

    return both


BACKENDS = rowwise.backends(
    "cross_entropy",
    cross_entropy_native_,
    cross_entropy_torch_,
    _check_inputs,
    as_checked=_losses_and_slopes,
)
