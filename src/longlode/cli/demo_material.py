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

    intact, heldout: (name, text). lenders: texts that the spliced controls are made of.
    """

    intact: list[tuple[str, str]]
    lenders: list[str]
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
    return Material(rest[:middle], [text for _, text in rest[middle:]], heldout)


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


def corpus_rows(material: Material, num_pairs: int, seed: int) -> list[dict[str, str]]:
    """`num_pairs` intact documents and as many spliced controls, in an order that tells nothing."""
    rng = random.Random(seed + 1)
    controls = splice(material.lenders[:num_pairs], rng)
    rows = [{"id": name, "text": text, "source": INTACT} for name, text in material.intact[:num_pairs]]
    rows += [{"id": f"spliced-{n:03d}", "text": text, "source": SPLICED} for n, text in enumerate(controls)]
    rng.shuffle(rows)
    return rows


def splice(texts: Sequence[str], rng: random.Random) -> list[str]:
    """Deal the pieces of `texts` out anew, into as many texts of as many pieces.

    Every piece is used once, so the controls hold the very text of their lenders: as many files, the same words.
    Only what belongs together no longer stands together, and a difference between the halves cannot come from more
    varied text.
    """
    pieces = [_pieces(text) for text in texts]
    pool = [piece for row in pieces for piece in row]
    rng.shuffle(pool)
    dealt = iter(pool)
    return ["".join(islice(dealt, len(row))) for row in pieces]


def _pieces(text: str) -> list[str]:
    """Whole lines of about PIECE_CHARS characters together: about as long as a segment of the scorer."""
    pieces, size = [""], 0
    for line in text.splitlines(keepends=True):
        if size >= PIECE_CHARS:
            pieces.append("")
            size = 0
        pieces[-1] += line
        size += len(line)
    return pieces
