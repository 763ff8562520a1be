"""Checks of masks, positions and document offsets that callers give with tokens.

Padding may be anywhere in a row. The mixers read a piece with its real tokens first (`real_first`); their states are
those without padding.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError

if TYPE_CHECKING:
    from longlode.models.cache import LonglodeCache


def embedded(embeddings: nn.Embedding, input_ids: Tensor) -> Tensor:
    """Look up token ids. Raises: ConfigError for one outside the vocabulary, on a CPU; a GPU only asserts."""
    try:
        found: Tensor = embeddings(input_ids)
    except IndexError:
        low, high = map(int, input_ids.aminmax())
        raise ConfigError(
            f"input_ids holds token ids from {low} to {high}; the model's vocabulary is 0 to "
            f"{embeddings.num_embeddings - 1}. Take the tokenizer that was saved with the model."
        ) from None
    return found


def piece_mask(
    attention_mask: Tensor | None, shape: torch.Size, cache: "LonglodeCache | None"
) -> Tensor | None:
    """Return the mask `[B, T]` of the piece to be read, or None when it has no padding.

    Args:
      attention_mask: `[B, T]` of the piece, or `[B, past + T]` with the mask of the cache's text before it.
      shape: (B, T). cache: the states so far.
    Raises: ConfigError on another shape, and when the past differs from the cache's.
    """
    if attention_mask is None:
        return None
    (num_rows, num_tokens), num_read = shape, cache.num_positions if cache is not None else 0
    if attention_mask.dim() != 2 or tuple(attention_mask.shape) not in {
        (num_rows, num_tokens),
        (num_rows, num_read + num_tokens),
    }:
        with_past = f" or, the past in front, [{num_rows}, {num_read + num_tokens}]" if num_read else ""
        raise ConfigError(
            f"attention_mask has shape {list(attention_mask.shape)}; expected [{num_rows}, {num_tokens}]"
            f"{with_past}, 1 at tokens and 0 at padding."
        )
    mask = attention_mask.bool()
    if torch.compiler.is_exporting():
        # An exported graph cannot branch on the mask's content.
        return mask[:, -num_tokens:]
    if cache is not None and mask.shape[1] > num_tokens:
        _check_past(mask[:, :num_read], cache)
    mask = mask[:, -num_tokens:]
    return None if mask.all() else mask


def _check_past(past: Tensor, cache: "LonglodeCache") -> None:
    read = cache.mask
    num_masked = 0 if read is None else read.shape[1]
    same = past.all() if read is None else (past[:, :num_masked] == read).all() & past[:, num_masked:].all()
    if not same:
        raise ConfigError(
            "attention_mask hides positions that the cache has read as text, or shows some that it has read as "
            "padding; a state cannot unread them. (Rows that end early in `generate` read the padding after their "
            "end as text.) Pass the mask that was read with, or read the text anew without the cache."
        )


def real_first(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Compute an order `[B, T]` with the real tokens of each row first, and the mask in that order.

    The order is None if they are first already, or nothing is padding.
    """
    # An exported graph cannot branch on the padding's position, so it always sorts.
    if mask is None or not (torch.compiler.is_exporting() or (mask[:, 1:] & ~mask[:, :-1]).any()):
        return None, mask
    order = mask.logical_not().long().argsort(dim=1, stable=True)
    return order, mask.gather(1, order)


def reordered(x: Tensor, order: Tensor | None) -> Tensor:
    """Reorder x `[B, T, D]`: token t of a row is taken from `order[t]`."""
    return x if order is None else x.gather(1, order[..., None].expand_as(x))


def restored(x: Tensor, order: Tensor | None) -> Tensor:
    """Undo `reordered`."""
    return x if order is None else reordered(x, order.argsort(dim=1))


def restored_weights(weights: Tensor | None, order: Tensor | None) -> Tensor | None:
    """Undo the reordering in attention weights `[B, H, T, J]`, whose last T keys are those of the piece."""
    if weights is None or order is None:
        return weights
    place, num_tokens = order.argsort(dim=1), order.shape[1]
    num_before = weights.shape[3] - num_tokens
    rows = weights.gather(2, place[:, None, :, None].expand_as(weights))
    before, piece = rows.split([num_before, num_tokens], dim=3)
    return torch.cat((before, piece.gather(3, place[:, None, None].expand_as(piece))), dim=3)


def packed_documents(
    position_ids: Tensor | None,
    cu_seqlens: Tensor | None,
    mask: Tensor | None,
    shape: torch.Size,
    cache: "LonglodeCache | None",
    seq_idx: Tensor | None = None,
) -> Tensor | None:
    """Return the offsets of packed documents, derived from positions that restart in a row if they are not given.

    The model counts positions itself; `position_ids` add information only if they restart, as those of
    transformers' DataCollatorWithFlattening do.

    Args: position_ids: `[B, T]`, `[1, T]` or `[T]`. cu_seqlens: given offsets. mask: `[B, T]` of the piece.
      shape: (B, T). cache: the states so far. seq_idx: `[1, T]` or `[T]`, a number that changes from document to
      document, instead of cu_seqlens.
    Returns: `[N + 1]` int32, or None when a row is one document.
    Raises: ConfigError on positions that neither count up nor restart or that contradict cu_seqlens, on cu_seqlens and
      seq_idx that differ, and on packing in several rows.
    """
    num_rows, num_tokens = shape
    if seq_idx is not None:
        cu_seqlens = _offsets_of(seq_idx, cu_seqlens, num_rows, num_tokens)
    if cu_seqlens is not None and num_rows != 1:
        raise ConfigError(f"cu_seqlens came with a batch of {num_rows} rows; pack documents into one row.")
    if position_ids is None:
        return cu_seqlens
    positions = torch.atleast_2d(position_ids)
    if positions.dim() != 2 or positions.shape[0] not in (1, num_rows) or positions.shape[1] != num_tokens:
        raise ConfigError(
            f"position_ids has shape {list(position_ids.shape)}; expected [{num_rows}, {num_tokens}]."
        )
    found: Tensor | None = None
    if not _counts_on(positions.expand(num_rows, -1), mask, cache):
        starts = positions[0] == positions[0, 0]
        goes_on = positions[0, 1:] == positions[0, :-1] + 1
        if num_rows > 1 or mask is not None or (cache is not None and cache.num_positions):
            raise _bad_positions()
        if not (starts[1:] | goes_on).all():
            raise _bad_positions()
        edges = starts.nonzero()[:, 0]
        found = torch.cat((edges, edges.new_tensor([num_tokens]))).int()
    if cu_seqlens is None:
        return found
    want = found if found is not None else cu_seqlens.new_tensor([0, num_tokens])
    if cu_seqlens.tolist() != want.tolist():
        raise ConfigError(
            f"cu_seqlens says {cu_seqlens.tolist()} and position_ids say {want.tolist()}; leave position_ids out."
        )
    return cu_seqlens


def _offsets_of(seq_idx: Tensor, cu_seqlens: Tensor | None, num_rows: int, num_tokens: int) -> Tensor | None:
    """Convert seq_idx to offsets of documents; return cu_seqlens itself if equal, None for one document."""
    numbers = torch.atleast_2d(seq_idx)
    if numbers.dim() != 2 or numbers.shape[0] not in (1, num_rows) or numbers.shape[1] != num_tokens:
        raise ConfigError(f"seq_idx has shape {list(seq_idx.shape)}; expected [{num_rows}, {num_tokens}].")
    changes = numbers[:, 1:] != numbers[:, :-1]
    if num_rows > 1:
        if changes.any():
            raise ConfigError(
                f"seq_idx names several documents in a batch of {num_rows} rows; pack them in one row."
            )
        return cu_seqlens
    edges = [0, *(changes[0].nonzero()[:, 0] + 1).tolist(), num_tokens]
    if cu_seqlens is not None:
        if cu_seqlens.tolist() != edges:
            raise ConfigError(
                f"cu_seqlens says {cu_seqlens.tolist()} and seq_idx says {edges}; leave seq_idx out."
            )
        return cu_seqlens
    return torch.tensor(edges, dtype=torch.int32, device=seq_idx.device) if len(edges) > 2 else None


def _counts_on(positions: Tensor, mask: Tensor | None, cache: "LonglodeCache | None") -> bool:
    """Return True if the real tokens of each row of positions `[B, T]` count up by one, continuing the cache's."""
    real = positions.new_ones(positions.shape, dtype=torch.bool) if mask is None else mask
    offset = positions - (real.long().cumsum(1) - 1)
    first = offset.gather(1, real.long().argmax(1, keepdim=True))
    if ((offset != first) & real).any():
        return False
    if cache is None or not cache.num_positions:
        # Rotary positions are relative, and other mixers have none, so the first position does not matter.
        return True
    counted = cache.num_positions - cache.num_padding(positions.shape[0]).to(first.device)[:, None]
    empty = ~real.any(1, keepdim=True)
    return bool(((first == counted) | (first == cache.num_positions) | empty).all())


def _bad_positions() -> ConfigError:
    return ConfigError(
        "position_ids neither count up by one from token to token (going on after what a cache has read), nor start "
        "anew in a single row without padding or cache (packed documents). Leave them out: the model counts itself."
    )
