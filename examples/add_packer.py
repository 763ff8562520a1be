"""Add a packer of your own: rows that hold only long documents, each cut into rows without its short tail.

To use it in a recipe, put the class into a module that Python can import and name it there:

    [data]
    packer = "my_module:LongOnly"
    packer_options = { least = 1024 }
"""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import longlode
from longlode.packing import PACKERS, Packer, Schedule, open_shards, plan
from longlode.packing.packers.base import Order
from longlode.packing.packers.rows import ShuffledRows, TabledRows


@PACKERS.register
@dataclass(frozen=True, kw_only=True)
class LongOnly(Packer):
    """Whole rows of documents of at least `least` tokens; what is left over of a document is cut."""

    name = "long_only"
    least: int = 1024

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """Cut long documents into whole rows; `ShuffledRows` puts the rows of each epoch into random order."""
        long = np.flatnonzero(lengths >= max(self.least, length))
        counts = lengths[long] // length
        documents = np.repeat(long, counts)
        # 0, 1, 2 ... within each document: a running number minus the number at which its document begins.
        within = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
        starts = within * length
        rows = TabledRows(documents, starts, starts + length, np.arange(len(documents) + 1))
        return ShuffledRows(rows, lengths, length, batch_size, order)


if __name__ == "__main__":
    files = [str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-c]*.py"))[:20]]
    longlode.pack(files, "shards", length=512)
    shards = open_shards("shards")
    for packer in ("concat", LongOnly(least=2048)):
        schedule = plan(shards, length=512, batch_size=4, seed=0, packer=packer)
        print(f"{packer!s:22} {schedule.report().in_words()}")
