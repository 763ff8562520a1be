"""A killed evaluation goes on: no example is lost, none is doubled, none is read twice."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from evaluate_stand_ins import Copier, tokenizer

from longlode.core.records import read_record
from longlode.core.rows import read_rows
from longlode.evaluate import evaluate
from longlode.evaluate.cells import Cells

OPTIONS = {"tasks": ["recall", "passkey"], "lengths": [80, 100, 120], "num_examples": 40}
HERE = Path(__file__).parent


class Stopped(Exception):
    """The kill, as seen from inside one process."""


def stop_after(num):
    def progress(done, total, task):
        if done >= num:
            raise Stopped

    return progress


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    tok, folder = tokenizer(), tmp_path_factory.mktemp("whole")
    record = evaluate(Copier(len(tok)), tok, out=folder, **OPTIONS)
    return record, read_rows(folder / "examples.parquet")


class Counting(Copier):
    """Counts the texts that it reads."""

    num_read = 0

    def forward(self, input_ids, use_cache=False):
        self.num_read += len(input_ids)
        return super().forward(input_ids, use_cache)


def test_stopped_between_cells_reads_the_rest_only(whole, tmp_path):
    tok = tokenizer()
    once, model = Counting(len(tok)), Counting(len(tok))
    evaluate(once, tok, out=tmp_path / "once", **OPTIONS)
    for num in (1, 70, 150, 239):
        with pytest.raises(Stopped):
            evaluate(model, tok, out=tmp_path / "out", progress=stop_after(num), **OPTIONS)
        assert not (tmp_path / "out" / "record.json").exists()
    record = evaluate(model, tok, out=tmp_path / "out", **OPTIONS)
    assert record["summary"] == whole[0]["summary"]
    assert record["examples_fingerprint"] == whole[0]["examples_fingerprint"]
    assert read_rows(tmp_path / "out" / "examples.parquet") == whole[1]
    probes = 4  # each start of a meter tries the model out on one row
    assert once.num_read <= model.num_read <= once.num_read + probes
    assert not (tmp_path / "out" / "parts").exists()


def test_cells_of_other_examples_are_not_taken(whole, tmp_path):
    tok = tokenizer()
    with pytest.raises(Stopped):
        evaluate(Copier(len(tok)), tok, out=tmp_path, seed=5, progress=stop_after(100), **OPTIONS)
    evaluate(Copier(len(tok)), tok, out=tmp_path, **OPTIONS)
    assert read_rows(tmp_path / "examples.parquet") == whole[1]


def test_a_torn_cell_is_asked_again(tmp_path):
    cells = Cells(tmp_path, {"a": 1})
    cells.write("t", 5, 0, ["x"], [{"hard": 1.0}])
    assert Cells(tmp_path, {"a": 1}).read("t", 5, 0) == (["x"], [{"hard": 1.0}])
    assert cells.read("t", 6, 0) is cells.read("t", 5, 32) is None
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(path.read_bytes()[:9])
    assert cells.read("t", 5, 0) is None
    assert Cells(tmp_path, {"a": 2}).read("t", 5, 0) is None


CHILD = """
import sys, time
sys.path.insert(0, sys.argv[2])
from evaluate_stand_ins import Copier, tokenizer
from test_evaluate_resume import OPTIONS
from longlode.evaluate import evaluate

def progress(done, total, task):
    print(done, flush=True)
    time.sleep(0.05)

tok = tokenizer()
evaluate(Copier(len(tok)), tok, out=sys.argv[1], progress=progress, **OPTIONS)
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process")
def test_a_process_killed_at_any_moment_resumes(whole, tmp_path):
    command = [sys.executable, "-c", CHILD, tmp_path, HERE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=HERE) as child:
        assert child.stdout is not None
        for _ in range(3):
            assert child.stdout.readline().strip().isdigit()
        time.sleep(0.06)  # into the next cell
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert list(tmp_path.glob("parts/*/*.json"))
    assert not (tmp_path / "record.json").exists()
    tok = tokenizer()
    evaluate(Copier(len(tok)), tok, out=tmp_path, **OPTIONS)
    rows = read_rows(tmp_path / "examples.parquet")
    assert rows == whole[1]
    counts = Counter((row["task"], row["length"], row["example"]) for row in rows)
    assert set(counts.values()) == {1}
    assert len(counts) == 2 * 3 * 40
    assert read_record(tmp_path, "evaluation")["summary"]
