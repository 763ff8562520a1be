"""Requests: a new kind of reading from outside the package, and what the engine promises for every kind."""

import os
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from mining_fakes import CacheReader, ReadingOnReader, records
from typer.testing import CliRunner

from longlode.api.results import read_result
from longlode.cli import app
from longlode.core.errors import ModelError
from longlode.core.records import write_jsonl
from longlode.mining import DocumentScore, Scorer, ScoreSettings, make_scorer, score
from longlode.mining.requests import Pairs, Segments, WholeText, Words
from longlode.mining.scorers import SCORERS

# One file: a kind of reading that longlode does not know, a scorer that asks for it, and a column of its own.
OUTSIDE = '''
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from longlode.mining import DocumentScore, ExtraColumn, Scorer
from longlode.mining.reader import Capability, Reader
from longlode.mining.requests import Reading, Request


@runtime_checkable
class EmbeddingReader(Reader, Protocol):
    def embed(self, texts: Sequence[str]) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Vectors(Reading):
    vectors: np.ndarray

    def numbers(self):
        return (self.vectors,)


@dataclass(frozen=True, eq=False)
class Embeddings(Request):
    capability: ClassVar = Capability(EmbeddingReader, "embed texts", "sentence embedders")
    texts: tuple[str, ...]

    @classmethod
    def read(cls, reader, requests, size):
        found = reader.embed([text for request in requests for text in request.texts])
        ends = np.cumsum([len(request.texts) for request in requests])
        return [Vectors(part) for part in np.split(found, ends[:-1])]


class Drift(Scorer):
    """How far the second half of a text lies from the first."""

    name = "drift"
    min_segments = 0
    asks = (Embeddings,)
    extra_columns = (ExtraColumn("cosine", "float", "", "cosine of the halves; 0: unrelated"),)

    def text_requests(self, text):
        return [Embeddings((text[: len(text) // 2], text[len(text) // 2 :]))]

    def finish(self, doc, readings):
        first, second = doc.of_text[0].vectors
        cosine = float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))
        return DocumentScore(1 - cosine, extras={"cosine": cosine})


class LetterReader:
    """Embeds a text by how often each letter stands in it; chokes on a "#", and gives no number for a "?"."""

    fingerprint = "letters"

    def __init__(self):
        self.calls = []

    def encode(self, texts):
        return [[ord(letter) % 60 for letter in text] for text in texts]

    def embed(self, texts):
        self.calls.append(len(texts))
        if any("#" in text for text in texts):
            raise ValueError("no such letter")
        found = np.array([[text.count(chr(code)) for code in range(97, 123)] for text in texts], dtype=float)
        found[["?" in text for text in texts]] = np.nan
        return found
'''
TEXTS = ["abc abc abc abd", "aaaa bbbb", "ab#ab", "xyzxyyzx", "ab?ab?ab"]


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """The module, importable here and in worker processes."""
    (tmp_path / "outside_drift.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    write_jsonl(tmp_path / "in.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(TEXTS)])
    import outside_drift

    return outside_drift


def cosine(text):
    half = len(text) // 2
    first, second = (
        [part.count(chr(code)) for code in range(97, 123)] for part in (text[:half], text[half:])
    )
    return sum(a * b for a, b in zip(first, second, strict=True)) / (
        sum(a * a for a in first) ** 0.5 * sum(b * b for b in second) ** 0.5
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_scorer_with_its_own_kind_of_reading_and_column_is_one_file(outside, tmp_path, workers):
    summary = score(
        tmp_path / "in.jsonl",
        tmp_path / "out",
        scorer=make_scorer("outside_drift:Drift"),
        make_reader=outside.LetterReader,
        reader_fingerprint="letters",
        settings=ScoreSettings(rows_per_unit=3),
        num_workers=workers,
    )
    assert summary.counts == {"ok": 3, "failed": 2}
    rows = read_result(tmp_path / "out").table().sort_by("id").to_pylist()
    for row, text in zip(rows, TEXTS, strict=True):
        if row["status"] == "ok":
            assert row["extras.cosine"] == pytest.approx(cosine(text))
            assert row["score"] == pytest.approx(1 - cosine(text))
    assert rows[2]["reason"] == "reader: ValueError: no such letter"
    assert rows[4]["reason"] == "reader: 52 of 52 values are not finite (NaN or infinite)"
    kept = (
        "select",
        tmp_path / "out",
        "-o",
        tmp_path / "k.jsonl",
        "--top",
        "0.3",
        "--column",
        "extras.cosine",
    )
    assert CliRunner().invoke(app, list(map(str, kept))).exit_code == 0
    assert '"id":"0"' in (tmp_path / "k.jsonl").read_text().replace(" ", "")


def test_its_requests_are_read_together_and_alone_where_that_fails(outside, tmp_path):
    reader = outside.LetterReader()
    options = {"scorer": outside.Drift(), "reader_fingerprint": "letters"}
    score(tmp_path / "in.jsonl", tmp_path / "out", make_reader=lambda: reader, **options)
    assert reader.calls == [10, 2, 2, 2, 2, 2]
    (tmp_path / "good").mkdir()
    for number, text in enumerate(TEXTS[:2]):
        (tmp_path / "good" / f"{number}.txt").write_text(text)
    reader.calls.clear()
    score(tmp_path / "good", tmp_path / "both", make_reader=lambda: reader, **options)
    assert reader.calls == [4]


def test_a_reader_that_fails_on_every_text_is_at_fault_itself(outside, tmp_path):
    class Gone(outside.LetterReader):
        def embed(self, texts):
            raise RuntimeError("device lost")

    summary = score(
        *(tmp_path / "in.jsonl", tmp_path / "out"),
        scorer=outside.Drift(),
        make_reader=Gone,
        reader_fingerprint="letters",
    )
    assert "device lost" in summary.failed_units[0]["error"]


def test_a_reader_that_lacks_its_capability_is_refused_before_the_run(outside, tmp_path):
    fact = r"'drift' asks for Embeddings.*can embed texts\. CacheReader cannot: it has no `embed`.*sentence embedders"
    for workers in (1, 2):
        with pytest.raises(ModelError, match=fact):
            score(
                *(tmp_path / "in.jsonl", tmp_path / "out"),
                scorer=make_scorer("outside_drift:Drift"),
                make_reader=CacheReader,
                reader_fingerprint=CacheReader.fingerprint,
                settings=ScoreSettings(rows_per_unit=1),
                num_workers=workers,
            )
        assert list((tmp_path / "out" / "parts").iterdir()) == []


@pytest.mark.parametrize("name", ["outside_drift:Drift", "attention_mass"])
def test_the_command_refuses_a_model_that_cannot_before_it_makes_a_folder(outside, tmp_path, name):
    command = ["score", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out"), "--scorer", name]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "LMReader cannot" in " ".join(result.output.replace("│", " ").split())
    assert not (tmp_path / "out" / "parts").exists()


class WholeReader(CacheReader):
    """Also reads whole texts: the nats of a token are the number of tokens before it."""

    def whole(self, tokens):
        return np.arange(1, len(tokens), dtype=np.float32)


class Mixed(Scorer):
    """Asks for several kinds, some of them twice, in no order."""

    name = "mixed"
    asks = (Segments, Pairs, WholeText, Words)

    def text_requests(self, text):
        return [Words(text, len), Words(text)]

    def requests(self, doc, rng):
        pair = (np.array([1]), np.array([0]))
        return [
            WholeText(doc.all_tokens),
            Segments(doc.tokens[:1]),
            Pairs(doc.tokens, *pair),
            Segments(doc.tokens),
        ]

    def finish(self, doc, readings):
        length, words = (read.kept for read in doc.of_text)
        whole, first, pairs, every = readings
        assert len(words) < length
        assert whole.nll.sum() == doc.num_tokens * (doc.num_tokens - 1) / 2
        np.testing.assert_allclose(first.alone[0], every.alone[0], rtol=1e-6)
        np.testing.assert_allclose(pairs.alone[1], every.alone[1], rtol=1e-6)
        assert len(every.alone) == doc.num_segments
        return DocumentScore(1.0, num_pairs=1)


def test_readings_come_in_the_order_of_the_requests_and_costs_add_up(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(5))
    summary = score(
        *(tmp_path / "in.jsonl", tmp_path / "out"),
        scorer=Mixed(),
        make_reader=WholeReader,
        reader_fingerprint=WholeReader.fingerprint,
        settings=ScoreSettings(segment=8),
    )
    assert summary.counts == {"ok": 5}
    rows = read_result(tmp_path / "out").table().to_pylist()
    alone = sum(row["num_tokens"] + 8 * (1 + 2 + row["num_segments"]) for row in rows)
    assert (summary.cost["tokens_alone"], summary.cost["tokens_given"]) == (alone, 5 * 8)


def test_the_scorer_of_the_docs_works(tmp_path):
    page = (Path(__file__).parents[2] / "docs/guides/write_scorer.md").read_text(encoding="utf-8")
    block = re.search(r"\n\n(    class FarGain.*?)\n\n\|", page, flags=re.DOTALL).group(1)
    names = {"Scorer": Scorer, "Pairs": Pairs, "DocumentScore": DocumentScore, "np": np}
    exec(compile(textwrap.dedent(block), "docs/guides/write_scorer.md", "exec"), names)
    write_jsonl(tmp_path / "in.jsonl", records(3))
    reader = ReadingOnReader()
    score(
        *(tmp_path / "in.jsonl", tmp_path / "out"),
        scorer=names["FarGain"](),
        make_reader=lambda: reader,
        reader_fingerprint=reader.fingerprint,
        settings=ScoreSettings(segment=8),
    )
    rows = read_result(tmp_path / "out").table().sort_by("row").to_pylist()
    for row, record in zip(rows, records(3), strict=True):
        tokens = np.array(record["text"].split(), dtype=int)
        segments = tokens[: len(tokens) // 8 * 8].reshape(-1, 8)
        alone, states = reader.alone(segments)
        given = reader.given(states, np.array([0]), segments[-1:])
        assert row["score"] == pytest.approx((alone[-1] - given[0]).mean(), rel=1e-5)


def test_every_scorer_announces_what_it_asks_for():
    reading = {name: {kind.__name__ for kind in make_scorer(name).asks} for name in SCORERS}
    assert reading == {
        "coherence": {"Words", "Tokens"},
        "order": {"Tokens"},
        "overlap": {"Tokens"},
        "gzip": set(),
        "profile": {"Words"},
        "paper": {"Pairs"},
        "release": {"Pairs"},
        "strength": {"Pairs"},
        "context_gain": {"Pairs", "Chains"},
        "attention_mass": {"Windows"},
    }
    assert {kind.__name__ for kind in make_scorer("coherence", pairs=3).asks} == {"Words", "Pairs"}
