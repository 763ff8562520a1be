"""What goes wrong around a scoring run: stopped workers, damaged parts, inputs that move, names that are not UTF-8."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from mining_fakes import POISON, make_faulty, make_reader, random_text, records

from longlode.core.errors import BackendError, InputError
from longlode.core.records import read_record, write_jsonl
from longlode.corpus import streams
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.engine.parts import read_info
from longlode.mining.engine.pulse import BEAT_SECONDS, Sign, Watch

SETTINGS = ScoreSettings(segment=8, rows_per_unit=2)


def run(inputs, out, *, maker=make_reader, scorer=None, settings=SETTINGS, **options):
    return score(
        inputs,
        out,
        scorer=scorer or make_scorer("paper", pairs=10),
        make_reader=maker,
        reader_fingerprint="cache-model",
        settings=settings,
        overwrite=True,
        **options,
    )


def rows(out):
    names = [part["part"] for part in read_record(out, "scores")["parts"]]
    return [
        row for name in names for row in pq.read_table(out / "parts" / name, partitioning=None).to_pylist()
    ]


@pytest.mark.parametrize("fault", ["stop", "hang"])
def test_a_worker_that_stops_is_replaced_and_takes_only_its_document_along(tmp_path, fault):
    documents = records(6)
    documents[3]["text"] = f"{POISON} {random_text('x', 100)}"
    write_jsonl(tmp_path / "in.jsonl", documents)
    limits = {"stop": {"silent_seconds": 4.0}, "hang": {"stuck_seconds": 4.0}}[fault]
    summary = run(
        tmp_path / "in.jsonl",
        tmp_path / "out",
        maker=make_faulty(fault),
        settings=replace(SETTINGS, **limits),
        num_workers=2,
    )
    assert summary.complete
    assert summary.counts == {"failed": 1, "ok": 5}
    (row,) = [row for row in rows(tmp_path / "out") if row["status"] == "failed"]
    why = {"stop": "gave no sign of life for 4 seconds", "hang": "got nothing done for 4 seconds"}[fault]
    assert (row["id"], why in row["reason"]) == ("doc-003", True)
    assert run(tmp_path / "in.jsonl", tmp_path / "out").num_reused == 3


class Pipe:
    """The reading end of a pulse, without a process."""

    def __init__(self):
        self.told = []

    def poll(self):
        return bool(self.told)

    def recv(self):
        return self.told.pop(0)


def test_time_that_the_whole_job_was_asleep_does_not_count(monkeypatch):
    now, pipe = [0.0], Pipe()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    watch = Watch(pipe, silent_seconds=10.0, stuck_seconds=100.0)

    def look(seconds, *told):
        now[0] += seconds
        pipe.told += (Sign(*one) for one in told)
        return watch.stopped({7})

    assert look(1, (7, 1, True)) == {}
    assert look(86_400.0) == {}  # the lid was closed; the worker has not had its turn yet
    assert all(look(BEAT_SECONDS) == {} for _ in range(7))
    for _ in range(3):
        found = look(BEAT_SECONDS)
    assert found == {7: "gave no sign of life for 10 seconds"}
    # Busy without a step: alive, and stuck after 100 seconds; idle for as long is nothing.
    assert all(look(BEAT_SECONDS, (7, 2, False)) == {} for _ in range(200))
    assert all(look(BEAT_SECONDS, (7, 2, True)) == {} for _ in range(100))
    assert look(BEAT_SECONDS, (7, 2, True)) == {7: "got nothing done for 100 seconds"}
    assert look(BEAT_SECONDS, (7, 3, True)) == {}


THREADS = """
import sys
from pathlib import Path
import torch
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.readers.lm import ReaderSpec
if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    spec = ReaderSpec(sys.argv[2], segment=32)
    score(sys.argv[1], Path(sys.argv[3]), scorer=make_scorer("paper", pairs=20), make_reader=spec,
          reader_fingerprint=spec().fingerprint, settings=ScoreSettings(segment=32, rows_per_unit=2),
          num_workers=int(sys.argv[5]))
"""


def test_threads_and_workers_change_no_byte(tmp_path):
    """A DeltaNet of width 64, whose sums round otherwise with another number of threads."""
    torch = pytest.importorskip("torch")
    from longlode.corpus import train_bpe
    from longlode.models import LonglodeConfig, LonglodeForCausalLM

    texts = [f"{n} {random_text(str(n), 600)}" for n in range(6)]
    tokenizer = train_bpe(texts, 300)
    torch.manual_seed(0)
    config = LonglodeConfig(vocab_size=tokenizer.vocab_size, hidden_size=64, num_heads=2, mixers="DD")
    LonglodeForCausalLM(config).save_pretrained(tmp_path / "model")
    tokenizer.save(tmp_path / "model")
    write_jsonl(tmp_path / "in.jsonl", [{"id": str(n), "text": text} for n, text in enumerate(texts)])
    (tmp_path / "run.py").write_text(THREADS)
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    found = []
    for threads, workers in ((1, 1), (2, 1), (2, 2)):
        out = tmp_path / f"out-{threads}-{workers}"
        command = [sys.executable, "run.py", "in.jsonl", "model", out, threads, workers]
        done = subprocess.run(
            [*map(str, command)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append({path.name: path.read_bytes() for path in (out / "parts").iterdir()})
    assert len(found[0]) == 3
    assert all(one == found[0] for one in found)


def test_the_number_of_threads_names_what_a_model_has_read_and_nothing_else(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(2))
    many = replace(SETTINGS, threads=2)
    run(tmp_path / "in.jsonl", tmp_path / "out")
    assert run(tmp_path / "in.jsonl", tmp_path / "out", settings=many).num_reused == 0
    assert read_record(tmp_path / "out", "scores")["threads"] == 2
    free = make_scorer("overlap")
    run(tmp_path / "in.jsonl", tmp_path / "out", scorer=free)
    assert run(tmp_path / "in.jsonl", tmp_path / "out", scorer=free, settings=many).num_reused == 1


def test_a_flipped_byte_anywhere_in_a_part_is_seen_and_mended(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", records(2))
    run(tmp_path / "in.jsonl", tmp_path / "out")
    (part,) = (tmp_path / "out" / "parts").iterdir()
    whole = part.read_bytes()
    assert read_info(part) is not None
    # The names of the columns lie in the footer, which no checksum of Parquet covers.
    places = [*range(0, len(whole), 97), whole.rindex(b"status"), whole.rindex(b"gzip_ratio"), len(whole) - 9]
    for place in places:
        part.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert read_info(part) is None, place
    part.write_bytes(whole[:-1])
    assert read_info(part) is None
    assert run(tmp_path / "in.jsonl", tmp_path / "out").num_reused == 0
    assert part.read_bytes() == whole


def test_what_cannot_be_read_just_now_is_no_result(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.txt").write_text(random_text("a", 100))
    (folder / "b.txt").write_text(random_text("b", 100))
    real, calls = streams.stores.open_bytes, []

    def sometimes(path):
        calls.append(path)
        if path.endswith("b.txt") and len(calls) > 2:  # it could be read when it was planned
            raise OSError(errno.EIO, "Input/output error", path)
        return real(path)

    monkeypatch.setattr(streams.stores, "open_bytes", sometimes)
    summary = run(folder, tmp_path / "out")
    assert "b.txt: cannot be read: input/output error" in summary.failed_units[0]["error"]
    assert list((tmp_path / "out" / "parts").iterdir()) == []
    monkeypatch.undo()
    assert run(folder, tmp_path / "out").counts == {"ok": 2}


def test_a_file_that_moves_away_or_changes_during_the_run_is_no_result(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "abcd":
        (folder / f"{name}.txt").write_text(random_text(name, 100))
    settings = replace(SETTINGS, rows_per_unit=1)

    def change(done):
        if done.units == 1 and (folder / "b.txt").exists():
            (folder / "b.txt").rename(tmp_path / "b.txt")
            # Of the same size.
            (folder / "c.txt").write_text(" ".join(reversed((folder / "c.txt").read_text().split(" "))))

    summary = run(folder, tmp_path / "out", settings=settings, progress=change)
    # b.txt was planned already; c.txt, which was not, is read as it is then.
    assert [unit["unit"]["files"][0]["name"] for unit in summary.failed_units] == ["b.txt"]
    assert summary.counts == {"ok": 3}
    (tmp_path / "b.txt").rename(folder / "b.txt")
    again = run(folder, tmp_path / "out", settings=settings)
    assert (again.num_reused, again.counts) == (3, {"ok": 4})
    run(folder, tmp_path / "fresh", settings=settings)
    assert rows(tmp_path / "out") == rows(tmp_path / "fresh")


def test_a_glob_does_not_read_its_own_output(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    write_jsonl(folder / "in.jsonl", records(4))
    for pattern in ("*", "**/*"):
        summaries = [run(f"{folder}/{pattern}", folder / "scores") for _ in range(2)]
        assert [one.num_documents for one in summaries] == [4, 4]
        assert summaries[1].num_reused == 2
    with pytest.raises(InputError, match="inside the input folder"):
        run(folder, folder / "scores")


def test_names_that_are_not_utf8(tmp_path):
    bad = os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.txt")
    for path in (Path(bad), tmp_path / "good.txt"):
        path.write_text(random_text("a", 100))
    summary = run([bad, tmp_path / "good.txt"], tmp_path / "out")
    assert summary.counts == {"failed": 1, "ok": 1}
    assert read_record(tmp_path / "out", "scores")["inputs"][0].endswith("/bad\\xff.txt")
    assert {row["file"] for row in rows(tmp_path / "out")} == {"bad\\xff.txt", "good.txt"}
    with pytest.raises(InputError, match=r"out.xff' is not UTF-8"):
        run(tmp_path / "good.txt", Path(os.fsdecode(os.fsencode(tmp_path) + b"/out\xff")))


MODEL_FREE = """
import sys
from pathlib import Path
from longlode.mining import make_scorer, score
if __name__ == "__main__":
    workers = int(sys.argv[3])
    summary = score(sys.argv[1], Path(sys.argv[2]), scorer=make_scorer("coherence", pairs=0), num_workers=workers)
    assert summary.counts == {"ok": 3}, summary
    print(*{"torch", "transformers"}.intersection(sys.modules))
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_score_without_a_model_needs_no_reader_and_loads_no_torch(tmp_path, workers):
    text = " ".join(f"The {n % 37}th house of the {n % 11}th street is number {n}." for n in range(300))
    for n in range(3):
        (tmp_path / f"{n}.txt").write_text(f"{n} {text}")
    program = tmp_path / "program.py"
    # A worker imports what it needs from the same place: one that finds a torch that cannot be imported.
    (tmp_path / "stub").mkdir()
    for name in ("torch", "transformers"):
        (tmp_path / "stub" / f"{name}.py").write_text(f"raise ImportError('{name} was imported')")
    program.write_text(MODEL_FREE)
    path = os.pathsep.join([str(tmp_path / "stub"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(program), f"{tmp_path}/*.txt", str(tmp_path / "out"), str(workers)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_shared_memory_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    def read_only(*args, **kwargs):  # as the system refuses a semaphore where /dev/shm is read-only
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", read_only)
    write_jsonl(tmp_path / "in.jsonl", records(4))
    with pytest.raises(BackendError, match=r"Read-only file system\. They need .*/dev/shm.*--workers 1"):
        run(tmp_path / "in.jsonl", tmp_path / "out", num_workers=2)
