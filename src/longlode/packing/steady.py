"""Reading with retries of rows that the system could not read just now."""

import time
from collections.abc import Callable, Iterator

from longlode.core.errors import InputError
from longlode.corpus import Document, Unreadable

WAITS_SECONDS = (0.5, 2.0, 8.0)
"""Seconds before each retry; a row that is read resets the count."""

Row = Document | Unreadable


def steady(read: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Yield the rows of an input; at a `transient` row the input is read again up to that row.

    Args: read, a function that begins a pass over the input.
    Raises: InputError when a row stays unreadable, or the rows before it have changed.
    """
    num_done, last, tries = 0, ("", 0), 0
    while True:
        for number, row in enumerate(read()):
            unread = isinstance(row, Unreadable) and row.transient
            if number < num_done and not unread:
                if number == num_done - 1 and (row.file, row.row) != last:
                    raise InputError(
                        f"the input changed while it was read: {last[0]}, row {last[1]}, is now {row.file}, row "
                        f"{row.row}. Nothing was written; run the same command again."
                    )
                continue
            if isinstance(row, Unreadable) and unread:
                if tries == len(WAITS_SECONDS):
                    raise InputError(
                        f"{row.file} could not be read, after {tries + 1} tries: {row.reason}. Nothing was written; "
                        "run the same command again when it can be."
                    )
                break
            yield row
            num_done, last, tries = num_done + 1, (row.file, row.row), 0
        else:
            return
        time.sleep(WAITS_SECONDS[tries])
        tries += 1
