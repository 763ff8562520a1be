"""Finished cells of an evaluation on disk, so that a killed one goes on where it was.

A cell is some consecutive examples of one task at one length. It is written in one step when all of its examples have
been read, so that none is lost but those of the cell in progress, and none is counted twice.
"""

import shutil
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.records import read_json, write_json

PARTS_NAME = "parts"


class Cells:
    """The finished cells of one evaluation, in `folder/parts/IDENTITY/`."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        """Take up what an evaluation of this identity left; cells of any other are removed.

        Args: folder, the evaluation's; identity, as JSON, everything that the rows depend on.
        """
        self._parts = folder / PARTS_NAME
        self._own = self._parts / fingerprint(identity)[:16]
        for other in self._parts.iterdir() if self._parts.is_dir() else ():
            if other != self._own:
                shutil.rmtree(other, ignore_errors=True)
        self._own.mkdir(parents=True, exist_ok=True)

    def read(self, task: str, length: int, start: int) -> tuple[list[str], list[dict[str, Any]]] | None:
        """Return the fingerprints of the texts and the rows of a finished cell; None when it is not finished."""
        path = self._path(task, length, start)
        if not path.is_file():
            return None
        try:
            cell = read_json(path)
            return cell["texts"], cell["rows"]
        except (InputError, KeyError, TypeError):
            return None  # unreadable: the cell is asked again

    def write(self, task: str, length: int, start: int, texts: list[str], rows: list[dict[str, Any]]) -> None:
        """Keep a finished cell."""
        write_json(self._path(task, length, start), {"texts": texts, "rows": rows})

    def remove(self) -> None:
        """Remove all cells, once the evaluation is written."""
        shutil.rmtree(self._parts, ignore_errors=True)

    def _path(self, task: str, length: int, start: int) -> Path:
        return self._own / f"{fingerprint([task, length])[:16]}-{start}.json"
