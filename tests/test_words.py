"""Check the words of docstrings, comments and messages, in every package and in the files above them ("")."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "longlode"
PACKAGES = (
    *("core", "corpus", "synthetic", "packing", "train", "readers", "ops", "mixers", "models"),
    *("mining", "evaluate", "report", "api", "cli", "demo", "parallel", "integrations", ""),
)

CLAUSE_WORDS = {"what", "whether", "who", "whose", "how", "which", "of", "where", "why"}
"""First words that make a summary line a bare clause; imperatives and noun phrases are wanted."""

UNIT_WORDS = (
    "token|document|row|head|layer|channel|step|second|sequence|segment|chunk|batch|pair|shard|block|feature|model|"
    "example|query|key|label|word|character|unit|worker|core|device|rank|line|file|position|dimension|text|part|"
    "task|noun|bucket|octave|record|target|column|group"
)
PER = re.compile(
    rf"\b(nats?|bits?|bytes?|tokens?|flops?|operations?|floats?|numbers?|seconds?|milliseconds?|times|"
    rf"decays?|gates?|scalars?|one|rows|documents|examples|characters|states|lines|entries|values|passes|draws|"
    rf"row|line|file) "
    rf"(an?|each) ({UNIT_WORDS})\b(?! (of|that|in|is|has|holds|can|may|for|from|with|and|to)\b)",
    re.IGNORECASE,
)
"""A rate written with "a": "nats a token" is to be "nats per token"."""

HOUSE_WORDS = {
    r"\brooms\b|\b(a|any|each|every|its|the|this) room\b(?! for)": "package",
    r"\btold\b": "given, reported, distinguished",
    r"\bsurely\b": "certainly, or no adverb",
    r"\bquirks?\b": "the exception itself",
    r"\bpeers?\b": "background corpus, baseline",
    r"\bseams?\b": "boundary",
    r"\bforeign\b": "other, of another document",
    r"\bat large\b": "background corpus",
    r"\bhouse\b": "repository, conventions",
    r"\bletters? of\b": "dimension names",
    r"\bsecond coming\b": "second occurrence",
    r"\bbroken twins?\b": "wrong variant",
}
"""Words of this repository's own, forbidden in its text, with the word of the field to write instead."""

MATERIAL = {"evaluate/tasks/words.py": ("'told'",)}
"""File -> house words in the sentences that its tasks are made of, where they are ordinary English."""


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Every comment and every string of three words or more in `source`, with its line number."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) >= 3:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Every docstring in `source`, those under the fields of a class and under constants as well, with its line."""
    blocks = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        for child in node.body if isinstance(node, blocks) else []:
            value = child.value if isinstance(child, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield child.lineno, value.value


def faults(source: str) -> list[str]:
    """One message per breach in the Python file of text `source`: its line, the words, what to write instead."""
    found = []
    for line, text in docstrings(source):
        first = re.match(r"\W*([A-Za-z]+)", text)
        if first is None or first[1].lower() in CLAUSE_WORDS:
            found.append((line, f"begins with {text[:40]!r}: write an imperative or a noun phrase"))
    for line, text in texts(source):
        flat = " ".join(re.sub(r"(?m)^\s*#+", "", text).split())
        found += [(line, f"{match[0]!r}: write 'per'") for match in PER.finditer(flat)]
        prose = re.sub(r"`[^`]*`", "", flat)  # names in code keep the words they have
        for pattern, instead in HOUSE_WORDS.items():
            found += [
                (line, f"{m[0]!r}: write {instead}") for m in re.finditer(pattern, prose, re.IGNORECASE)
            ]
    return [f"{line}: {words}" for line, words in sorted(set(found))]


@pytest.mark.parametrize("package", PACKAGES)
def test_words_of_a_package(package: str) -> None:
    """No docstring that is a bare clause, no "nats a token", no word of the repository's own."""
    files = sorted((SOURCE / package).rglob("*.py") if package else SOURCE.glob("*.py"))
    assert files, f"no package {package}"
    found = []
    for path in files:
        name = path.relative_to(SOURCE).as_posix()
        allowed = MATERIAL.get(name, ())
        breaches = faults(path.read_text(encoding="utf-8"))
        found += [f"{name}:{breach}" for breach in breaches if breach.split(": ")[1] not in allowed]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ('"""What a file holds."""', "imperative"),
        ('def f():\n    """Whether it is so."""', "imperative"),
        ('class A:\n    x: int\n    """How many there are."""', "imperative"),
        ('LOSS = f"{1} nats a token"', "per"),
        ("x = 1  # one a document", "per"),
        ('"""The loss, in nats a\ntoken."""', "per"),
        ('"""Errors that every room may raise."""', "package"),
        ('"""Words of a foreign document."""', "other"),
    ],
)
def test_breaches_are_found(source: str, fault: str) -> None:
    """Each rule finds its own breach, also over the end of a line and under a field."""
    assert any(fault in message for message in faults(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""Return the loss, in nats per token."""',
        'x = "Make room on the disk, then run the command again."',
        "x = 1  # the first tokens a document holds",
        '"""The number of rows: one for each document."""',
    ],
)
def test_plain_words_pass(source: str) -> None:
    """Plain sentences are left alone, those that look like a breach as well."""
    assert faults(source) == []
