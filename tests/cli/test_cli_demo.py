"""The demo: honest sentences, material that does not leak, and the whole way in small."""

import pytest

from longlode.core.errors import InputError
from longlode.core.records import read_json, read_record
from longlode.corpus import write_documents
from longlode.demo import material as demo_material
from longlode.demo import run as demo_run
from longlode.demo.findings import (
    Auc,
    about_baselines,
    about_halves,
    about_loss,
    about_score,
    auc,
    findings,
)
from longlode.demo.material import INTACT, MAX_CHARS, MIN_CHARS, SPLICED, corpus_rows, gather


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A made-up library folder: 60 files of numbered lines, one not UTF-8, one short, tests beside them."""
    folder = tmp_path_factory.mktemp("library")
    for number in range(60):
        lines = [
            f"name_{number} = value_{number}_{line}  # file {number}" for line in range(300 + 20 * number)
        ]
        (folder / f"module_{number:02d}.py").write_text("\n".join(lines) + "\n")
    (folder / "short.py").write_text("x = 1\n")
    (folder / "latin.py").write_bytes(b"# \xe9\n" * MIN_CHARS)
    (folder / "test").mkdir()
    (folder / "test" / "left_out.py").write_text("y = 2\n" * MIN_CHARS)
    return folder


def files_in(text):
    return {line.rpartition("# file ")[2] for line in text.splitlines() if "# file " in line}


def test_material_is_cut_and_shares_nothing(library):
    material = gather(0, num_heldout=10, folder=library)
    names = [name for name, _ in (*material.intact, *material.heldout)]
    assert len(material.intact) + len(material.lenders) + len(material.heldout) == 60
    assert len(set(names)) == len(names)
    assert not {"short.py", "latin.py", "test/left_out.py"} & set(names)
    texts = [text for _, text in (*material.intact, *material.heldout, *material.lenders)]
    assert all(MIN_CHARS <= len(text) <= MAX_CHARS and text.endswith("\n") for text in texts)
    sets = [
        {file for _, text in material.intact for file in files_in(text)},
        {file for _, text in material.lenders for file in files_in(text)},
        {file for _, text in material.heldout for file in files_in(text)},
    ]
    assert sets[0].isdisjoint(sets[1])
    assert sets[2].isdisjoint(sets[0] | sets[1])


def test_material_depends_on_the_seed_alone(library):
    assert gather(3, folder=library) == gather(3, folder=library)
    assert gather(3, folder=library).heldout != gather(4, folder=library).heldout


def test_controls_hold_the_text_of_their_lenders_spliced(library):
    material = gather(0, num_heldout=10, folder=library)
    rows = corpus_rows(material, 8, 0)
    intact = [row["text"] for row in rows if row["source"] == INTACT]
    spliced = [row["text"] for row in rows if row["source"] == SPLICED]
    assert len(intact) == len(spliced) == 8
    assert len({row["id"] for row in rows}) == 16
    lent = "".join(text for _, text in material.lenders[:8])
    assert sorted("".join(spliced).splitlines()) == sorted(lent.splitlines())
    assert all(len(row["made_of"]) == len(files_in(row["text"])) for row in rows)
    assert all(len(files_in(text)) == 1 for text in intact)
    assert all(len(files_in(text)) > 4 for text in spliced)


def test_it_scores_by_the_default_without_a_model(library, tmp_path):
    material = gather(0, num_heldout=10, folder=library)
    write_documents(tmp_path / "corpus.jsonl", corpus_rows(material, 3, 0))
    settings = demo_run.DemoSettings(out=tmp_path, minutes=1.0, model="nowhere")
    summary = demo_run._score(settings, [str(tmp_path / "corpus.jsonl")], tmp_path / "scores", 4)
    assert summary.counts == {"ok": 6}
    assert read_record(tmp_path / "scores", "scores")["scorer"]["name"] == "profile"


def test_a_library_without_sources_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds 0 Python source files"):
        gather(0, folder=tmp_path)


def test_auc():
    assert auc([], [1.0]) is None
    perfect = auc([3.0, 4.0, 5.0], [0.0, 1.0])
    assert (perfect.value, perfect.low, perfect.high) == (1.0, 1.0, 1.0)
    assert auc([0.0], [1.0]).value == 0.0
    assert auc([1.0, 1.0], [1.0]).value == 0.5
    mixed = auc([1.0, 3.0, 5.0, 7.0], [2.0, 4.0, 0.0])
    assert mixed.value == pytest.approx(9 / 12)
    assert mixed.low < mixed.value < mixed.high


def test_sentences_say_what_the_figures_say():
    assert about_score(Auc(0.9, 0.8, 0.97, 20, 20)).startswith("The score tells intact")
    assert "does not tell" in about_score(Auc(0.55, 0.4, 0.7, 20, 20))
    assert "upside down" in about_score(Auc(0.2, 0.1, 0.4, 20, 20))
    assert "could not be tested" in about_score(None)
    halves = {
        "selected": {INTACT: 9, SPLICED: 1, "files": 14},
        "random": {INTACT: 5, SPLICED: 5, "files": 15},
    }
    assert about_halves(halves) == (
        "The selected half holds 9 intact and 1 spliced documents, with text of 14 files; "
        "the random half holds 5 intact and 5 spliced documents, with text of 15 files."
    )
    loss = {"a": 4.1, "b": 4.0, "difference": -0.1, "low": -0.2, "high": -0.05}
    assert about_loss({**loss, "favours": "b"}).startswith("Mining helped")
    assert "did not help here: held-out loss is higher" in about_loss({**loss, "favours": "a"})
    assert "cannot be told apart" in about_loss({**loss, "favours": ""})


def test_baselines_are_named_beside_the_score():
    half = Auc(0.5, 0.4, 0.6, 9, 9)
    assert about_baselines({"score": half}) == []
    (sentence,) = about_baselines({"score": half, "gzip": Auc(0.9, 0.8, 1.0, 9, 9)})
    assert sentence.endswith("gzip 0.900.")


def test_findings_survive_an_evaluation_without_intervals():
    row = {"task": "loss_by_position", "length": 64, "metric": "nats", "a": 4.0, "b": 4.0, "difference": 0.0}
    row |= {"low": None, "high": None, "n": 1, "better": "lower", "favours": ""}
    far = {"length": 64, "start": 32, "stop": 64, "mean": 0.0, "low": None, "high": None, "n": 1}
    halves = {name: {INTACT: 1, SPLICED: 0, "files": 1} for name in ("selected", "random")}
    found = findings({}, halves, {"rows": [row], "curves": {"loss_by_position": [far]}})
    assert len(found) == 5
    assert "not the luck of a seed" in found[-1]
    assert "too few examples" in found[2]


@pytest.fixture
def tiny_demo(monkeypatch):
    monkeypatch.setattr(demo_material, "MIN_CHARS", 1_000)
    monkeypatch.setattr(demo_material, "MAX_CHARS", 1_500)
    for name, value in {"MIN_PAIRS": 4, "MAX_PAIRS": 4, "MIN_STEPS": 2, "MAX_STEPS": 2}.items():
        monkeypatch.setattr(demo_run, name, value)
    for name, value in {
        "_LENGTH": 64,
        "_EVAL_LENGTHS": (256,),
        "_NUM_EXAMPLES": 3,
        "_EXPLAIN_SEGMENTS": 4,
    }.items():
        monkeypatch.setattr(demo_run, name, value)


def test_the_whole_demo_in_small(run, tmp_path, model_folder, tiny_demo):
    out = tmp_path / "demo"
    command = ("demo", "-o", out, "--model", model_folder, "--scorer", "strength", "--minutes", 0.1)
    shown = run(*command)
    assert "What it found" in shown
    assert "Next:" in shown
    record = read_record(out, "demo")
    assert record["status"] == "finished"
    names = ["gather", "score", "select", "pack", "train", "evaluate", "report"]
    assert [stage["name"] for stage in record["stages"]] == names
    assert set(record["labels"].values()) == {INTACT, SPLICED}
    assert record["findings"] == [line for line in record["findings"] if " ".join(line.split()) in shown]
    runs = [read_record(out / "runs" / half, "run") for half in ("selected", "random")]
    assert runs[0]["steps"] == runs[1]["steps"] == 2
    assert [counts[INTACT] + counts[SPLICED] for counts in record["halves"].values()] == [4, 4]
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")
    assert len(read_json(out / "scores" / "explain.json")) == 4


def test_an_earlier_demo_is_replaced_and_nothing_else(tmp_path):
    out = tmp_path / "demo"
    settings = demo_run.DemoSettings(out=out, minutes=1.0)
    demo_run.clear(settings)
    (out / "scores").mkdir()
    (out / "notes.txt").write_text("mine")
    demo_run.clear(settings)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "record.json"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        demo_run.clear(demo_run.DemoSettings(out=other, minutes=1.0))
    longer = demo_run.DemoSettings(out=out, minutes=2.0)
    with pytest.raises(InputError, match="settings"):
        demo_run.clear(longer)
    demo_run.clear(longer, overwrite=True)
    assert read_record(out, "demo")["settings"]["minutes"] == 2.0
