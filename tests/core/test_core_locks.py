"""Locks: one writer at a time; a holder that is gone blocks nobody; leftovers go when their writer surely has."""

import os
import signal
import subprocess
import sys
import time

import orjson
import pytest

from longlode.core import locks
from longlode.core.errors import InputError
from longlode.core.locks import write_lock
from longlode.core.processes import is_gone, machine_tag, process_tag
from longlode.core.records import read_json, remove_leftovers, temporary_name

HOLDER = """
import sys, time
from pathlib import Path
from longlode.core import locks
if sys.argv[2] == "no flock":
    locks._flock = lambda handle: False
with locks.write_lock(Path(sys.argv[1]), "the thing"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(request):
    """Start a process that holds a lock; it is killed in the end."""
    started = []

    def start(path, how="flock"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(params=["flock", "no flock"])
def how(request, monkeypatch):
    if request.param == "no flock":
        monkeypatch.setattr(locks, "_flock", lambda handle: False)
    return request.param


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_second_writer_is_refused_until_the_first_ends(tmp_path, how):
    path = tmp_path / ".out.lock"
    with write_lock(path, "out"):
        with (
            pytest.raises(InputError, match=f"out is being written by process {os.getpid()} "),
            write_lock(path, "out"),
        ):
            pass
        assert path.exists()
    assert not path.exists()
    with write_lock(path, "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_it_is_let_go_when_the_work_fails(tmp_path, how):
    with pytest.raises(RuntimeError), write_lock(tmp_path / "lock", "out"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_another_process_holds_it_and_is_named_until_it_is_killed(tmp_path, holder, how):
    path = tmp_path / ".out.lock"
    process = holder(path, how)
    with pytest.raises(InputError, match=f"process {process.pid} "), write_lock(path, "out"):
        pass
    kill(process)
    assert path.exists()
    with write_lock(path, "out"):
        pass
    assert not path.exists()


def sign(path, **changes):
    """A lock file as a process of another machine leaves it."""
    holder = {"host": "node7", "pid": 12, "since": "2020-01-01T00:00:00+00:00", "machine": "0" * 8}
    holder |= {"boot": "1" * 8, "process": "00000000-12-99"} | changes
    path.write_bytes(orjson.dumps(holder))


def test_a_holder_on_another_host_counts_until_it_gives_no_sign_of_life(tmp_path, how):
    path = tmp_path / ".out.lock"
    sign(path)
    with pytest.raises(InputError, match=r"process 12 on node7 .* gone after 120"), write_lock(path, "out"):
        pass
    assert path.exists()
    long_ago = time.time() - locks.STALE_SECONDS - 5
    os.utime(path, (long_ago, long_ago))
    with write_lock(path, "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_holder_renews_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "BEAT_SECONDS", 0.05)
    path = tmp_path / "lock"
    with write_lock(path, "out"):
        os.utime(path, (1, 1))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 1:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_another_container_of_this_host_is_judged_by_its_flock(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    sign(path, boot=locks.boot_tag())
    with write_lock(path, "out"):
        pass
    sign(path, boot=locks.boot_tag())
    monkeypatch.setattr(locks, "_flock", lambda handle: False)
    with pytest.raises(InputError, match="node7"), write_lock(path, "out"):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff" * 20])
def test_a_torn_lock_file_of_a_killed_writer_blocks_nobody(tmp_path, content):
    (tmp_path / "lock").write_bytes(content)
    with write_lock(tmp_path / "lock", "out"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_locked_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be locked"), write_lock(tmp_path / "absent" / "lock", "out"):
        pass


def test_only_what_is_provably_gone_is_gone(holder, tmp_path):
    assert not is_gone(process_tag())
    process = holder(tmp_path / "lock")
    started = read_json(tmp_path / "lock")["process"]
    assert not is_gone(started)
    kill(process)
    assert is_gone(started)
    # Its number is in use again, by a process that began at another time.
    assert is_gone(f"{machine_tag()}-{os.getpid()}-1")
    # Of another machine, or nothing that we wrote: nobody knows.
    assert not is_gone(f"00000000-{process.pid}-1")
    for tag in ("", "999999999", "x-y-z", f"{machine_tag()}-12"):
        assert not is_gone(tag)


def test_leftovers_go_when_their_writer_is_gone_or_the_caller_is_the_only_one(tmp_path):
    own = temporary_name(tmp_path / "out")
    dead = tmp_path / f".out.{machine_tag()}-{os.getpid()}-1.tmp"
    spool = tmp_path / f".out.{machine_tag()}-{os.getpid()}-1.tmp.spool"
    elsewhere = tmp_path / ".out.00000000-1-1.tmp"
    other = tmp_path / f".other[1].{machine_tag()}-{os.getpid()}-1.tmp"
    for folder in (dead, spool, elsewhere):
        folder.mkdir()
        (folder / "tokens").write_bytes(b"x")
    for file in (own, other, tmp_path / ".out.tmp", tmp_path / "out", tmp_path / ".out.12.tmp"):
        file.write_bytes(b"x")
    assert remove_leftovers(tmp_path, "out") == 2
    assert not dead.exists()
    assert elsewhere.exists()
    assert other.exists()
    assert remove_leftovers(tmp_path, "out", sole_writer=True) == 1
    assert not elsewhere.exists()
    assert remove_leftovers(tmp_path) == 1
    assert {path.name for path in tmp_path.iterdir()} == {own.name, ".out.tmp", "out", ".out.12.tmp"}
    assert remove_leftovers(tmp_path / "absent") == 0
