"""longlode convert: checkpoints from and to flash-linear-attention, shards to other trainers' token files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, note
from longlode.core.errors import ConfigError, InputError, ModelError
from longlode.core.model_names import model_source
from longlode.core.outputs import claim_folder
from longlode.core.records import atomic_folder

EXAMPLES = (
    "longlode convert fla-hub/delta_net-1.3B-100B delta-net-1.3b --to longlode",
    "longlode convert runs/small small-for-fla --to fla",
    "longlode convert shards tokens --to megatron",
)
MODELS, TOKEN_FILES = ("fla", "longlode"), ("datatrove", "megatron", "mds")


def convert(
    source: Annotated[
        str,
        typer.Argument(help="A run folder, a model folder, a hub id, or: starter. Or a folder of shards."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; new or empty.")],
    to: Annotated[
        str,
        typer.Option(
            help="Of a model: fla or longlode. Of shards: datatrove (also nanotron), megatron or mds (MosaicML)."
        ),
    ],
) -> dict[str, Any]:
    """Write a DeltaNet or Gated DeltaNet checkpoint in the layout of fla, or of longlode; or shards as token files.

    The weights keep their values and dtype; the tokenizer goes along. Evaluating, scoring and
    generating need no conversion: they read both layouts. Token files are written by the libraries of those trainers.
    """
    if to not in (*MODELS, *TOKEN_FILES):
        raise ConfigError(f"--to got {to!r}; expected one of {', '.join((*MODELS, *TOKEN_FILES))}.")
    folder = claim_folder(out, "token_files" if to in TOKEN_FILES else "model", make=False)
    return _tokens(source, folder, to) if to in TOKEN_FILES else _model(source, folder, to)


def _tokens(source: str, folder: Path, layout: str) -> dict[str, Any]:
    from longlode.integrations.token_files import write_token_files
    from longlode.packing import open_shards

    shards = open_shards(source)
    try:
        with atomic_folder(folder) as unfinished:
            found = [path.name for path in write_token_files(shards, unfinished, layout)]
    except OSError as error:
        raise _unwritten(folder, error) from None
    finish(f"{shards.num_tokens:,} tokens of {shards.num_documents:,} documents: {folder}")
    return {"out": folder, "num_tokens": shards.num_tokens, "files": found}


def _unwritten(folder: Path, error: Exception) -> InputError:
    return InputError(
        f"{folder} cannot be written: {error}. Free space or name another folder; nothing was left there."
    )


def _model(source: str, folder: Path, to: str) -> dict[str, Any]:
    from safetensors import SafetensorError

    from longlode.models import LonglodeForCausalLM
    from longlode.models.convert import save_for_fla
    from longlode.models.load import load_model, load_tokenizer

    where = model_source(source)
    model = load_model(where)
    if not isinstance(model, LonglodeForCausalLM):
        raise ConfigError(
            f"{source} is a {type(model).__name__}; expected a longlode model, or fla's delta_net or gated_deltanet."
        )
    try:
        tokenizer = load_tokenizer(where)
    except ModelError as error:
        note(f"No tokenizer will be written: {error}")
        tokenizer = None
    try:
        with atomic_folder(folder) as unfinished:
            if to == "fla":
                save_for_fla(model, unfinished)
            else:
                model.save_pretrained(unfinished)
            if tokenizer is not None:
                tokenizer.save_pretrained(unfinished)
    except (OSError, SafetensorError) as error:
        raise _unwritten(folder, error) from None
    finish(f"{model.config.num_params / 1e6:,.1f}M parameters in {model.dtype}: {folder}")
    return {
        "out": folder,
        "num_parameters": model.config.num_params,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: either no folder or a complete one was written."""
    return f"{options['out']} holds the whole result or was not made."
