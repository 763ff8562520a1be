"""Works for the far-dependency and gate benchmarks, split three ways by work: fit, dev and heldout.

    python -m benchmarks.works                  counts per side and domain

Works that share an author, a meeting series or a sub-package are one group and lie on one side. Inside each domain the
groups, in the order of their hash, go to fit, dev and heldout in turn. The heldout side is read once, for the figures
of the documentation: `works_of` refuses it unless the caller passes `heldout=True`, and each such call is recorded in
`heldout_reads.jsonl` of the results folder.

Lengths are in bytes here: a token is 4 bytes of UTF-8, about what a common tokenizer makes of English, code and
Chinese.
"""

import datetime
import hashlib
import json
import os
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from benchmarks.labelled import data_folder
from benchmarks.saved import RESULTS
from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.core.errors import ConfigError

SIDES = ("fit", "dev", "heldout")
HELDOUT_RECORD = RESULTS / "heldout_reads.jsonl"
LANGUAGES = ("de", "fr", "es", "pl", "zh")
_FILES = {
    "code_sqlalchemy": "code",
    "tech_peps": "technical",
    "latex_openlogic": "textbook",
    "legal_report": "legal",
    "meetings_ami": "meeting",
    "loogle_wiki_sample": "encyclopedia",
    "lowdep": "list",
}
_STDLIB = (
    "asyncio",
    "concurrent",
    "ctypes",
    "curses",
    "dbm",
    "email",
    "encodings",
    "html",
    "http",
    "idlelib",
    "importlib",
    "json",
    "logging",
    "multiprocessing",
    "sqlite3",
    "tkinter",
    "unittest",
    "urllib",
    "wsgiref",
    "xml",
    "xmlrpc",
    "zoneinfo",
    "turtledemo",
    "distutils",
    "lib2to3",
)
_FEWEST_BYTES = 20_000


@dataclass(frozen=True, eq=False)
class Work:
    """One work: id; domain ("book", "code", ..., "list"); language (two letters); side; its text."""

    id: str
    domain: str
    language: str
    side: str
    text: str

    @property
    def group(self) -> str:
        """Author, series, project part; else the work itself."""
        return group_of(self.id)


def works_of(side: str, *, heldout: bool = False) -> list[Work]:
    """The works of one side. Raises: ConfigError for an unknown side, or for heldout without the flag."""
    if side not in SIDES:
        raise ConfigError(f"side is {side!r}; expected one of {', '.join(SIDES)}.")
    if side == "heldout":
        if not heldout:
            raise ConfigError(
                "the heldout works are read once, at the end; pass --heldout if this is that run."
            )
        _record()
    return [work for work in _all_works() if work.side == side]


def num_tokens(text: str) -> int:
    """Length of a text in tokens of 4 bytes."""
    return len(text.encode()) // BYTES_PER_TOKEN


def _record() -> None:
    RESULTS.mkdir(exist_ok=True)
    row = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join(sys.argv),
    }
    with HELDOUT_RECORD.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + os.linesep)


@cache
def _all_works() -> tuple[Work, ...]:
    found = sorted((*_corpus(), *_languages(), *_standard_library()), key=lambda row: row[0])
    order = sorted(
        {(domain, language, group_of(name)) for name, domain, language, _ in found},
        key=lambda key: (key[0], key[1], hashlib.sha256(f"far:{key[2]}".encode()).hexdigest()),
    )
    side: dict[tuple[str, str, str], str] = {}
    turns: Counter[tuple[str, str]] = Counter()
    for domain, language, group in order:
        # Two volumes of law: none is fitted on, so that they show how a domain nobody fitted on fares.
        first = 1 if domain == "legal" else 0
        side[domain, language, group] = SIDES[(first + turns[domain, language]) % 3]
        turns[domain, language] += 1
    return tuple(Work(n, d, x, side[d, x, group_of(n)], text) for n, d, x, text in found)


def group_of(name: str) -> str:
    """What must lie on one side, by a work's id: author, series of meetings, sub-package; else the work itself."""
    if name.startswith("book/"):
        return name.partition("_")[0]
    if name.startswith("qmsum/"):
        return name[:-1] if name[-1] in "abcd" else name
    if "/sqlalchemy/" in name and name.startswith("sqlalchemy"):
        return re.sub(r"#\d+$", "", name).split("/lib/sqlalchemy/")[-1].split("/")[0]
    if name.startswith("loogle/"):
        return name.split("/", 2)[2]
    return name


def _corpus() -> Iterator[tuple[str, str, str, str]]:
    folder = data_folder()
    for path in sorted((folder / "books").glob("*.txt")):
        yield f"book/{path.stem}", "book", "en", path.read_text(encoding="utf-8")
    seen: set[str] = set()
    for name, domain in _FILES.items():
        for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["text"] not in seen:
                seen.add(row["text"])
                yield row["id"], domain, "en", row["text"]


def _languages() -> Iterator[tuple[str, str, str, str]]:
    """Novels of the other languages. Chinese has two works in two parts each: the parts are halved and divided."""
    for language in LANGUAGES:
        path = data_folder() / "languages" / f"{language}.jsonl"
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            half = len(row["text"]) // 2
            if language == "zh":
                yield f"{row['id']}a", "novel", language, row["text"][:half]
                yield f"{row['id']}b", "novel", language, row["text"][half:]
            else:
                yield row["id"], "novel", language, row["text"]


def _standard_library() -> Iterator[tuple[str, str, str, str]]:
    """Packages and large modules of the running Python's standard library: code of many hands."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for package in _STDLIB:
        files = sorted((root / package).rglob("*.py"))
        parts = [
            f"# ==== file: {path.relative_to(root)}\n{path.read_text(encoding='utf-8')}"
            for path in files
            if "test" not in path.parts
        ]
        text = "\n".join(parts)
        if len(text) >= _FEWEST_BYTES:
            yield f"stdlib/{package}", "package", "en", text
    for path in sorted(root.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if len(text) >= 2 * _FEWEST_BYTES:
            yield f"stdlib/{path.name}", "module", "en", text


def main() -> None:
    """Print the counts of all sides; no text of the heldout side is shown."""
    counts = Counter((work.domain, work.language, work.side) for work in _all_works())
    for domain, language in dict.fromkeys((d, x) for d, x, _ in counts):
        print(f"{domain:14} {language}  " + "  ".join(f"{s} {counts[domain, language, s]:3}" for s in SIDES))


if __name__ == "__main__":
    main()
