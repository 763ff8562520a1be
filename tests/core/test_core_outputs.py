"""Nothing is replaced that the same command did not write."""

import os
import stat
import subprocess
import sys

import pytest

from longlode.core.errors import InputError
from longlode.core.kinds import KINDS, folders_of_kind, kind_of
from longlode.core.outputs import claim_file, claim_folder, full_path
from longlode.core.processes import process_tag
from longlode.core.records import read_record, write_record

OPTIONS = {"settings": {"seed": 0, "lengths": [512]}, "model": "a"}


def test_new_and_empty_folders_are_free(tmp_path):
    assert claim_folder(tmp_path / "new" / "deep", "scores").is_dir()
    assert claim_folder(str(tmp_path / "new" / "deep"), "run") == tmp_path / "new" / "deep"
    assert not list((tmp_path / "new" / "deep").iterdir())


def test_a_folder_can_be_checked_without_being_made(tmp_path):
    claim_folder(tmp_path / "new", "shards", make=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_no_kind_is_replaced_by_another(tmp_path, kind, overwrite):
    other = "scores" if kind != "scores" else "run"
    write_record(tmp_path, kind)
    before = (tmp_path / "record.json").read_bytes()
    with pytest.raises(InputError) as caught:
        claim_folder(tmp_path, other, identity={}, overwrite=overwrite)
    assert KINDS[kind] in str(caught.value)
    assert (tmp_path / "record.json").read_bytes() == before


def test_the_message_names_the_right_folder_inside(tmp_path):
    write_record(tmp_path, "demo")
    write_record(tmp_path / "scores", "scores")
    for attempt in (lambda: claim_folder(tmp_path, "scores"), lambda: read_record(tmp_path, "scores")):
        with pytest.raises(InputError) as caught:
            attempt()
        assert str(tmp_path / "scores") in str(caught.value)
        assert "a demo" in str(caught.value)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_files_of_others_is_refused(tmp_path, overwrite):
    (tmp_path / "corpus.jsonl").write_text("{}")
    with pytest.raises(InputError, match=r"corpus\.jsonl"):
        claim_folder(tmp_path, "scores", identity={}, overwrite=overwrite)


def test_what_a_killed_run_leaves_does_not_bar_the_next(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / ".record.json.17.tmp").write_text("")
    claim_folder(tmp_path, "run")
    with pytest.raises(InputError, match="checkpoints"):
        claim_folder(tmp_path, "scores")


def test_equal_options_are_the_same_result_and_others_are_not(tmp_path):
    write_record(tmp_path, "evaluation", **OPTIONS, summary=[1, 2])
    claim_folder(tmp_path, "evaluation", identity={"settings": {"seed": 0, "lengths": (512,)}, "model": "a"})
    with pytest.raises(InputError) as caught:
        claim_folder(
            tmp_path, "evaluation", identity={"settings": {"seed": 1, "lengths": [512]}, "model": "a"}
        )
    assert "settings.seed: there 0, now 1" in str(caught.value)
    assert "--overwrite" in str(caught.value)
    with pytest.raises(InputError):
        claim_folder(tmp_path, "evaluation", identity={"model": lambda recorded: recorded == "b"})
    with pytest.raises(InputError, match="already holds"):
        claim_folder(tmp_path, "evaluation")
    claim_folder(tmp_path, "evaluation", overwrite=True)
    claim_folder(tmp_path, "evaluation", identity={})


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        claim_folder(tmp_path / "file", "scores")
    with pytest.raises(InputError, match="cannot be used as an output folder"):
        claim_folder(tmp_path / "file" / "below", "scores")
    with pytest.raises(InputError, match="is a folder"):
        claim_file(tmp_path, "a report")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(InputError, match="Permission denied"):
            claim_folder(tmp_path / "out", "scores")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_an_existing_file_stays_unless_it_is_ours_or_asked_for(tmp_path):
    path = tmp_path / "corpus.jsonl"
    assert claim_file(path, "a report") == path
    path.write_text("precious")
    with pytest.raises(InputError, match="--overwrite"):
        claim_file(path, "a report", replaceable=lambda found: found.read_text() == "page")
    claim_file(path, "a report", overwrite=True)
    path.write_text("page")
    claim_file(path, "a report", replaceable=lambda found: found.read_text() == "page")


def test_a_name_that_begins_like_a_home_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert full_path("~$report.txt") == tmp_path / "~$report.txt"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert full_path("~/scores") == tmp_path / "home" / "scores"


def test_kinds_are_found_two_levels_down_but_not_in_parts(tmp_path):
    for place in ("b/eval", "a", "a/parts/scores", "c/d/e"):
        write_record(tmp_path / place, "scores")
    assert folders_of_kind(tmp_path, "scores") == [tmp_path / "a", tmp_path / "b" / "eval"]
    assert kind_of(tmp_path / "a") == "scores"
    (tmp_path / "a" / "record.json").write_text("{")
    assert kind_of(tmp_path / "a") is None


def test_reading_says_what_a_folder_is_not(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_record(str(tmp_path / "nowhere"), "shards")
    with pytest.raises(InputError, match=r"no record\.json"):
        read_record(tmp_path, "shards")
    (tmp_path / "record.json").write_text("[1]")
    with pytest.raises(InputError, match="not a record"):
        read_record(tmp_path, "shards")


def _gone_writer() -> str:
    """The tag of a process that has ended."""
    program = "from longlode.core.processes import process_tag; print(process_tag())"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_claimed_place_is_cleared_of_what_killed_writers_left(tmp_path):
    gone, here = _gone_writer(), process_tag()
    left = [f".record.json.{gone}.tmp", f".page.html.{gone}.tmp", f".longlode-writable.{gone}.tmp"]
    for name in (*left, f".page.html.{here}.tmp", "page.html"):
        (tmp_path / name).write_text("")
    claim_file(tmp_path / "page.html", "a report", overwrite=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {left[0], f".page.html.{here}.tmp", "page.html"}, (
        "other files' are not the claimed file's"
    )
    (tmp_path / "page.html").unlink()
    claim_folder(tmp_path, "evaluation")
    assert [path.name for path in tmp_path.iterdir()] == [f".page.html.{here}.tmp"], (
        "living writers keep theirs"
    )
