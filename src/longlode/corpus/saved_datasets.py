"""Folders that `datasets.save_to_disk` wrote: Arrow files, and a state.json that lists those that count."""

from pathlib import Path

import orjson

from longlode.corpus import stores

STATE_NAME = "state.json"
DESCRIPTIONS = frozenset({STATE_NAME, "dataset_info.json", "dataset_dict.json"})
"""What lies beside the data and holds none."""


def is_saved_dataset(folder: str) -> bool:
    """Whether a local folder holds one split as `save_to_disk` writes it."""
    return not stores.is_url(folder) and (Path(folder) / STATE_NAME).is_file()


def data_files(folder: str) -> frozenset[str] | None:
    """Names of the Arrow files of a saved dataset; None for another folder, or when state.json does not say.

    What `map` and `filter` left in the folder as a cache (`cache-*.arrow`) is not among them: it repeats the data.
    """
    if not is_saved_dataset(folder):
        return None
    try:
        listed = orjson.loads((Path(folder) / STATE_NAME).read_bytes())["_data_files"]
        return frozenset(str(one["filename"]) for one in listed)
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
