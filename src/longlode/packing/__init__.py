"""packing: documents to token shards on disk, and shards to training batches in a reproducible order.

`pack` tokenizes documents into memory-mapped files; `batches` cuts them into rows. Which rows come at a step
depends on (seed, epoch, step, content of the shards) and nothing else, so that a run resumes anywhere at no
cost.

May import: core, corpus, mining; no torch, no transformers.
Start reading: `shards.py` (what lies on disk), `packers.py` (how rows are cut), `loader.py` (what training
    gets). writer.py   documents in, one folder of shards out, whole or not at all
"""

from longlode.packing.loader import batches, row_order
from longlode.packing.packers import ConcatPacker, Piece
from longlode.packing.shards import PackedDocument, Shards, heldout_documents, open_shards
from longlode.packing.writer import pack

__all__ = [
    "ConcatPacker",
    "PackedDocument",
    "Piece",
    "Shards",
    "batches",
    "heldout_documents",
    "open_shards",
    "pack",
    "row_order",
]
