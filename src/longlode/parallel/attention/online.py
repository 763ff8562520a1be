"""Schemes that keep of each attention row its output and the log-sum of its scores, and go back from these.

They run as one operator of PyTorch, `longlode::sharded_attention`, so that activation checkpointing can keep its
result:

    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": keep_attention_outputs})

recomputes everything in a block but the attention, and sends no key twice for the forward pass (DistFlashAttn, arXiv
2310.03294, section 3.3).
"""

import itertools
import weakref
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from longlode.core.errors import ConfigError
from longlode.mixers.norm import at_least_float32
from longlode.parallel.attention.base import AttentionScheme, AttentionSizes
from longlode.parallel.attention.gather import GatherAttention
from longlode.parallel.plan import SequencePlan

if TYPE_CHECKING:
    from longlode.parallel.shard import RankShard


class OnlineAttention(AttentionScheme):
    """A scheme made of a forward and a backward pass without autograd. A sliding window is gathered, once, by need."""

    def __call__(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        """See `AttentionScheme.__call__`."""
        if window is not None:
            return GatherAttention()(shard, q, k, v, window)
        return _sharded_attention(q, k, v, _number_of(self, shard))[0]

    def received_bytes(
        self, plan: SequencePlan, rank: int, sizes: AttentionSizes, window: int | None
    ) -> tuple[int, int]:
        """See `AttentionScheme.received_bytes`."""
        if window is not None:
            return GatherAttention().received_bytes(plan, rank, sizes, window)
        return self.received(plan, rank, sizes)

    @abstractmethod
    def forward_pass(self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Compute o `[B, T', H, K]` and the log-sums `[B, T', H]`, both float32 or wider."""

    @abstractmethod
    def backward_pass(
        self, shard: "RankShard", q: Tensor, k: Tensor, v: Tensor, lse: Tensor, grad: Tensor, row_sum: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the gradients of q, k and v; row_sum `[B, T', H]` is the sum of grad * o over a head."""

    @abstractmethod
    def received(self, plan: SequencePlan, rank: int, sizes: AttentionSizes) -> tuple[int, int]:
        """`received_bytes` without a window."""


class _Call:
    """A scheme and a shard, which an operator of tensors and numbers cannot take."""

    def __init__(self, scheme: OnlineAttention, shard: "RankShard") -> None:
        self.scheme, self.shard = scheme, shard


_numbers = itertools.count()
_calls: "weakref.WeakValueDictionary[int, _Call]" = weakref.WeakValueDictionary()


def _number_of(scheme: OnlineAttention, shard: "RankShard") -> int:
    """Number under which the operator finds the scheme and the shard, as long as the shard lives."""
    known = shard.numbered_calls
    for number, call in known.items():
        if call.scheme is scheme:
            return number
    number = next(_numbers)
    known[number] = _calls[number] = _Call(scheme, shard)
    return number


@torch.library.custom_op("longlode::sharded_attention", mutates_args=())
def _sharded_attention(q: Tensor, k: Tensor, v: Tensor, call: int) -> tuple[Tensor, Tensor]:
    found = _calls[call]
    # Scores are float32 or wider, also where products would be cast.
    with torch.autocast(q.device.type, enabled=False):
        o, lse = found.scheme.forward_pass(found.shard, q, k, v)
    return o.to(q.dtype, copy=True), lse


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor, int], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, number = inputs
    ctx.save_for_backward(q, k, v, *output)
    # The call must live as long as the graph.
    ctx.call = _calls[number]


def _backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, Tensor, Tensor, None]:
    if torch.is_grad_enabled():
        raise ConfigError(
            "A second derivative of sharded attention was asked for, which this scheme cannot give; take it on "
            "one rank."
        )
    q, k, v, o, lse = ctx.saved_tensors
    grad = at_least_float32(grad)
    row_sum = (grad * o).sum(-1)
    with torch.autocast(q.device.type, enabled=False):
        grads = ctx.call.scheme.backward_pass(ctx.call.shard, q, k, v, lse, grad, row_sum)
    dq, dk, dv = (one.to(x.dtype) for one, x in zip(grads, (q, k, v), strict=True))
    return dq, dk, dv, None


_sharded_attention.register_autograd(_backward, setup_context=_save)


def keep_attention_outputs() -> Any:
    """Return the contexts of an activation checkpoint that keeps the outputs of sharded attention (`context_fn`)."""
    return create_selective_checkpoint_contexts(_policy)


def _policy(ctx: Any, op: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    if op is torch.ops.longlode.sharded_attention.default:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
