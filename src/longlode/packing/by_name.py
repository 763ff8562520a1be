"""Packing by names of inputs and of a tokenizer: the command `pack` and `longlode.pack(...)`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.model_names import is_hub_id, model_source
from longlode.core.outputs import full_path, remote_url
from longlode.corpus import Inputs, Tokenizer, find_files, read
from longlode.corpus.mirror import new_folder
from longlode.corpus.tokens import CONFIG_NAME, TOKENIZER_NAME
from longlode.mining.selection_files import check_selection
from longlode.packing.steady import steady
from longlode.packing.writer import pack as write_shards


def pack(
    inputs: Inputs,
    out: str | Path,
    *,
    tokenizer: str | Path = "starter",
    length: int = 4096,
    overwrite: bool = False,
    text_field: str = "text",
    encoding: str = "utf-8",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Tokenize the documents of `inputs` into shards.

    Args:
      inputs: files, folders, globs or URLs, also output of `select`.
      out: the folder to write, or its URL in a store.
      tokenizer: "starter", a folder that holds tokenizer.json, a run folder, or a hub id.
      length, overwrite, progress: as in `packing.pack`.
      text_field: the field that holds the text of a record, or several as of `corpus.read`; encoding: as there.
    Returns: as `packing.pack`.
    Raises: as `packing.pack`; InputError for an input that does not exist, an unfinished selection, a tokenizer
      that cannot be loaded, or rows that the system cannot read after several tries.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    for file in find_files(listed):
        check_selection(Path(file.path))
    words = _named_tokenizer(tokenizer)
    documents = steady(lambda: read(listed, text_field=text_field, encoding=encoding))
    if (url := remote_url(out)) is None:
        return write_shards(documents, words, out, length=length, overwrite=overwrite, progress=progress)
    with new_folder(url, overwrite=overwrite) as folder:
        return write_shards(documents, words, folder, length=length, overwrite=True, progress=progress)


def _named_tokenizer(name: str | Path) -> Tokenizer:
    source = model_source(name)
    # As for models, a Path is never a hub id.
    if isinstance(name, str) and is_hub_id(source) and not full_path(source).exists():
        return Tokenizer.load(_from_hub(source))
    return Tokenizer.load(source)


def _from_hub(hub_id: str) -> Path:
    """Download a tokenizer's files into the hub's cache; return their folder. Raises: InputError when this fails."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        found = Path(hf_hub_download(hub_id, TOKENIZER_NAME))
        try:
            hf_hub_download(hub_id, CONFIG_NAME)  # it names the token that ends a document
        except (
            LocalEntryNotFoundError
        ):  # the hub could not be asked, which does not mean that there is no such file
            raise
        except EntryNotFoundError:
            pass
    except Exception as error:  # many kinds: no network, no such id, no such file, no permission
        reason = str(error).strip().split("\n")[0]
        raise InputError(
            f"{hub_id!r} is no local folder, and its tokenizer cannot be had from the hub: {type(error).__name__}: "
            f"{reason} Expected starter, a folder with {TOKENIZER_NAME}, or a hub id that can be reached and has one."
        ) from None
    return found.parent
