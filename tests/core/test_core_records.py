"""Results reach the disk whole or not at all, and say what they are."""

import contextlib

import pytest

from longlode.core.errors import ConfigError, InputError, LonglodeError
from longlode.core.records import (
    append_jsonl,
    atomic_folder,
    atomic_path,
    read_json,
    read_jsonl,
    read_record,
    versions,
    write_json,
    write_jsonl,
    write_record,
)


def test_atomic_path_keeps_the_old_file_when_the_writer_fails(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("old")
    with contextlib.suppress(RuntimeError), atomic_path(target) as temporary:
        temporary.write_text("half of the new")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_atomic_folder_is_there_whole_or_not_at_all(tmp_path):
    target = tmp_path / "deep" / "model"
    with contextlib.suppress(RuntimeError), atomic_folder(target) as unfinished:
        (unfinished / "config.json").write_text("half")
        assert not target.exists()
        raise RuntimeError
    assert list(target.parent.iterdir()) == []
    target.mkdir()
    with atomic_folder(target) as unfinished:
        (unfinished / "config.json").write_text("whole")
    assert [path.name for path in target.parent.iterdir()] == ["model"]
    assert (target / "config.json").read_text() == "whole"
    with pytest.raises(OSError, match="not empty"), atomic_folder(target) as unfinished:
        (unfinished / "other").touch()
    assert [path.name for path in target.iterdir()] == ["config.json"]


def test_json_round_trip_and_its_errors(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None, "é"]}
    with pytest.raises(InputError, match=r"missing\.json does not exist"):
        read_json(tmp_path / "missing.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InputError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")


def test_a_path_that_is_no_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file/below"):
        with pytest.raises(InputError, match="cannot be read"):
            read_json(path)


def test_jsonl_forgives_a_torn_last_line_only(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}])
    append_jsonl(path, {"a": 2})
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    with path.open("ab") as stream:
        stream.write(b'{"a": 3')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    with path.open("ab") as stream:
        stream.write(b'\n{"a": 4}\n')
    with pytest.raises(InputError, match="line 3"):
        read_jsonl(path)


def test_records_carry_kind_and_versions(tmp_path):
    write_record(tmp_path, "scores", num_documents=3)
    record = read_record(tmp_path, "scores")
    assert record["num_documents"] == 3
    assert record["made_with"] == versions()
    with pytest.raises(InputError, match="holds scores"):
        read_record(tmp_path, "run")
    with pytest.raises(InputError, match="does not exist"):
        read_record(tmp_path / "elsewhere")


def test_versions_name_what_shapes_a_result():
    assert {"python", "platform", "longlode", "torch", "transformers", "numpy"} <= versions().keys()


def test_config_errors_are_value_errors_too():
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, LonglodeError)
