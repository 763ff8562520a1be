"""Near-duplicates among selected documents, by MinHash: extra `[dedup]` (rensa).

Two documents are near-duplicates if the estimated share of their shingles that both have (Jaccard similarity) reaches
the threshold. Documents that agree in one of several bands of their signature are candidates; in each band each is
compared with the best-ranked of them only, so that a thousand copies cost a thousand comparisons. A document is dropped
if it is a near-duplicate of one that ranks higher. Signatures are kept in DuckDB, which moves them to the disk.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from longlode.core.errors import BackendError, ConfigError

NUM_HASHES = 128
SHINGLE_WORDS = 5
_SHINGLE_CHARACTERS = 12
_LONG_WORD = 20
"""Characters; where words are longer on average (Chinese, Japanese, Thai), shingles are of characters."""
_RECALL = 0.95
"""Share of the pairs exactly at the threshold that become candidates, at least."""
_SEED = 7
_BATCH = 1024
_WORD = re.compile(r"\w+")


def check_threshold(threshold: float | None) -> None:
    """Raises: ConfigError for a threshold that is no similarity; BackendError without rensa."""
    if threshold is None:
        return
    if not 0.3 <= threshold <= 1:
        raise ConfigError(
            f"near_duplicates is {threshold}; expected a similarity from 0.3 to 1, such as 0.8: the share of shingles "
            "of 5 words that two documents have in common."
        )
    _rensa()


def drop_near_duplicates(
    base: duckdb.DuckDBPyConnection, texts: Iterable[tuple[str, str]], threshold: float
) -> int:
    """Mark the near-duplicates among the kept rows of the table `ranked` as dropped.

    Args: base, with `ranked` as of `selection_rule.rank`; texts, (id, text) of the kept rows.
    Returns: the number dropped.
    """
    base.execute("CREATE TABLE signatures (id VARCHAR, signature BLOB)")
    base.execute("CREATE TABLE bands (id VARCHAR, band USMALLINT, name UBIGINT)")
    per_band = rows_per_band(threshold)
    for names, signatures in _signed(texts):
        _insert(base, names, signatures, per_band)
    base.execute(
        """CREATE TABLE pairs AS
           WITH placed AS (
             SELECT bands.id, band, name, row_number() OVER (ORDER BY value DESC, bands.id) AS nth
             FROM bands JOIN ranked ON ranked.id = bands.id AND kind IS NULL
           )
           SELECT DISTINCT leader, id FROM (
             SELECT id, first_value(id) OVER (PARTITION BY band, name ORDER BY nth) AS leader FROM placed
           ) WHERE id <> leader"""
    )
    base.execute("CREATE TABLE near (id VARCHAR, leader VARCHAR, similarity DOUBLE)")
    _compare(base, threshold)
    base.execute(
        """UPDATE ranked SET kind = 'near-duplicate', why = found.why FROM (
             SELECT id, format('near-duplicate of {} (similarity {:.2f})', arg_max(leader, similarity), max(similarity))
                    AS why FROM near GROUP BY id
           ) AS found WHERE ranked.id = found.id AND kind IS NULL"""
    )
    number = base.execute("SELECT count(DISTINCT id) FROM near").fetchall()[0][0]
    for name in ("signatures", "bands", "pairs", "near"):
        base.execute(f"DROP TABLE {name}")
    return int(number)


def rows_per_band(threshold: float) -> int:
    """Return how many hashes form a band: as many as still find 95 % of the pairs at the threshold."""
    return max(
        size
        for size in range(1, NUM_HASHES + 1)
        if size == 1 or 1 - (1 - threshold**size) ** (NUM_HASHES // size) >= _RECALL
    )


def shingles(text: str) -> list[str]:
    """Return the shingles of a text: five words in lower case, or 12 characters where words are not separated.

    A text of fewer words is one shingle, an empty one has none.
    """
    words = _WORD.findall(text.lower())
    if words and sum(map(len, words)) > _LONG_WORD * len(words):
        joined = "".join(words)
        return [
            joined[at : at + _SHINGLE_CHARACTERS]
            for at in range(max(1, len(joined) - _SHINGLE_CHARACTERS + 1))
        ]
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return [" ".join(words[at : at + SHINGLE_WORDS]) for at in range(last)] if words else []


def _signed(texts: Iterable[tuple[str, str]]) -> Iterator[tuple[list[str], np.ndarray]]:
    """Yield ids and signatures, uint32 `[documents, NUM_HASHES]`; texts without words are left out."""
    rensa, rows = _rensa(), iter(texts)
    while batch := list(islice(rows, _BATCH)):
        named = [(name, found) for name, text in batch if (found := shingles(text))]
        made = []
        for _, found in named:
            minhash = rensa.RMinHash(num_perm=NUM_HASHES, seed=_SEED)
            minhash.update(found)
            made.append(minhash.digest())
        if named:
            yield [name for name, _ in named], np.array(made, dtype=np.uint32)


def _insert(base: duckdb.DuckDBPyConnection, names: list[str], signatures: np.ndarray, per_band: int) -> None:
    blobs = pa.array([row.tobytes() for row in signatures], pa.binary())
    table = pa.table({"id": pa.array(names, pa.string()), "signature": blobs})
    base.register("new_rows", table)
    base.execute("INSERT INTO signatures SELECT * FROM new_rows")
    num_bands = NUM_HASHES // per_band
    banded = signatures[:, : num_bands * per_band].reshape(len(names), num_bands, per_band)
    # A linear hash with odd random weights; arithmetic wraps modulo 2^64.
    weights = np.random.Generator(np.random.Philox(key=_SEED)).integers(0, 1 << 63, per_band, dtype=np.uint64)
    hashed = (banded.astype(np.uint64) * (weights * np.uint64(2) + np.uint64(1))).sum(axis=2, dtype=np.uint64)
    columns: dict[str, Any] = {
        "id": pa.array(names, pa.string()).take(pa.array(np.repeat(np.arange(len(names)), num_bands))),
        "band": pa.array(np.tile(np.arange(num_bands, dtype=np.uint16), len(names))),
        "name": pa.array(hashed.ravel()),
    }
    base.register("new_rows", pa.table(columns))
    base.execute("INSERT INTO bands SELECT * FROM new_rows")
    base.unregister("new_rows")


def _compare(base: duckdb.DuckDBPyConnection, threshold: float) -> None:
    """Put the pairs whose signatures agree enough into the table `near`."""
    with base.cursor() as reading:  # a second one, because writing ends a query that is being read
        reading.execute(
            """SELECT pairs.id, leader, ours.signature, theirs.signature FROM pairs
               JOIN signatures AS ours ON ours.id = pairs.id JOIN signatures AS theirs ON theirs.id = leader"""
        )
        while rows := reading.fetchmany(_BATCH):
            ours, theirs = (
                np.frombuffer(b"".join(row[at] for row in rows), np.uint32).reshape(len(rows), NUM_HASHES)
                for at in (2, 3)
            )
            similarity = (ours == theirs).mean(axis=1)
            close = np.flatnonzero(similarity >= threshold)
            found = {
                "id": pa.array([rows[at][0] for at in close], pa.string()),
                "leader": pa.array([rows[at][1] for at in close], pa.string()),
                "similarity": pa.array(similarity[close]),
            }
            base.register("new_rows", pa.table(found))
            base.execute("INSERT INTO near SELECT * FROM new_rows")
            base.unregister("new_rows")


def _rensa() -> Any:
    try:
        import rensa
    except ImportError:
        raise BackendError(
            "near-duplicates are found by rensa, which is not installed; pip install 'longlode[dedup]'."
        ) from None
    return rensa
