"""`longlode fit-score` and `--weights`: one command, honest figures, weights that results name by what they hold."""

import json
import random
import shutil

import pytest
from typer.testing import CliRunner

import longlode
from longlode.api.score_fitting import (
    FEWEST_DOCUMENTS,
    HELD_OUT,
    LEAST_OF_DOCUMENT,
    _read_works,
    _table_names,
)
from longlode.cli import app
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record, write_jsonl
from longlode.mining import make_scorer
from longlode.mining.distance_profile.tables import packaged_tables
from longlode.mining.gate.fit import HEAVIER
from longlode.mining.gate.model import packaged_gate
from longlode.synthetic.families import FAMILIES

SYLLABLES = ("bra", "nok", "tiv", "sul", "mer", "gan", "pol", "ded", "fir", "zun", "lax", "wey")


def story(seed: int, words: int = 3300) -> str:
    """A text in an invented language: common words of all stories, its own that return, sentences, paragraphs."""
    rng = random.Random(seed)
    shared = random.Random(0)
    common = ["".join(shared.choices(SYLLABLES, k=2)) for _ in range(300)]
    weights = [1 / rank for rank in range(1, 301)]
    own = ["".join(rng.choices(SYLLABLES, k=4)) for _ in range(150)]
    sentences = []
    for place in range(words // 11):
        topic = own[place // 4 % 130 : place // 4 % 130 + 20]
        line = [
            rng.choice(topic) if rng.random() < 0.25 else rng.choices(common, weights)[0] for _ in range(11)
        ]
        sentences.append(" ".join(line).capitalize() + ".")
    return "\n\n".join(" ".join(sentences[k : k + 4]) for k in range(0, len(sentences), 4))


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    path = tmp_path_factory.mktemp("stories") / "stories.jsonl"
    rows = [{"id": f"story-{seed}", "text": story(seed)} for seed in range(FEWEST_DOCUMENTS + 2)]
    write_jsonl(path, [*rows, {"id": "again", "text": rows[0]["text"]}, {"id": "short", "text": "too short"}])
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory, run, stories):
    out = tmp_path_factory.mktemp("weights") / "weights"
    return out, run("fit-score", stories, "-o", out)


def test_it_counts_a_table_of_a_language_that_the_package_does_not_know(weights):
    out, shown = weights
    record = read_record(out, "weights")
    assert record["num_read"] == FEWEST_DOCUMENTS + 4
    assert record["num_documents"] == FEWEST_DOCUMENTS + 2  # not the short one, nor one twice
    assert list(record["tables"]) == ["own-1"]
    assert "own-1" in shown
    counts = dict(
        reversed(line.split("\t")) for line in (out / "own-1.tsv").read_text(encoding="utf-8").splitlines()
    )
    windows = 0
    holding = 0
    word = next(iter(counts))
    for seed in range(FEWEST_DOCUMENTS + 2):
        words = story(seed).lower().replace(".", "").split()
        for start in range(0, max(1, len(words) - 500), 1000):
            windows += 1
            holding += word in words[start : start + 1000]
    assert record["tables"]["own-1"]["windows"] == windows
    assert int(counts[word]) == holding


def test_it_compares_both_gates_on_documents_held_out(weights):
    out, shown = weights
    figures = read_record(out, "weights")["held_out"]["4096"]
    # Two stretches of each document, and families of the two sides.
    num = FEWEST_DOCUMENTS + 2
    held = len(range(0, num, HELD_OUT))
    assert figures["num_fitted"] > 2 * (num - held)
    for which in ("fitted", "packaged"):
        one = figures[which]
        assert one["auc_worst"] == min(one["auc"].values()) == one["auc"][one["worst"]]
        assert one["auc_mean"] == pytest.approx(sum(one["auc"].values()) / len(one["auc"]), abs=1e-3)
        assert 0 <= one["calibration_error"] <= 1
        assert all(0 <= value <= 1 for pair in one["reliability"] for value in pair)
    better = max(("fitted", "packaged"), key=lambda which: figures[which]["auc_mean"])
    assert read_record(out, "weights")["gate"] == better
    assert f"In use: the {better} gate" in shown
    assert (out / "gate.npz").is_file() == (better == "fitted")
    assert "held out" in (out / "README.md").read_text(encoding="utf-8")


def test_scores_take_them_whatever_the_workers_and_name_them(run, weights, stories, tmp_path):
    out, _ = weights
    for workers in (1, 2):
        options = ("--weights", out, "--workers", workers, "--rows-per-unit", 8)
        run("score", stories, "-o", tmp_path / str(workers), *options)
    one, two = ({p.name: p.read_bytes() for p in (tmp_path / name / "parts").iterdir()} for name in "12")
    assert one == two
    record = read_record(tmp_path / "1", "scores")
    assert record["scorer"]["options"].keys() == {"fitted", "background"}
    assert record["scorer"]["options"]["fitted"].keys() == {"gate", "foreign_text", "weights"}
    rows = longlode.read_result(tmp_path / "1").table().to_pylist()
    assert {row["extras.control"] for row in rows if row["status"] == "ok"} == {"foreign:own-1"}
    # Without them another result, which is not taken for this one.
    assert "fitted" in run("score", stories, "-o", tmp_path / "1", status=2)
    plain = longlode.score_texts([story(3)])
    assert plain.column("extras.control").to_pylist() == ["own"]
    told = longlode.score_texts([story(3)], weights=out)
    mine = next(row for row in rows if row["id"] == "story-3")
    assert told.column("score").to_pylist() == [mine["score"]]


def test_explain_takes_them(weights, stories):
    out, _ = weights
    arguments = ["explain", str(stories), "--id", "story-3", "--weights", str(out), "--json"]
    found = json.loads(CliRunner().invoke(app, arguments).stdout)["explanation"]
    assert found["profile"]["control"] == "foreign:own-1"
    assert found == longlode.explain(stories, document_id="story-3", weights=out)["explanation"]


def test_a_copy_elsewhere_is_the_same_and_a_changed_one_is_not(weights, tmp_path):
    out, _ = weights
    copy, changed = tmp_path / "copy", tmp_path / "changed"
    shutil.copytree(out, copy)
    shutil.copytree(out, changed)
    lines = (changed / "own-1.tsv").read_text(encoding="utf-8").splitlines()
    (changed / "own-1.tsv").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")

    def identity(folder):
        return make_scorer("profile", options={"weights": str(folder)}).identity()

    assert identity(copy) == identity(out) != identity(changed)
    assert identity(out) != make_scorer("profile").identity()


def test_tables_of_the_package_stay_for_other_languages(weights):
    out, _ = weights
    scorer = make_scorer("profile", options={"weights": str(out)})
    names = [table.language for table in scorer.weights.tables]
    assert names == ["own-1", *(table.language for table in packaged_tables())]
    assert scorer.weights.gate.names == packaged_gate().names


def test_texts_are_dealt_to_tables_by_language():
    other = " ".join(random.Random(1).choices(["ulu", "ama", "ono", "ipi", "eke", "aku"], k=4000))
    english = "the man who was there had all that he could see and they would not be so " * 200
    assert _table_names([story(1), english, other, story(2)]) == ["own-1", "en", "own-2", "own-1"]


def test_groups_that_a_fit_did_not_know_are_reported(weights):
    out, shown = weights
    record = read_record(out, "weights")
    unseen = record["held_out"]["4096"]["unseen"]
    assert {"spliced", "reversed", "machine"} <= unseen.keys() <= FAMILIES.keys()
    assert all(0 <= value <= 1 for value in unseen.values())
    assert f"machine {unseen['machine']:.2f}" in shown
    assert f"machine {unseen['machine']:.2f}" in (out / "README.md").read_text(encoding="utf-8")
    assert record["settings"]["heavier"] == dict(HEAVIER)
    assert 0 < record["num_tokens"] <= record["num_documents"] * LEAST_OF_DOCUMENT


def test_a_corpus_is_read_once_and_kept_in_part(tmp_path):
    rows = [{"id": str(seed), "text": story(seed, 4000) * (3 if seed % 2 else 9)} for seed in range(6)]
    write_jsonl(tmp_path / "long.jsonl", [*rows, rows[2], {"id": "short", "text": "too short"}])
    for most, kept in ((1, LEAST_OF_DOCUMENT), (6 * 60_000, 60_000)):
        works, num_read = _read_works([str(tmp_path / "long.jsonl")], "text", 0, most)
        assert num_read == len(rows) + 2
        assert sorted(work.fold for work in works) == [0, 0, 1, 1, 2, 2]
        for work in works:
            whole = next(row["text"] for row in rows if row["id"] == work.id.split("#")[0])
            assert whole.startswith(work.text)
            assert len(work.text.encode()) == pytest.approx(min(4 * kept, len(whole.encode())), abs=80)


def test_what_cannot_be_is_refused(run, stories, weights, tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(stories.read_text().splitlines(keepends=True)[:5]))
    shown = run("fit-score", few, "-o", tmp_path / "out", status=2)
    assert "found 5 documents" in shown
    assert f"needs {FEWEST_DOCUMENTS}" in shown
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="record"):
        longlode.score_texts(["text"], weights=tmp_path)
    with pytest.raises(ConfigError, match="weights"):
        longlode.score_texts(["text"], scorer="gzip", weights=weights[0])
    for options, told in (
        (("--folds", 0), "folds"),
        (("--heavier", "renamed"), "FAMILY=FACTOR"),
        (("--heavier", "reamed=2"), "renamed"),
        (("--heavier", "renamed=0"), "above 0"),
    ):
        assert told in run("fit-score", stories, "-o", tmp_path / "out", *options, status=2)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "corpus.jsonl").write_text("precious")
    assert "corpus.jsonl" in run("fit-score", stories, "-o", tmp_path / "other", status=2)
