"""Tables of background text in the package, and the choice of a control for a document.

A folder of tables holds `tables.json` (`ForeignText.to_json` of each language) and a `<language>.tsv` with a count and
a word per line. The language of a document is that of the table that holds most of its words; if that is less than
KNOWN_SHARE of them, the document is its own control.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from longlode.core.errors import InputError
from longlode.core.fingerprints import text_fingerprint
from longlode.mining.distance_profile.control import Control, ForeignText, OwnControl, from_json

PACKAGED = Path(__file__).parents[2] / "assets" / "foreign_text"
KNOWN_SHARE = 0.65
"""Share of a document's words that a table must hold to be used: texts in another language reach 0.1 to 0.4."""


def choose_control(kinds: np.ndarray, words: Sequence[str], tables: Sequence[ForeignText]) -> Control:
    """The control of a document.

    Args: kinds int `[n]`; words, by type; tables, one for each language.
    """
    shares = [table.known_share(kinds, words) for table in tables]
    if not shares or max(shares) < KNOWN_SHARE:
        return OwnControl(kinds, words)
    return tables[int(np.argmax(shares))].control(words)


def write_tables(folder: Path, tables: Sequence[ForeignText]) -> None:
    """Write a folder of tables; most common words first."""
    folder.mkdir(parents=True, exist_ok=True)
    head = [table.to_json() for table in tables]
    (folder / "tables.json").write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    for table in tables:
        rows = sorted((-count, word) for word, count in table.counts.items())
        lines = "".join(f"{-count}\t{word}\n" for count, word in rows)
        (folder / f"{table.language}.tsv").write_text(lines, encoding="utf-8")


def read_tables(folder: Path) -> tuple[ForeignText, ...]:
    """Read a folder of tables. Raises: InputError that names the invalid file and line."""
    try:
        head = json.loads((folder / "tables.json").read_text(encoding="utf-8"))
        return tuple(from_json(row, _counts(folder / f"{row['language']}.tsv")) for row in head)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: {error!r}; expected tables.json and a .tsv per language.") from error


def _counts(path: Path) -> dict[str, int]:
    counts = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        count, tab, word = line.partition("\t")
        if not (tab and word and count.isdigit()):
            raise InputError(f"{path}, line {number}: {line[:60]!r}; expected a count, a tab and a word.")
        counts[word] = int(count)
    return counts


@cache
def tables_fingerprint() -> str:
    """Fingerprint of the packaged files."""
    paths = [PACKAGED / "tables.json", *sorted(PACKAGED.glob("*.tsv"))]
    return text_fingerprint("".join(path.read_text(encoding="utf-8") for path in paths))


@cache
def packaged_tables() -> tuple[ForeignText, ...]:
    """The tables in the package, read once."""
    return read_tables(PACKAGED)
