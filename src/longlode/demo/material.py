"""Documents of the demo: source files of the running Python's library, and fake long texts made of them.

Files that the packaged weights of the score were fitted on are never scored here: the small model is measured on them.
"""

import random
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.core.errors import InputError
from longlode.synthetic.families import FAMILIES, Draw, Maker, cut_tokens

REAL = "real"
LENGTH = 8192
"""Length of every document, tokens of 4 bytes."""
HELDOUT_LENGTH = 6144
"""Least length of a file that the small model is measured on."""
_LEAST_SHARE = 0.9
"""Share of LENGTH that a fake made of one document has at least: paragraphs lose the space between them."""
_TRIES = 20
_FEWEST_FILES = 12
FITTED = frozenset(
    {
        *(
            "ctypes",
            "dataclasses.py",
            "encodings",
            "html",
            "imaplib.py",
            "importlib",
            "ipaddress.py",
            "locale.py",
        ),
        *("nntplib.py", "pathlib.py", "platform.py", "ssl.py", "statistics.py", "threading.py", "tkinter"),
        *("turtle.py", "turtledemo", "typing.py", "xml", "zoneinfo"),
    }
)
"""Modules and packages of the library that are among the works of `python -m recipes.make_gate`, side "fit"."""
_LEFT_OUT = frozenset(
    {
        *("test", "tests", "idle_test", "site-packages", "dist-packages"),
        *("encodings", "pydoc_data", "lib2to3"),
    }
)


@dataclass(frozen=True)
class Kind:
    """A kind of fake long text. name: one word, its source in the corpus. about: how it is made."""

    name: str
    about: str
    make: Maker


KINDS = (
    Kind("spliced", "pieces of 1,500 bytes from many files", FAMILIES["spliced"]["splice-1500"]),
    Kind("glued", "stretches of four files, one after the other", FAMILIES["glued"]["glued-4"]),
    Kind("interleaved", "two files by turns, 1,500 bytes each", FAMILIES["interleaved"]["interleaved-1500"]),
    Kind("shuffled", "the blocks of one file in random order", FAMILIES["shuffled"]["paragraphs-shuffled"]),
    Kind("renamed", "one file, its names changed every 500 characters", FAMILIES["names"]["renamed"]),
    Kind("repeated", "one paragraph again and again, slightly edited", FAMILIES["repeated"]["repeated"]),
    Kind("log", "lines of an invented log", FAMILIES["machine"]["log"]),
)


@dataclass(frozen=True)
class File:
    """A source file: its path below the library, and its text."""

    id: str
    text: str


@dataclass(frozen=True)
class Material:
    """files: for the corpus, at least LENGTH tokens each. heldout: for the evaluation of the small model."""

    files: list[File]
    heldout: list[File]


def gather(seed: int, folder: Path | None = None) -> Material:
    """Read the library, in an order drawn by `seed`.

    Args: folder, by default the standard library of the running Python.
    Raises: InputError when it does not hold enough long source files (a Python that keeps them in a zip).
    """
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    found = _sources(root)
    files = [one for one in found if not _fitted(one) and _num_tokens(one.text) > LENGTH]
    heldout = [one for one in found if _fitted(one) and _num_tokens(one.text) >= HELDOUT_LENGTH]
    for name, some in (("to score", files), ("to measure a model on", heldout)):
        if len(some) < _FEWEST_FILES:
            raise InputError(
                f"{root} holds {len(some)} long Python source files {name}; the demo needs {_FEWEST_FILES}. "
                "This Python keeps its library elsewhere: run the demo with another (python.org, conda, pyenv, Linux "
                "packages), or score texts of your own with longlode score."
            )
    rng = random.Random(seed)
    rng.shuffle(files)
    rng.shuffle(heldout)
    return Material(files, heldout)


def corpus_rows(files: Sequence[File], num_per_kind: int, seed: int) -> list[dict[str, Any]]:
    """Every file once, cut to LENGTH tokens, and `num_per_kind` fakes of each kind made of the same files.

    Each row has id, text and source (REAL or the name of a kind). A kind that cannot be made of these files has fewer.
    """
    rng = random.Random(seed + 1)
    draw = Draw(works=files, length=LENGTH, rng=rng, strangers=(), lists=())
    rows = [{"id": one.id, "text": cut_tokens(one.text, LENGTH) or one.text, "source": REAL} for one in files]
    for kind in KINDS:
        for number in range(num_per_kind):
            if text := _made(kind, draw):
                rows.append({"id": f"{kind.name}-{number:02d}", "text": text, "source": kind.name})
    rng.shuffle(rows)
    return rows


def _made(kind: Kind, draw: Draw) -> str | None:
    for _ in range(_TRIES):
        text = kind.make(draw) or ""
        if cut := cut_tokens(text, LENGTH):
            return cut
        if _num_tokens(text) >= _LEAST_SHARE * LENGTH:
            return text
    return None


def _num_tokens(text: str) -> int:
    return len(text.encode()) // BYTES_PER_TOKEN


def _fitted(one: File) -> bool:
    return one.id.partition("/")[0] in FITTED


def _sources(root: Path) -> list[File]:
    """Readable source files in name order; a file that is not UTF-8 is no material for this demo."""
    found = []
    for path in sorted(root.rglob("*.py")):
        if _LEFT_OUT.intersection(path.relative_to(root).parts):
            continue
        try:
            found.append(File(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")))
        except (OSError, UnicodeDecodeError):
            continue
    return found
