"""Next-token cross entropy from hidden states, without holding all logits.

A plain head is a matrix, and the gradient of the loss is then known block by block. A wrapped head (LoRA, quantised or
offloaded weights, hooks) is called as a module.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from longlode.core.errors import ConfigError
from longlode.ops.dtypes import at_least_float32, dtype_of_products
from longlode.ops.fused import cross_entropy_
from longlode.ops.surroundings import Interface, required_interface

IGNORED = -100
_CHUNK_LOGITS = 1 << 24  # numbers in one block of logits: 64 MiB in float32
_BLOCK_LOGITS = {
    "cpu": 1 << 22
}  # by device: a block that stays in the last cache, and whose memory is used again


class _HeadCrossEntropy(torch.autograd.Function):
    """Summed cross entropy of `softmax(hidden weight^T)`, computed in blocks of rows.

    The gradient of the sum follows from the logits of a block, so forward computes it and keeps only gradients of the
    size of hidden and weight; each block of logits is computed once and freed.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, importance: Tensor | None
    ) -> Tensor:
        """Sum the loss over n in nats: hidden `[n, D]`, weight `[V, D]`, targets int64 `[n]`.

        importance `[n]`: weight of each target in the sum; None: 1.
        """
        of_hidden, of_weight = ctx.needs_input_grad[:2]
        # As autocast would cast both factors of each product, but once for all blocks.
        narrow = dtype_of_products(hidden)
        compute, inputs = weight.to(narrow), hidden.to(narrow)
        rows = max(1, _BLOCK_LOGITS.get(hidden.device.type, _CHUNK_LOGITS) // weight.shape[0])
        # One memory for all blocks: a new one each time would push the rest out of the cache.
        logits = inputs.new_empty(min(rows, len(inputs)), len(compute))
        total = at_least_float32(hidden).new_zeros(())
        grad_hidden = torch.empty_like(inputs) if of_hidden else None
        grad_weight = torch.zeros_like(weight) if of_weight else None
        for start in range(0, len(hidden), rows):
            part = slice(start, start + rows)
            block = torch.mm(inputs[part], compute.T, out=logits[: len(inputs[part])])
            counts = None if importance is None else importance[part]
            total += cross_entropy_(block, targets[part], counts, slope=of_hidden or of_weight).sum()
            if grad_hidden is not None:
                torch.mm(block, compute, out=grad_hidden[part])
            if grad_weight is not None:
                grad_weight += (block.T @ inputs[part]).to(weight.dtype)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.dtypes = hidden.dtype, weight.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Scale the gradients computed in forward."""
        if torch.is_grad_enabled():
            # Only with create_graph=True; otherwise the gradients would silently be treated as constants.
            raise ConfigError(
                "A second derivative of the loss was asked for, which this block-wise loss cannot give; take "
                "the loss from logits instead (call the model without labels)."
            )
        of_hidden, of_weight = (
            None if grad is None else grad.to(dtype) * grad_total.to(dtype)
            for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return of_hidden, of_weight, None, None


def next_token_loss(
    hidden: Tensor,
    head: nn.Module,
    targets: Tensor,
    num_items: Tensor | int | None = None,
    importance: Tensor | None = None,
    places: Tensor | None = None,
) -> Tensor:
    """Compute the mean cross entropy of the targets in nats.

    Args:
      hidden: `[B, T, D]` final hidden states.
      head: the module that makes logits `[n, V]` of hidden states `[n, D]`.
      targets: int64 `[B, T]`, the token that should follow each position; -100 for no target.
      num_items: divide the sum by this instead of the number of targets (gradient accumulation).
      importance: `[B, T]`, weight of each target in the sum; None: all equal.
      places: int64 `[n]`, where the targets are in the flattened `[B * T]`; None: found, which waits for the device.
    Returns: a scalar, float32 or float64; 0 without targets.
    Raises: ConfigError for targets of another shape or no whole numbers, or outside the vocabulary (the last on a CPU
      only: elsewhere the check would wait for the device).
    """
    _check_shapes(hidden, targets, importance)
    targets = targets.long()
    if places is None:
        places = (targets != IGNORED).flatten().nonzero()[:, 0]
    rows, asked = hidden.flatten(0, 1), targets.flatten()
    counts = None if importance is None else importance.flatten().to(at_least_float32(hidden).dtype)
    if len(places) < len(asked):  # else all of them: no copy
        rows, asked = rows[places], asked[places]
        counts = None if counts is None else counts[places]
    if is_plain(head):
        _check_range(asked, head)
        total = _HeadCrossEntropy.apply(rows, head.weight, asked, counts)
    else:
        total = _loss_through(head, rows, asked, counts)
    return total / (max(1, len(places)) if num_items is None else num_items)


def _check_shapes(hidden: Tensor, targets: Tensor, importance: Tensor | None) -> None:
    """Check for one whole number, and one weight, per position of hidden. Raises: ConfigError."""
    for name, given in (("labels", targets), ("label_weights", importance)):
        if given is not None and given.shape != hidden.shape[:2]:
            raise ConfigError(
                f"{name} has shape {list(given.shape)}; expected {list(hidden.shape[:2])}, one per token that is read."
            )
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ConfigError(f"labels is {targets.dtype}; expected token ids, int64, and -100 for no label.")


def _check_range(asked: Tensor, head: Any) -> None:
    """Check that targets `[n]` on a CPU are in the vocabulary of a plain head. Raises: ConfigError."""
    # Numbers cannot be looked at while a graph is traced.
    if asked.device.type != "cpu" or not len(asked) or required_interface([asked])[0] > Interface.MEMORY:
        return
    (low, high), vocabulary = map(int, asked.aminmax()), head.weight.shape[0]
    if low < 0 or high >= vocabulary:
        raise ConfigError(
            f"labels holds {low if low < 0 else high}; expected token ids from 0 to {vocabulary - 1}, the model's "
            f"vocabulary, or {IGNORED} for no label."
        )


def is_plain(head: nn.Module) -> bool:
    """Return True if `head(x)` is `x @ head.weight.T` and nothing else.

    Not plain are: another class (such as LoRA, quantised or parametrised layers), hooks, a `forward` of the instance
    (accelerate's offloading), a bias, a weight that is not an ordinary tensor or is on the meta device.
    """
    if type(head) is not nn.Linear or head.bias is not None or "forward" in vars(head):
        return False
    # These four are torch's private names of a module's hooks; there is no public interface.
    hooks = (head._forward_hooks, head._forward_pre_hooks, head._backward_hooks, head._backward_pre_hooks)
    weight = head.weight
    ordinary = type(weight) in (nn.Parameter, Tensor) and type(weight.data) is Tensor
    return not any(hooks) and ordinary and not weight.is_meta and weight.is_floating_point()


def _loss_through(head: nn.Module, hidden: Tensor, targets: Tensor, counts: Tensor | None) -> Tensor:
    """Sum the cross entropy of `head(hidden)`, hidden `[n, D]`; with several blocks, each is recomputed in backward."""

    def block_loss(rows: Tensor, asked: Tensor, counted: Tensor | None) -> Tensor:
        logits = at_least_float32(head(rows))
        if counted is None:
            return functional.cross_entropy(logits, asked, reduction="sum")
        return (functional.cross_entropy(logits, asked, reduction="none") * counted).sum()

    vocabulary = getattr(head, "out_features", None) or hidden.shape[-1]
    num_rows = max(1, _CHUNK_LOGITS // vocabulary)
    if len(hidden) <= num_rows:
        return block_loss(hidden, targets, counts)
    total = at_least_float32(hidden).new_zeros(())
    parts = [None] * len(hidden) if counts is None else counts.split(num_rows)
    for rows, asked, counted in zip(hidden.split(num_rows), targets.split(num_rows), parts, strict=False):
        if torch.is_grad_enabled():
            total = total + checkpoint(block_loss, rows, asked, counted, use_reentrant=False)
        else:
            total = total + block_loss(rows, asked, counted)
    return total
