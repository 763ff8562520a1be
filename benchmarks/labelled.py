"""The labelled set of the mining benchmark: coherent long documents, and negatives labelled by construction.

    python -m benchmarks.labelled [--length 4096] [--split all] [--documents FOLDER]      counts, and what was left out

Coherent are the documents that the starter model was not trained on (`in_heldout(id, 0.5)`), without those that repeat
one it was trained on. The negatives are made from the same documents (`benchmarks/labelled_negatives.py`) or are lists
by nature. Every one is exactly `num_tokens` tokens of the starter's tokenizer long. A second rule by id hash puts each
document, with all that is made from it, on the `dev` side (scorers are chosen there) or the `test` side (reported).
With a folder of the user's all its documents are coherent, its sub-folders (or `source` fields) are the domains.
"""

import argparse
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Document, Tokenizer, in_heldout, read

HELDOUT_FRACTION = 0.5
TRAINED_ON = (
    "books",
    "code_sqlalchemy.jsonl",
    "tech_peps.jsonl",
    "latex_openlogic.jsonl",
    "legal_report.jsonl",
    "meetings_ami.jsonl",
    "loogle_wiki_sample.jsonl",
)
"""What `recipes/make_starter.py` is given, below the data folder; ids, and so the split, follow from it."""
LISTS = "lowdep.jsonl"
COHERENT = "coherent"
DOMAINS = {
    "code-file": "code",
    "code-package": "code",
    "tech-spec": "technical",
    "latex-textbook-part": "textbook",
    "legal-report": "legal",
    "meeting": "meeting",
    "longdep_qa": "encyclopedia",
    "shortdep_qa": "encyclopedia",
}
SPLITS = ("dev", "test")
LENGTHS = (4096, 16_384, 32_768)
LONG_WORKS = ("book", "legal", "textbook")
"""Domains whose documents give two stretches if they are long enough for two far apart."""
_SALT = "3"
_WINDOW_WORDS = 12
_CHARS_PER_TOKEN = 5


@dataclass(frozen=True, eq=False)
class Labelled:
    """One document of the set.

    label: "coherent" or a negative's name. text and tokens (int32 `[num_tokens]`) say the same: the tokens are what the
    starter's tokenizer makes of the text.
    """

    id: str
    label: str
    domain: str
    text: str
    tokens: np.ndarray


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """The documents, and how many were too short or unfit by (label, domain)."""

    items: list[Labelled]
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)


@dataclass(frozen=True, eq=False)
class Source:
    """A coherent document that the set is made from."""

    id: str
    domain: str
    text: str


class Cutter:
    """Cuts texts to an exact number of tokens. A text ends where it is cut; its beginning is its own."""

    def __init__(self, tokenizer: Tokenizer, num_tokens: int) -> None:
        """Raises: ConfigError below 256 tokens, where no document is long."""
        if num_tokens < 256:
            raise ConfigError(f"num_tokens is {num_tokens}; expected at least 256.")
        self.tokenizer = tokenizer
        self.num_tokens = num_tokens
        self._last: tuple[str, tuple[str, np.ndarray] | None] = ("", None)

    def cut(self, text: str) -> tuple[str, np.ndarray] | None:
        """A beginning of the text with exactly `num_tokens` tokens, and those; None if it is too short.

        Where no beginning has that number (a line end and what follows can be one token or two), the first line goes.
        """
        if text != self._last[0]:
            self._last = (text, self._cut(text))
        return self._last[1]

    def _cut(self, text: str) -> tuple[str, np.ndarray] | None:
        for _ in range(4):
            reach = self._likely_chars(text)
            tokens = self.tokenizer.encode([text[:reach]])[0]
            if len(tokens) < self.num_tokens and len(text) > reach:
                tokens = self.tokenizer.encode([text])[0]
            if len(tokens) < self.num_tokens:
                return None
            found = self._settle(text, len(self.tokenizer.decode(tokens[: self.num_tokens]).rstrip("\ufffd")))
            if found is not None:
                return found
            text = text[_next_line(text, 1) :]
        return None

    def _likely_chars(self, text: str) -> int:
        """Characters that probably hold the wanted tokens: from a sample, and a tenth more."""
        sample = text[len(text) // 3 :][:3000]
        per_token = len(sample) / max(1, len(self.tokenizer.encode([sample])[0]))
        return int(self.num_tokens * per_token * 1.1) + 100

    def _settle(self, text: str, end: int) -> tuple[str, np.ndarray] | None:
        """What is cut off changes how the last word is read: ends near `end` are tried until the count is right."""
        for step in range(80):
            here = text[: end + (step + 1) // 2 * (-1) ** step]
            tokens = self.tokenizer.encode([here])[0]
            if len(tokens) == self.num_tokens:
                return here, np.array(tokens, dtype=np.int32)
        return None

    def stretch(self, text: str, rng: random.Random, *, first: float = 0.0, last: float = 1.0) -> str | None:
        """A contiguous stretch from a random line (or sentence) on, begun in `[first, last)` of the text.

        It has more at its end than `cut` needs where there is more; None if no beginning there leaves `num_tokens`.
        """
        need = self.num_tokens * _CHARS_PER_TOKEN
        low, high = int(first * len(text)), int(last * len(text))
        start = low + rng.randrange(max(1, min(high, len(text) - need) - low))
        for at in (start, low + (start - low) // 2, low):
            begin = _next_line(text, at)
            begun = text[begin : begin + 6 * self.num_tokens]
            if self.cut(begun) is not None:
                return begun
        return None


def data_folder() -> Path:
    """The development corpus: `LONGLODE_DATA`, else `../shared/data` beside the repository. Raises InputError."""
    folder = Path(os.environ.get("LONGLODE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / "books").is_dir():
        raise InputError(
            f"There is no development corpus at {folder}; set LONGLODE_DATA to a folder that holds "
            f"{', '.join((*TRAINED_ON, LISTS))}, or give documents of your own with --documents FOLDER."
        )
    return folder


def side(document_id: str) -> str:
    """ "dev" or "test", by the id alone. Meetings of one series (`TS3005b`, `TS3005d`) are on one side."""
    name = document_id.rsplit("/", 1)[-1]
    group = document_id[:-1] if "qmsum/" in document_id and name[-1:] in "abcd" else document_id
    return "dev" if in_heldout(f"{_SALT}:{group}", 0.5) else "test"


def domain_of(document: Document) -> str:
    """What a document of the development corpus is: by its `kind`; a file without one is a book."""
    return DOMAINS.get(str(document.metadata.get("kind")), "book")


def heldout_sources(folder: Path) -> list[Source]:
    """The coherent documents that the starter was not trained on.

    Left out are those of which more than a fifth of the 12-word windows stand in a document it was trained on (revised
    editions), and all but the first of equal texts.
    """
    documents = [d for d in read([str(folder / name) for name in TRAINED_ON]) if isinstance(d, Document)]
    heldout = [d for d in documents if in_heldout(d.id, HELDOUT_FRACTION)]
    probes = {d.id: _windows(d.text, every=37) for d in heldout}
    wanted = set().union(*probes.values())
    trained: set[str] = set()
    for document in documents:
        if not in_heldout(document.id, HELDOUT_FRACTION):
            trained |= wanted.intersection(_windows(document.text, every=1))
    unique = {d.text: d for d in reversed(heldout)}
    return [
        Source(d.id, domain_of(d), d.text)
        for d in heldout
        if unique[d.text] is d and len(probes[d.id] & trained) <= 0.2 * len(probes[d.id])
    ]


def list_sources(folder: Path) -> list[Source]:
    """The documents that are lists by nature; none was trained on."""
    rows = [d for d in read([str(folder / LISTS)]) if isinstance(d, Document)]
    return [Source(d.id, str(d.metadata["kind"]).removeprefix("lowdep-"), d.text) for d in rows]


def folder_sources(folder: Path) -> list[Source]:
    """Every document of a folder of the user's; the domain is its source. Raises InputError if there is none."""
    found = [Source(d.id, d.source or "text", d.text) for d in read([str(folder)]) if isinstance(d, Document)]
    if not found:
        raise InputError(f"There is no readable document in {folder}; expected text, JSON lines or Parquet.")
    return found


def labelled_set(
    *, num_tokens: int = 16_384, split: str = "all", seed: int = 0, documents: Path | None = None
) -> list[Labelled]:
    """The documents of one length, the same for a seed; see `build_set`."""
    return build_set(num_tokens=num_tokens, split=split, seed=seed, documents=documents).items


def build_set(
    *, num_tokens: int = 16_384, split: str = "all", seed: int = 0, documents: Path | None = None
) -> LabelledSet:
    """Build the set of one length.

    Args: num_tokens, of every document; split, "dev", "test" or "all" (one after the other); documents, a folder to
      take instead of the development corpus.
    Returns: the set; a document's stretch depends on its id, the length and the seed alone, not on other documents.
    Raises: ConfigError for an unknown split; InputError when there are no documents.
    """
    from longlode.models import starter_folder

    if split not in (*SPLITS, "all"):
        raise ConfigError(f"split is {split!r}; expected one of {', '.join((*SPLITS, 'all'))}.")
    sources = heldout_sources(data_folder()) if documents is None else folder_sources(documents)
    lists = list_sources(data_folder()) if documents is None else []
    cutter = Cutter(Tokenizer.load(starter_folder()), num_tokens)
    result = LabelledSet([])
    for name in SPLITS if split == "all" else (split,):
        here = [source for source in sources if side(source.id) == name]
        its_lists = [source for source in lists if side(source.id) == name]
        result.items.extend(build_side(here, its_lists, cutter, (name, seed), result.left_out))
    if not result.items:
        raise InputError(
            f"No document of the {split} split has {num_tokens} tokens; choose a smaller length or more documents."
        )
    return result


def build_side(
    sources: list[Source],
    lists: list[Source],
    cutter: Cutter,
    name: tuple[str, int],
    left_out: Counter[tuple[str, str]],
) -> list[Labelled]:
    """Coherent stretches of `sources`, and the negatives made from them and from `lists`.

    Args: name of the side and seed, which decide by chance; left_out is counted on. Empty if no source is long enough.
    """
    from benchmarks.labelled_negatives import negatives

    coherent = list(coherent_stretches(sources, cutter, name[1], left_out))
    wanted = Counter(item.domain for item in coherent)
    used = [source for source in sources if wanted[source.domain]]
    return coherent + (list(negatives(used, lists, wanted, cutter, name, left_out)) if coherent else [])


def coherent_stretches(
    sources: Iterable[Source], cutter: Cutter, seed: int, left_out: Counter[tuple[str, str]]
) -> Iterator[Labelled]:
    """One stretch of each document, two far apart of long works; documents that are too short are counted."""
    for source in sources:
        ranges = [(0.0, 1.0)]
        if source.domain in LONG_WORKS and len(source.text) > 3.2 * _CHARS_PER_TOKEN * cutter.num_tokens:
            ranges = [(0.0, 0.2), (0.6, 1.0)]  # a quarter of a stretch or more lies between the two
        for number, (first, last) in enumerate(ranges):
            rng = random.Random(f"{seed}:{cutter.num_tokens}:{source.id}:{number}")
            begun = cutter.stretch(source.text, rng, first=first, last=last)
            found = None if begun is None else cutter.cut(begun)
            if found is None:
                left_out[COHERENT, source.domain] += 1
                continue
            yield Labelled(f"{source.id}@{number}", COHERENT, source.domain, *found)


def _windows(text: str, *, every: int) -> set[str]:
    words = text.split()
    return {" ".join(words[n : n + _WINDOW_WORDS]) for n in range(0, len(words) - _WINDOW_WORDS, every)}


def _next_line(text: str, start: int) -> int:
    """Where the next line begins, or the next sentence if the line goes on for long; 0 stays 0."""
    if start == 0:
        return 0
    line = text.find("\n", start, start + 2000)
    if line >= 0:
        return line + 1
    sentence = text.find(". ", start, start + 2000)
    return sentence + 2 if sentence >= 0 else start


def main() -> None:
    """Print the counts of one set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--length", type=int, default=4096, help="tokens of every document")
    parser.add_argument("--split", default="all", choices=(*SPLITS, "all"))
    parser.add_argument("--documents", type=Path, default=None, help="a folder to take instead of the corpus")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    found = build_set(
        num_tokens=arguments.length, split=arguments.split, seed=arguments.seed, documents=arguments.documents
    )
    counts = Counter((item.label, item.domain) for item in found.items)
    for label in dict.fromkeys(item.label for item in found.items):
        domains = ", ".join(f"{n} {domain}" for (x, domain), n in counts.items() if x == label)
        total = sum(n for (x, _), n in counts.items() if x == label)
        left = sum(n for (x, _), n in found.left_out.items() if x == label)
        print(f"{label:18} {total:4}  ({domains})" + (f"; {left} too short or unfit" if left else ""))


if __name__ == "__main__":
    main()
