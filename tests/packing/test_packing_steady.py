"""Rows that the system cannot read just now are tried again, and never become final."""

import pytest

from longlode.core.errors import InputError
from longlode.corpus import Document, Unreadable
from longlode.packing import steady as module
from longlode.packing.steady import steady


def document(number):
    return Document(f"d{number}", f"text {number}", "s", "f.jsonl", number)


def trouble(number, *, transient=True):
    return Unreadable(f"d{number}", "s", "f.jsonl", number, "failed", "the disk is away", transient=transient)


@pytest.fixture
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(module.time, "sleep", found.append)
    return found


def passes(*rows):
    """A reader that gives another list at each pass, the last one for ever."""
    left = list(rows)
    return lambda: iter(left.pop(0) if len(left) > 1 else left[0])


def test_a_row_that_can_be_read_later_is_read_later(waits):
    whole = [document(number) for number in range(4)]
    flaky = passes([*whole[:2], trouble(2)], [trouble(0)], [*whole[:3], trouble(3)], whole)
    with pytest.raises(InputError, match="changed"):
        list(steady(passes([*whole[:2], trouble(2)], [document(0), document(9)])))
    assert list(steady(flaky)) == whole
    assert len(waits) >= 3


def test_a_row_that_stays_unreadable_is_an_error_and_no_result(waits):
    found = []
    with pytest.raises(InputError, match="4 tries: the disk is away"):
        found.extend(steady(passes([document(0), trouble(1)])))
    assert waits == list(module.WAITS_SECONDS)


def test_final_rows_pass(waits):
    rows = [document(0), trouble(1, transient=False), document(2)]
    assert list(steady(passes(rows))) == rows
    assert waits == []
