"""Names of models that users may give: "starter", a model folder, a training run, a hub id."""

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from longlode.core.errors import InputError
from longlode.core.kinds import where_it_is
from longlode.core.near_names import did_you_mean
from longlode.core.outputs import full_path

STARTER = "starter"
_ASSETS = Path(__file__).parents[1] / "assets"
_HUB_SECONDS = 4.0
"""Time that the hub has to answer."""
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
    have an owner, OWNER/NAME. So is an id that is not in the cache while the hub cannot be reached, which the hub's
    client would try to reach for most of a minute.
    Raises: InputError for such a name, and for the starter when this installation lacks it.
    """
    text = os.fspath(name)
    if text == STARTER and not Path(text).is_dir():
        return str(starter_folder())
    folder = full_path(text)
    if (folder / "model" / "config.json").is_file() and not (folder / "config.json").exists():
        return str(folder / "model")
    if isinstance(name, str) and not folder.exists() and not _is_cached(text):
        single = "/" not in text and os.sep not in text
        why = "" if single or _is_path(text) or not is_hub_id(text) else _hub_silence()
        if single or why or _is_path(text):
            raise InputError(
                f"There is no model {text!r}{why}.{_near(text)} Expected starter, the folder of a model or of a "
                "training run, or a hub id with its owner, such as facebook/opt-350m."
            )
    if folder.is_dir() and not (folder / "config.json").exists():
        inside = where_it_is(folder, "run")
        if inside:
            raise InputError(f"{folder} is neither a model nor a training run.{inside}")
    return text


def is_hub_id(text: str) -> bool:
    """Return True if `text` has the form of a model's id on the hub, OWNER/NAME or an old one of a single word."""
    return _HUB_ID.fullmatch(text) is not None


def _is_cached(hub_id: str) -> bool:
    """Return True if the hub's cache on this machine holds a model or a tokenizer with this id, such as gpt2."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return any(
            isinstance(try_to_load_from_cache(hub_id, name), str)
            for name in ("config.json", "tokenizer.json")
        )
    except HFValidationError:
        return False


def _hub_silence() -> str:
    """Reason why the hub cannot be asked, as a part of a sentence; "" when it answers, or a proxy stands before it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return " on this machine, and HF_HUB_OFFLINE forbids to ask the hub"
    if any(os.environ.get(name) for one in ("https_proxy", "all_proxy") for name in (one, one.upper())):
        return ""
    place = urlsplit(constants.ENDPOINT)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=_HUB_SECONDS).close()
    except OSError as error:
        return (
            f" on this machine, and the hub ({place.hostname}) cannot be reached: {error.strerror or error}"
        )
    return ""


def _is_path(text: str) -> bool:
    """Return True if a name like a hub id can only mean a folder: a local folder OWNER holds models."""
    if text.startswith((".", "~", "/")) or text.count("/") != 1:
        return False  # no hub id: loading says that it does not exist
    owner = full_path(text).parent
    return any(
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
    """Return a hint at similar names: the starter, folders beside, models in the hub's cache."""
    prefix, slash, name = text.rpartition("/")
    beside = did_you_mean(name, (one.name for one in _folders(full_path(text).parent)), prefix + slash)
    return beside or did_you_mean(text, [STARTER, *_cached_ids()])


def _cached_ids() -> list[str]:
    """Ids of the models in the hub's cache: it keeps OWNER/NAME in the folder models--OWNER--NAME."""
    from huggingface_hub import constants

    folders = _folders(Path(constants.HF_HUB_CACHE))
    return [one.name.removeprefix("models--").replace("--", "/") for one in folders if "models--" in one.name]
