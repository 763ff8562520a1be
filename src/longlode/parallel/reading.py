"""Long rows read without gradients on several ranks: nats of labels, and prompts that the last rank continues."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from longlode.mixers.norm import at_least_float32
from longlode.models import LonglodeCache, LonglodeForCausalLM
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
def asked_scores(
    model: LonglodeForCausalLM,
    tokens: Tensor,
    lengths: Sequence[int],
    rows: Tensor,
    places: Tensor,
    transport: Transport,
    *,
    attention: str | AttentionScheme = "gather",
) -> tuple[Tensor, Tensor]:
    """Return of asked tokens -log p in nats, float `[n]`, and True where they are the most probable, bool `[n]`.

    Args: tokens: int64 `[B, T]`, padded at the right. lengths: of the rows. rows, places: int64 `[n]`, where the asked
      tokens are, places from 1 on. All the same on all ranks, and so is what is returned. attention: a scheme.
    """
    mask = (
        torch.arange(tokens.shape[1], device=tokens.device)
        < torch.tensor(lengths, device=tokens.device)[:, None]
    )
    plan = SequencePlan.even(transport.num_ranks, tokens.shape, mask=mask)
    piece = plan.piece(transport.rank)
    hidden = _read(model, piece, tokens, transport, attention, use_cache=False).last_hidden_state
    starts, stops = (
        torch.tensor(plan.cuts[r], device=tokens.device)[rows] for r in (piece.rank, piece.rank + 1)
    )
    here = ((places > starts) & (places <= stops)).nonzero()[
        :, 0
    ]  # a token is predicted from the place before it
    found = at_least_float32(hidden).new_zeros(2, len(places))
    block = max(1, _BLOCK_LOGITS // model.config.vocab_size)
    for part in here.split(block):
        row, place = rows[part], places[part]
        logits = at_least_float32(model.lm_head(hidden[row, place - 1 - starts[part]]))
        wanted = tokens[row, place]
        found[0, part] = functional.cross_entropy(logits, wanted, reduction="none")
        found[1, part] = (logits.argmax(-1) == wanted).to(found.dtype)
    nats, hits = transport.all_reduce(found, "scores")
    return nats, hits > 0


@torch.no_grad()
def read_prompt(
    model: LonglodeForCausalLM,
    tokens: Tensor,
    transport: Transport,
    cache: LonglodeCache,
    *,
    attention: str | AttentionScheme = "gather",
) -> None:
    """Read tokens int64 `[B, T]` on all ranks into `cache`, which on the last rank then has what one rank would have.

    cache: the same on all ranks before, empty or filled. On the other ranks it is of no more use.
    """
    piece = SequencePlan.even(transport.num_ranks, tokens.shape).piece(transport.rank)
    last, num_read = transport.num_ranks - 1, cache.num_positions
    if tokens.shape[1] >= transport.num_ranks:
        _read(model, piece, tokens, transport, attention, past_key_values=cache, use_cache=True)
    elif transport.rank == last and tokens.shape[1]:
        model.model(input_ids=tokens, past_key_values=cache, use_cache=True)
    if transport.rank == last:
        cache.num_positions = num_read + tokens.shape[1]  # it has counted this rank's piece


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
      (max_new_tokens, do_sample, num_return_sequences ...). Returns: int64 `[B x samples, T + new]`.
    """
    before, last = tokens[:, :-1], tokens[:, -1:]
    cache = LonglodeCache(len(model.model.layers))
    read_prompt(model, before, transport, cache, attention=attention)
    if transport.rank < transport.num_ranks - 1:
        return None
    options, samples = _without_samples(options)
    if samples > 1:  # as many rows as samples: `generate` would repeat the tokens, and not the cache
        cache.batch_repeat_interleave(samples)
        before, last = (x.repeat_interleave(samples, 0) for x in (before, last))
    mask = last.new_ones(len(last), before.shape[1] + 1)
    options = {"attention_mask": mask, "past_key_values": cache, **options}
    new = model.generate(input_ids=last, **options)
    return torch.cat((before, new), dim=1)


def _without_samples(options: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return options of `generate` with a cache and one sample per row, and the samples that were asked for."""
    config = copy.deepcopy(options.get("generation_config"))
    if config is None:
        samples = options.get("num_return_sequences", 1)
        return options | {"num_return_sequences": 1, "use_cache": True}, samples
    samples, config.num_return_sequences, config.use_cache = config.num_return_sequences or 1, 1, True
    return options | {"generation_config": config}, samples


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
