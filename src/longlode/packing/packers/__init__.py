"""Packers: the ways to arrange documents in rows of training steps. A new one is a new file here, or an entry point.

    concat      end to end, cut where a row is full           truncate    one document per row
    best_fit    whole documents, the fewest cuts              masked      the same rows, every document has equal weight
    decompose   one document per sequence, powers of two, from short to long
    related     similar documents end to end, near-duplicates dropped
    landmark    the rows of another, with a landmark token at the end of every block

Start reading: `base.py` (what a packer is), `concat.py`, `rows.py` (rows of one length in a random order).
"""

from longlode.packing.packers.base import (
    PACKERS,
    DocumentSource,
    Insertion,
    Order,
    Packer,
    PackingReport,
    Piece,
    Schedule,
    StepRows,
    make_packer,
)

__all__ = [
    "PACKERS",
    "DocumentSource",
    "Insertion",
    "Order",
    "Packer",
    "PackingReport",
    "Piece",
    "Schedule",
    "StepRows",
    "make_packer",
]
