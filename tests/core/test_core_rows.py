"""Rows in a Parquet file."""

import pytest

from longlode.core.errors import InputError
from longlode.core.rows import read_rows, write_rows


def test_rows_come_back_with_every_column(tmp_path):
    path = tmp_path / "rows.parquet"
    write_rows(path, [{"a": 1, "b": "x"}, {"a": 2.5, "c": None}, {"b": 7, "c": True}])
    assert read_rows(path) == [
        {"a": 1.0, "b": "x", "c": None},
        {"a": 2.5, "b": None, "c": None},
        {"a": None, "b": "7", "c": True},
    ]
    write_rows(path, [])
    assert read_rows(path) == []


def test_a_file_that_is_no_table_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.parquet"):
        read_rows(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR")
    with pytest.raises(InputError, match=r"bad\.parquet"):
        read_rows(tmp_path / "bad.parquet")
