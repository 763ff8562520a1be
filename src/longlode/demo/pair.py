"""Profile of one real document beside that of a glued one: those of median score, so that neither is hand-picked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from longlode.api.dependency_maps import EXPLAIN_NAME
from longlode.api.scores import score_rows
from longlode.core.records import read_json, write_json

NUM_WORDS = 5
"""Number of words and pairs in an explanation."""


def median_row(scores: Path, source: str, limit: int) -> dict[str, Any] | None:
    """The row of the scores whose score is the median of its source (the lower one of two); None if there is none."""
    rows = [row for row in score_rows(scores, order="worst", limit=limit) if row["source"] == source]
    return rows[(len(rows) - 1) // 2] if rows else None


def explain_pair(
    scores: Path, texts: Mapping[str, str], sources: Sequence[str], scorer: Any
) -> list[dict[str, Any]]:
    """Explain the document of median score of each source, here and in the folder's explain.json.

    Args: texts, id -> text of all documents; scorer, the one that scored them.
    Returns: [{id, file, row, score, label, explanation}], as in explain.json; label is "median SOURCE".
    """
    found = []
    for source in sources:
        row = median_row(scores, source, len(texts))
        told = None if row is None else scorer.explain(texts[row["id"]], NUM_WORDS)
        if row is not None and told is not None:
            place = {name: row[name] for name in ("id", "file", "row", "score")}
            found.append({**place, "label": f"median {source}", "explanation": told})
    path = scores / EXPLAIN_NAME
    known = read_json(path) if path.is_file() else []
    taken = {(one["file"], one["row"]) for one in found}
    write_json(path, [*found, *(one for one in known if (one["file"], one["row"]) not in taken)])
    return found
