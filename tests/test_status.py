"""`longlode status`: counts that add up, before, while and after; runs of other machines, whatever their clocks say."""

import json
import threading
import time

import pytest
from typer.testing import CliRunner

import longlode
from longlode.cli import app
from longlode.core.errors import InputError
from longlode.core.processes import process_tag
from longlode.corpus import Shard
from longlode.mining import ScoreSettings, make_scorer, score

SETTINGS = ScoreSettings(rows_per_unit=4, bytes_per_unit=300)


@pytest.fixture
def corpus(tmp_path):
    lines = [json.dumps({"id": str(n), "text": "word " * (20 * (n % 4))}) for n in range(30)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, "{bad"]))
    return tmp_path / "in.jsonl"


def run(corpus, out, **options):
    return score(corpus, out, scorer=make_scorer("gzip"), settings=SETTINGS, **options)


def test_what_is_done_while_a_run_is_on_and_after(corpus, tmp_path):
    out = tmp_path / "out"
    seen = []

    def look(progress):
        if progress.units == 3 and not seen:
            seen.append(longlode.status(out))

    summary = run(corpus, out, progress=look)
    (during,) = seen
    assert during["state"] == "running"
    (only,) = during["runs"]
    assert 0 < during["documents"] < 31
    assert only["bytes"] == corpus.stat().st_size
    after = longlode.status(out)
    assert (after["state"], after["documents"], after["runs"]) == ("complete", 31, [])
    assert after["counts"] == summary.counts == {"failed": 1, "ok": 22, "too_short": 8}
    told = CliRunner().invoke(app, ["status", str(out)])
    assert told.exit_code == 0
    assert "complete: 31 documents done (1 failed, 22 ok, 8 too_short)" in told.output
    with pytest.raises(InputError, match="not a longlode output folder"):
        longlode.status(tmp_path)


def test_a_run_of_another_machine_is_alive_while_its_count_moves(corpus, tmp_path):
    out = tmp_path / "out"
    run(corpus, out, shard=Shard(1, 2))
    path = out / "runs" / "0badcafe-7-1.json"
    path.parent.mkdir()
    fields = {
        "run": path.stem, "host": "far", "pid": 7, "beat": 1, "written": 9e9, "in_hand": {"aa": 900.0, "bb": 2.0},
        "shard": "2/2", "seconds": 1000.0, "units_done": 200, "bytes": 100, "bytes_done": 60, "seconds_left": 40.0,
        "units_failed": 2, "last_error": "it broke",
    }  # fmt: skip
    path.write_text(json.dumps(fields))
    still = longlode.status(out, watch_seconds=0.3)
    assert (still["state"], still["runs"]) == ("stopped", [])
    assert still["shards"] == {"total": 2, "missing": [2]}
    ended = threading.Event()

    def live():
        while not ended.wait(0.05):
            fields["beat"] += 1
            part = path.with_name("part")
            part.write_text(json.dumps(fields))
            part.replace(path)

    beating = threading.Thread(target=live)
    beating.start()
    try:
        found = longlode.status(out, watch_seconds=5.0)
    finally:
        ended.set()
        beating.join()
    assert found["state"] == "running"
    assert [(one["host"], one["shard"]) for one in found["runs"]] == [("far", "2/2")]
    assert found["seconds_left"] == 40.0
    assert [(one["unit"], one["seconds"]) for one in found["slow"]] == [("aa", 900.0)]
    assert (found["units_failed"], found["last_error"]) == (2, "it broke")
    assert found["documents"] == sum(found["counts"].values()) < 31


def test_runs_without_shards_share_what_is_left(tmp_path):
    (tmp_path / "runs").mkdir()
    own = process_tag()
    one = {"run": own, "beat": 1, "in_hand": {}, "bytes": 100, "bytes_done": 40, "bytes_per_second": 2.0}
    for name, more in (("a", {}), ("b", {"bytes_done": 60, "bytes_per_second": 3.0})):
        (tmp_path / "runs" / f"{name}.json").write_text(json.dumps(one | more))
    assert longlode.status(tmp_path)["seconds_left"] == 8.0  # 40 bytes at 5 a second
    gone = own.rsplit("-", 2)[0] + "-999999999-1"
    (tmp_path / "runs" / "b.json").write_text(json.dumps(one | {"run": gone}))
    started = time.monotonic()
    assert len(longlode.status(tmp_path)["runs"]) == 1
    assert time.monotonic() - started < 2.0  # a process of this machine is looked up, not watched
