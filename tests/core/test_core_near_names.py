"""Hints at names that were perhaps meant."""

from pathlib import Path

import pytest

from longlode.core.near_names import did_you_mean, near_path


def test_near_names_are_named_nearest_first_and_far_ones_not():
    assert did_you_mean("scoers", ["shards", "scores", "score", "zebra"]) == " Did you mean scores or score?"
    assert did_you_mean("scoers", ["zebra", "yak"]) == ""
    assert did_you_mean("smal", ["small"], "runs/") == " Did you mean runs/small?"


@pytest.mark.parametrize(
    "spelling", ["corpuss", "./corpuss", "corpuss/", "../{name}/corpuss", "{here}/corpuss"]
)
def test_a_hint_is_spelt_as_the_path_was(tmp_path, monkeypatch, spelling):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "a").mkdir()  # the folder that both names begin with does not make them alike
    monkeypatch.chdir(tmp_path)
    given = spelling.format(name=tmp_path.name, here=tmp_path)
    hint = near_path(given)
    meant = given.rstrip("/").removesuffix("s")
    assert hint == f" Did you mean {meant}?"
    assert Path(meant).is_dir()


def test_what_exists_is_not_said_to_be_meant(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpora").mkdir()
    assert near_path(tmp_path / "corpus") == ""


def test_a_folder_that_cannot_be_listed_gives_no_hint(tmp_path):
    assert near_path(tmp_path / "nowhere" / "file") == ""
    assert near_path("~no-such-user/file") == ""
