"""Files of a selection on disk, and the check that they belong together.

FOLDER/NAME                              the documents that were kept: .jsonl, .jsonl.gz, .jsonl.zst or .parquet
FOLDER/__selection__/NAME/record.json    kind "selection": the rule, the counts, the size of both files; `complete`
FOLDER/__selection__/NAME/dropped.parquet  every other row, and why

Readers of data sets (`datasets.load_dataset(FOLDER)`, longlode itself) leave out folders whose names begin with `__`,
so that what was dropped is not read as data. The record says `"complete": false` from before the first file is written
until all are.
"""

from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.kinds import RECORD_NAME, SELECTION_FOLDER
from longlode.core.records import read_record, versions, write_json

DROPPED_NAME = "dropped.parquet"


def selection_folder(documents: Path) -> Path:
    """Folder of a selection's record and dropped rows."""
    return documents.parent / SELECTION_FOLDER / documents.name


def dropped_path(documents: Path) -> Path:
    """The table of the rows that a selection left out."""
    return selection_folder(documents) / DROPPED_NAME


def read_selection(documents: Path) -> dict[str, Any] | None:
    """The record of the selection whose documents are this file; None if there is none.

    Raises: InputError for a record that cannot be read.
    """
    folder = selection_folder(documents)
    return read_record(folder, "selection") if (folder / RECORD_NAME).is_file() else None


def write_selection(documents: Path, *, complete: bool, **fields: Any) -> None:
    """Write the record of a selection. complete: all of its files are written."""
    paths = (documents, dropped_path(documents)) if complete else ()
    sizes = {path.name: path.stat().st_size for path in paths}
    record = {
        "kind": "selection",
        "complete": complete,
        "made_with": versions(),
        "num_bytes": sizes,
        **fields,
    }
    write_json(selection_folder(documents) / RECORD_NAME, record)


def check_selection(documents: Path) -> None:
    """Raise InputError if `documents` was written by select and is not the file that its record describes.

    Files of any other origin pass.
    """
    record = read_selection(documents)
    if record is None:
        return
    if not record.get("complete"):
        raise InputError(
            f"the selection {documents} is not finished: longlode select was stopped in the middle. Run the same "
            "select command again."
        )
    for path in (documents, dropped_path(documents)):
        expected = record["num_bytes"].get(path.name)
        found = path.stat().st_size if path.is_file() else None
        if found != expected:
            raise InputError(
                f"{path} is not what was selected: it has {found} bytes, expected {expected}. Select again, or remove "
                f"{selection_folder(documents)} if the file was changed on purpose."
            )
