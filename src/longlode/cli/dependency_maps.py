"""The dependency map of a few documents: which segment makes which later segment less surprising?"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.cli.score_table import score_rows
from longlode.core.errors import InputError
from longlode.core.records import read_record

if TYPE_CHECKING:
    from longlode.mining import ScoreSettings
    from longlode.models.scorer import LMScorer

EXPLAIN_NAME = "explain.json"
NUM_EXPLAINED = 2


@dataclass(frozen=True, eq=False)
class PairReadings:
    """All pairs j < i of some segments, read.

    targets i, sources j int `[P]`; strengths, DST of `mining.dependency`, and gains_nats, mean nats a token that
    s_j takes off s_i, `[P]`; token_gains_nats `[P, L - 1]`, the same for tokens 1 to L - 1 of s_i.
    """

    targets: np.ndarray
    sources: np.ndarray
    strengths: np.ndarray
    gains_nats: np.ndarray
    token_gains_nats: np.ndarray


def map_ends(
    out: Path, scorer: "LMScorer", settings: "ScoreSettings", *, max_segments: int
) -> list[dict[str, Any]]:
    """Maps of the best and the worst documents of a scores folder, each of its first `max_segments` segments.

    Returns: [{id, file, row, score, label, segments: [text], pairs: [[i, j, strength, gain_nats]]}] for all
      j < i; strength as in `mining.dependency`, gain_nats the mean nats a token that s_j takes off s_i.
    """
    best = score_rows(out, order="best", limit=NUM_EXPLAINED)
    taken = {(row["file"], row["row"]) for row in best}
    worst = [
        row
        for row in score_rows(out, order="worst", limit=2 * NUM_EXPLAINED)
        if (row["file"], row["row"]) not in taken
    ][:NUM_EXPLAINED]
    units = {entry["part"]: entry["unit"] for entry in read_record(out, "scores")["parts"]}
    labelled = [*((row, "best") for row in best), *((row, "worst") for row in worst)]
    maps = []
    for row, label in labelled:
        text = _text(row, units[Path(row["part"]).name], settings.text_field)
        maps.append(_map(row, label, text, scorer, settings.segment, max_segments))
    return maps


def _map(
    row: dict[str, Any], label: str, text: str, scorer: "LMScorer", segment: int, max_segments: int
) -> dict[str, Any]:
    from longlode.mining.segments import split_segments

    tokens = scorer.encode([text])[0]
    segments = split_segments(np.asarray(tokens[: max_segments * segment]), segment)
    return {
        **{name: row[name] for name in ("id", "file", "row", "score")},
        "label": label,
        "segments": [scorer.tokenizer.decode(segment) for segment in segments],
        "pairs": dependency_pairs(segments, scorer),
    }


def dependency_pairs(segments: np.ndarray, scorer: "LMScorer") -> list[list[float]]:
    """[i, j, strength, gain in nats a token] of every pair j < i. Args: segments int `[S, L]`."""
    pairs = read_pairs(segments, scorer)
    columns = (pairs.targets, pairs.sources, pairs.strengths, pairs.gains_nats)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [[i, j, round(s, 4), round(g, 4)] for i, j, s, g in rows]


def read_pairs(segments: np.ndarray, scorer: "LMScorer") -> PairReadings:
    """Read every pair j < i. Args: segments int `[S, L]`; fewer than two give no pair."""
    from longlode.mining.dependency import perplexity, strength

    targets, sources = np.tril_indices(len(segments), -1)
    if not len(targets):
        nothing = np.zeros(0)
        return PairReadings(targets, sources, nothing, nothing, np.zeros((0, max(0, segments.shape[1] - 1))))
    alone, states = scorer.alone(segments.astype(np.int64))
    given = scorer.given(states, sources, segments[targets].astype(np.int64))
    strengths = strength(perplexity(alone)[targets], perplexity(given))
    gains = alone[targets].mean(axis=1) - given.mean(axis=1)
    return PairReadings(targets, sources, strengths, gains, alone[targets] - given)


def _text(row: dict[str, Any], unit: dict[str, Any], text_field: str) -> str:
    """The text of a scored row, from the unit of input that its part was made of."""
    from longlode.corpus import Document, Unit, read_unit

    for item in read_unit(Unit.from_json(unit), text_field=text_field):
        if isinstance(item, Document) and (item.file, item.row) == (row["file"], row["row"]):
            return item.text
    raise InputError(f"{row['file']}, row {row['row']}, has changed since it was scored. Score it again.")
