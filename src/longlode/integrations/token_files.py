"""Packed documents as the token files of other trainers, written by those trainers' own libraries.

    datatrove   tokens-00000.ds, .ds.index (ends of documents), .ds.loss for chats, .ds.metadata: nanotron and datatrove
                read them (extra `datatrove`)
    megatron    tokens-00000.bin and .idx: Megatron-LM, NeMo and their relatives (extra `megatron`)
    mds         index.json and shard.00000.mds: MosaicML's StreamingDataset, LLM Foundry; columns `tokens` (int32),
                `id`, `source`, for chats also `has_loss` (uint8) (package `mosaicml-streaming`, extra `mds`)

Documents in order, each ended by eos as in the shards. For datatrove and Megatron one file, or pair of them, per file
of the shards, token ids of 2 bytes where the vocabulary allows it, else 4; MDS has files of 64 MB of whole documents.
"""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from longlode.core.errors import BackendError, ConfigError
from longlode.packing import Shards

_SMALL_VOCABULARY = 1 << 16


def write_token_files(shards: Shards, folder: Path, layout: str) -> list[Path]:
    """Write all documents of the shards into a folder.

    Args: folder, empty; layout, one of `LAYOUTS`.
    Returns: the files that hold the tokens.
    Raises: ConfigError for another layout, and for chats where it has no place for which tokens have a loss;
      BackendError without its library; InputError for damaged shards.
    """
    if layout not in LAYOUTS:
        raise ConfigError(f"the layout is {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    folder.mkdir(parents=True, exist_ok=True)
    return list(LAYOUTS[layout](shards, folder))


def _files(shards: Shards) -> Iterator[tuple[str, range]]:
    """The files of the shards: a name for each, and its documents."""
    first = 0
    for number, file in enumerate(shards.files):
        yield f"tokens-{number:05d}", range(first, first + file.num_documents)
        first += file.num_documents


def _write_datatrove(shards: Shards, folder: Path) -> Iterator[Path]:
    try:
        from datatrove.pipeline.tokens.tokenizer import TokenizedFile
    except ImportError as error:
        raise _missing("datatrove", error) from None
    token_bytes = 2 if shards.vocab_size <= _SMALL_VOCABULARY else 4
    for name, documents in _files(shards):
        path = folder / f"{name}.ds"
        file = TokenizedFile(
            str(folder),
            path.name,
            save_loss_metadata=shards.has_loss_mask,
            tokenizer_name_or_path=str(shards.tokenizer_folder),
            save_final_metadata=True,
            token_size=token_bytes,
        )
        for document in documents:
            file.write_bytes(shards.tokens(document).astype(f"<u{token_bytes}").tobytes())
            if shards.has_loss_mask:
                file.write_loss_bytes(shards.has_loss(document).astype(np.bool_).tobytes())
        file.close()
        yield path


def _write_megatron(shards: Shards, folder: Path) -> Iterator[Path]:
    if shards.has_loss_mask:
        raise ConfigError(
            "Megatron's token files have no place for which tokens of a chat have a loss. Expected shards without "
            "chats; or the layout datatrove, which has one."
        )
    try:
        with warnings.catch_warnings():  # about packages for GPUs, which writing does not use
            warnings.simplefilter("ignore")
            from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder
    except ImportError as error:
        raise _missing("megatron", error) from None
    for name, documents in _files(shards):
        path = folder / f"{name}.bin"
        builder = IndexedDatasetBuilder(str(path), dtype=DType.optimal_dtype(shards.vocab_size))
        for document in documents:
            tokens = shards.tokens(document)
            builder.add_document(tokens, [len(tokens)])
        builder.finalize(str(path.with_suffix(".idx")))
        yield path


def _write_mds(shards: Shards, folder: Path) -> Iterator[Path]:
    try:
        from streaming import MDSWriter
    except ImportError as error:
        raise _missing("mds", error, "&& pip install --no-deps mosaicml-streaming") from None
    columns = {"id": "str", "source": "str", "tokens": "ndarray:int32"}
    columns |= {"has_loss": "ndarray:uint8"} if shards.has_loss_mask else {}
    with MDSWriter(columns=columns, out=str(folder), hashes=["xxh64"], exist_ok=True) as writer:
        names = (shards.column(name).to_pylist() for name in ("id", "source"))
        for document, (name, source) in enumerate(zip(*names, strict=True)):
            row = {"id": name, "source": source, "tokens": shards.tokens(document).astype(np.int32)}
            if shards.has_loss_mask:
                row["has_loss"] = shards.has_loss(document).astype(np.uint8)
            writer.write(row)
    yield from sorted(folder.glob("shard.*.mds"))


def _missing(extra: str, error: ImportError, more: str = "") -> BackendError:
    command = f"pip install 'longlode[{extra}]' {more}".strip()
    return BackendError(
        f"token files of {extra} are written by its library, which cannot be imported ({error}); {command}."
    )


LAYOUTS: dict[str, Callable[[Shards, Path], Iterator[Path]]] = {
    "datatrove": _write_datatrove,
    "megatron": _write_megatron,
    "mds": _write_mds,
}
