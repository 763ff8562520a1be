"""Training batches from shards, in an order that is a pure function of seed and step."""

from collections.abc import Iterator

import numpy as np

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, InputError
from longlode.packing.mixed_schedule import plan_mixture
from longlode.packing.mixture import Mixture, group_documents
from longlode.packing.packers import (
    DocumentSource,
    Insertion,
    Order,
    Packer,
    Piece,
    Schedule,
    StepRows,
    make_packer,
)
from longlode.packing.shards import Shards

IGNORED = -100


def plan(
    shards: Shards,
    packer: Packer | str,
    *,
    length: int,
    batch_size: int,
    seed: int,
    split: str = "train",
    heldout_fraction: float = 0.0,
    mix: Mixture | None = None,
) -> Schedule:
    """Plan the rows of every step, with the packer's report on the documents. Arguments: as in `batches`.

    With a mixture it is a `MixedSchedule`, whose `sources(num_steps)` says what a run reads of each group, and whose
    `num_steps` is the end of the data where the mixture limits the epochs.
    """
    return _plan(shards, packer, length, batch_size, seed, split, heldout_fraction, mix)[1]


def batches(
    shards: Shards,
    *,
    length: int,
    batch_size: int,
    seed: int,
    packer: Packer | str = "concat",
    start_step: int = 0,
    packed: bool = False,
    split: str = "train",
    heldout_fraction: float = 0.0,
    mix: Mixture | None = None,
) -> Iterator[Batch]:
    """Yield the batches of steps start_step, start_step + 1, ... without end.

    The packer assigns tokens to rows and steps. Step k's batch does not depend on `start_step`,
    so that `batches(start_step=k)` is `batches()` with k batches skipped, at no cost. A label is the next token of the
    same document, also across the end of a row; the last token of a document, its eos, has the label -100, so that
    nothing is predicted across documents. In packed chats tokens that are no answer have the label -100 as well.

    Args:
      length: tokens of a full row. batch_size: full rows per step.
      packer: one of `packing.packers`, or the name of one with its default options.
      packed: False: tokens and labels `[rows, tokens]`, cu_seqlens None, though a row may hold several documents;
        rows that are not full end in padding, eos without labels. True: one row `[1, tokens]`, without padding, with
        cu_seqlens at every boundary of documents and of rows.
      split, heldout_fraction: "heldout" takes, and "train" leaves out, the documents for which the first 8 bytes,
        big-endian, of the BLAKE2b hash of the id, divided by 2**64, are below the fraction
        (`corpus.in_heldout`).
      mix: shares of tokens by source, score band or any other column (`Mixture`); a stage of a recipe is a call
        with its own mix, packer, length and seed. Without it every document is read once per epoch.
    Raises: InputError for too few tokens to fill one step or one row of a group; ConfigError for invalid settings.
    """
    if start_step < 0:
        raise ConfigError(f"start_step is {start_step}; expected >= 0.")
    packer = make_packer(packer) if isinstance(packer, str) else packer
    if packer.needs_isolation and not packed:
        raise ConfigError(
            f"the packer {packer.name!r} needs documents that do not see each other; set packed to true."
        )
    if packer.needs_joint_documents and packed:
        raise ConfigError(
            f"the packer {packer.name!r} puts related documents into a row so that they see each other; set packed to "
            "false, or choose another packer."
        )
    documents, schedule = _plan(shards, packer, length, batch_size, seed, split, heldout_fraction, mix)
    return _batches(shards, documents, schedule, start_step, packed)


def _plan(
    shards: Shards,
    packer: Packer | str,
    length: int,
    batch_size: int,
    seed: int,
    split: str,
    heldout_fraction: float,
    mix: Mixture | None,
) -> tuple[np.ndarray, Schedule]:
    """Return the documents of a split and the schedule of their rows."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; expected >= 1.")
    packer = make_packer(packer) if isinstance(packer, str) else packer
    documents = shards.split(split, heldout_fraction)
    lengths = shards.lengths[documents]
    order = Order(seed, shards.fingerprint)
    shape = {"length": length, "batch_size": batch_size}
    if mix is None:
        schedule = packer.for_documents(_source(shards, documents)).plan(lengths, **shape, order=order)
    else:
        names = list(mix.shares)
        groups = group_documents(shards, documents, names)
        places = [np.searchsorted(documents, group) for group in groups]
        packers = [packer.for_documents(_source(shards, group)) for group in groups]
        found = dict(zip(names, zip(packers, places, strict=True), strict=True))
        schedule = plan_mixture(lengths, found, mix, **shape, order=order)
    if schedule.num_rows < 1:
        raise InputError(
            f"{', '.join(map(str, shards.folders))}: the {len(documents):,} {split} documents have "
            f"{int(lengths.sum()):,} tokens; one row needs {length:,}. Pack more text, ask for shorter rows"
            + (" or another heldout_fraction." if heldout_fraction else ".")
        )
    return documents, schedule


def _source(shards: Shards, documents: np.ndarray) -> DocumentSource:
    return DocumentSource(
        documents,
        shards.num_documents,
        lambda place: shards.tokens(int(documents[place])),
        shards.fingerprint,
        shards.folders[0],
    )


def _batches(
    shards: Shards, documents: np.ndarray, schedule: Schedule, start_step: int, packed: bool
) -> Iterator[Batch]:
    step = start_step
    while True:
        rows = schedule.step(step)
        yield (_packed if packed else _rows)(shards, documents, rows)
        step += 1


def _packed(shards: Shards, documents: np.ndarray, step: StepRows) -> Batch:
    """Make a batch of all pieces of a step in one row, end to end."""
    pieces = [piece for row in step.rows for piece in row]
    edges = np.concatenate([[0], np.cumsum([_places(piece, step.inserted) for piece in pieces])])
    filled = _Filled((int(edges[-1]),), shards.eos_id, step.inserted)
    for piece, start in zip(pieces, edges.tolist(), strict=False):
        filled.put(shards, documents, piece, start)
    return filled.batch((1, -1), edges.astype(np.int32))


def _rows(shards: Shards, documents: np.ndarray, step: StepRows) -> Batch:
    """Make a batch of the rows of a step, stacked."""
    filled = _Filled((len(step.rows) * step.length,), shards.eos_id, step.inserted)
    for number, row in enumerate(step.rows):
        start = number * step.length
        for piece in row:
            filled.put(shards, documents, piece, start)
            start += _places(piece, step.inserted)
    return filled.batch((len(step.rows), step.length), None)


def _places(piece: Piece, inserted: Insertion | None) -> int:
    """Return the places that a piece takes in a row."""
    size = piece.stop - piece.start
    return size if inserted is None else inserted.num_places(size)


class _Filled:
    """Tokens, labels and weights of a step, filled piece by piece."""

    def __init__(self, shape: tuple[int], padding: int, inserted: Insertion | None = None) -> None:
        self._inserted = inserted
        self._tokens = np.full(shape, padding, dtype=np.int64)
        self._labels = np.full(shape, IGNORED, dtype=np.int64)
        self._weights = np.zeros(shape, dtype=np.float32)
        self._is_weighted = False

    def put(self, shards: Shards, documents: np.ndarray, piece: Piece, start: int) -> None:
        """Write a piece from position `start` on."""
        # One token more than the piece, if the document has one: the last label.
        found = shards.tokens(int(documents[piece.document]), piece.start, piece.stop + 1)
        size = piece.stop - piece.start
        labels, weight = found[1:].astype(np.int64), piece.weight
        if shards.has_loss_mask:
            asked = shards.has_loss(int(documents[piece.document]), piece.start, piece.stop + 1)[1:]
            labels[~asked] = IGNORED
            if weight != 1.0:  # which a packer derives from the number of labels
                weight *= len(asked) / max(1, int(asked.sum()))
        places, asking = self._place(start, size)
        self._tokens[places] = found[:size]
        self._labels[asking[: len(labels)]] = labels
        self._weights[asking[: len(labels)]] = weight
        self._is_weighted |= piece.weight != 1.0

    def _place(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of a piece's tokens, and of the labels that follow each; write what is inserted."""
        index = np.arange(size)
        if self._inserted is None:
            return start + index, start + index
        period, filled = self._inserted.size, start + index
        places = filled + index // period
        # The token before an inserted one is not asked for it; the inserted one is asked for the token after it.
        asking = filled + (index + 1) // period
        self._tokens[asking[asking > places]] = self._inserted.token
        return places, asking

    def batch(self, shape: tuple[int, int], edges: np.ndarray | None) -> Batch:
        """Return the batch, its arrays in this shape."""
        weights = self._weights.reshape(shape) if self._is_weighted else None
        return Batch(self._tokens.reshape(shape), self._labels.reshape(shape), edges, weights)
