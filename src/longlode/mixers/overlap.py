"""Maps of pieces on their way while a mixer computes what needs no state: the order of work on several ranks.

A piece's map is made of what its tokens write. Queries, gates and the like are local: a mixer computes them between the
begin of the exchange and its end (`begin_memory`), so the ranks after it do not wait for them.
"""

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor

from longlode.mixers.context import SequenceContext
from longlode.mixers.segment_map import SegmentMap

R = TypeVar("R")
W = TypeVar("W")

GetMemory = Callable[[], Tensor | None]
"""A function that waits for the memory before a piece and returns it; None: no memory."""


def begin_memory(
    memory: Tensor | None, make_map: Callable[[], SegmentMap], context: SequenceContext
) -> GetMemory | None:
    """Return a function that gives the memory before a piece: `memory`, or on several ranks that of the parts before.

    Their maps are on their way until it is called. None: all tokens of some heads are exchanged instead, after which no
    memory is needed (`SequenceShard.by_heads`). make_map: a function that makes the map of the piece.
    """
    if memory is None and not context.keeps_state and context.shard.exchanges_heads:
        return None
    return context.shard.begin_fold(make_map, memory)


def inputs_and_memory(
    reads: Callable[[], R],
    writes: Callable[[], W],
    make_map: Callable[[W], SegmentMap],
    memory: Tensor | None,
    context: SequenceContext,
) -> tuple[R, W, GetMemory | None]:
    """Compute what a piece reads with and what it writes, and begin to send its map.

    Returns reads, writes, and the result of `begin_memory`. On several ranks the writes come first, and the reads are
    computed while maps are on their way. On one rank the reads come first, since the order of work is that in which
    gradients are added up, and with it their last bits.
    Args: reads, writes: functions without arguments. make_map: makes the map of the piece from the writes.
    """
    early = reads() if context.shard.num_ranks == 1 else None
    written = writes()
    get_memory = begin_memory(memory, lambda: make_map(written), context)
    return reads() if early is None else early, written, get_memory
