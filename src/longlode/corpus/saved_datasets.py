"""Folders written by `datasets.save_to_disk`: Arrow files, and a state.json that lists the valid ones."""

from pathlib import Path

import orjson

from longlode.corpus import stores

STATE_NAME = "state.json"
DESCRIPTIONS = frozenset({STATE_NAME, "dataset_info.json", "dataset_dict.json"})
"""Files beside the data that hold no records."""


def is_saved_dataset(folder: str) -> bool:
    """Return True if a local folder holds one split as `save_to_disk` writes it."""
    return not stores.is_url(folder) and (Path(folder) / STATE_NAME).is_file()


def data_files(folder: str) -> frozenset[str] | None:
    """List the Arrow files of a saved dataset; None for another folder, or if state.json lists none.

    Caches of `map` and `filter` (`cache-*.arrow`) are not among them: they repeat the data.
    """
    if not is_saved_dataset(folder):
        return None
    try:
        listed = orjson.loads((Path(folder) / STATE_NAME).read_bytes())["_data_files"]
        return frozenset(str(one["filename"]) for one in listed)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
