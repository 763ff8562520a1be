"""Cache of a longlode model's states, with the interface that `generate` expects."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from longlode.core.errors import ConfigError
from longlode.mixers import State
from longlode.models.fingerprint import model_fingerprint
from longlode.models.rewind import Part, Rewind
from longlode.models.state_file import read_state, write_state


class LayerMemory:
    """The state of one layer: named tensors, batch dimension first; replaced, never modified in place."""

    is_compileable = False
    is_sliding = False
    is_croppable = True
    is_initialized = False
    supports_early_init = False

    def __init__(self, state: State | None = None) -> None:
        """Store `state`, or none yet."""
        self.state = state

    def select(self, rows: Tensor) -> "LayerMemory":
        """Copy the given rows to a new object."""
        if self.state is None:
            return LayerMemory()
        return LayerMemory(
            {name: value.index_select(0, rows.to(value.device)) for name, value in self.state.items()}
        )

    def get_max_length(self) -> int:
        """Return -1, transformers' value for no limit."""
        return -1

    def num_bytes(self) -> int:
        """Return the bytes held for all rows."""
        return sum(value.nbytes for value in (self.state or {}).values())


class LonglodeCache(Cache):
    """The states of all layers, and the number of positions read.

    Delta-rule layers keep a matrix per head and three tokens of convolution, window layers the last
    `window - 1` keys and values, full attention all of them. transformers reads the text length from attention layers;
    a stack may have none, so this cache counts positions itself. After `activate_past_recording` it can be cropped, as
    assisted generation requires (`rewind.py`).
    """

    layers: list[LayerMemory]  # type: ignore[assignment]

    def __init__(self, num_layers: int) -> None:
        """Make an empty cache for a model of `num_layers` layers."""
        super().__init__(layers=[LayerMemory() for _ in range(num_layers)])  # type: ignore[misc]
        self.num_positions = 0
        self.mask: Tensor | None = None
        """`[B, up to the last padding]`, False at the positions read as padding; None while there were none."""
        self.rewind = Rewind()

    def activate_past_recording(self) -> None:
        """Record from here on, so that later positions can be dropped; each `crop` moves this start forward."""
        self.rewind.recording = True
        self.rewind.forget()

    def parts(self, piece: Part) -> list[Part]:
        """Split a piece into parts, to be read in order, each after a `note`."""
        return self.rewind.parts(piece)

    def note(self, part: Part) -> None:
        """Record the states before a part is read, so that the part can be dropped later."""
        self.rewind.note(self.num_positions, [layer.state for layer in self.layers], part)

    def take_pending(self) -> list[Part]:
        """Return and clear the parts to read again, without counting them, as `crop` went back to before them."""
        pending, self.rewind.pending = self.rewind.pending, []
        return pending

    def count(self, num_tokens: int, mask: Tensor | None) -> None:
        """Count a piece of `num_tokens` positions as read, with this mask `[B, num_tokens]` or none."""
        if mask is not None:
            before = mask.new_ones(mask.shape[0], self.num_positions)
            if self.mask is not None:
                before[:, : self.mask.shape[1]] = self.mask
            self.mask = torch.cat((before, mask), dim=1)
        self.num_positions += num_tokens

    def count_documents(self, cu_seqlens: Tensor) -> None:
        """Count the documents of a packed row as read, `[N + 1]` offsets; row n of the cache continues document n.

        They count as rows padded at the right to the longest of them.
        """
        lengths = cu_seqlens.long().diff()
        mask = torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
        self.count(mask.shape[1], None if mask.all() else mask)

    def num_padding(self, num_rows: int) -> Tensor:
        """Return the number of padding positions of each row, `[num_rows]` int64."""
        return torch.zeros(num_rows, dtype=torch.int64) if self.mask is None else (~self.mask).sum(1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the positions read so far, padding included; the same for every layer."""
        return self.num_positions

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        """Return (positions after the next piece of `query_length`, offset 0)."""
        return self.num_positions + query_length, 0

    def get_max_length(self, layer_idx: int | None = None) -> int:
        """Return -1, transformers' value for no limit."""
        return -1

    @property
    def batch_size(self) -> int:
        """Number of rows, or -1 while nothing has been read."""
        for layer in self.layers:
            for value in (layer.state or {}).values():
                return int(value.shape[0])
        return -1

    @property
    def num_bytes(self) -> int:
        """Return the bytes held for all rows and layers."""
        return sum(layer.num_bytes() for layer in self.layers)

    def save(self, path: str | Path, *, model: Any) -> None:
        """Write the states to one safetensors file, from which reading can continue later.

        Its size is that of the states: for stacks without A layers and n-gram heads, independent of the text length.

        Args: model: the LonglodeForCausalLM that read the text; its fingerprint goes into the file's header.
        Raises: ConfigError when nothing has been read yet; InputError when the file cannot be written.
        """
        if self.batch_size < 0:
            raise ConfigError("An empty cache was to be saved; read some text with it first.")
        model.base_model.catch_up(self)
        states = [layer.state for layer in self.layers]
        fingerprint = model_fingerprint(model)
        write_state(Path(path), states, num_tokens=self.num_positions, mask=self.mask, model=fingerprint)

    @classmethod
    def load(cls, path: str | Path, *, model: Any) -> "LonglodeCache":
        """Load a file that `save` wrote, onto the device of `model`.

        Args: model: a LonglodeForCausalLM with the weights and the dtype of the one that read the text.
        Raises: InputError when the file is missing, is not a state, or belongs to another model.
        """
        cache = cls(0)
        states, cache.num_positions, cache.mask = read_state(
            Path(path), model=model_fingerprint(model), device=model.device
        )
        cache.layers = [LayerMemory(state) for state in states]
        return cache

    def copy(self) -> "LonglodeCache":
        """Copy the cache; both share the current states, which are never modified in place."""
        other = LonglodeCache(0)
        other.layers = [LayerMemory(layer.state) for layer in self.layers]
        other.num_positions, other.mask = self.num_positions, self.mask
        other.rewind = self.rewind.copy()
        return other

    def select(self, indices: Tensor) -> "LonglodeCache":
        """Make a cache whose row r is a copy of row `indices[r]` of this one; rows may repeat or be left out.

        Args: indices: `[rows]` int64.
        Raises: ConfigError when nothing has been read yet, or an index has no row.
        """
        rows = self.batch_size
        if rows < 0:
            raise ConfigError("Rows of an empty cache were asked for; read some text with it first.")
        low, high = (int(indices.min()), int(indices.max())) if indices.numel() else (0, 0)
        if low < 0 or high >= rows:
            raise ConfigError(
                f"Cache rows {low} to {high} were asked for; the cache has rows 0 to {rows - 1}."
            )
        chosen = LonglodeCache(0)
        chosen.layers = [layer.select(indices) for layer in self.layers]
        chosen.num_positions = self.num_positions
        if self.mask is not None:
            chosen.mask = self.mask.index_select(0, indices.to(self.mask.device))
        chosen.rewind = self.rewind.select(indices)
        return chosen

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows of the surviving beams, in their order."""
        self._take(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only the given rows."""
        self._take(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times, copies side by side."""
        rows = torch.arange(self.batch_size).repeat_interleave(repeats)
        self._take(rows)

    def _take(self, rows: Tensor) -> None:
        chosen = self.select(rows)
        self.layers, self.mask, self.rewind = chosen.layers, chosen.mask, chosen.rewind

    def reset(self) -> None:
        """Clear the cache."""
        self.layers = [LayerMemory() for _ in self.layers]
        self.num_positions, self.mask = 0, None
        self.rewind = Rewind(self.rewind.recording)

    def crop(self, tokens_to_remove: int | Tensor) -> None:
        """Drop the last `abs(tokens_to_remove)` positions; the next call can drop only positions read after this one.

        Raises: ConfigError when more were to be dropped than were read since recording began, or since the last call.
        """
        # Some versions of transformers count in tensors; positions are kept as integers.
        num_removed, room = abs(int(tokens_to_remove)), self.rewind.room(self.num_positions)
        if num_removed > room:
            raise ConfigError(
                f"The cache of a longlode model was asked to drop {num_removed} of {self.num_positions} positions; it "
                f"can drop {room}. A recurrent state cannot be cut back by itself: call "
                "cache.activate_past_recording() before what may be dropped is read, or keep a copy (cache.copy())."
            )
        if num_removed:
            self.num_positions -= num_removed
            self.layers = [LayerMemory(state) for state in self.rewind.go_back(self.num_positions)]
            self.mask = None if self.mask is None else self.mask[:, : self.num_positions]
        self.rewind.forget()


def checked_cache(cache: Any, num_layers: int) -> LonglodeCache | None:
    """Check a cache given to a model of `num_layers`, and return it. Raises: ConfigError unless it fits or is None."""
    if cache is None:
        return None
    if not isinstance(cache, LonglodeCache):
        raise ConfigError(
            f"past_key_values is a {type(cache).__name__}; a longlode model needs a LonglodeCache "
            "(longlode.models.LonglodeCache(config.num_hidden_layers), or leave it out)."
        )
    if len(cache.layers) != num_layers:
        raise ConfigError(
            f"The cache has {len(cache.layers)} layers and the model {num_layers}; use one of this model."
        )
    return cache


def check_rows(cache: LonglodeCache | None, num_states: int) -> None:
    """Check for one cache row per row of the input, or per document of a packed one. Raises: ConfigError."""
    if cache is not None and cache.batch_size not in (-1, num_states):
        raise ConfigError(
            f"The cache has {cache.batch_size} rows and the input {num_states} (documents, if packed); choose or "
            "repeat rows with cache.select or cache.batch_repeat_interleave."
        )
