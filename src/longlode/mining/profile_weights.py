"""Fitted parts of the profile: the gate, and the tables of background text; those of the package, or of a folder.

A folder is made by `longlode fit-score`: `record.json` (what was fitted, on what, how well), `gate.json` and `gate.npz`
(where the gate was fitted again), `tables.json` with a .tsv per table, README.md. Tables of the package whose language
the folder does not have stay in use.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from longlode.core.fingerprints import fingerprint, text_fingerprint
from longlode.core.records import read_record
from longlode.mining.distance_profile import ForeignText
from longlode.mining.distance_profile.tables import packaged_tables, read_tables, tables_fingerprint
from longlode.mining.gate.model import Gate, packaged_gate, read_gate


@dataclass(frozen=True, eq=False)
class ProfileWeights:
    """Fitted parts that a score depends on. identity: names them in results."""

    gate: Gate
    tables: tuple[ForeignText, ...]
    identity: dict[str, Any]


@cache
def packaged_weights() -> ProfileWeights:
    """The weights in the package."""
    identity = {"gate": packaged_gate().fingerprint, "foreign_text": tables_fingerprint()}
    return ProfileWeights(packaged_gate(), packaged_tables(), identity)


def read_weights(folder: str | Path) -> ProfileWeights:
    """The weights of a folder, read once per process.

    Raises: InputError for a folder that `fit-score` did not write, or not to its end.
    """
    return _read(Path(folder).expanduser().absolute())


@cache
def _read(folder: Path) -> ProfileWeights:
    record = read_record(folder, "weights")
    gate = read_gate(folder) if record.get("gate") == "fitted" else packaged_gate()
    tables = read_tables(folder)
    fitted = {table.language for table in tables}
    kept = tuple(table for table in packaged_tables() if table.language not in fitted)
    texts = [folder / "tables.json", *sorted(folder.glob("*.tsv"))]
    counted = text_fingerprint("".join(one.read_text(encoding="utf-8") for one in texts))
    own = fingerprint({"gate": gate.fingerprint, "foreign_text": counted, "kept": tables_fingerprint()})
    return ProfileWeights(
        gate, (*tables, *kept), {"gate": gate.fingerprint, "foreign_text": counted, "weights": own}
    )
