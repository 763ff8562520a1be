"""Generation by models with landmark attention: landmarks in the text, and blocks on disk.

    ids = with_landmarks(prompt, token, 64)
    with blocks_on_disk(model, "blocks"):
        model.generate(ids, logits_processor=[LandmarkProcessor(token, 64)])

In training the packer `landmark` inserts them (arXiv 2305.16300).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from longlode.core.errors import ConfigError
from longlode.mixers.token_store import DiskTokens


def with_landmarks(ids: Tensor, token: int, block_size: int) -> Tensor:
    """Insert a landmark token after every `block_size - 1` tokens of ids `[B, T]`, which hold no padding.

    Returns: `[B, T + T // (block_size - 1)]`.
    """
    size = _checked(block_size) - 1
    index = torch.arange(ids.shape[1], device=ids.device)
    out = ids.new_full((ids.shape[0], ids.shape[1] + ids.shape[1] // size), token)
    out[:, index + index // size] = ids
    return out


def without_landmarks(ids: Tensor, block_size: int) -> Tensor:
    """Undo `with_landmarks`: `[B, T]` -> `[B, T - T // block_size]`."""
    place = torch.arange(ids.shape[1], device=ids.device)
    return ids[:, place % _checked(block_size) != block_size - 1]


class LandmarkProcessor(LogitsProcessor):
    """Write the landmark token where a block ends, and nowhere else; for `generate`, without padded prompts."""

    def __init__(self, token: int, block_size: int) -> None:
        """Args: token: id of the landmark token. block_size: of the mixer."""
        self._token, self._block_size = token, _checked(block_size)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
        """Change scores `[B, vocabulary]` of the token after input_ids `[B, T]`."""
        ends = input_ids.shape[1] % self._block_size == self._block_size - 1
        others = torch.arange(scores.shape[1], device=scores.device) != self._token
        return scores.masked_fill(others if ends else ~others, -torch.inf)


@contextmanager
def blocks_on_disk(model: Any, folder: str | Path) -> Iterator[Any]:
    """Keep the keys and values of landmark layers in memory-mapped files of `folder`, which are removed at the end.

    With `num_retrieved` set a token reads the blocks that it retrieves, and its own; the keys of landmarks stay in
    memory. For generation on the CPU. A cache that was read before is copied to the files.
    Args: model: a longlode model.   Raises: ConfigError if no layer keeps its tokens in a store.
    """
    mixers = [block.attn for block in model.base_model.layers if block.attn.token_store is not None]
    if not mixers:
        raise ConfigError(
            "The model has no layer that keeps its tokens in a store; expected landmark attention (mixer landmark)."
        )
    stores = [DiskTokens(Path(folder) / f"layer_{number}") for number in range(len(mixers))]
    try:
        for mixer, store in zip(mixers, stores, strict=True):
            mixer.token_store = store
        yield model
    finally:
        for mixer, store in zip(mixers, stores, strict=True):
            vars(mixer).pop("token_store", None)
            for path in store.paths:
                path.unlink(missing_ok=True)


def _checked(block_size: int) -> int:
    if block_size < 2:
        raise ConfigError(f"block_size is {block_size}; expected at least 2: a landmark ends each block.")
    return block_size
