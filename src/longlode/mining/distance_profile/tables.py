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
from longlode.mining.distance_profile.control import (
    Control,
    ForeignText,
    OwnControl,
    counted_words,
    from_json,
)

PACKAGED = Path(__file__).parents[2] / "assets" / "foreign_text"
KNOWN_SHARE = 0.65
"""Share of a document's words that a table must hold to be used: texts in another language reach 0.1 to 0.4."""
_FIRST_WORDS = 256
"""Words that all tables are asked for."""


def choose_control(kinds: np.ndarray, words: Sequence[str], tables: Sequence[ForeignText]) -> Control:
    """The control of a document.

    Args: kinds int `[n]`; words, by type; tables, one for each language.
    """
    best = _best_table(counted_words(kinds, words), words, tables)
    return OwnControl(kinds, words) if best is None else best.control(words)


def _best_table(
    counts: np.ndarray, words: Sequence[str], tables: Sequence[ForeignText]
) -> ForeignText | None:
    """The table that holds most of the words, the first of equals; None if no table holds KNOWN_SHARE of them.

    The words are looked up by and by, and a table that cannot win any more is dropped: mostly all but one, soon.
    Args: counts int `[types]`, of each of the words.
    """
    total = left = int(counts.sum())
    held = dict.fromkeys(range(len(tables) if total else 0), 0)
    start, step = 0, _FIRST_WORDS
    while start < len(words) and held:
        if len(held) == 1 and min(held.values()) / total >= KNOWN_SHARE:
            break
        rows = slice(start, start + step)
        left -= int(counts[rows].sum())
        for number in held:
            held[number] += tables[number].known_words(counts[rows], words[rows])
        most = max(held.values())
        held = {
            number: here
            for number, here in held.items()
            if here + left >= most and (here + left) / total >= KNOWN_SHARE
        }
        start, step = start + step, 2 * step
    return tables[max(held, key=lambda number: held[number])] if held else None


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
