"""packing: documents to token shards on disk, and shards to training batches in a reproducible order.

`pack` tokenizes documents into memory-mapped files; a packer arranges them in rows; `batches` reads those. The rows of
a step depend only on (seed, step, content of the shards, packer), so that a run resumes at any step at no cost.

May import: core, corpus, mining; no torch, no transformers.
Start reading: `shards.py` (files on disk), `packers/` (ways to make rows, one file each), `loader.py` (training
batches), `mixture.py` (shares of tokens by source, score or any column), `writer.py` (documents in, one folder of
shards out, complete or not at all).
"""

from longlode.packing.loader import batches, plan
from longlode.packing.mixed_schedule import MixedSchedule, SourceReport
from longlode.packing.mixture import Mixture
from longlode.packing.packers import PACKERS, Packer, PackingReport, Piece, Schedule, make_packer
from longlode.packing.shards import PackedDocument, Shards, heldout_documents, open_shards
from longlode.packing.writer import pack

__all__ = [
    "PACKERS",
    "MixedSchedule",
    "Mixture",
    "PackedDocument",
    "Packer",
    "PackingReport",
    "Piece",
    "Schedule",
    "Shards",
    "SourceReport",
    "batches",
    "heldout_documents",
    "make_packer",
    "open_shards",
    "pack",
    "plan",
]
