"""What the demo reads: the sources of the running Python's own library, and controls spliced from them.

Three sets of files that share nothing: intact documents, files that only lend pieces to the controls, and
held-out files for the evaluation.
"""

import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError

INTACT = "intact"
SPLICED = "spliced"
MIN_CHARS = 8_000
MAX_CHARS = 24_000
PIECE_CHARS = 450
_LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "encodings",
    "pydoc_data",
    "lib2to3",
}
_MIN_FILES = 40


@dataclass(frozen=True)
class Material:
    """The demo's documents, all cut to at most MAX_CHARS.

    intact, lenders, heldout: (name, text); the spliced controls are made of lenders.
    """

    intact: list[tuple[str, str]]
    lenders: list[tuple[str, str]]
    heldout: list[tuple[str, str]]


def gather(seed: int, *, num_heldout: int = 16, folder: Path | None = None) -> Material:
    """Divide the library's source files, by a seeded shuffle: held-out ones, then half intact, half lenders.

    Args: folder, by default the standard library of the running Python.
    Raises: InputError when the folder does not hold enough source files (a Python that keeps them in a zip).
    """
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    documents = [(path.relative_to(root).as_posix(), text) for path, text in _sources(root)]
    if len(documents) < _MIN_FILES:
        raise InputError(
            f"{root} holds {len(documents)} Python source files of {MIN_CHARS:,} characters or more; the "
            f"demo needs {_MIN_FILES}. This Python keeps its library elsewhere: run the demo with another "
            "(python.org, conda, pyenv, Linux packages), or score texts of your own with longlode score."
        )
    random.Random(seed).shuffle(documents)
    heldout, rest = documents[:num_heldout], documents[num_heldout:]
    middle = len(rest) // 2
    return Material(rest[:middle], rest[middle:], heldout)


def _sources(root: Path) -> list[tuple[Path, str]]:
    """Readable source files in name order; a file that is not UTF-8 is no material for this demo."""
    found = []
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT.intersection(path.relative_to(root).parts):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if len(text) >= MIN_CHARS:
            found.append((path, _cut(text)))
    return found


def _cut(text: str) -> str:
    """At most MAX_CHARS, ended at a line end."""
    if len(text) <= MAX_CHARS:
        return text
    return text[: text.rindex("\n", 0, MAX_CHARS) + 1]


def corpus_rows(material: Material, num_pairs: int, seed: int) -> list[dict[str, Any]]:
    """`num_pairs` intact documents and as many spliced controls, in an order that tells nothing.

    Each row has id, text, source (INTACT or SPLICED) and made_of, the names of the files that its text is from.
    """
    rng = random.Random(seed + 1)
    rows: list[dict[str, Any]] = [
        {"id": name, "text": text, "source": INTACT, "made_of": [name]}
        for name, text in material.intact[:num_pairs]
    ]
    for number, (text, names) in enumerate(splice(material.lenders[:num_pairs], rng)):
        rows.append({"id": f"spliced-{number:03d}", "text": text, "source": SPLICED, "made_of": names})
    rng.shuffle(rows)
    return rows


def splice(documents: Sequence[tuple[str, str]], rng: random.Random) -> list[tuple[str, list[str]]]:
    """Deal the pieces of `documents` (name, text) out anew, into as many texts of as many pieces.

    Every piece is used once, so all controls together hold the very text of their lenders; only what belongs
    together no longer stands together. Returns: (text, names of its lenders) of each.
    """
    pieces = [[(name, piece) for piece in _pieces(text)] for name, text in documents]
    pool = [piece for row in pieces for piece in row]
    rng.shuffle(pool)
    dealt = iter(pool)
    hands = [list(islice(dealt, len(row))) for row in pieces]
    return [("".join(piece for _, piece in hand), sorted({name for name, _ in hand})) for hand in hands]


def _pieces(text: str) -> list[str]:
    """Whole lines of about PIECE_CHARS characters together: about as long as a segment."""
    pieces, size = [""], 0
    for line in text.splitlines(keepends=True):
        if size >= PIECE_CHARS:
            pieces.append("")
            size = 0
        pieces[-1] += line
        size += len(line)
    return pieces
