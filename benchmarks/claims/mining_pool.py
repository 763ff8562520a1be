"""The pool of known make that `benchmarks.claims.mining` chooses from, and the ways to choose.

Works are cut into rows of equal length. In each work half of the rows, at random, stay as they are; the others are cut
into pieces of `PIECE` tokens, and the pieces of all such rows of a domain are dealt out anew. So both halves hold as
many tokens, of the same works in the same shares, and no token stands in both: they differ in order alone.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.labelled import Labelled
from benchmarks.quality_scoring import Setup, run_all
from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer
from longlode.mining import make_scorer
from longlode.models import starter_folder
from longlode.readers.tokens import TokenReaderSpec

PIECE = 150
"""Tokens of a shuffled piece, some 600 characters."""


@dataclass(frozen=True, eq=False)
class Pool:
    """Rows int32 `[n, length + 1]`; per row: work (of a shuffled one the work of its first piece), and if in order."""

    rows: np.ndarray
    works: np.ndarray
    in_order: np.ndarray
    vocab_size: int

    @property
    def fingerprint(self) -> str:
        """Name of the content."""
        return hashlib.sha256(self.rows.tobytes() + self.in_order.tobytes()).hexdigest()


def make_pool(works: Sequence[Work], tokenizer: Tokenizer, *, length: int, seed: int) -> Pool:
    """The pool of the English works that are no lists."""
    rng, width = np.random.default_rng(seed), length + 1
    kept, names, shuffled, shuffled_names = [], [], [], []
    domains = sorted({work.domain for work in works if work.language == "en" and work.domain != "list"})
    for domain in domains:
        pieces, rest, owners = [], [], []
        for work in works:
            if work.domain != domain or work.language != "en":
                continue
            tokens = tokenizer.encode_long(work.text)
            rows = tokens[: len(tokens) // width * width].reshape(-1, width)
            # An even number of rows, so that both halves have as many of each work.
            order = rng.permutation(len(rows))[: len(rows) // 2 * 2]
            half = len(order) // 2
            kept += list(rows[order[:half]])
            names += [work.id] * half
            for row in rows[order[half:]]:
                cut = np.split(row, np.arange(PIECE, width, PIECE))
                pieces += cut[:-1]
                rest.append(cut[-1])
                owners.append(work.id)
        deal = rng.permutation(len(pieces))
        per_row = len(pieces) // max(1, len(rest))
        for place, end in enumerate(rest):
            own = deal[place * per_row : (place + 1) * per_row]
            shuffled.append(np.concatenate([*(pieces[number] for number in own), end]))
            shuffled_names.append(owners[place])
    if not kept:
        raise ConfigError(f"No work has two rows of {width:,} tokens; expected a smaller --length.")
    in_order = np.arange(len(kept) + len(shuffled)) < len(kept)
    rows = np.stack([*kept, *shuffled]).astype(np.int32)
    return Pool(rows, np.array(names + shuffled_names), in_order, tokenizer.vocab_size)


def choose(arm: str, pool: Pool, tokenizer: Tokenizer, seed: int) -> np.ndarray:
    """Numbers of the rows that an arm trains on, half of the pool.

    Args: arm: oracle, random, spliced, or the name of a scorer that needs no model.
    Raises: ConfigError for another name, or a scorer that reads a model.
    """
    half = len(pool.rows) // 2
    if arm == "oracle":
        return np.flatnonzero(pool.in_order)
    if arm == "spliced":
        return np.flatnonzero(~pool.in_order)
    if arm == "random":
        return np.sort(np.random.default_rng(1000 + seed).permutation(len(pool.rows))[:half])
    scores = scored(arm, pool, tokenizer)
    return np.sort(np.argsort(-scores, kind="stable")[:half])


def scored(name: str, pool: Pool, tokenizer: Tokenizer) -> np.ndarray:
    """The score of every row, float64 `[n]`; the lowest where there is none."""
    if make_scorer(name, pairs=0).reads_model:
        raise ConfigError(
            f"Arm {name!r} reads a model; expected oracle, random, spliced or a scorer without one."
        )
    documents = [
        Labelled(str(number), "", "pool", tokenizer.decode(row.tolist()), row)
        for number, row in enumerate(pool.rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(TokenReaderSpec(str(starter_folder()))(), Path(folder), pairs=0)
        scores = run_all([name], documents, setup)[name].scores
    return np.where(np.isnan(scores), -np.inf, scores)
