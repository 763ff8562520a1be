"""A probe of recurrent states: how the memory of every layer and head develops over the positions of a text.

A memory whose norm still grows, or whose statistics at later positions are unlike those within the length of the
training, shows state collapse (Stuffed Mamba, arXiv 2410.07145): the loss rises beyond that length. `mitigations.py`
holds what can be done about it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from longlode.core.errors import ConfigError, InputError
from longlode.models.cache import LonglodeCache

_FIRST = 16
# Most tokens read at once: the logits of a long text do not lie in memory together.
_PIECE = 2048

MEASURES = {
    "norm": "Frobenius norm",
    "mean": "mean of the entries",
    "std": "standard deviation of the entries",
    "largest": "largest magnitude of an entry",
    "rank": "effective rank: exp of the entropy of the singular values over their sum (Roy and Vetterli, 2007)",
    "drift": "norm of the change since the position before, over the norm at that position; 0 at the first",
}
"""Measures of the memory of each head at each position."""


def probe_positions(num_tokens: int) -> list[int]:
    """Return the positions probed by default: 16, 32, 64 ... and the last."""
    powers = [_FIRST << n for n in range(max(0, num_tokens // _FIRST).bit_length())]
    return [*(one for one in powers if one < num_tokens), num_tokens]


def probe_states(
    model: Any,
    input_ids: Tensor,
    *,
    positions: Sequence[int] | None = None,
    entries: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Read a text and measure the recurrent state of every layer and head at some positions.

    Args:
      model: a longlode language model.   input_ids: int64 `[B, T]`; measures are means over the rows.
      positions: numbers of tokens read, ascending, up to T; default `probe_positions(T)`.
      entries: names of entries of the state to measure, `[B, heads, ...]`; default: those called memory or ssm.
    Returns: {"positions": [P], "loss": [P], "states": [{layer, mixer, entry, head, and every name of `MEASURES`: [P]}]}
      as plain numbers. loss: nats per token, mean over the tokens since the position before (the first token has none).
    Raises: InputError for positions outside the text; ConfigError if no layer has such an entry.
    """
    num_tokens = input_ids.shape[1]
    places = list(positions or probe_positions(num_tokens))
    if not num_tokens or places != sorted(set(places)) or places[0] < 1 or places[-1] > num_tokens:
        raise InputError(
            f"Positions {places} were to be probed in a text of {num_tokens} tokens; expected ascending numbers from "
            f"1 to {num_tokens}."
        )
    cache = LonglodeCache(model.config.num_hidden_layers)
    names = [layer.mixer.name for layer in model.config.layer_configs]
    losses, snapshots, last = [], [], None
    was_training = model.training
    model.train(False)
    try:
        with torch.inference_mode():
            for start, stop in zip([0, *places], places, strict=False):
                nats, last = _read(model, input_ids[:, start:stop], cache, last)
                losses.append(nats)
                snapshots.append(_snapshot(cache, names, entries))
    finally:
        model.train(was_training)
    if not snapshots[0]:
        raise ConfigError(
            f"No layer of {', '.join(sorted(set(names)))} keeps {' or '.join(entries or ('a recurrent memory',))}; "
            "nothing can be probed."
        )
    return {"positions": places, "loss": losses, "states": _measured(snapshots)}


def _read(model: Any, ids: Tensor, cache: LonglodeCache, last: Tensor | None) -> tuple[float, Tensor]:
    """Read a stretch: mean nats of its tokens, and the log-probabilities `[B, vocabulary]` after its last one."""
    nats, count = 0.0, 0
    for begin in range(0, ids.shape[1], _PIECE):
        piece = ids[:, begin : begin + _PIECE]
        logits = model(input_ids=piece, cache=cache, use_cache=True).logits.float()
        before = logits[:, :-1] if last is None else torch.cat((last[:, None], logits[:, :-1]), dim=1)
        labels = piece[:, 1:] if last is None else piece
        nats += float(functional.cross_entropy(before.flatten(0, 1), labels.flatten(), reduction="sum"))
        count += labels.numel()
        last = logits[:, -1]
    assert last is not None, "stretches are not empty"
    return (nats / count if count else math.nan), last


_Key = tuple[int, str, str]
"""Layer, name of its mixer, entry of its state."""


def _snapshot(
    cache: LonglodeCache, names: Sequence[str], entries: Sequence[str] | None
) -> dict[_Key, Tensor]:
    """Return the entries to measure, float64 `[B, heads, rows, columns]`; a complex number is two columns."""
    found = {}
    for number, (layer, name) in enumerate(zip(cache.layers, names, strict=True)):
        for entry, value in (layer.state or {}).items():
            wanted = _is_memory(entry) if entries is None else entry in entries
            if not wanted or value.dim() < 3:
                continue
            if value.is_complex():
                value = torch.view_as_real(value)
            if value.is_floating_point():
                found[number, name, entry] = value.double().reshape(*value.shape[:3], -1)
    return found


def _is_memory(entry: str) -> bool:
    return entry == "ssm" or entry.endswith("memory") or entry.startswith("memory_")


def _measured(snapshots: Sequence[dict[_Key, Tensor]]) -> list[dict[str, Any]]:
    """Return one record per layer, entry and head, with a list over positions per measure."""
    records = []
    for key, first in snapshots[0].items():
        before, columns = first, []
        for snapshot in snapshots:
            columns.append(_measures(snapshot[key], before))
            before = snapshot[key]
        for head in range(first.shape[1]):
            curves = {name: [float(column[name][head]) for column in columns] for name in MEASURES}
            records.append({"layer": key[0], "mixer": key[1], "entry": key[2], "head": head, **curves})
    return records


def _measures(memory: Tensor, before: Tensor) -> dict[str, Tensor]:
    """Return the measures of every head `[heads]`, means over the rows; before: at the position before."""
    norm = torch.linalg.vector_norm(memory, dim=(-2, -1))
    change = torch.linalg.vector_norm(memory - before, dim=(-2, -1))
    was = torch.linalg.vector_norm(before, dim=(-2, -1))
    values = torch.linalg.svdvals(memory)
    share = values / values.sum(-1, keepdim=True).clamp(min=1e-300)
    rank = torch.special.entr(share).sum(-1).exp()
    found = {
        "norm": norm,
        "mean": memory.mean((-2, -1)),
        "std": memory.std((-2, -1), correction=0),
        "largest": memory.abs().amax((-2, -1)),
        "rank": rank,
        "drift": change / was.clamp(min=1e-300),
    }
    return {name: value.mean(0) for name, value in found.items()}
