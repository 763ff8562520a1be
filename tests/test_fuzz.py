"""`benchmarks.fuzz` in small: damaged input is read or refused; oracles see a row that is lost, doubled or wrong."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fuzz_readers import READERS, check_lines
from longlode.corpus import Document, read

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False
    )


def fuzz(tmp_path, kinds, mutants):
    result = tmp_path / "result.json"
    done = python(
        "-m", "benchmarks.fuzz", "--kinds", kinds, "--mutants", mutants, "--seed", 3, "--json", result
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(result.read_text())
    assert told["findings"] == []
    return told["num_mutants"]


def test_damaged_corpora_and_recipes_take_nothing_along(tmp_path):
    assert fuzz(tmp_path, "jsonl,gz,zst,txt,parquet,arrow,recipe", 560) == 560


def test_damaged_archives_lose_no_whole_record(tmp_path):
    pytest.importorskip("fastwarc", reason="needs longlode[warc]")
    assert fuzz(tmp_path, "wet,warc", 300) == 300


@pytest.mark.slow
def test_damaged_folders_are_refused_or_mended(tmp_path):
    assert fuzz(tmp_path, "parts,parts-selected,scores-record,shards,checkpoints,model,state", 21) == 21


@pytest.fixture
def lines(tmp_path):
    data = b'{"id": "a", "text": "one"}\n\n{"text": ""}\n{"text": "open\n[1]\n{"id": "b", "text": "two"}'
    path = tmp_path / "file.jsonl"
    path.write_bytes(data)
    return data, list(read([str(path)]))


def test_the_oracle_of_lines_agrees_with_the_reader(lines):
    data, rows = lines
    assert [row.row for row in rows] == [0, 2, 3, 4, 5]
    assert check_lines(data, rows) == ""


def test_the_oracle_of_lines_sees_every_kind_of_loss(lines):
    data, rows = lines
    changed = [replace(row, text="other") if isinstance(row, Document) else row for row in rows]
    assert "gave no row" in check_lines(data, rows[:-1])
    assert "twice" in check_lines(data, [*rows, rows[0]])
    assert "lost or changed" in check_lines(data, changed)
    assert "lost or changed" in check_lines(data, [replace(rows[1], row=0), *rows[1:]])
    assert "became a document" in check_lines(data, [rows[0], replace(rows[0], row=2), *rows[2:]])
    assert "no line gave" in check_lines(data, [*rows, replace(rows[0], row=9)])


LOSING = """
import sys
from pathlib import Path
from benchmarks import fuzz_readers
from benchmarks.fuzz import try_numbers

work = Path(sys.argv[1])
real = fuzz_readers.read_unit
fuzz_readers.read_unit = lambda unit, **options: list(real(unit, **options))[1:]
for kind in fuzz_readers.READERS[:6]:
    print(kind.name, len(try_numbers(kind, 0, range(8), work)))
"""


def test_a_reader_that_loses_a_row_is_seen(tmp_path):
    done = python("-c", LOSING, tmp_path)
    found = dict(line.split() for line in done.stdout.splitlines())
    assert set(found) == {kind.name for kind in READERS[:6]}, done.stderr
    assert all(int(number) >= 6 for number in found.values()), found


MISBEHAVING = """
import os, sys, time
from pathlib import Path
from benchmarks.fuzz import try_numbers
from benchmarks.fuzz_readers import Kind

class Bad(Kind):
    name, limit = "bad", 0.5
    def prepare(self, template): pass
    def try_one(self, draw, template, place):
        number = len(list(place.parent.glob("seen*")))
        (place.parent / f"seen{number}").touch()
        if number == 1: raise KeyError("lost")
        if number == 2: os.abort()
        if number == 3: time.sleep(30)
        return "wrong" if number == 4 else ""

for finding in try_numbers(Bad(), 0, range(6), Path(sys.argv[1])):
    print(finding["number"], finding["what"].split(":")[0])
"""


def test_exceptions_deaths_and_hangs_are_findings(tmp_path):
    done = python("-c", MISBEHAVING, tmp_path)
    assert done.stdout.splitlines() == ["1 KeyError", "2 the process died", "3 hung", "4 wrong"], done.stderr
