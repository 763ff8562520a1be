"""What Python users meet first: packages and names that tab completion shows, and paths as plain strings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import longlode

PACKAGES = sorted(path.parent.name for path in Path(longlode.__file__).parent.glob("*/__init__.py"))


def fresh(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_there_after_import_longlode(package):
    assert fresh(f"import longlode; print(longlode.{package}.__name__)").strip() == f"longlode.{package}"


def test_dir_shows_packages_and_names_without_loading_torch():
    shown = fresh(
        "import sys, longlode; print(*dir(longlode)); print(*dir(longlode.models)); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    ).splitlines()
    assert {*PACKAGES, "register", "__version__"} <= set(shown[0].split())
    assert {"load", "LonglodeConfig", "LonglodeForCausalLM"} <= set(shown[1].split())


FUNCTIONS = (
    "score",
    "score_texts",
    "select",
    "evaluate",
    "compare",
    "explain",
    "generate",
    "report",
    "doctor",
    "pack",
    "train",
)


def test_every_function_can_be_called_whatever_was_imported_before():
    shown = fresh(
        f"import longlode.evaluate.run, longlode.report.build, inspect; "
        f"print(*(callable(getattr(longlode, name)) for name in {FUNCTIONS})); "
        "print(*inspect.signature(longlode.evaluate).parameters); print(longlode.evaluate.Task.__name__)"
    ).splitlines()
    assert shown[0].split() == ["True"] * len(FUNCTIONS)
    assert shown[1].split()[:2] == ["model", "out"]
    assert shown[2] == "Task"


@pytest.fixture(scope="module")
def texts():
    import sysconfig

    folder = Path(sysconfig.get_paths()["stdlib"])
    names = ("argparse.py", "ast.py", "tarfile.py", "zipfile.py")
    return [(folder / name).read_text(encoding="utf-8")[:20_000] for name in names]


def test_texts_in_memory_score_as_files_do(texts, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, text in enumerate([*texts, "short"]):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    of_files = longlode.score(str(folder), str(tmp_path / "scores")).table().sort_by("id")
    in_memory = longlode.score_texts([*texts, "short"])
    assert in_memory["score"].to_pylist() == of_files["score"].to_pylist()
    assert in_memory["status"].to_pylist() == ["ok"] * len(texts) + ["too_short"]
    assert longlode.read_result(str(tmp_path / "scores")).record["counts"] == {
        "ok": len(texts),
        "too_short": 1,
    }
    with pytest.raises(longlode.core.errors.ConfigError, match="list"):
        longlode.score_texts(texts[0])


def test_results_read_back_as_tables(texts, tmp_path):
    for number, text in enumerate(texts):
        (tmp_path / "corpus").mkdir(exist_ok=True)
        (tmp_path / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
    longlode.score(tmp_path / "corpus", tmp_path / "scores", scorer="gzip")
    longlode.select(tmp_path / "scores", tmp_path / "kept.parquet", top=0.5)
    assert longlode.read_result(tmp_path / "kept.parquet").table().num_rows == 2
    options = {"tasks": ["repeated_list"], "lengths": [256], "num_examples": 2, "device": "cpu"}
    longlode.evaluate("starter", tmp_path / "eval", **options)
    examples = longlode.read_result(tmp_path / "eval").table()
    assert examples.num_rows == 2
    assert {"task", "length", "hard", "smooth"} <= set(examples.column_names)
    same = longlode.compare(tmp_path / "eval", str(tmp_path / "eval"))
    assert not any(row["favours"] for row in same["rows"])
    assert longlode.report([tmp_path], tmp_path / "report.html").is_file()
    with pytest.raises(longlode.core.errors.InputError):
        longlode.read_result(tmp_path / "corpus")


def test_generate_and_explain_from_python(texts, tmp_path):
    document = tmp_path / "one.txt"
    document.write_text(texts[0], encoding="utf-8")
    found = longlode.explain(str(document), model="starter", segments=4)
    assert found["explanation"]["score"] is not None
    assert len(found["pairs"]) == 5
    written = longlode.generate("starter", "import ", max_new_tokens=4, save_state=str(tmp_path / "a.state"))
    assert written.num_new <= 4
    assert (tmp_path / "a.state").is_file()
    again = longlode.generate("starter", "os", state=tmp_path / "a.state", max_new_tokens=2)
    assert again.num_new <= 2


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nonsense"):
        _ = longlode.nonsense


def test_every_path_may_be_a_string(tmp_path):
    from longlode.corpus import Tokenizer, read
    from longlode.mining import make_scorer, score, select
    from longlode.models import starter_folder
    from longlode.packing import pack
    from longlode.report import build

    corpus, scores, kept = (str(tmp_path / name) for name in ("corpus.jsonl", "scores", "kept.jsonl"))
    lines = [json.dumps({"id": str(n), "text": f"word{n} and more " * 200}) for n in range(4)]
    Path(corpus).write_text("\n".join(lines) + "\n")
    score(corpus, scores, scorer=make_scorer("gzip"))
    assert select(scores, kept, top=0.5).num_selected == 2
    pack(read(kept), Tokenizer.load(str(starter_folder())), str(tmp_path / "shards"), length=64)
    page = build([scores, str(tmp_path)], str(tmp_path / "report.html"))
    assert page.stat().st_size > 1000


def test_scores_that_need_no_model_read_none_unless_asked_to():
    from longlode.mining import SCORERS, make_scorer

    reading = {name for name in SCORERS if make_scorer(name).reads_model}
    assert reading == {"paper", "release", "strength", "context_gain", "attention_mass"}
    assert make_scorer("coherence", pairs=100).reads_model
    assert make_scorer("paper").pairs == 500


def test_a_model_has_one_name_everywhere():
    from longlode.models import load
    from longlode.readers.lm import ReaderSpec
    from longlode.readers.tokens import TokenReaderSpec

    assert [
        reader().encode(["a word"])[0].tolist()
        for reader in (ReaderSpec("starter"), TokenReaderSpec("starter"))
    ] == 2 * [load("starter")[1].encode("a word", add_special_tokens=False)]
    assert load("starter")[0].config.model_type == "longlode"


def test_pack_and_train_are_functions_with_the_commands_names(tmp_path):
    text = Path(longlode.__file__).read_text(encoding="utf-8")
    (tmp_path / "a.txt").write_text(text * 4, encoding="utf-8")
    summary = longlode.pack(str(tmp_path / "a.txt"), str(tmp_path / "shards"), length=32)
    assert summary["num_documents"] == 1
    recipe = {
        "model": {"mixers": "D", "hidden_size": 16, "num_heads": 2},
        "data": {"length": 32, "batch_size": 2, "mix": "num_tokens:2..=1"},
        "run": {"steps": 2, "device": "cpu", "threads": 1},
    }
    started, rows = [], []
    done = longlode.train(
        longlode.train.Recipe.parse(recipe),
        str(tmp_path / "run"),
        set_=[f"data.shards={tmp_path / 'shards'}"],
        on_start=started.append,
        on_step=rows.append,
    )
    assert (done.status, done.step, len(rows)) == ("finished", 2, 2)
    assert started[0].num_tokens == summary["num_tokens"]
    assert [group.name for group in started[0].stages[0].mixture] == ["num_tokens:2.."]
    assert longlode.train(None, tmp_path / "run", set_=["run.steps=3"], resume=True).resumed_from == 2
