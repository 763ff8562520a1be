"""The arms of `benchmarks.claims.mining`: ways to choose one row in `SHARE` of every work of the pool.

All arms take equally many rows of each work, so of each kind of text, and differ only in which. A scorer is asked to
choose within each work, as `longlode select --by source` does within sources; it never sees labels.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.claims.mining_pool import SHARE, Pool
from benchmarks.compressors import COMPRESSORS
from longlode.core.errors import ConfigError
from longlode.core.records import write_json
from longlode.corpus import Tokenizer, write_documents
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.models import starter_folder
from longlode.readers.lm import ReaderSpec
from longlode.readers.tokens import TokenReaderSpec

PAIRS = 50
"""Pairs of segments that `release` reads of a row: a tenth of all there are."""
EVERYTHING = "everything"


@dataclass(frozen=True)
class Scored:
    """An arm that takes what a scorer ranks highest. column: of its table. band: the middle of the ranking instead."""

    scorer: str
    column: str = "score"
    band: bool = False
    about: str = ""


SCORED = {
    "profile x gate": Scored("profile", about="the default score"),
    "profile": Scored("profile", "gain_nats", about="gain from far context alone"),
    "gate": Scored("profile", "gate", about="log-odds of one text in its order alone"),
    "gzip": Scored("gzip", about="share of bytes saved"),
    "gzip band": Scored("gzip", band=True, about="the middle of each work by bytes saved"),
    "release": Scored("release", about="ProLong's released score, read by the starter, 50 pairs"),
    "context_gain": Scored("context_gain", about="LongFilter's score, read by the starter"),
    "coherence": Scored("coherence", about="log-odds of one English text in its order, the default before"),
    "overlap": Scored("overlap", about="share of rare token pairs that stood further back"),
    "lzma": Scored("lzma", about="share of bytes saved by LZMA"),
    "lzma near": Scored("lzma_near", about="the same with 4 KiB to look back on"),
    "lzma far": Scored("lzma_far", about="what looking further back saves"),
    "attention_mass": Scored(
        "attention_mass",
        about="share of attention that goes far back (LongAttn, LADM), by --attention-reader",
    ),
}
KNOWING = {
    "oracle": "text in order, by its label",
    "random": "any rows",
    "spliced": "junk, by its label",
    EVERYTHING: "the whole pool, so the tokens of all arms of its size",
}
ARMS = (*KNOWING, *SCORED)


def choose(arm: str, pool: Pool, scores: Callable[[Scored], np.ndarray], seed: int) -> np.ndarray:
    """Numbers of the rows that an arm trains on, work by work: the n-th row of every arm counts as the same work.

    Args:
      arm: one of ARMS.
      scores: gives the scores of all rows, higher is better, nan where there is none.
      seed: of the draw, where the arm draws.
    Raises: ConfigError for another arm.
    """
    rng = np.random.default_rng(1000 + seed)
    if arm == EVERYTHING:
        return np.concatenate(pool.of_work)
    if arm == "random":
        return _of_each_work(pool, lambda rows: rng.permutation(rows))
    if arm == "oracle":
        return _of_each_work(pool, lambda rows: rows[pool.in_order[rows]])
    if arm == "spliced":
        return _of_each_work(pool, lambda rows: rng.permutation(rows[~pool.in_order[rows]]))
    if arm not in SCORED:
        raise ConfigError(f"There is no arm {arm!r}; expected some of: {', '.join(ARMS)}.")
    values = scores(SCORED[arm])
    ranked = _from_the_middle if SCORED[arm].band else _from_the_top
    return _of_each_work(pool, lambda rows: rows[ranked(values[rows])])


def _of_each_work(pool: Pool, ranked: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    return np.concatenate([np.sort(ranked(rows)[: len(rows) // SHARE]) for rows in pool.of_work])


def _from_the_top(values: np.ndarray) -> np.ndarray:
    return np.argsort(-np.where(np.isnan(values), -np.inf, values), kind="stable")


def _from_the_middle(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.abs(np.argsort(_from_the_top(values)) - (len(values) - 1) / 2), kind="stable")


def share_in_order(chosen: np.ndarray, pool: Pool) -> float:
    """Share of the chosen rows that are text in order."""
    return float(pool.in_order[chosen].mean())


class PoolScores:
    """Scores of the pool's rows by the engine, kept in a folder: a scoring run that was stopped goes on."""

    def __init__(self, pool: Pool, tokenizer: Tokenizer, folder: Path, attention_reader: str = "") -> None:
        """Args: tokenizer, of the pool; folder, that has all runs; attention_reader, the model of `attention_mass`."""
        self.pool = pool
        self.tokenizer = tokenizer
        self.folder = folder / f"scores-{pool.fingerprint[:12]}"
        self.attention_reader = attention_reader
        self._tables: dict[str, dict[str, np.ndarray]] = {}

    def __call__(self, arm: Scored) -> np.ndarray:
        """float64 `[n]`, nan where the row has no score.

        Raises: ConfigError for attention_mass without a reader, or when a scoring run failed.
        """
        if arm.scorer not in self._tables:
            self._tables[arm.scorer] = self._read(arm.scorer)
        return self._tables[arm.scorer][arm.column]

    def _read(self, name: str) -> dict[str, np.ndarray]:
        if name in COMPRESSORS:
            texts = (row["text"] for row in self._documents())
            return {"score": np.array([COMPRESSORS[name](text) for text in texts])}
        make_reader = self._reader_of(name)
        fingerprint = make_reader().fingerprint
        kept = self.folder / f"{name}.json"
        if name == "attention_mass":
            kept = self.folder / f"{name}-{fingerprint[:8]}.json"
        if not kept.is_file():
            write_json(kept, self._score(name, self.folder / kept.stem, make_reader, fingerprint))
        columns = json.loads(kept.read_text(encoding="utf-8"))
        return {column: np.array(values, dtype=np.float64) for column, values in columns.items()}

    def _reader_of(self, name: str) -> Callable[[], Any]:
        if name == "attention_mass" and not self.attention_reader:
            raise ConfigError(
                "attention_mass needs a model with attention layers, which the starter is not; expected its folder as "
                "--attention-reader."
            )
        if not _scorer(name).reads_model:
            return TokenReaderSpec(str(starter_folder()))
        model = self.attention_reader if name == "attention_mass" else str(starter_folder())
        return ReaderSpec(model, dtype="bfloat16")

    def _score(
        self, name: str, out: Path, make_reader: Callable[[], Any], reader_fingerprint: str
    ) -> dict[str, list[float | None]]:
        source = self.folder / "rows.jsonl"
        if not source.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_documents(source, self._documents())
        summary = score(
            source,
            out,
            scorer=_scorer(name),
            make_reader=make_reader,
            reader_fingerprint=reader_fingerprint,
            settings=ScoreSettings(rows_per_unit=16),
        )
        if summary.failed_units:
            raise ConfigError(f"{name} did not score the pool: {summary.failed_units[0]['error']}")
        wanted = {arm.column for arm in SCORED.values() if arm.scorer == name}
        found: dict[str, list[float | None]] = {column: [None] * len(self.pool.rows) for column in wanted}
        for part in sorted((out / "parts").glob("*.parquet")):
            for row in pq.read_table(part, partitioning=None).to_pylist():
                for column in wanted:
                    found[column][row["row"]] = _cell(row, column)
        return found

    def _documents(self) -> Sequence[dict[str, Any]]:
        return [
            {"id": str(number), "source": str(domain), "text": self.tokenizer.decode(row.tolist())}
            for number, (row, domain) in enumerate(zip(self.pool.rows, self.pool.domains, strict=True))
        ]


def _scorer(name: str) -> Any:
    # coherence reads pairs for columns that are not used here, its score comes without.
    return make_scorer(name, pairs=0 if name == "coherence" else PAIRS)


def _cell(row: dict[str, Any], column: str) -> float | None:
    if column in row:
        return row[column]
    return row.get(f"extras.{column}", (row.get("extras") or {}).get(column))
