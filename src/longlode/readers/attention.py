"""Attention shares between the segments of a text, summed while a model reads it.

A layer's weights are `[n, heads, T, T]`: for 2,048 tokens and 16 heads 256 MiB per text in float32. They are reduced
to `[n, S, S]`, segment by segment, as soon as the layer has run, so that at most one layer's weights are held at a
time; for longlode layers only those of one segment of queries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from longlode.core.errors import ModelError
from longlode.mixers import FullAttention
from longlode.readers.source import context_tokens

_WEIGHT_BYTES = {"cpu": 512 << 20, "cuda": 4 << 30}


class ShareSum:
    """Sum of the shares of the layers of one pass. Args: segment, L; num_tokens, T = S L of every text."""

    def __init__(self, segment: int, num_tokens: int) -> None:
        """Make a sum over no layers."""
        self._segment = segment
        self._num_tokens = num_tokens
        self._sum: Tensor | None = None
        self._num_layers = 0

    def add_weights(self, weights: Tensor) -> None:
        """Add one layer's attention weights `[n, H, T, T]`."""
        pieces = weights.split(self._segment, dim=2)
        self._add(torch.stack([self._share(piece) for piece in pieces], dim=1))

    def add_keys(self, q: Tensor, k: Tensor) -> None:
        """Add a causal layer's queries `[n, T, H, K]` and keys `[n, T, G, K]`; a key head serves H / G query heads."""
        q = q.transpose(1, 2) * q.shape[-1] ** -0.5
        k = k.transpose(1, 2).repeat_interleave(q.shape[1] // k.shape[2], dim=1)
        shares = []
        for start in range(0, self._num_tokens, self._segment):
            stop = start + self._segment
            logits = (q[:, :, start:stop] @ k[:, :, :stop].transpose(-1, -2)).float()
            future = torch.ones(self._segment, self._segment, dtype=torch.bool, device=q.device).triu(1)
            logits[..., start:].masked_fill_(future, -torch.inf)
            shares.append(self._share(logits.softmax(dim=-1)))
        num_segments = len(shares)
        self._add(
            torch.stack([nn.functional.pad(row, (0, num_segments - row.shape[-1])) for row in shares], dim=1)
        )

    def mean(self) -> Tensor | None:
        """Return the mean over layers, float32 `[n, S, S]`; None if none was added."""
        return None if self._sum is None else self._sum / self._num_layers

    def _share(self, weights: Tensor) -> Tensor:
        """Average `[n, H, Q, J]` over heads and queries, and sum over the keys of each segment: `[n, J / L]`."""
        over_queries = weights.mean(dim=(1, 2), dtype=torch.float32)
        return over_queries.unflatten(-1, (-1, self._segment)).sum(dim=-1)

    def _add(self, shares: Tensor) -> None:
        self._sum = shares if self._sum is None else self._sum + shares
        self._num_layers += 1


def attention_shares(model: Any, reader: Any, tokens: Tensor, segment: int) -> Tensor:
    """Compute the share of its attention that each segment pays to each segment, in one pass per text.

    Args: reader, the part of `model` that reads; tokens `[n, S L]` on its device; segment, L.
    Returns: float32 `[n, S, S]`: `[:, i, j]` is the mean over full-attention layers, heads and queries in s_i of the
      attention to all keys in s_j; 0 for j > i, and every row sums to 1.
    Raises: ModelError when the model has no full-attention layer that returns its weights.
    """
    config, context = model.config.get_text_config(), context_tokens(model)
    if context is not None and tokens.shape[1] > context:
        raise ModelError(
            f"The model reads at most {context} tokens; a window of attention has {tokens.shape[1]}. Use shorter "
            "segments or a model with a longer context."
        )
    num_heads = int(getattr(config, "num_attention_heads", None) or getattr(config, "num_heads", None) or 1)
    budget = _WEIGHT_BYTES["cuda" if tokens.device.type == "cuda" else "cpu"]
    num_rows = max(1, budget // (4 * num_heads * tokens.shape[1] ** 2))
    shares = []
    for block in tokens.split(num_rows):
        total = ShareSum(segment, tokens.shape[1])
        with _watched(model, total, tokens.shape[1]):
            reader(input_ids=block, use_cache=False)
        mean = total.mean()
        if mean is None:
            raise ModelError(
                f"{type(model).__name__} has no layer of full attention that returns its weights; expected one "
                "that does, such as facebook/opt-350m or Llama."
            )
        shares.append(mean)
    return torch.cat(shares)


@contextmanager
def _watched(model: Any, total: ShareSum, num_tokens: int) -> Iterator[None]:
    """Add to `total` the attention of all full-attention layers that run inside the block."""

    def after_ours(layer: FullAttention, inputs: tuple[Tensor, ...], _: Any) -> None:
        q, k, _values = layer.project(
            inputs[0], torch.arange(inputs[0].shape[1], device=inputs[0].device)[None]
        )
        total.add_keys(q, k)

    def after_theirs(layer: nn.Module, _: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.shape[2:] == (num_tokens, num_tokens):
            total.add_weights(weights)

    handles, has_theirs = [], False
    for layer in model.modules():
        if isinstance(layer, FullAttention) and not layer.traits.constant_state:
            handles.append(layer.register_forward_hook(after_ours))
        elif type(layer).__name__.endswith("Attention") and _sees_all(layer, num_tokens):
            has_theirs = True
            handles.append(layer.register_forward_hook(after_theirs))
    before = model.config._attn_implementation
    try:
        if has_theirs:  # the fused kernels never hold the weights
            model.set_attn_implementation("eager")
        yield
    finally:
        for handle in handles:
            handle.remove()
        if has_theirs:
            model.set_attn_implementation(before)


def _sees_all(layer: nn.Module, num_tokens: int) -> bool:
    """Return True if no sliding window (in transformers' names) hides a part of `num_tokens` from the layer."""
    config, number = getattr(layer, "config", None), getattr(layer, "layer_idx", None)
    kinds = getattr(config, "layer_types", None)
    if kinds and number is not None and kinds[number] == "full_attention":
        return True
    window = getattr(layer, "sliding_window", None) or getattr(config, "sliding_window", None)
    return window is None or window >= num_tokens
