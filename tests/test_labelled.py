"""The labelled set, built from a folder of generated text: labels, exact lengths, sides, the same set every time."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import labelled, labelled_negatives, mining_quality, quality_measures, quality_scoring, saved
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer
from longlode.models import starter_folder
from longlode.readers.tokens import TokenReaderSpec

NUM_TOKENS = 1024


def story(seed: int) -> str:
    """Paragraphs about a few people, with dialogue."""
    rng = random.Random(seed)
    words = [f"{a}{b}" for a in ("ba", "to", "mi", "ken", "sol") for b in ("ra", "nel", "du", "fy", "gart")]
    names = rng.sample(["Margaret", "Edward", "Helen", "Conrad", "Rosalind", "Walter", "Judith"], 3)
    paragraphs = []
    for _ in range(50):
        sentence = " ".join(rng.choice(words) for _ in range(7))
        spoken = " ".join(rng.choice(words) for _ in range(6))
        paragraphs.append(
            f'The {sentence}, and {rng.choice(names)} came. "{spoken}", said {rng.choice(names)} to {names[0]}.'
        )
    return "\n\n".join(paragraphs)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("documents")
    for kind in ("novels", "letters"):
        (root / kind).mkdir()
        for number in range(6):
            (root / kind / f"{number}.txt").write_text(story(number + 100 * len(kind)))
    (root / "novels" / "short.txt").write_text("Too short to be cut.")
    return root


@pytest.fixture(scope="module")
def built(folder: Path) -> labelled.LabelledSet:
    return labelled.build_set(num_tokens=NUM_TOKENS, documents=folder)


def test_every_label_is_there_and_every_document_is_exactly_as_long(built):
    assert {item.label for item in built.items} == {labelled.COHERENT, *labelled_negatives.NEGATIVES}
    tokenizer = Tokenizer.load(starter_folder())
    for item in built.items:
        assert len(item.tokens) == NUM_TOKENS
        assert tokenizer.encode([item.text])[0] == item.tokens.tolist()
    assert len({item.id for item in built.items}) == len(built.items)
    assert {item.domain for item in built.items if item.label == "spliced"} == {"novels", "letters"}


def test_coherent_documents_are_stretches_and_the_short_one_is_counted(built, folder):
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
    coherent = [item for item in built.items if item.label == labelled.COHERENT]
    assert len(coherent) == 12
    assert all(item.text in texts[item.id.rsplit("@")[0]] for item in coherent)
    assert built.left_out[labelled.COHERENT, "novels"] == 1


def test_the_set_is_the_same_for_a_seed_and_a_split_is_a_part_of_it(built, folder):
    texts = {item.id: item.text for item in built.items}
    again = labelled.build_set(num_tokens=NUM_TOKENS, documents=folder)
    assert {item.id: item.text for item in again.items} == texts
    sides = [
        {
            item.id: item.text
            for item in labelled.labelled_set(num_tokens=NUM_TOKENS, split=s, documents=folder)
        }
        for s in labelled.SPLITS
    ]
    assert sides[0] | sides[1] == texts
    assert not sides[0].keys() & sides[1].keys()
    other = labelled.labelled_set(num_tokens=NUM_TOKENS, seed=1, documents=folder)
    assert {item.text for item in other} != set(texts.values())


def test_negatives_are_made_of_their_side_alone(built, folder):
    texts = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.txt")}
    for item in built.items:
        if item.label != "spliced-documents":
            continue
        side = item.id.split("/")[1]
        here = [text for name, text in texts.items() if labelled.side(name) == side]
        for paragraph in item.text.split("\n\n")[:-1]:
            assert any(paragraph in text for text in here)


def test_shuffled_and_renamed_keep_what_they_should(built):
    by_id = {item.id: item for item in built.items}
    shuffled = [item for item in built.items if item.label == "shuffled"]
    renamed = [item for item in built.items if item.label == "renamed"]
    assert shuffled
    assert renamed
    names = ("Margaret", "Edward", "Helen", "Conrad", "Rosalind", "Walter", "Judith")
    assert not any(name in item.text for item in renamed for name in names)
    assert any(name in item.text for item in shuffled for name in names)
    assert all(item.text != other.text for item in shuffled for other in by_id.values() if other is not item)


def test_meetings_of_one_series_are_on_one_side():
    assert len({labelled.side(f"qmsum/TS3005{letter}") for letter in "abcd"}) == 1
    assert {labelled.side(f"book-{number}.txt") for number in range(20)} == set(labelled.SPLITS)


def test_what_cannot_be_built_is_said(folder, tmp_path):
    with pytest.raises(ConfigError, match="split is 'train'"):
        labelled.build_set(num_tokens=NUM_TOKENS, split="train", documents=folder)
    with pytest.raises(InputError, match="has 100000 tokens"):
        labelled.build_set(num_tokens=100_000, documents=folder)
    with pytest.raises(InputError, match="holds nothing to read"):
        labelled.build_set(num_tokens=NUM_TOKENS, documents=tmp_path)


def test_auc_and_its_interval():
    positive, negative = np.array([3.0, 2.0, np.nan]), np.array([1.0, 2.0])
    assert quality_measures.auc(positive, negative) == pytest.approx((1 + 1 + 1 + 0.5 + 0.5 + 0.5) / 6)
    rng = np.random.default_rng(0)
    scores = rng.normal(1.0, 1.0, 200), rng.normal(0.0, 1.0, 200)
    mean, low, high = quality_measures.auc_interval(scores[0], [str(n) for n in range(200)], scores[1], 0)
    assert low < mean < high
    assert 0.05 < high - low < 0.15  # the DeLong interval of such scores is 0.093 wide
    together = quality_measures.auc_interval(scores[0], [str(n // 50) for n in range(200)], scores[1], 0)
    assert together[0] == mean


def test_length_bias_sees_length_and_nothing_else():
    quality = np.random.default_rng(0).normal(size=(40, 1))
    size = np.array([1.0, 2.0, 4.0, 8.0])
    none = quality_measures.length_bias(np.repeat(quality, 4, axis=1) + 0 * size, size)
    assert none["within"] is None  # it does not vary within a document
    assert abs(none["between"]) < 0.15
    grows = quality_measures.length_bias(quality + 0.1 * size, size)
    assert grows["within"] == pytest.approx(1.0)
    assert 0.05 < grows["between"] < 0.9


def test_benchmark_runs_on_a_folder_and_saves(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(saved, "RESULTS", tmp_path)
    arguments = (
        f"--documents {folder} --scorers overlap,gzip --lengths {NUM_TOKENS} --split all --max-documents 4"
    )
    mining_quality.main(
        [*arguments.split(), "--check-documents", "4", "--check-length", str(NUM_TOKENS), "--save"]
    )
    out = capsys.readouterr().out
    assert "1,024 tokens a document" in out
    assert all(label in out for label in labelled_negatives.NEGATIVES)
    (written,) = tmp_path.glob("*.json")
    found = json.loads(written.read_text())
    (block,) = found["lengths"]
    for row in block["scorers"].values():
        assert row["auc"].keys() == set(labelled_negatives.NEGATIVES)
        assert all(0 <= low <= mean <= high <= 1 for mean, low, high in row["auc"].values())
        assert row["by_domain"].keys() == {"novels", "letters"}
        assert row["tokens_read"] is None
    assert all(row["exact"] for row in found["checks"].values())
    table = written.with_suffix(".md").read_text()
    assert "## 1,024 tokens" in table
    assert "| novels | spliced-documents |" in table


def test_benchmark_loads_the_model_for_scorers_that_read_one():
    options = mining_quality.parse(["--threads", "1", "--device", "cpu"])
    assert mining_quality.load_reader(options, True).alone(np.zeros((1, 128), int))[0].shape == (1, 127)


def test_benchmark_refuses_an_unknown_scorer(folder):
    with pytest.raises(ConfigError, match="no scorer 'nothing'"):
        mining_quality.main(["--documents", str(folder), "--scorers", "nothing"])


def test_an_scorer_that_the_reader_cannot_serve_has_no_scores_and_a_reason(built, tmp_path):
    reader = TokenReaderSpec(str(starter_folder()))()
    setup = quality_scoring.Setup(reader, tmp_path, quiet=True)
    done = quality_scoring.run_all(["paper", "strength", "gzip"], built.items[:3], setup)
    assert np.isnan(done["paper"].scores).all()
    assert np.isnan(done["strength"].scores).all()
    assert "TokenReader cannot: it has no `alone` and no `given`" in done["paper"].reason
    assert np.isfinite(done["gzip"].scores).all()
