"""Packing by names of inputs and of a tokenizer: the command `pack` and `longlode.pack(...)`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from longlode.core.errors import InputError
from longlode.core.mixes import parse_mix
from longlode.core.model_names import is_hub_id, model_source
from longlode.core.outputs import full_path, remote_url
from longlode.corpus import Inputs, Tokenizer, find_files, plan
from longlode.corpus.mirror import new_folder
from longlode.corpus.tokens import CONFIG_NAME, TOKENIZER_NAME
from longlode.mining.selection_files import check_selection
from longlode.packing.chat import ChatTokenizer, find_template
from longlode.packing.parallel import PackUnit, pack_units
from longlode.packing.scored import is_scores, scored_units
from longlode.packing.writer import SHARD_TOKENS, AnyTokenizer


def pack(
    inputs: Inputs,
    out: str | Path,
    *,
    tokenizer: str | Path = "starter",
    length: int = 4096,
    workers: int = 1,
    mix: str | Mapping[str, float] | None = None,
    chat: str = "",
    chat_template: str | Path | None = None,
    overwrite: bool = False,
    text_field: str = "text",
    encoding: str = "utf-8",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Tokenize the documents of `inputs` into shards; a run that was killed goes on where it was.

    Args:
      inputs: files, folders, globs or URLs, also output of `select`; or one scores folder, whose documents are packed
        with their scores as columns.
      out: the folder to write, or its URL in a store.
      tokenizer: "starter", a folder that holds tokenizer.json, a run folder, or a hub id.
      workers: processes; the result does not depend on it.
      mix: shares of the packed tokens by group, "books=0.4,code=0.6" or a table (groups: `packing.mixture`); documents
        of a group that has more are left out, and so are those of no group. None: all are packed.
      chat: the field that holds the messages of a chat, [{"role": ..., "content": ...}, ...]; then records are chats,
        and only the answers, the messages of the role "assistant", have a loss.
      chat_template: file with the template of chats; None: the tokenizer's own.
      length, overwrite, progress: as in `packing.pack`.
      text_field: the field that holds the text of a record, or several as of `corpus.read`; encoding: as there. For a
        scores folder both are those of its run.
    Returns: as `packing.pack`; with mix also num_left_out, documents, and mix, the figures of each group.
    Raises: as `packing.pack`; InputError for an input that does not exist, an unfinished selection or scoring run, a
      tokenizer that cannot be loaded, or rows that the system cannot read after several tries; BackendError when a
      worker process dies.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    how = {"text_field": chat or text_field, "encoding": encoding}
    units, how = _units(listed, how)
    plain = _named_tokenizer(tokenizer)
    words: AnyTokenizer = plain
    if chat:
        source = Path(model_source(tokenizer))
        words = ChatTokenizer(plain, find_template(source if source.is_dir() else None, chat_template))
    shares = None if mix is None else parse_mix(mix)
    options: dict[str, Any] = {
        "length": length,
        "workers": workers,
        "mix": shares,
        "progress": progress,
        **how,
    }

    def write(folder: str | Path, overwrite: bool) -> dict[str, Any]:
        return pack_units(units, words, folder, shard_tokens=SHARD_TOKENS, overwrite=overwrite, **options)

    if (url := remote_url(out)) is None:
        return write(out, overwrite)
    with new_folder(url, overwrite=overwrite) as folder:
        return write(folder, True)


def _units(inputs: list[str | Path], how: dict[str, str]) -> tuple[list[PackUnit], dict[str, str]]:
    """Cut the inputs into units; return them, and how their text is read."""
    scores = [Path(item) for item in inputs if is_scores(item)]
    if not scores:
        for file in find_files(inputs):
            check_selection(Path(file.path))
        return [PackUnit(unit) for unit in plan(inputs)], how
    if len(inputs) > 1:
        raise InputError(
            f"{scores[0]} is a scores folder and stands among other inputs; expected it alone. Pack each into a folder "
            "of its own: a recipe's data.shards takes several."
        )
    found, how = scored_units(scores[0])
    return [PackUnit(unit, part) for unit, part in found], how


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
