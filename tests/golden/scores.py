"""Golden scores: twelve made texts, read by the starter, scored by every reader from the command line."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from typer.testing import CliRunner

import longlode
from longlode.cli import app
from longlode.corpus import Tokenizer
from longlode.models import LonglodeConfig, LonglodeForCausalLM

RUNS: dict[str, tuple[str, ...]] = {
    "coherence": ("--pairs", "8"),
    "coherence without a model": ("--pairs", "0"),
    "order": ("--pairs", "500"),
    "overlap": (),
    "gzip": (),
    "paper": ("--pairs", "8"),
    "release": ("--pairs", "8"),
    "strength": ("--pairs", "8", "--keep-pairs"),
    "context_gain": (),
    "attention_mass": (),
}
"""Options by the name of the run; its first word is the reader."""
_NEEDS_ATTENTION = ("attention_mass",)
"""Readers that the starter, which has no attention, cannot serve: `write_attending` makes them a model."""

_SEGMENT, _ROWS_PER_UNIT = 32, 5
_OF_PLACE = ("file",)
"""Columns that say where the run lay."""

_SYLLABLES = (
    "ka",
    "to",
    "ri",
    "men",
    "sol",
    "ve",
    "da",
    "lu",
    "pe",
    "shi",
    "gor",
    "an",
    "el",
    "mi",
    "ost",
    "ur",
)
_PLAIN = (
    *(
        "the",
        "of",
        "and",
        "to",
        "in",
        "a",
        "is",
        "that",
        "for",
        "it",
        "as",
        "was",
        "with",
        "be",
        "by",
        "on",
        "not",
    ),
    *(
        "he",
        "this",
        "are",
        "or",
        "his",
        "from",
        "at",
        "which",
        "but",
        "have",
        "an",
        "had",
        "they",
        "you",
        "were",
    ),
    *(
        "their",
        "one",
        "all",
        "we",
        "can",
        "her",
        "has",
        "there",
        "been",
        "if",
        "more",
        "when",
        "will",
        "would",
    ),
    *("who", "so", "no", "house", "river", "letter", "evening", "garden", "captain", "question", "morning"),
    *("window", "answer", "village", "winter", "summer", "road", "stone", "table", "water", "light"),
)


def _numbers(seed: int) -> Iterator[int]:
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def _name(draw: Iterator[int]) -> str:
    return "".join(_SYLLABLES[next(draw) % len(_SYLLABLES)] for _ in range(2 + next(draw) % 2)).capitalize()


def _sentence(draw: Iterator[int], names: list[str]) -> str:
    words = [_PLAIN[next(draw) % len(_PLAIN)] for _ in range(6 + next(draw) % 9)]
    if names:
        words[next(draw) % len(words)] = names[next(draw) % len(names)]
    return " ".join(words).capitalize() + "."


def _prose(seed: int, num_sentences: int, num_names: int) -> str:
    """Sentences of common words around a few names that come back."""
    draw = _numbers(seed)
    names = [_name(draw) for _ in range(num_names)]
    sentences = [_sentence(draw, names) for _ in range(num_sentences)]
    return "\n\n".join(" ".join(sentences[at : at + 5]) for at in range(0, num_sentences, 5))


def _facts(seed: int) -> str:
    """Values told at the start and asked at the end, filler between."""
    draw = _numbers(seed)
    pairs = [(_name(draw), next(draw) % 9000 + 1000) for _ in range(8)]
    told = " ".join(f"The number of {name} is {number}." for name, number in pairs)
    asked = " ".join(f"Again, the number of {name} is {number}." for name, number in pairs)
    return f"{told}\n\n{_prose(seed + 1, 25, 2)}\n\n{asked}"


def _code(seed: int) -> str:
    draw = _numbers(seed)
    names = [_name(draw).lower() for _ in range(5)]
    lines = ["import math", ""]
    for name in names:
        other = names[next(draw) % len(names)]
        lines += [f"def {name}(x, y={next(draw) % 100}):", f'    """Give {name} of x."""']
        lines += [
            f"    value = x * {next(draw) % 50} + y",
            f"    return {other}(value) if value > y else value",
            "",
        ]
    return "\n".join(lines * 2)


def _table(seed: int) -> str:
    draw = _numbers(seed)
    names = [_name(draw) for _ in range(6)]
    return "\n".join(f"{i},{names[next(draw) % 6]},{next(draw) % 10_000},{next(draw) % 7}" for i in range(90))


def texts() -> dict[str, str]:
    """The texts by file name: prose of several lengths, planted facts, code, a table, a loop, noise, joins, scripts."""
    draw = _numbers(77)
    long = _prose(3, 60, 5)
    sentences = long.replace("\n\n", " ").split(". ")
    order = sorted(range(len(sentences)), key=lambda i: math.sin(7.0 * i))
    return {
        "01-prose.txt": _prose(1, 35, 3),
        "02-short.txt": _prose(2, 12, 1),
        "03-long.txt": long,
        "04-shuffled.txt": ". ".join(sentences[i] for i in order),
        "05-facts.txt": _facts(5),
        "06-code.txt": _code(6),
        "07-table.txt": _table(7),
        "08-loop.txt": "All work and no play makes a dull boy of him. " * 60,
        "09-noise.txt": "".join(chr(97 + next(draw) % 26) if next(draw) % 6 else " " for _ in range(1500)),
        "10-joined.txt": _prose(8, 15, 2) + "\n\n" + _code(9) + "\n\n" + _prose(10, 15, 2),
        "11-tiny.txt": "Too short to have two segments.",
        "12-scripts.txt": "Где река встречает море, там стоит дом. Дом стоит над морем. 山の上に家がある。 "
        * 9,
    }


def write_texts(folder: Path) -> None:
    """Write the texts as files."""
    folder.mkdir(parents=True)
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")


def write_attending(folder: Path) -> None:
    """Save a tiny model of seed 0 that has a layer of attention, with the starter's tokenizer."""
    tokenizer = Tokenizer.load(Path(longlode.__file__).parent / "assets" / "starter")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_heads": 2, "intermediate_size": 32, "initializer_range": 0.2}
    config = LonglodeConfig(vocab_size=tokenizer.vocab_size, mixers="DA", **sizes)
    LonglodeForCausalLM(config).save_pretrained(folder)
    tokenizer.save(folder)


def run(name: str, inputs: Path, attending: Path, out: Path) -> dict[str, Any]:
    """One run: the names of its parts, sorted, and every row of the scores by id, without its place.

    Args: inputs, of `write_texts`; attending, of `write_attending`.
    """
    arguments = ["score", str(inputs), "-o", str(out), "--scorer", name.split()[0], "--no-explain"]
    arguments += ["--segment", str(_SEGMENT), "--rows-per-unit", str(_ROWS_PER_UNIT), *RUNS[name]]
    arguments += ["--dtype", "float32"]  # not what this machine's probe favours
    if name.split()[0] in _NEEDS_ATTENTION:
        arguments += ["--model", str(attending)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    parts = sorted((out / "parts").iterdir())
    rows = [row for part in parts for row in pq.read_table(part, partitioning=None).to_pylist()]
    for row in rows:
        for column in _OF_PLACE:
            row.pop(column, None)
    return {
        "parts": [part.name for part in parts],
        "rows": {row["id"]: row for row in sorted(rows, key=lambda row: row["id"])},
    }
