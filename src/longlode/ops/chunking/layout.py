"""Division of documents into chunks, and copies of chunks between `[B, T, H, K]` and the order of the scan.

A tile is a group of documents and a range of chunk steps, small enough to stay in cache. Inside a tile chunks
are ordered by step, then by document, so a step of the sequential scan is one contiguous slice. Documents
are sorted by length, longest first: the documents still running at a step are always a prefix of the group.
No chunk crosses a document boundary.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from longlode.ops.packed import kept

# Chunk tokens times heads of a tile: large enough to amortise the calls, small enough for the L2 cache.
_CPU_TILE_TOKEN_HEADS = 2048
_GPU_TILE_TOKEN_HEADS = 1 << 20
_CPU_MATRICES_PER_STEP = 16
_MIN_STEPS = 4


@dataclass(frozen=True)
class Tile:
    """A range of chunk steps of a group of documents.

    rows: first document of the group, in sorted order.
    counts: documents still running at each step; never increases.
    first_chunk: index of the first step within its documents.
    """

    rows: int
    counts: tuple[int, ...]
    first_chunk: int

    @property
    def num_chunks(self) -> int:
        """Number of chunks in the tile, over all its documents."""
        return sum(self.counts)


@dataclass(frozen=True)
class Plan:
    """All tiles of a call, in an order that keeps every document's tiles in time order.

    lengths and starts are those of the documents in sorted order; `order[i]` is the caller's index of sorted
    document i. packed: True if the documents share one row (`cu_seqlens`), False if each has its own.
    """

    chunk: int
    packed: bool
    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    order: tuple[int, ...]
    tiles: tuple[Tile, ...]


def make_plan(
    offsets: tuple[int, ...] | None, num_rows: int, num_tokens: int, num_heads: int, chunk: int, on_gpu: bool
) -> Plan:
    """Cut the documents into tiles. `offsets` is None for `num_rows` documents of `num_tokens` each."""
    if torch.compiler.is_compiling():
        # torch.compile cannot trace through caches, and warns about them.
        return _plan(offsets, num_rows, num_tokens, num_heads, chunk, on_gpu)
    return _kept_plan(offsets, num_rows, num_tokens, num_heads, chunk, on_gpu)


def _plan(
    offsets: tuple[int, ...] | None, num_rows: int, num_tokens: int, num_heads: int, chunk: int, on_gpu: bool
) -> Plan:
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


_kept_plan = lru_cache(maxsize=64)(_plan)


@kept
def order_on(order: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Return `Plan.order` as a tensor for indexing."""
    return torch.tensor(order, device=device)


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


@dataclass(frozen=True)
class _Run:
    """Chunks of a tile whose tokens are evenly spaced in memory: steps of one document, or of rows of equal length.

    first, steps, count: the chunks from `first` on, `steps` steps of `count` chunks each.  rows: slice of each `count`.
    source, tokens: slices of rows and tokens of `[B, T, H, ...]`.  width: tokens in each chunk, C or fewer.
    """

    first: int
    steps: int
    count: int
    rows: slice
    source: slice
    tokens: slice
    width: int

    def of_chunks(self, chunks: torch.Tensor) -> torch.Tensor:
        """Return the view `[steps, rows, H, C, ...]` of `[num_chunks, H, C, ...]`."""
        stretch = chunks[self.first : self.first + self.steps * self.count]
        return stretch.unflatten(0, (self.steps, self.count))[:, self.rows]

    def of_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return the view `[steps, rows, H, width, ...]` of `[B, T, H, ...]`."""
        part = tokens[self.source, self.tokens].unflatten(1, (self.steps, self.width))
        return part.transpose(0, 1).transpose(2, 3)


class Mover:
    """Copies of a tile's tokens between tensors `[B, T, H, ...]` and chunks `[num_chunks, H, C, ...]`."""

    def __init__(self, plan: Plan, tile: Tile) -> None:
        """Locate the tile's tokens."""
        self._chunk = plan.chunk
        self._runs = list(_runs(plan, tile))

    def pull(
        self, source: torch.Tensor, chunks: torch.Tensor, factor: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Fill `chunks` with the tile's tokens of `source` and return it; padding becomes zero.

        factor: `[num_chunks, H, C, 1]`, multiplied in; None is 1.
        """
        for run in self._runs:
            part = run.of_chunks(chunks)
            if run.width < self._chunk:
                part[:, :, :, run.width :].zero_()
                part = part[:, :, :, : run.width]
            _move(run.of_tokens(source), self._factor(run, factor), part)
        return chunks

    def push(self, chunks: torch.Tensor, target: torch.Tensor, factor: torch.Tensor | None = None) -> None:
        """Write `chunks`, times `factor`, into the tile's tokens of `target`; padding is dropped."""
        for run in self._runs:
            part = run.of_chunks(chunks)[:, :, :, : run.width]
            _move(part, self._factor(run, factor), run.of_tokens(target))

    @staticmethod
    def _factor(run: _Run, factor: torch.Tensor | None) -> torch.Tensor | None:
        return None if factor is None else run.of_chunks(factor)[:, :, :, : run.width]


def _move(source: torch.Tensor, factor: torch.Tensor | None, target: torch.Tensor) -> None:
    if factor is None:
        target.copy_(source)
    elif torch.compiler.is_compiling():
        # The same result; compilers refuse an `out` that is not contiguous, and fuse the two operations anyway.
        target.copy_(source * factor)
    else:
        torch.mul(source, factor, out=target)


def _runs(plan: Plan, tile: Tile) -> Iterator[_Run]:
    """Divide the tile into runs: full chunks, then the shorter last one; per document if packed, else all rows."""
    num_rows = tile.counts[0]
    if plan.packed:
        groups = [(slice(row, row + 1), slice(0, 1), row) for row in range(num_rows)]
    else:
        first_row = plan.order[tile.rows]
        groups = [(slice(0, num_rows), slice(first_row, first_row + num_rows), 0)]
    first, step = 0, 0
    for count, same in itertools.groupby(tile.counts):
        num_steps = len(list(same))
        for rows, source, row in groups:
            if row >= count:
                break
            document = tile.rows + row
            start = (tile.first_chunk + step) * plan.chunk
            end = min(start + num_steps * plan.chunk, plan.lengths[document])
            full, ragged = divmod(end - start, plan.chunk)
            offset = plan.starts[document]
            middle = start + full * plan.chunk
            if full:
                tokens = slice(offset + start, offset + middle)
                yield _Run(first, full, count, rows, source, tokens, plan.chunk)
            if ragged:
                tokens = slice(offset + middle, offset + end)
                yield _Run(first + full * count, 1, count, rows, source, tokens, ragged)
        first += num_steps * count
        step += num_steps
