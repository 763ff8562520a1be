"""What the demo reads: the sources of the running Python's own library, and controls spliced from them.

Three sets of files that share nothing: intact documents, files that only lend pieces to the controls, and
held-out files for the evaluation.
"""

import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from longlode.core.errors import InputError

INTACT = "intact"
SPLICED = "spliced"
MIN_CHARS = 8_000
MAX_CHARS = 24_000
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
    """`num_pairs` intact documents and as many controls of equal lengths, in an order that tells nothing."""
    from longlode.corpus.controls import spliced

    rng = random.Random(seed + 1)
    rows = []
    for number, (name, text) in enumerate(material.intact[:num_pairs]):
        control = spliced(material.lenders, num_chars=len(text), rng=rng)
        rows.append({"id": name, "text": text, "source": INTACT})
        rows.append({"id": f"spliced-{number:03d}", "text": control, "source": SPLICED})
    rng.shuffle(rows)
    return rows
