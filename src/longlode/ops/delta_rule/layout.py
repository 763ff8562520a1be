"""How documents are cut into chunks, and how chunks travel between `[B, T, H, K]` and the order of the scan.

A tile is a group of documents and a span of chunk steps, small enough to stay in cache. Inside a tile chunks
are ordered by step, then by document, so a step of the sequential scan is one contiguous slice. Documents
are sorted by length, longest first: the documents still running at a step are always a prefix of the group.
No chunk spans two documents.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

# Chunk tokens times heads of a tile: large enough to amortise the calls, small enough for the second-level
# cache.
_CPU_TILE_TOKEN_HEADS = 2048
_GPU_TILE_TOKEN_HEADS = 1 << 20
_CPU_MATRICES_PER_STEP = 16
_MIN_STEPS = 4


@dataclass(frozen=True)
class Tile:
    """Some chunk steps of some documents.

    rows: first document of the group, in sorted order.
    counts: documents still running at each step; never increases.
    first_chunk: index of the first step within its documents.
    """

    rows: int
    counts: tuple[int, ...]
    first_chunk: int

    @property
    def num_chunks(self) -> int:
        """Chunks in the tile, over all its documents."""
        return sum(self.counts)


@dataclass(frozen=True)
class Plan:
    """All tiles of a call, in an order in which every document runs forward in time.

    lengths and starts are those of the documents in sorted order; `order[i]` is the caller's index of sorted
    document i. packed: whether the documents lie in one row (`cu_seqlens`) or each in its own.
    """

    chunk: int
    packed: bool
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    order: tuple[int, ...]
    tiles: tuple[Tile, ...]


@lru_cache(maxsize=64)
def make_plan(
    offsets: tuple[int, ...] | None, num_rows: int, num_tokens: int, num_heads: int, chunk: int, on_gpu: bool
) -> Plan:
    """Cut the documents into tiles. `offsets` is None for `num_rows` documents of `num_tokens` each."""
    if offsets is None:
        starts, lengths = [0] * num_rows, [num_tokens] * num_rows
    else:
        starts = list(offsets[:-1])
        lengths = [end - start for start, end in itertools.pairwise(offsets)]
    order = sorted(range(len(lengths)), key=lambda n: -lengths[n])
    lengths = [lengths[n] for n in order]
    budget = max(1, (_GPU_TILE_TOKEN_HEADS if on_gpu else _CPU_TILE_TOKEN_HEADS) // (num_heads * chunk))
    tiles: list[Tile] = []
    row = 0
    while row < len(lengths):
        num_steps = -(-lengths[row] // chunk)
        per_step = (
            budget if on_gpu else max(-(-_CPU_MATRICES_PER_STEP // num_heads), budget // max(num_steps, 1))
        )
        group = lengths[row : row + max(1, per_step)]
        tiles.extend(_group_tiles(row, [-(-length // chunk) for length in group], budget))
        row += len(group)
    return Plan(
        chunk,
        offsets is not None,
        tuple(lengths),
        tuple(starts[n] for n in order),
        tuple(order),
        tuple(tiles),
    )


def _group_tiles(row: int, num_steps: list[int], budget: int) -> list[Tile]:
    tiles = []
    running = [sum(steps > i for steps in num_steps) for i in range(num_steps[0])]
    start = 0
    while start < num_steps[0]:
        end, num_chunks = start, 0
        while end < num_steps[0] and (end - start < _MIN_STEPS or num_chunks + running[end] <= budget):
            num_chunks += running[end]
            end += 1
        tiles.append(Tile(row, tuple(running[start:end]), start))
        start = end
    return tiles


class Mover:
    """Moves a tile's tokens between tensors `[B, T, H, ...]` and chunks `[num_chunks, H, C, ...]`."""

    def __init__(self, plan: Plan, tile: Tile, device: torch.device) -> None:
        """Work out where the tile's tokens lie; for packed documents this builds an index on `device`."""
        self._chunk = plan.chunk
        self._shape = (len(tile.counts), tile.counts[0])
        start = tile.first_chunk * plan.chunk
        if plan.packed:
            self._index, self._padding = _packed_index(plan, tile, device)
            self._keep = None if self._padding is None else (~self._padding).nonzero()[:, 0]
        else:
            rows = slice(plan.order[tile.rows], plan.order[tile.rows] + tile.counts[0])
            end = min(start + len(tile.counts) * plan.chunk, plan.lengths[tile.rows])
            self._rows, self._tokens, self._ragged = rows, slice(start, end), (end - start) % plan.chunk
        self._packed = plan.packed

    def pull(
        self, source: torch.Tensor, chunks: torch.Tensor, factor: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Fill `chunks` with the tile's tokens of `source`; padding becomes zero. Returns `chunks`.

        factor: `[num_chunks, H, C, 1]`, multiplied in on the way; None is 1.
        """
        if self._packed:
            tokens = source[0].index_select(0, self._index)
            if self._padding is not None:
                tokens[self._padding] = 0
            _move(tokens.unflatten(0, (-1, self._chunk)).transpose(1, 2), factor, chunks)
            return chunks
        factors = self._chunk_parts(factor)
        views = zip(self._chunk_parts(chunks), self._token_parts(source), factors, strict=True)
        for part, tokens, part_factor in views:
            _move(tokens, part_factor, part)
        if self._ragged:
            chunks.unflatten(0, self._shape)[-1, :, :, self._ragged :].zero_()
        return chunks

    def push(self, chunks: torch.Tensor, target: torch.Tensor, factor: torch.Tensor | None = None) -> None:
        """Write `chunks`, times `factor`, into the tile's tokens of `target`; padding is dropped."""
        if self._packed:
            scaled, index = chunks if factor is None else chunks * factor, self._index
            tokens = scaled.transpose(1, 2).flatten(0, 1)
            if self._keep is not None:
                tokens, index = tokens[self._keep], index[self._keep]
            target[0].index_copy_(0, index, tokens.to(target.dtype))
            return
        factors = self._chunk_parts(factor)
        views = zip(self._chunk_parts(chunks), self._token_parts(target), factors, strict=True)
        for part, tokens, part_factor in views:
            _move(part, part_factor, tokens)

    def _chunk_parts(self, chunks: torch.Tensor | None) -> list[Any]:
        """Views `[steps, rows, H, C, ...]`: full chunks, then the ragged last one; Nones for None."""
        full, ragged = self._shape[0] - bool(self._ragged), self._ragged
        if chunks is None:
            return [None] * (bool(full) + bool(ragged))
        steps = chunks.unflatten(0, self._shape)
        return ([steps[:full]] if full else []) + ([steps[-1][:, :, :ragged]] if ragged else [])

    def _token_parts(self, tokens: torch.Tensor) -> list[torch.Tensor]:
        """The same parts of `[B, T, H, ...]`, as views of the same shapes."""
        span = tokens[self._rows, self._tokens]
        split = span.shape[1] - self._ragged
        parts = []
        if split:
            # [rows, steps, C, H, ...] -> [steps, rows, H, C, ...]
            parts.append(span[:, :split].unflatten(1, (-1, self._chunk)).transpose(0, 1).transpose(2, 3))
        if self._ragged:
            parts.append(span[:, split:].transpose(1, 2))
        return parts


def _move(source: torch.Tensor, factor: torch.Tensor | None, target: torch.Tensor) -> None:
    if factor is None:
        target.copy_(source)
    else:
        torch.mul(source, factor, out=target)


def _packed_index(plan: Plan, tile: Tile, device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token of each chunk slot of the tile, and which slots are padding (None when none is)."""
    rows = slice(tile.rows, tile.rows + tile.counts[0])
    lengths, starts = torch.tensor(plan.lengths[rows]), torch.tensor(plan.starts[rows])
    document = torch.cat([torch.arange(count) for count in tile.counts])
    step = torch.repeat_interleave(torch.arange(len(tile.counts)), torch.tensor(tile.counts))
    token = ((tile.first_chunk + step) * plan.chunk)[:, None] + torch.arange(plan.chunk)
    inside = token < lengths[document, None]
    index = (starts[document, None] + token.minimum(lengths[document, None] - 1)).flatten().to(device)
    return index, None if bool(inside.all()) else (~inside).flatten().to(device)
