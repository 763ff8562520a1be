"""The choice of documents by a mixture while they are packed: as many as the shares allow, none twice.

The group that runs out first decides how many tokens there are in all; of the others a part is left out, drawn by the
hash of the text. So the choice depends on the documents alone, and not on their order or the number of processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from longlode.packing.columns import document_table
from longlode.packing.mixture import group_documents

_NEEDED = ("num_tokens", "content_hash", "source")


@dataclass(frozen=True)
class GroupChoice:
    """A group of the mixture. documents, tokens: that there are. kept_documents, kept_tokens: that are packed.

    share: that was asked for.
    """

    name: str
    share: float
    documents: int
    tokens: int
    kept_documents: int
    kept_tokens: int


class DocumentTable:
    """The table of documents that may be packed, with the columns that a mixture names."""

    def __init__(self, schema: pa.Schema, mix: Mapping[str, float]) -> None:
        """Begin without documents. Args: schema, of all columns."""
        named = {name.partition(":")[0] for name in mix}
        self._schema = schema
        self._kept = [name for name in schema.names if name in named or name in _NEEDED]
        self._tables: list[pa.Table] = []

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Add the documents among the rows of a part."""
        documents = [row for row in rows if "status" not in row]
        self._tables.append(document_table(documents, self._schema).select(self._kept))

    @cached_property
    def columns(self) -> dict[str, pa.DataType]:
        """All columns of the documents and their types; `column` has those that the mixture names."""
        return {field.name: field.type for field in self._schema}

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a column of all documents."""
        return pa.concat_tables(self._tables)[name]


def choose(documents: DocumentTable, mix: Mapping[str, float]) -> tuple[np.ndarray, list[GroupChoice]]:
    """Choose documents so that each group has its share of the tokens.

    Args: mix, weight of each group, adding up to 1.
    Returns: which documents are packed, bool `[num_documents]`, and the figures of the groups.
    Raises: ConfigError for a column that there is not; InputError for a group without documents.
    """
    lengths = documents.column("num_tokens").to_numpy()
    texts = documents.column("content_hash").to_numpy()
    groups = dict(zip(mix, group_documents(documents, np.arange(len(lengths)), list(mix)), strict=True))
    there = {name: int(lengths[group].sum()) for name, group in groups.items()}
    total = min(there[name] / share for name, share in mix.items() if share > 0)
    kept, figures = np.zeros(len(lengths), dtype=bool), []
    for name, group in groups.items():
        drawn = group[np.argsort(texts[group], kind="stable")]
        taken = drawn[: _fewest(lengths[drawn], mix[name] * total)]
        kept[taken] = True
        found = (len(group), there[name], len(taken), int(lengths[taken].sum()))
        figures.append(GroupChoice(name, mix[name], *found))
    return kept, figures


def _fewest(lengths: np.ndarray, wanted: float) -> int:
    """Return the number of documents, from the first on, whose tokens come nearest to `wanted`."""
    ends = np.concatenate([[0], np.cumsum(lengths)])
    return int(np.abs(ends - wanted).argmin())


def kept_rows(
    rows: Sequence[dict[str, Any]], kept: Iterator[bool] | None
) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield the rows of a part, each with False if it is a document that is left out. Args: kept, of the documents."""
    for row in rows:
        yield row, kept is None or "status" in row or next(kept)
