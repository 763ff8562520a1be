"""Training batches from shards, in an order that is a pure function."""

import hashlib
from collections.abc import Iterator

import numpy as np

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError
from longlode.packing.packers import ConcatPacker, Packer
from longlode.packing.shards import Shards

IGNORED = -100


def batches(
    shards: Shards,
    *,
    length: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    packed: bool = False,
    split: str = "train",
    heldout_fraction: float = 0.0,
) -> Iterator[Batch]:
    """Yield the batches of steps start_step, start_step + 1, ... without end.

    Documents of the split are laid end to end and cut into rows of `length` tokens; every epoch takes each
    row once, in an order of its own (`row_order`), and a batch may reach into the next epoch. Step k's batch
    does not depend on `start_step`, so that `batches(start_step=k)` is `batches()` with k batches skipped, at
    no cost. A label is the next token of the same document, also across the end of a row; the last token of a
    document, its eos, has the label -100: nothing is predicted across documents.

    Args:
      length: tokens of a row. batch_size: rows of a batch.
      packed: False: tokens and labels `[batch_size, length]`, cu_seqlens None, though a row may hold several
        documents. True: one row `[1, batch_size * length]` with cu_seqlens at every document's and every
        row's edge.
      split, heldout_fraction: "train" leaves out, "heldout" takes, the documents for which the first 8 bytes,
        big-endian, of the BLAKE2b hash of the id, divided by 2**64, are below the fraction
        (`corpus.in_heldout`).
    Raises: InputError for too few tokens to fill one row; ConfigError for settings that make no sense.
    """
    if batch_size < 1 or start_step < 0:
        raise ConfigError(f"batch_size is {batch_size} and start_step {start_step}; expected >= 1 and >= 0.")
    documents = shards.split(split, heldout_fraction)
    packer = ConcatPacker(shards.lengths[documents], length)
    if packer.num_rows < 1:
        raise InputError(
            f"{', '.join(map(str, shards.folders))}: the {len(documents):,} {split} documents have "
            f"{packer.num_tokens:,} tokens; one row needs {length:,}. Pack more text, ask for shorter rows"
            + (" or another heldout_fraction." if heldout_fraction else ".")
        )
    rows = _endless_rows(packer.num_rows, start_step * batch_size, seed, shards.fingerprint)
    return _batches(shards, documents, packer, rows, (batch_size, length), packed)


def row_order(num_rows: int, seed: int, epoch: int, fingerprint: str) -> np.ndarray:
    """The order of rows in an epoch: a permutation, int64 `[num_rows]`, the same on every machine.

    Rows are sorted by the raw 64-bit output of Philox4x64-10 under a key hashed from the arguments. Only a
    bit generator's raw stream is promised never to change; `Generator.permutation` may.
    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".
    """
    blob = f"longlode row order\0{seed}\0{epoch}\0{fingerprint}".encode()
    key = int.from_bytes(hashlib.blake2b(blob, digest_size=16).digest(), "big")
    return np.argsort(np.random.Philox(key=key).random_raw(num_rows), kind="stable")


def _endless_rows(num_rows: int, position: int, seed: int, fingerprint: str) -> Iterator[int]:
    epoch, offset = divmod(position, num_rows)
    while True:
        order = row_order(num_rows, seed, epoch, fingerprint)
        yield from order[offset:].tolist()
        epoch, offset = epoch + 1, 0


def _batches(
    shards: Shards,
    documents: np.ndarray,
    packer: Packer,
    rows: Iterator[int],
    shape: tuple[int, int],
    packed: bool,
) -> Iterator[Batch]:
    batch_size, length = shape
    while True:
        tokens = np.empty(batch_size * length, dtype=np.int64)
        labels = np.full(batch_size * length, IGNORED, dtype=np.int64)
        edges = [0]
        for _ in range(batch_size):
            for piece in packer.row(next(rows)):
                # One token more than the piece, where the document has one: the last label.
                found = shards.tokens(int(documents[piece.document]), piece.start, piece.stop + 1)
                start, size = edges[-1], piece.stop - piece.start
                tokens[start : start + size] = found[:size]
                labels[start : start + len(found) - 1] = found[1:]
                edges.append(start + size)
        if packed:
            yield Batch(tokens[None], labels[None], np.array(edges, dtype=np.int32))
        else:
            yield Batch(tokens.reshape(shape), labels.reshape(shape))
