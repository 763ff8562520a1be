"""Long rows read without gradients on several ranks: the nats of every label, and prompts that one rank continues."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from longlode.mixers.norm import at_least_float32
from longlode.models import LonglodeForCausalLM
from longlode.parallel.attention import AttentionScheme
from longlode.parallel.plan import IGNORED, Piece, SequencePlan
from longlode.parallel.shard import RankShard
from longlode.parallel.transport import Transport

_BLOCK_LOGITS = 1 << 24


@torch.no_grad()
def label_nats(
    model: LonglodeForCausalLM,
    tokens: Tensor,
    shift_labels: Tensor,
    transport: Transport,
    *,
    cu_seqlens: Tensor | None = None,
    attention: str | AttentionScheme = "gather",
) -> Tensor:
    """Return -log p of every label in nats, float `[B, T]`, 0 where there is none; on every rank, of the whole rows.

    Args: tokens, shift_labels: int64 `[B, T]`, the same on all ranks (see `next_tokens`). cu_seqlens: `[N + 1]` offsets
      of packed documents. attention: a scheme. A rank holds logits block by block, 64 MiB each.
    """
    plan = SequencePlan.even(transport.num_ranks, tokens.shape, cu_seqlens=cu_seqlens)
    piece = plan.piece(transport.rank)
    hidden = _read(model, piece, tokens, transport, attention, use_cache=False).last_hidden_state
    labels = piece.take(shift_labels, IGNORED)
    nats = at_least_float32(hidden).new_zeros(labels.shape)
    block = max(1, _BLOCK_LOGITS // (len(labels) * model.config.vocab_size))
    for start in range(0, labels.shape[1], block):
        span = slice(start, start + block)
        logits = at_least_float32(model.lm_head(hidden[:, span]))
        nats[:, span] = functional.cross_entropy(
            logits.mT, labels[:, span], ignore_index=IGNORED, reduction="none"
        )
    whole = nats.new_zeros(tokens.shape)
    piece.put(nats, whole)
    return transport.all_reduce(whole, "nats")


@torch.no_grad()
def continue_prompt(
    model: LonglodeForCausalLM,
    tokens: Tensor,
    transport: Transport,
    *,
    attention: str | AttentionScheme = "gather",
    **options: Any,
) -> Tensor | None:
    """Read prompts on all ranks and continue them on the last, which alone returns the tokens; None on the others.

    Args: tokens: int64 `[B, T]`, rows of equal length, the same on all ranks. options: of transformers' `generate`
      (max_new_tokens, do_sample ...). Returns: int64 `[B, T + new]`.
    """
    cache, before = None, tokens[:, :-1]
    if before.shape[1]:
        piece = SequencePlan.even(transport.num_ranks, before.shape).piece(transport.rank)
        cache = _read(model, piece, before, transport, attention, use_cache=True).past_key_values
    if transport.rank < transport.num_ranks - 1:
        return None
    if cache is not None:
        # The cache counts the positions of this rank's piece; `generate` is to read one more.
        mask = tokens.new_ones(len(tokens), cache.num_positions + 1)
        options = {"attention_mask": mask, "past_key_values": cache, **options}
    new = model.generate(input_ids=tokens[:, -1:], use_cache=True, **options)
    return torch.cat((before, new), dim=1)


def _read(
    model: LonglodeForCausalLM,
    piece: Piece,
    tokens: Tensor,
    transport: Transport,
    attention: str | AttentionScheme,
    **options: Any,
) -> Any:
    """Read a piece with the backbone."""
    shard = RankShard(piece.plan, transport, attention, device=tokens.device)
    return model.model(**piece.model_inputs(tokens), shard=shard, **options)
