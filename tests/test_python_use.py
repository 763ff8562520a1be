"""What Python users meet first: rooms and names that tab completion shows, and paths as plain strings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import longlode

ROOMS = sorted(path.parent.name for path in Path(longlode.__file__).parent.glob("*/__init__.py"))


def fresh(program):
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_there_after_import_longlode(room):
    assert fresh(f"import longlode; print(longlode.{room}.__name__)").strip() == f"longlode.{room}"


def test_dir_shows_rooms_and_names_without_loading_torch():
    shown = fresh(
        "import sys, longlode; print(*dir(longlode)); print(*dir(longlode.models)); "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    ).splitlines()
    assert {*ROOMS, "register", "__version__"} <= set(shown[0].split())
    assert {"load", "LonglodeConfig", "LonglodeForCausalLM"} <= set(shown[1].split())


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
    assert make_scorer("default", pairs=100).reads_model
    assert make_scorer("paper").pairs == 500


def test_a_model_has_one_name_everywhere():
    from longlode.models import load
    from longlode.readers.lm import ReaderSpec
    from longlode.readers.tokens import TokenReaderSpec

    assert ReaderSpec("starter")().encode(["a word"]) == TokenReaderSpec("starter")().encode(["a word"])
    assert load("starter")[0].config.model_type == "longlode"
