"""Names of models that users may give: "starter", a model folder, a training run, a hub id."""

import difflib
import os
import re
from pathlib import Path

from longlode.core.errors import InputError
from longlode.core.kinds import where_it_is
from longlode.core.outputs import full_path

STARTER = "starter"
_ASSETS = Path(__file__).parents[1] / "assets"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def starter_folder() -> Path:
    """Return the folder of the small model that ships with longlode. Raises: InputError when it is absent."""
    folder = _ASSETS / STARTER
    if not (folder / "model.safetensors").is_file():
        raise InputError(
            f"The starter model is not in this installation (expected {folder}). Reinstall longlode, or "
            "name another model: a folder or a hub id such as facebook/opt-350m."
        )
    return folder


def model_source(name: str | os.PathLike[str]) -> str:
    """Resolve the name of a model: to the packaged starter, the model of a run folder, or `name` itself.

    A single word that is neither a folder here nor a model in the hub's cache is refused as a typing error: hub ids
    have an owner, OWNER/NAME, and asking the hub would take long to fail.
    Raises: InputError for such a word, and for the starter when this installation lacks it.
    """
    text = os.fspath(name)
    if text == STARTER and not Path(text).is_dir():
        return str(starter_folder())
    folder = full_path(text)
    if (folder / "model" / "config.json").is_file() and not (folder / "config.json").exists():
        return str(folder / "model")
    if isinstance(name, str) and "/" not in text and os.sep not in text and not folder.exists():
        if not _is_cached(text):
            raise InputError(
                f"There is no model {text!r}.{_near(text)} Expected starter, the folder of a model or of a training "
                "run, or a hub id with its owner, such as facebook/opt-350m."
            )
    elif isinstance(name, str) and not folder.exists() and _is_path(text):
        raise InputError(
            f"There is no model {text!r}.{_near(text)} Expected starter, the folder of a model or of a training run, "
            "or a hub id with its owner, such as facebook/opt-350m."
        )
    elif folder.is_dir() and not (folder / "config.json").exists():
        inside = where_it_is(folder, "run")
        if inside:
            raise InputError(f"{folder} is neither a model nor a training run.{inside}")
    return text


def is_hub_id(text: str) -> bool:
    """Return True if `text` has the form of a model's id on the hub, OWNER/NAME or an old one of a single word."""
    return _HUB_ID.fullmatch(text) is not None


def _is_cached(hub_id: str) -> bool:
    """Return True if the hub's cache on this machine holds a model with this one-word id, such as gpt2."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
    except HFValidationError:
        return False


def _is_path(text: str) -> bool:
    """Return True if a name like a hub id can only mean a folder: a local folder OWNER holds models."""
    if text.startswith((".", "~", "/")) or text.count("/") != 1:
        return False  # no hub id: loading says that it does not exist
    owner = full_path(text).parent
    return not _is_cached(text) and any(
        (entry / name).exists()
        for entry in _folders(owner)
        for name in ("config.json", "model", "record.json")
    )


def _folders(parent: Path) -> list[Path]:
    try:
        return [entry for entry in parent.iterdir() if entry.is_dir()]
    except OSError:
        return []


def _near(text: str) -> str:
    """Return a hint at similar names: the starter, and folders beside."""
    prefix, slash, last = text.rpartition("/")
    known = [entry.name for entry in _folders(full_path(text).parent)] + ([] if slash else [STARTER])
    close = [f"{prefix}{slash}{name}" for name in difflib.get_close_matches(last, known, n=2, cutoff=0.6)]
    return f" Did you mean {' or '.join(close)}?" if close else ""
