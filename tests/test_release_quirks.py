"""The benchmark of the release's quirks: its base is `paper`, its whole `release`; each rule changes its one thing."""

import json
import random
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import quirk_scoring, release_quirks, saved
from benchmarks.quirk_scoring import PAPER, SEGMENT, Readings, Rule, measure, read_document, rules, total
from longlode.core.errors import ConfigError
from longlode.corpus import Document
from longlode.mining import SegmentedDocument, make_scorer
from longlode.mining.requests import PairReading
from longlode.mining.sampling import sample_pairs
from longlode.synthetic.planted import planted_document

NUM_SEGMENTS = 12


class SharedTypes:
    """A reader without a model: a token costs what its number says, less where the source holds its type."""

    fingerprint = "shared types"
    tokenizer = SimpleNamespace(eos_token_id=0)

    def __init__(self) -> None:
        self.num_read = 0

    def alone(self, segments: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.num_read += segments.size
        return (3.0 + segments[:, 1:] % 7 / 4).astype(np.float32), segments

    def given(self, states: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
        nats = self.alone(targets)[0]
        known = [np.isin(target[1:], source) for target, source in zip(targets, states[sources], strict=True)]
        return (nats * np.where(known, 0.4, 1.05)).astype(np.float32)


@pytest.fixture(scope="module")
def segments() -> np.ndarray:
    rng = np.random.default_rng(0)
    # Each segment from a range of its own that overlaps with some others'.
    return rng.integers(0, 80, (NUM_SEGMENTS, SEGMENT)) + rng.integers(0, 4, (NUM_SEGMENTS, 1)) * 40


@pytest.fixture(scope="module")
def doc(segments: np.ndarray) -> Readings:
    pairs = sample_pairs(NUM_SEGMENTS, None, np.random.default_rng(0))
    parts = read_document(SharedTypes(), segments, segments[::-1][:5], pairs)
    return Readings(**parts, kin=np.full(NUM_SEGMENTS, np.nan))


@pytest.fixture(scope="module")
def pairs() -> quirk_scoring.Pairs:
    return sample_pairs(NUM_SEGMENTS, 20, np.random.default_rng(1))


def as_scorer(name: str, segments: np.ndarray, pairs: quirk_scoring.Pairs) -> float | None:
    whole = SegmentedDocument(
        document=Document(id="a", text="", source="", file="", row=0, metadata={}),
        tokens=segments,
        positions=np.arange(NUM_SEGMENTS),
        num_total_segments=NUM_SEGMENTS,
        all_tokens=segments.ravel().astype(np.int32),
        foreign=segments[:0],
        repetition=None,
        gzip_ratio=None,
    )
    reader = SharedTypes()
    alone, states = reader.alone(segments)
    given = reader.given(states, pairs[1], segments[pairs[0]])
    scorer = make_scorer(name, pairs=len(pairs[0]))
    return scorer.finish(whole, [PairReading(*pairs, alone, given, np.arange(NUM_SEGMENTS))]).score


def test_base_is_the_paper_and_all_of_it_is_the_release(doc, segments, pairs):
    paper, release = (as_scorer(name, segments, pairs) for name in ("paper", "release"))
    assert paper != pytest.approx(release, rel=0.01)
    assert total(doc, NUM_SEGMENTS, pairs, PAPER) == pytest.approx(paper, rel=1e-6)
    assert total(doc, NUM_SEGMENTS, pairs, rules(20)["release"]) == pytest.approx(release, rel=1e-6)


def test_a_rule_changes_what_it_says(doc, pairs):
    base = measure(doc, NUM_SEGMENTS, pairs, PAPER)
    score = total(doc, NUM_SEGMENTS, pairs, PAPER)
    assert score > 0
    single = np.bincount(pairs[0], minlength=NUM_SEGMENTS) == 1
    assert 0 < single.sum() < (~np.isnan(base.rows)).sum()
    without = measure(doc, NUM_SEGMENTS, pairs, Rule(one_source=0.0)).rows
    assert (without[single] == 0).all()
    assert np.array_equal(without[~single], base.rows[~single], equal_nan=True)
    assert total(doc, NUM_SEGMENTS, pairs, Rule(per_pair=True)) == pytest.approx(score / 20)
    assert total(doc, NUM_SEGMENTS, pairs, Rule(sample_size=20)) == score
    assert total(doc, NUM_SEGMENTS, pairs, Rule(sample_size=21)) == 0
    far = measure(doc, NUM_SEGMENTS, pairs, Rule(window=256))
    assert far.distances == pytest.approx(base.distances * (NUM_SEGMENTS - 1) / 255)
    flat = measure(doc, NUM_SEGMENTS, pairs, Rule(relative=True)).rows
    assert np.nanmean(flat[~single]) < np.nanmean(base.rows[~single])


def test_foreign_gain_is_taken_off_and_nothing_else(doc, pairs):
    base, less = (measure(doc, NUM_SEGMENTS, pairs, rule) for rule in (PAPER, Rule(control="foreign")))
    gained = 1 - np.exp(doc.foreign - doc.alone)
    assert less.strengths == pytest.approx(base.strengths - gained[pairs[0]])
    assert np.array_equal(less.rows, base.rows, equal_nan=True)
    assert np.isnan(total(doc, NUM_SEGMENTS, pairs, Rule(control="kin")))  # nothing of the kind was read
    known = replace(doc, kin=doc.foreign)
    scores = [total(known, NUM_SEGMENTS, pairs, Rule(control=name)) for name in ("foreign", "kin")]
    assert scores[0] == scores[1] != total(doc, NUM_SEGMENTS, pairs, PAPER)


def test_first_token_is_read_behind_the_whole_source(doc, segments, pairs):
    first = segments[:, 0]
    assert doc.first_alone == pytest.approx(3 + first % 7 / 4)
    for target, source in zip(*pairs, strict=True):
        # The state that it is read from lacks the source's last token.
        factor = 0.4 if first[target] in segments[source, :-1] else 1.05
        assert doc.first_given[target, source] == pytest.approx(factor * (3 + first[target] % 7 / 4))
    one, two = (measure(doc, NUM_SEGMENTS, pairs, rule) for rule in (PAPER, Rule(first_token=True)))
    alone = ((127 * doc.alone + doc.first_alone) / 128)[pairs[0]]
    given = (127 * doc.given[pairs] + doc.first_given[pairs]) / 128
    assert two.strengths == pytest.approx(1 - np.exp(given - alone))
    assert not np.allclose(one.strengths, two.strengths)


def test_half_precision_overflows(doc, pairs):
    hard = replace(doc, alone=doc.alone + 9, given=doc.given + 9)
    assert np.isinf(quirk_scoring.perplexity(hard.alone, hard.first_alone, Rule(half=True))).any()
    assert total(hard, NUM_SEGMENTS, pairs, Rule(half=True)) != pytest.approx(
        total(hard, NUM_SEGMENTS, pairs, PAPER)
    )
    assert total(doc, NUM_SEGMENTS, pairs, Rule(half=True)) == pytest.approx(
        total(doc, NUM_SEGMENTS, pairs, PAPER), rel=0.05
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    for number in range(4):
        text = planted_document(random.Random(number), num_words=2000, num_planted=16, distance=256)
        # A folder each: whole files take their source from it, and no two of these are of one source.
        (root / str(number)).mkdir()
        (root / str(number) / "text.txt").write_text(text)
    return root


def test_benchmark_reads_once_and_saves(folder, tmp_path, capsys, monkeypatch):
    reader = SharedTypes()
    monkeypatch.setattr(saved, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(release_quirks, "load_reader", lambda options, reads_model: reader)
    arguments = f"--documents {folder} --lengths 512,768,1024 --split all --max-documents 3 --pairs 12 --max-segments 3"
    arguments = [*arguments.split(), "--work", str(tmp_path / "work"), "--save"]
    release_quirks.main(arguments)
    first = capsys.readouterr().out
    read = reader.num_read
    release_quirks.main(arguments)
    assert reader.num_read == read > 0
    assert first == capsys.readouterr().out
    (written,) = (tmp_path / "results").glob("*.json")
    found = json.loads(written.read_text())
    assert found["documents"] == {"coherent": 3, "lists": 3, "logs": 3, "repeated": 3}
    table = found["table"]
    assert table.keys() == rules(12).keys()
    assert set(table["paper"]["rank"].values()) == {1.0}
    assert set(table["paper"]["changed"].values()) == {0.0}
    assert table["R5 out"]["rank"]["1,024"] == 1.0  # as many pairs for each document
    assert table["R7 in"]["rank"] == {
        "512": None,
        "768": 1.0,
        "1,024": 1.0,
        "mixed": table["R7 in"]["rank"]["mixed"],
    }
    assert table["R1 in"]["auc spliced"]["mixed"] is None  # nothing to splice on such lines
    assert all(0 <= value <= 1 for row in table.values() for value in row["auc logs"].values())
    assert {f"R{number}" for number in range(2, 12)} | {"X1", "paper"} == found["lines"].keys()
    assert not any("not measured" in line for line in found["lines"].values())
    text = written.with_suffix(".md").read_text()
    assert "| R11 out |" in text
    assert "100.0 % at 512, 0.0 % at 768" in text


def test_mixed_lengths_give_each_label_every_length(doc):
    items = [
        SimpleNamespace(id=f"{label}{n}", label=label) for label in ("coherent", "logs") for n in range(4)
    ]
    options = SimpleNamespace(lengths=[512, 1024], pairs=5, seed=0)
    study = quirk_scoring.Study(items, [doc] * 8, options)
    scores = np.tile([[1.0, 2.0]], (8, 1))
    views = list(study.views(scores))
    assert [name for name, _ in views] == ["512", "1,024", "mixed", "mixed"]
    assert views[2][1].tolist() == [1, 2, 1, 2, 1, 2, 1, 2]
    assert (views[2][1] + views[3][1] == 3).all()
    half = study.with_half_the_pairs()
    assert all(len(targets) == 2 for column in half.draws for targets, _ in column)
    assert all(len(targets) == 5 for column in study.draws for targets, _ in column)


def test_lengths_are_whole_segments(folder):
    with pytest.raises(ConfigError, match="multiples of 128, ascending"):
        release_quirks.main(["--documents", str(folder), "--lengths", "512,1000"])


def test_no_mark_no_first_token(segments, pairs):
    reader = SharedTypes()
    reader.tokenizer = SimpleNamespace(eos_token_id=None)
    parts = read_document(reader, segments, segments[:3], pairs)
    assert {field.name for field in fields(Readings)} == {*parts, "kin"}
    assert np.isnan(parts["first_alone"]).all()
    assert np.isnan(parts["marked"]).all()
    doc = Readings(**parts, kin=parts["foreign"])
    assert np.isnan(total(doc, NUM_SEGMENTS, pairs, Rule(first_token=True)))
