"""Packing of files: the same bytes for any number of processes, after any kill, with every column carried."""

import json
import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

import longlode
from longlode.core.errors import BackendError, InputError
from longlode.core.records import read_record
from longlode.corpus import Document, read, train_bpe
from longlode.packing import Mixture, open_shards, pack, parallel, plan
from longlode.packing.by_name import pack as pack_files
from longlode.packing.columns import common_kinds, kind_of

SENTENCE = "the quick brown fox jumps over the lazy dog and runs away from 12 hounds"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    train_bpe([" ".join(WORDS)] * 20, 300).save(folder)
    return folder


@pytest.fixture
def corpus(tmp_path):
    """A folder of five units, with records that have fields and rows that are no documents."""
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("a", "b", "c", "d"):
        rows = [
            {
                "id": f"{name}{i}",
                "text": " ".join(WORDS[: 3 + i % 9]),
                "kind": "novel" if i % 3 else "poem",
                "year": 1900 + i,
                "rate": i / 4,
                "file": f"shelf {name}",
                "abstract": "long " * (i * 20),
                "tags": ["x"],
            }
            for i in range(25)
        ]
        lines = [json.dumps(row) for row in rows]
        lines.insert(3, "{torn")
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    (folder / "e.txt").write_text(" ".join(WORDS * 30))
    return folder


def contents(folder):
    """Bytes of every file of the shards, without what a record says of the machine."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    return found | {"record.json": read_record(folder)}


def packed(corpus, out, tokenizer, **options):
    return pack_files(corpus, out, tokenizer=tokenizer, length=32, **options)


def test_processes_files_and_documents_give_the_same_shards(tmp_path, corpus, tokenizer):
    summary = packed(corpus, tmp_path / "one", tokenizer)
    assert packed(corpus, tmp_path / "two", tokenizer, workers=2) == summary
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert (summary["num_documents"], summary["num_failed"]) == (101, 4)
    pack(read(corpus), longlode.corpus.Tokenizer.load(tokenizer), tmp_path / "three", length=32)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "one", "two", "three"}


KILLED = """
import os, sys
from longlode.packing import parallel, writer
from longlode.packing.by_name import pack

where, count = sys.argv[4], int(sys.argv[5])
module = parallel if where == "write_part" else writer
real, calls = getattr(module, where), 0

def counted(*arguments, **options):
    global calls
    calls += 1
    if calls == count:
        os.kill(os.getpid(), 9)
    return real(*arguments, **options)

setattr(module, where, counted)
pack(sys.argv[1], sys.argv[2], tokenizer=sys.argv[3], length=32)
"""


@pytest.mark.parametrize(("where", "count", "left"), [("write_part", 3, 2), ("_finish", 1, 5)])
def test_a_killed_run_goes_on_and_gives_the_same_bytes(
    tmp_path, corpus, tokenizer, monkeypatch, where, count, left
):
    packed(corpus, tmp_path / "whole", tokenizer)
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(corpus),
        str(tmp_path / "out"),
        str(tokenizer),
        where,
        str(count),
    ]
    assert subprocess.run(command, check=False).returncode == -9
    parts = tmp_path / ".out.parts"
    assert len(list(parts.glob("*.part"))) == left
    torn = sorted(parts.glob("*.part"))[0]
    torn.write_bytes(torn.read_bytes()[:-3])
    made = []
    real = parallel.write_part
    monkeypatch.setattr(parallel, "write_part", lambda path, part: made.append(path.name) or real(path, part))
    packed(corpus, tmp_path / "out", tokenizer)
    assert len(made) == 5 - left + 1
    assert torn.name in made
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"corpus", "whole", "out"}


def test_parts_that_a_finished_run_left_are_removed(tmp_path, corpus, tokenizer, monkeypatch):
    kept = {}
    monkeypatch.setattr(parallel.shutil, "rmtree", lambda path, **_: kept.update(path=path))
    packed(corpus, tmp_path / "out", tokenizer)  # killed before it removed the parts
    monkeypatch.undo()
    parts = tmp_path / ".out.parts"
    assert kept["path"] == parts
    before = contents(tmp_path / "out")
    (parts / "of_another_run.part").write_bytes(b"")
    with pytest.raises(InputError, match="already holds"):
        packed(corpus, tmp_path / "out", tokenizer)
    assert parts.exists()  # these may be of a run with other options
    (parts / "of_another_run.part").unlink()
    with pytest.raises(InputError, match="already holds"):
        packed(corpus, tmp_path / "out", tokenizer)
    assert not parts.exists()
    assert contents(tmp_path / "out") == before


def test_parts_of_another_input_are_not_used(tmp_path, corpus, tokenizer, monkeypatch):
    def fails(*arguments):
        raise KeyboardInterrupt

    real = parallel.assemble
    monkeypatch.setattr(parallel, "assemble", fails)
    with pytest.raises(KeyboardInterrupt):
        packed(corpus, tmp_path / "out", tokenizer)
    before = {path.name for path in (tmp_path / ".out.parts").iterdir()}
    assert len(before) == 5
    (corpus / "b.jsonl").write_text('{"text": "quite another text about the lazy dog"}')
    with pytest.raises(KeyboardInterrupt):
        packed(corpus, tmp_path / "out", tokenizer)
    after = {path.name for path in (tmp_path / ".out.parts").iterdir()}
    assert (len(after), len(before & after)) == (5, 4)
    monkeypatch.setattr(parallel, "assemble", real)
    assert packed(corpus, tmp_path / "out", tokenizer)["num_documents"] == 77


def test_what_lies_beside_the_output_is_no_input(tmp_path, corpus, tokenizer, monkeypatch):
    whole = packed(corpus, tmp_path / "whole", tokenizer)
    for name in (".out.parts", ".out.0123abcd-1-1.tmp"):
        (corpus / name).mkdir()
        (corpus / name / "left.jsonl").write_text('{"text": "left by a killed run"}')
    assert packed(corpus, corpus / "out", tokenizer) == whole


def test_a_worker_that_dies_is_an_error_that_says_how_to_go_on(tmp_path, corpus, tokenizer):
    jobs = [parallel._Job(parallel.PackUnit(None), tmp_path / f"{n}.part", "text", "utf-8") for n in range(2)]
    with pytest.raises(BackendError, match="same command again"):
        list(parallel._in_pool(jobs, _DiesWhenLoaded(), 2))


class _DiesWhenLoaded:
    def __reduce__(self):
        return os._exit, (9,)


def test_fields_become_columns(tmp_path, corpus, tokenizer):
    packed(corpus, tmp_path / "out", tokenizer)
    shards = open_shards(tmp_path / "out", verify=True)
    record = read_record(tmp_path / "out")
    assert record["columns_left_out"] == ["abstract", "tags"]
    assert record["columns"] == list(shards.columns)
    names = shards.column("id").to_pylist()
    at = names.index("b7")
    found = {name: shards.column(name)[at].as_py() for name in ("kind", "year", "rate", "input.file", "file")}
    assert found == {"kind": "novel", "year": 1907, "rate": 1.75, "input.file": "shelf b", "file": "b.jsonl"}
    assert shards.column("year")[names.index("e.txt")].as_py() is None
    mix = Mixture.parse("kind:poem=1,year:1910..1920=1,rest=1")
    schedule = plan(shards, "truncate", length=32, batch_size=1, seed=0, mix=mix)
    assert [source.num_documents for source in schedule.sources(1)] == [
        36,
        28,
        37,
    ]  # of 25 in each file: 9, 7


def test_columns_of_several_types_and_folders_have_a_common_one(tmp_path, tokenizer):
    words = longlode.corpus.Tokenizer.load(tokenizer)
    for name, values in (("a", [1, None, 2]), ("b", [0.5, 3, None]), ("c", ["x", True, None])):
        rows = [
            Document(f"{name}{i}", "the quick dog", "s", "f", i, {"v": value})
            for i, value in enumerate(values)
        ]
        pack(rows, words, tmp_path / name, length=2)
    pack([Document("d", "the quick dog", "s", "f", 0, {"w": 1})], words, tmp_path / "d", length=2)

    def column(*folders):
        return open_shards([tmp_path / folder for folder in folders]).column("v").to_pylist()

    assert column("a", "b") == [1.0, None, 2.0, 0.5, 3.0, None]
    assert column("a", "c", "d") == ["1", None, "2", "x", "true", None, None]
    assert [kind_of(value) for value in (True, 2**70, "é" * 129, [1], None)] == [
        "bool",
        "string",
        "not carried",
        "not carried",
        "null",
    ]
    assert common_kinds([{"a": "int64"}, {"a": "float64", "b": "bool"}]) == {"a": "float64", "b": "bool"}


def test_a_scores_folder_is_packed_with_its_scores(tmp_path, corpus, tokenizer):
    longlode.score(corpus, tmp_path / "scores", scorer="gzip")
    summary = packed(tmp_path / "scores", tmp_path / "out", tokenizer)
    assert packed(corpus, tmp_path / "plain", tokenizer)["fingerprint"] == summary["fingerprint"]
    shards = open_shards(tmp_path / "out")
    parts = [pq.ParquetFile(path).read() for path in (tmp_path / "scores" / "parts").glob("*.parquet")]
    scored = {
        row["id"]: row["gzip_ratio"] for part in parts for row in part.to_pylist() if row["status"] == "ok"
    }
    found = dict(zip(shards.column("id").to_pylist(), shards.column("gzip_ratio").to_pylist(), strict=True))
    assert {name: found[name] for name in scored} == scored
    assert len(scored) > 0
    assert {"kind", "score", "status"} < set(shards.columns)
    longlode.score(corpus, tmp_path / "merged", scorer="gzip", rows_per_unit=1, units_per_part=3)
    assert any("-" in path.stem for path in (tmp_path / "merged" / "parts").iterdir())
    assert packed(tmp_path / "merged", tmp_path / "from merged", tokenizer) == summary
    merged = open_shards(tmp_path / "from merged")
    assert merged.column("gzip_ratio").equals(shards.column("gzip_ratio"))
    with pytest.raises(InputError, match="alone"):
        pack_files([tmp_path / "scores", corpus], tmp_path / "both", tokenizer=tokenizer, length=32)
    (corpus / "a.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"scored|changed"):
        packed(tmp_path / "scores", tmp_path / "again", tokenizer)
