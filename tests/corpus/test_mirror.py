"""Output in stores: local working folders that are copied to their URL."""

import json
import logging
from pathlib import Path

import fsspec
import pytest
from corpus.s3_server import s3_server
from typer.testing import CliRunner

import longlode
from longlode.api.scored_rows import is_scores, show
from longlode.cli.commands import app
from longlode.core.errors import InputError
from longlode.core.outputs import claim_folder
from longlode.core.records import read_record
from longlode.corpus import mirror, read, remote_files
from longlode.corpus.mirror import Mirror, input_folder, mirrored, new_folder, working_folder


@pytest.fixture(autouse=True)
def own_staging(monkeypatch, tmp_path):
    monkeypatch.setenv(mirror.STAGING_VARIABLE, str(tmp_path / "staging"))
    monkeypatch.setattr(remote_files, "FIRST_PAUSE_SECONDS", 0.0)
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]
    return tmp_path / "staging"


def stored():
    memory = fsspec.filesystem("memory")
    return {path: memory.cat(path) for path in memory.find("/")}


def test_finished_files_are_copied_and_vanished_ones_removed():
    with mirrored("memory://b/out") as one:
        (one.local / "parts").mkdir()
        (one.local / "parts" / "x").write_bytes(b"1")
        (one.local / ".hidden.tmp").write_bytes(b"unfinished")
        one.push()
        assert stored() == {"/b/out/parts/x": b"1"}
        (one.local / "record.json").write_bytes(b"{}")
    assert set(stored()) == {"/b/out/parts/x", "/b/out/record.json"}
    assert not one.local.exists(), "a finished working folder is removed"
    with mirrored("memory://b/out") as again:
        assert (again.local / "parts" / "x").read_bytes() == b"1"
        (again.local / "parts" / "x").unlink()
        (again.local / "parts" / "y").write_bytes(b"22")
    assert set(stored()) == {"/b/out/parts/y", "/b/out/record.json"}


def test_an_error_keeps_what_is_finished_in_both_places():
    def fail():
        with mirrored("memory://b/out") as one:
            (one.local / "x").write_bytes(b"1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert stored() == {"/b/out/x": b"1"}
    assert (working_folder("memory://b/out") / "x").exists()


def test_the_record_comes_last_and_not_at_all_without_the_rest(monkeypatch):
    sent = []
    whole = Mirror._send

    def send(self, name):
        sent.append(name)
        if name == "parts/b" and len(sent) == 2:
            raise InputError("the network is down")
        whole(self, name)

    monkeypatch.setattr(Mirror, "_send", send)

    def write_three():
        with mirrored("memory://b/out") as one:
            for name in ("record.json", "parts/a", "parts/b"):
                (one.local / name).parent.mkdir(exist_ok=True)
                (one.local / name).write_bytes(b"1")

    with pytest.raises(InputError, match="down"):
        write_three()
    assert set(stored()) == {"/b/out/parts/a"}
    with mirrored("memory://b/out"):
        pass  # the working folder was kept: the next run sends the rest
    assert sent[2:] == ["parts/b", "record.json"]


def test_a_failing_store_is_tried_again(monkeypatch, caplog):
    memory = fsspec.filesystem("memory")
    put, failures = memory.put_file, [TimeoutError("slow down"), TimeoutError("slow down")]

    def flaky(*args, **kwargs):
        if failures:
            raise failures.pop()
        return put(*args, **kwargs)

    monkeypatch.setattr(type(memory), "put_file", lambda self, *args, **kwargs: flaky(*args, **kwargs))
    with caplog.at_level(logging.WARNING), mirrored("memory://b/out") as one:
        (one.local / "x").write_bytes(b"1")
    assert stored() == {"/b/out/x": b"1"}
    assert caplog.text.count("slow down") == 2


def test_places_that_cannot_be_written():
    with pytest.raises(InputError, match="read only"), mirrored("https://host.org/out"):
        pass
    with pytest.raises(InputError, match="does not exist"):
        input_folder("memory://b/none")
    fsspec.filesystem("memory").pipe("/b/full/x", b"1")
    with pytest.raises(InputError, match="not empty"), new_folder("memory://b/full"):
        pass


def documents(count):
    sentence = "the old lode runs deep below the hill and nobody has seen its end"
    words = sentence.split()
    for number in range(count):
        text = " ".join(words[(number * n) % len(words)] for n in range(1, 700))
        yield json.dumps({"id": f"d{number}", "text": text}).encode() + b"\n"


def work_through(store, inputs, bucket, monkeypatch, tmp_path, workers=1):
    """Score, go on from another machine, select and pack, all in a store."""
    first = longlode.score(inputs, f"{bucket}/scores", limit=3, rows_per_unit=1, scorer="gzip", explain=False)
    assert first.record["num_documents"] == 3
    monkeypatch.setenv(mirror.STAGING_VARIABLE, str(tmp_path / "another machine"))
    rest = longlode.score(
        inputs, f"{bucket}/scores", rows_per_unit=1, scorer="gzip", explain=False, workers=workers
    )
    assert rest.record["num_documents"] == 6
    assert rest.record["num_reused"] == 3
    local = longlode.score(inputs, tmp_path / "local", rows_per_unit=1, scorer="gzip", explain=False)
    assert rest.table().sort_by("id").equals(local.table().sort_by("id"))
    assert show(f"{bucket}/scores", top=2) == show(tmp_path / "local", top=2)
    assert is_scores(f"{bucket}/scores")
    assert not is_scores(f"{bucket}/none.txt")
    told = CliRunner().invoke(app, ["explain", f"{bucket}/scores", "--id", "d2"])
    assert told.exit_code == 0, told.output
    page = ["report", f"{bucket}/scores", "-o", str(tmp_path / "page.html")]
    assert CliRunner().invoke(app, page).exit_code == 0
    summary = longlode.select(f"{bucket}/scores", f"{bucket}/chosen/kept.jsonl.zst", top=0.5)
    assert (summary.out, summary.num_selected) == (f"{bucket}/chosen/kept.jsonl.zst", 3)
    kept = [row.id for row in read(f"{bucket}/chosen/kept.jsonl.zst")]
    assert len(kept) == 3
    with pytest.raises(InputError, match="exists already"):
        longlode.select(f"{bucket}/scores", f"{bucket}/chosen/kept.jsonl.zst", top=0.9)
    again = longlode.select(f"{bucket}/scores", f"{bucket}/chosen/kept.jsonl.zst", top=0.5)
    assert again.num_selected == 3
    longlode.pack(f"{bucket}/chosen/kept.jsonl.zst", f"{bucket}/shards", length=16)
    assert read_record(input_folder(f"{bucket}/shards"), "shards")["num_documents"] == 3
    names = {path.rsplit("/", 1)[-1] for path in store.find(f"{bucket}/chosen")}
    assert names == {"kept.jsonl.zst", "record.json", "dropped.parquet"}
    with pytest.raises(InputError, match="inside the input"):
        longlode.score(f"{bucket}/in", f"{bucket}/in/scores")


def test_the_whole_way_in_memory(monkeypatch, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(b"".join(documents(6)))
    work_through(fsspec.filesystem("memory"), str(tmp_path / "in.jsonl"), "memory://b", monkeypatch, tmp_path)


def test_the_whole_way_in_s3(monkeypatch, tmp_path):
    with s3_server(monkeypatch) as store:
        store.pipe("corpus/in/a.jsonl", b"".join(documents(6)))
        work_through(store, "s3://corpus/in/a.jsonl", "s3://corpus", monkeypatch, tmp_path, workers=2)
        written = b"".join(store.cat(path) for path in store.find("corpus") if not path.endswith(".zst"))
        assert b"hunter2" not in written


def test_commands_that_write_no_urls_say_so():
    for name in ("s3://bucket/runs/1", "gs:/bucket/runs"):
        with pytest.raises(InputError, match=r"://bucket/runs.* is a URL"):
            claim_folder(Path(name), "run")
