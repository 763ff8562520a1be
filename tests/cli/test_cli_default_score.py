"""`longlode score` as it is without options: no model, a line on the gate, and a warning of select."""

import random
import subprocess
import sys

import pytest

from longlode.api.scores import rivals, score_rows, table_columns
from longlode.core.records import read_jsonl, read_record, write_jsonl
from longlode.mining.gate.evidence import FAMILIES


@pytest.fixture(scope="module")
def documents(tmp_path_factory, sources):
    """Whole source files, the same with their lines in random order, and one that is short."""
    rows = []
    for path in sources[:3]:
        text = path.read_text(encoding="utf-8")[:60_000]
        lines = text.splitlines()
        random.Random(0).shuffle(lines)
        rows += [{"id": path.stem, "text": text}, {"id": f"{path.stem}-mixed", "text": "\n".join(lines)}]
    path = tmp_path_factory.mktemp("default") / "docs.jsonl"
    write_jsonl(path, [*rows, {"id": "short", "text": "def main(): pass\n" * 20}])
    return path


@pytest.fixture(scope="module")
def scores(tmp_path_factory, run, documents):
    out = tmp_path_factory.mktemp("default-scores") / "scores"
    return out, run("score", documents, "-o", out)


def test_text_in_its_order_scores_above_text_that_is_not(scores):
    out, _ = scores
    assert read_record(out, "scores")["scorer"]["name"] == "profile"
    assert read_record(out, "scores")["reader"] is None
    ordered = [row["id"] for row in score_rows(out, order="best", limit=10)]
    assert len(ordered) == 6
    assert {name.endswith("-mixed") for name in ordered[3:]} == {True}


def test_the_table_says_length_gate_and_rival(scores):
    out, shown = scores
    columns = table_columns(out)
    assert columns == ["dependency_tokens", "rival"]
    for words in ("dependency tokens", "No model was read", "too_short: fewer than 1,280 tokens"):
        assert words in shown
    row = score_rows(out, order="worst", limit=1, extras=[*columns, "gate"])[0]
    assert row["gate"] == row["score"] < 0
    assert row["rival"] in FAMILIES.values()
    passed, families = rivals(out)
    assert families[row["rival"]] >= 1
    assert passed + sum(families.values()) == 6
    assert f"{passed} of 6 scored documents are one text in its order" in shown
    assert row["num_tokens"] > 10_000  # estimated where no tokenizer was read


def test_select_says_when_the_share_reaches_what_the_gate_refused(run, scores, tmp_path):
    out, _ = scores
    refused = sum(rivals(out)[1].values())
    shown = run("select", out, "-o", tmp_path / "all.jsonl", "--top", 1)
    assert f"{refused} of the kept documents score below 0" in shown
    assert "below 0" not in run("select", out, "-o", tmp_path / "kept.jsonl", "--min-score", 0)
    assert len(read_jsonl(tmp_path / "kept.jsonl")) == 6 - refused
    assert "below 0" not in run(
        "select", out, "-o", tmp_path / "t.jsonl", "--top", 1, "--column", "gain_nats"
    )


def test_python_takes_the_same_scorer_and_loads_no_torch():
    program = (
        "import sys, longlode\n"
        "rows = longlode.score_texts(['one two three ' * 900])\n"
        "assert 'extras.gate' in rows.column_names\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
