"""Many units: merged parts, several runs on one folder, shards; the rows are those of one plain run."""

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

import longlode
from longlode.api.scored_rows import show
from longlode.core.errors import ConfigError, InputError
from longlode.core.records import read_record, write_json
from longlode.corpus import Shard, stores
from longlode.mining import ScoreSettings, make_scorer, score, select
from longlode.mining.engine import claims as claims_module
from longlode.mining.engine import flow
from longlode.mining.engine.claims import Claims, claiming, read_run, run_files
from longlode.mining.engine.merging import units_path
from longlode.mining.engine.verified import VERIFIED_NAME

SETTINGS = ScoreSettings(rows_per_unit=3, units_per_part=4)


def lines(first, number):
    draw = random.Random(first)
    words = ["river", "captain", "letter", "garden", "winter", "window"]
    for n in range(first, first + number):
        yield (
            json.dumps({"id": f"d{n}", "text": " ".join(draw.choice(words) for _ in range(20 + n % 30))})
            + "\n"
        )


@pytest.fixture
def corpus(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    for name, first, number in (("b", 0, 80), ("d", 100, 70)):
        (root / f"{name}.jsonl").write_text("".join(lines(first, number)))
    return root


def run(corpus, out, *, settings=SETTINGS, **options):
    return score(corpus, out, scorer=make_scorer("gzip"), settings=settings, **options)


def names(out):
    return [entry["part"] for entry in read_record(out, "scores")["parts"]]


def rows(out):
    return [row for name in names(out) for row in pq.read_table(out / "parts" / name).to_pylist()]


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in ("record.json", VERIFIED_NAME)
    }


def test_parts_are_merged_and_nothing_else_changes(corpus, tmp_path):
    plain = run(corpus, tmp_path / "plain", settings=replace(SETTINGS, units_per_part=1))
    merged = run(corpus, tmp_path / "merged")
    assert plain.num_units == merged.num_units == 51
    assert rows(tmp_path / "plain") == rows(tmp_path / "merged")
    assert len(names(tmp_path / "plain")) == 51
    assert sorted(names(tmp_path / "merged")) == sorted(p.name for p in (tmp_path / "merged/parts").iterdir())
    many = [name for name in names(tmp_path / "merged") if "-" in name]
    assert len(many) >= 5
    assert all(2 <= int(name.removesuffix(".parquet").split("-")[1]) <= 16 for name in many)
    records = [read_record(tmp_path / name, "scores") for name in ("plain", "merged")]
    for field in ("counts", "num_documents", "score_quantiles", "duplicates", "cost", "num_units"):
        assert records[0][field] == records[1][field]
    before = contents(tmp_path / "merged")
    again = run(corpus, tmp_path / "merged", num_workers=2)
    assert (again.num_reused, again.num_units, again.counts) == (51, 51, {"ok": 150})
    assert contents(tmp_path / "merged") == before


def test_a_resumed_run_reads_no_input_again(corpus, tmp_path, monkeypatch):
    run(corpus, tmp_path / "out")

    def fail(path):
        raise AssertionError(f"{path} was opened")

    monkeypatch.setattr("longlode.corpus.stores.open_bytes", fail)
    assert run(corpus, tmp_path / "out").num_reused == 51


def test_a_damaged_or_missing_merged_part_is_made_again(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    whole = contents(tmp_path / "out")
    first, second, *_ = [name for name in names(tmp_path / "out") if "-" in name]
    path = tmp_path / "out/parts" / first
    path.write_bytes(path.read_bytes()[:-30])
    (tmp_path / "out/parts" / second).unlink()
    units_path(tmp_path / "out", second.removesuffix(".parquet")).write_bytes(b"torn")
    lost = sum(int(name.removesuffix(".parquet").split("-")[1]) for name in (first, second))
    assert run(corpus, tmp_path / "out").num_reused == 51 - lost
    assert contents(tmp_path / "out") == whole


def test_parts_of_known_size_and_time_are_hashed_only_to_verify(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    whole = contents(tmp_path / "out")
    path = tmp_path / "out/parts" / next(name for name in names(tmp_path / "out") if "-" in name)
    about, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    lost = int(path.stem.split("-")[1])
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))  # as a fault of the disk leaves it
    assert run(corpus, tmp_path / "out").num_reused == 51
    assert path.read_bytes() == data
    checked = run(corpus, tmp_path / "out", settings=replace(SETTINGS, verify=True))
    assert checked.num_reused == 51 - lost
    assert contents(tmp_path / "out") == whole
    path.write_bytes(data)  # with another time it is seen without
    assert run(corpus, tmp_path / "out").num_reused == 51 - lost
    (tmp_path / "out/plan" / VERIFIED_NAME).write_bytes(b"torn")
    assert run(corpus, tmp_path / "out").num_reused == 51


@pytest.mark.parametrize("rows_per_pass", [7, 10_000])
def test_repeated_ids_are_counted_in_any_number_of_passes(tmp_path, monkeypatch, rows_per_pass):
    monkeypatch.setattr("longlode.mining.engine.summary._ROWS_PER_PASS", rows_per_pass)
    draw = random.Random()
    ids = [f"d{draw.randrange(150)}" for _ in range(120)]
    rows = [json.dumps({"id": name, "text": "so it was told"}) + "\n" for name in ids]
    (tmp_path / "in.jsonl").write_text("".join(rows))
    run(tmp_path / "in.jsonl", tmp_path / "out")
    counts = {name: count for name, count in Counter(ids).items() if count > 1}
    found = read_record(tmp_path / "out")["duplicates"]
    assert found["num_ids"] == len(counts)
    assert found["num_rows"] == sum(counts.values()) - len(counts)
    places = {name: [f"in.jsonl#{n}" for n, one in enumerate(ids) if one == name] for name in counts}
    assert all(sorted(places[one["id"]]) == sorted(one["places"]) for one in found["first"])
    assert [one["id"] for one in found["first"]] == sorted(counts)[:20]


def test_more_files_in_the_middle_keep_what_is_done(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    (corpus / "c.jsonl").write_text("".join(lines(1000, 40)))
    with (corpus / "d.jsonl").open("a") as stream:
        stream.writelines(lines(2000, 5))
    summary = run(corpus, tmp_path / "out", overwrite=True)
    # Of the old units only the last one of d.jsonl is another now: it had one row and has three.
    assert summary.num_reused == 50
    run(corpus, tmp_path / "fresh")
    assert rows(tmp_path / "out") == rows(tmp_path / "fresh")
    parts = [{k: v for k, v in contents(tmp_path / n).items() if "parts/" in k} for n in ("out", "fresh")]
    old = parts[0].keys() - parts[1].keys()
    assert {name: parts[0][name] for name in parts[1]} == parts[1]
    assert len(old) <= 1  # the part of the unit that is another now


def test_rows_of_merged_parts_are_found_in_the_input(corpus, tmp_path):
    run(corpus, tmp_path / "out")
    found = [json.loads(line) for path in corpus.iterdir() for line in path.read_text().splitlines()]
    texts = {row["id"]: row["text"] for row in found}
    for row in show(tmp_path / "out", top=40, excerpt=1000):
        assert row["excerpt"] == texts[row["id"]]
    select(tmp_path / "out", tmp_path / "kept.jsonl", top=0.4)
    kept = [json.loads(line) for line in (tmp_path / "kept.jsonl").read_text().splitlines()]
    scores = {row["id"]: row["score"] for row in rows(tmp_path / "out")}
    assert len(kept) == 60
    assert all(texts[row["id"]] == row["text"] and scores[row["id"]] == row["score"] for row in kept)
    part = next(name for name in names(tmp_path / "out") if "-" in name)
    units_path(tmp_path / "out", part.removesuffix(".parquet")).unlink()
    with pytest.raises(InputError, match="list of units"):
        select(tmp_path / "out", tmp_path / "other.jsonl", top=0.4)


def test_scores_of_the_format_before_are_read_and_not_continued(corpus, tmp_path):
    run(corpus, tmp_path / "out", settings=replace(SETTINGS, units_per_part=1))
    record = read_record(tmp_path / "out", "scores")
    for entry in record["parts"]:
        unit = entry["unit"]
        del unit["digest"], unit["end"]
        unit["checksum"] = 1
    write_json(tmp_path / "out/record.json", {**record, "part_format": 3})
    assert show(tmp_path / "out", top=1, excerpt=50)[0]["excerpt"]
    assert select(tmp_path / "out", tmp_path / "kept.jsonl", top=0.2).num_selected == 30
    with pytest.raises(InputError, match="part_format: there 3, now 4"):
        run(corpus, tmp_path / "out")


def test_shards_of_one_folder_make_one_scores_folder(corpus, tmp_path, caplog):
    settings = replace(SETTINGS, bytes_per_unit=400)
    run(corpus, tmp_path / "whole", settings=settings)
    out = tmp_path / "out"
    for number in (3, 1):
        summary = run(corpus, out, settings=settings, shard=Shard(number, 3))
        assert summary.complete
        assert 10 < summary.num_documents < 100
    assert summary.shards_missing == (2,)
    assert not read_record(out)["complete"]
    with pytest.raises(InputError, match="it lacks 2 of its 3 shards"):
        select(out, tmp_path / "kept.jsonl", top=0.5)
    assert run(corpus, out, settings=settings, shard=Shard(2, 3)).shards_missing == ()

    def by_place(folder):
        return sorted(rows(folder), key=lambda row: (row["file"], row["row"]))

    assert by_place(out) == by_place(tmp_path / "whole")
    records = [read_record(folder, "scores") for folder in (out, tmp_path / "whole")]
    for field in ("counts", "num_documents", "score_quantiles", "duplicates", "cost", "complete", "inputs"):
        assert records[0][field] == records[1][field]
    before = contents(out)
    again = run(corpus, out, settings=settings, shard=Shard(2, 3))
    assert again.num_reused == again.num_units
    assert {k: v for k, v in contents(out).items() if "shards/" not in k} == {
        k: v for k, v in before.items() if "shards/" not in k
    }
    assert select(out, tmp_path / "kept.jsonl", top=0.5).num_selected == 75
    with pytest.raises(ConfigError, match="not both"):
        run(corpus, out, settings=settings, shard=Shard(2, 3), limit=5)
    torn = next((out / "shards").glob("*1*3*.json"))
    torn.write_text("{")
    assert run(corpus, out, settings=settings, shard=Shard(2, 3)).shards_missing == (1,)
    assert f"{torn} is not valid JSON" in caplog.text


class Other:
    """Another run on the folder: its file, by hand."""

    def __init__(self, out: Path, tag: str, **fields):
        self.path = out / "runs" / f"{tag}.json"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.fields = {"beat": 1, "in_hand": {}, "written": 0.0} | fields
        self.write()

    def write(self, **fields):
        self.fields |= fields
        self.path.write_text(json.dumps(self.fields))


def test_a_claim_lapses_when_its_run_stands_still_whatever_the_clocks_say(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.time", lambda: 5.0)  # this machine's clock is wrong by half a century
    claims = Claims(tmp_path / "runs", lease_seconds=60.0)
    other = Other(tmp_path, "0badcafe-1-1", in_hand={"a": 0.0}, written=2e9)
    assert not claims.take("a")
    assert claims.take("b")
    assert read_run(claims.path)["in_hand"].keys() == {"b"}
    for beat in range(2, 6):  # alive, for longer than a lease
        now[0] += 50.0
        other.write(beat=beat)
        assert not claims.take("a")
    now[0] += 59.0
    assert not claims.take("a")
    now[0] += 2.0
    assert claims.take("a")
    assert not other.path.exists()
    claims.release("a")
    claims.end()
    assert not (tmp_path / "runs").exists()


def test_a_half_written_claim_of_a_dead_run_is_removed(tmp_path):
    (tmp_path / "runs").mkdir()
    dead = subprocess.run(
        [sys.executable, "-c", "from longlode.core.processes import process_tag; print(process_tag())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (tmp_path / "runs" / f".{dead}.json.{dead}.tmp").write_text("{")
    with claiming(tmp_path, dict):
        pass
    assert not (tmp_path / "runs").exists()


def test_two_that_claim_at_once_agree_on_one(tmp_path, monkeypatch):
    claims = Claims(tmp_path / "runs")
    before = claims_module.process_tag()
    for tag, wins in (("00000000-1-1", False), ("ffffffff-1-1", True)):
        other = Other(tmp_path, tag)
        assert claims.is_taken("x") is False
        real = Claims.beat

        def both(self, other=other, real=real):  # the other has looked as well, and writes just before
            other.write(beat=other.fields["beat"] + 1, in_hand={"x": 0.0})
            real(self)

        monkeypatch.setattr(Claims, "beat", both)
        assert claims.take("x") is wins, before
        monkeypatch.undo()
        claims.release("x")
        other.path.unlink()


def test_units_of_a_dead_run_are_done_after_its_lease_and_the_others_before(corpus, tmp_path, monkeypatch):
    run(corpus, tmp_path / "whole")
    taken = [path.stem for path in (tmp_path / "whole/parts").iterdir() if "-" not in path.stem]
    assert taken
    out = tmp_path / "out"
    out.mkdir()
    other = Other(out, "0badcafe-1-1", in_hand=dict.fromkeys(taken, 1.0))
    now, units_before_waiting, done = [1000.0], [], [0]

    def sleep(seconds):
        units_before_waiting.append(done[0])
        now[0] += 25.0

    clock = SimpleNamespace(monotonic=lambda: now[0], time=lambda: 0.0, sleep=sleep)
    monkeypatch.setattr(claims_module, "time", clock)
    monkeypatch.setattr(flow, "time", clock)
    run(corpus, out, progress=lambda progress: done.__setitem__(0, progress.units))
    assert units_before_waiting == [51 - len(taken)] * 3  # three times 25 seconds are more than a lease
    assert not other.path.exists()
    assert contents(out) == contents(tmp_path / "whole")


def test_a_unit_that_another_run_finishes_is_taken_from_it(corpus, tmp_path):
    run(corpus, tmp_path / "whole", settings=replace(SETTINGS, units_per_part=1))
    [taken, *_] = names(tmp_path / "whole")
    out = tmp_path / "out"
    out.mkdir()
    other = Other(out, "0badcafe-1-1", in_hand={taken.removesuffix(".parquet"): 1.0})

    def finish():
        (out / "parts").mkdir(exist_ok=True)
        (out / "parts" / taken).write_bytes((tmp_path / "whole/parts" / taken).read_bytes())
        other.path.unlink()

    timer = threading.Timer(1.0, finish)
    timer.start()
    summary = run(corpus, out, settings=replace(SETTINGS, units_per_part=1))
    assert (summary.num_units, summary.num_reused) == (51, 1)
    assert contents(out) == contents(tmp_path / "whole")


def test_units_that_another_run_has_merged_meanwhile_are_not_scored_again(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("longlode.mining.engine.merging._LEARN_SECONDS", 0.0)
    whole, out = tmp_path / "whole", tmp_path / "out"
    run(corpus, whole)

    def another(progress):
        if progress.units == 2 and not list((out / "parts").glob("*-*")):
            for path in (whole / "parts").glob("*-*"):
                (out / "parts" / path.name).write_bytes(path.read_bytes())

    assert run(corpus, out, progress=another).num_reused > 20
    assert contents(out) == contents(whole)


def test_an_estimate_of_a_large_input_opens_some_of_its_files(tmp_path, monkeypatch):
    root = tmp_path / "many"
    root.mkdir()
    for n in range(60):
        (root / f"{n:02d}.jsonl").write_text("".join(lines(100 * n, 30)))
    size = sum(path.stat().st_size for path in root.iterdir())
    monkeypatch.setattr("longlode.api.estimate._MOST_PLANNED", size // 6)
    opened, real = set(), stores.open_bytes
    monkeypatch.setattr(stores, "open_bytes", lambda path: (opened.add(path), real(path))[1])
    told = longlode.estimate(root, scorer="gzip", seconds=0.2)
    assert 8 <= len(opened) <= 14
    assert told["documents"] == pytest.approx(1800, rel=0.05)
    assert told["bytes"] == pytest.approx(size - 1800 * 24, rel=0.1)
    assert not told["exact"]


def test_a_disk_that_refuses_the_claims_stops_nothing(tmp_path, monkeypatch):
    with claiming(tmp_path, dict) as claims:
        assert run_files(tmp_path / "runs") == [claims.path]
        monkeypatch.setattr(claims_module, "temporary_name", lambda path: path / "no" / "such")
        assert claims.take("a")
    assert run_files(tmp_path / "runs") == []


def test_settings_are_checked():
    for name in ("segment", "rows_per_unit", "batch_segments", "batch_pairs"):
        with pytest.raises(ConfigError, match=f"{name} is 0"):
            ScoreSettings(**{name: 0})
