"""From the rows of a scores folder back to their documents: which unit each row of each part comes from."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.corpus import Unit
from longlode.mining.engine.merging import merged_units
from longlode.mining.engine.parts import PARTS_FOLDER


@dataclass(frozen=True)
class ScoredPart:
    """A part that the record names. units: in the order of its rows. stops: the row after the last of each unit."""

    path: Path
    units: tuple[Unit, ...]
    stops: tuple[int, ...]

    def number_at(self, row: int) -> int:
        """The number of the unit that a row of the part comes from. Args: row, from 0 (`file_row_number` in SQL)."""
        return bisect_right(self.stops, row) if len(self.units) > 1 else 0


def scored_part(out: Path, entry: dict[str, Any]) -> ScoredPart:
    """The part of an entry of the record's `parts`, also of records of earlier versions.

    Raises: InputError when the list of its units has gone, or the entry is none.
    """
    try:
        path = out / PARTS_FOLDER / entry["part"]
        if "unit" in entry or "-" not in path.stem:
            return ScoredPart(path, (Unit.from_json(entry["unit"]),), (0,))
        found = merged_units(out, path.stem)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the record of {out} is damaged ({type(error).__name__}: {error}). Run the same score command again; "
            "it writes the record anew and keeps the parts that are whole."
        ) from None
    if found is None:
        raise InputError(
            f"{out} does not hold the list of units of its part {path.name}, or it is damaged. Run the same score "
            "command again; it makes the list anew and keeps the parts."
        )
    units, rows = found
    return ScoredPart(path, tuple(units), tuple(accumulate(rows)))


def scored_parts(out: Path, record: dict[str, Any]) -> Iterator[ScoredPart]:
    """The parts of a record, in the order of their rows, one at a time. Raises: as `scored_part`."""
    if not isinstance(record.get("parts"), list):
        raise InputError(
            f"the record of {out} is damaged: it lists no parts. Run the same score command again."
        )
    return (scored_part(out, entry) for entry in record["parts"])
