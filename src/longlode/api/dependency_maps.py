"""Dependency maps of a few documents: how much each segment makes each later segment less surprising."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from longlode.api.announced_words import order_words, token_texts
from longlode.api.scores import score_rows
from longlode.api.watch import Update, ignore
from longlode.core.errors import InputError
from longlode.core.records import read_record

if TYPE_CHECKING:
    from longlode.mining import Scorer, ScoreSettings
    from longlode.mining.engine.scored import ScoredPart
    from longlode.readers.lm import LMReader
    from longlode.readers.tokens import TokenReader

EXPLAIN_NAME = "explain.json"
NUM_EXPLAINED = 2
NUM_SHOWN = 5
"""Number of pairs with their tokens, and of announced words, per document."""


@dataclass(frozen=True, eq=False)
class PairReadings:
    """All pairs j < i of some segments, read.

    targets i, sources j int `[P]`; strengths, DST of `mining.dependency`, and gains_nats, mean nats per token that
    s_j saves on s_i, `[P]`; token_gains_nats `[P, L - 1]`, the same for tokens 1 to L - 1 of s_i.
    """

    targets: np.ndarray
    sources: np.ndarray
    strengths: np.ndarray
    gains_nats: np.ndarray
    token_gains_nats: np.ndarray


def map_ends(
    out: Path,
    tokens: "TokenReader | LMReader",
    settings: "ScoreSettings",
    *,
    model: "LMReader | None",
    max_segments: int,
    update: Update = ignore,
) -> list[dict[str, Any]]:
    """Maps of the best and the worst documents of a scores folder, each of its first `max_segments` segments.

    Args: tokens, the reader that tokenizes; model, the reader of the pairs, None for words without a map; update,
      called with the documents done and their number.

    Returns: [{id, file, row, score, label, segment, segments: [text], pairs: [[i, j, strength, gain_nats]],
      strongest, order}]. pairs: all j < i; strength as in `mining.dependency`, gain_nats the mean nats per token
      that s_j saves on s_i. strongest: the first few of them by strength, as `strongest_pairs`. order: the words
      of the order contrast, as `order_words`; whatever scorer made `score`, over the whole document. pairs and
      strongest are empty without a model.
    """
    return [
        _map(row, label, text, tokens, model, settings.segment, max_segments)
        for row, label, text in _ends(out, settings, update)
    ]


def explain_ends(
    out: Path, scorer: "Scorer", settings: "ScoreSettings", *, update: Update = ignore
) -> list[dict[str, Any]]:
    """Explain the scores of the best and the worst documents of a scores folder, by a scorer that needs no reader.

    Args: update, called with the documents done and their number.
    Returns: [{id, file, row, score, label, explanation}], explanation as of `Scorer.explain`; [] for a scorer that
      has none.
    """
    from longlode.mining.engine.fit import fitted_scorer

    found, fitted = [], fitted_scorer(out, scorer)
    for row, label, text in _ends(out, settings, update):
        told = fitted.explain(text, NUM_SHOWN)
        if told is None:
            return []
        place = {name: row[name] for name in ("id", "file", "row", "score")}
        found.append({**place, "label": label, "explanation": told})
    return found


def _ends(out: Path, settings: "ScoreSettings", update: Update) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The best and the worst documents: row of the scores, "best" or "worst", text."""
    from longlode.mining.engine.scored import scored_part

    best = score_rows(out, order="best", limit=NUM_EXPLAINED)
    taken = {(row["file"], row["row"]) for row in best}
    worst = [
        row
        for row in score_rows(out, order="worst", limit=2 * NUM_EXPLAINED)
        if (row["file"], row["row"]) not in taken
    ][:NUM_EXPLAINED]
    entries = {entry["part"]: entry for entry in read_record(out, "scores")["parts"]}
    labelled = [*((row, "best") for row in best), *((row, "worst") for row in worst)]
    for number, (row, label) in enumerate(labelled):
        update(number, len(labelled), f"documents: {row['id']}")
        yield row, label, _text(row, scored_part(out, entries[Path(row["part"]).name]), settings)
        update(number + 1, len(labelled), f"documents: {row['id']}")


def _map(
    row: dict[str, Any],
    label: str,
    text: str,
    reader: "TokenReader | LMReader",
    model: "LMReader | None",
    segment: int,
    max_segments: int,
) -> dict[str, Any]:
    from longlode.mining.segments import split_segments

    tokens = np.asarray(reader.encode([text])[0], dtype=np.int64)
    segments = split_segments(tokens[: max_segments * segment], segment)
    pairs = read_pairs(segments if model else segments[:0], model)
    columns = (pairs.targets, pairs.sources, pairs.strengths, pairs.gains_nats)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {
        **{name: row[name] for name in ("id", "file", "row", "score")},
        "label": label,
        "segment": segment,
        "segments": [reader.tokenizer.decode(one) for one in segments],
        "pairs": [[i, j, round(s, 4), round(g, 4)] for i, j, s, g in rows],
        "strongest": strongest_pairs(segments, 0, pairs, reader.tokenizer, NUM_SHOWN),
        "order": order_words(tokens, reader.tokenizer, segment, NUM_SHOWN),
    }


def read_pairs(segments: np.ndarray, reader: "LMReader | None") -> PairReadings:
    """Read every pair j < i. Args: segments int `[S, L]`; fewer than two give no pair and need no reader."""
    from longlode.mining.dependency import perplexity, strength

    targets, sources = np.tril_indices(len(segments), -1)
    if reader is None or not len(targets):
        nothing = np.zeros(0)
        return PairReadings(targets, sources, nothing, nothing, np.zeros((0, max(0, segments.shape[1] - 1))))
    alone, states = reader.alone(segments.astype(np.int64))
    given = reader.given(states, sources, segments[targets].astype(np.int64))
    strengths = strength(perplexity(alone)[targets], perplexity(given))
    gains = alone[targets].mean(axis=1) - given.mean(axis=1)
    return PairReadings(targets, sources, strengths, gains, alone[targets] - given)


def strongest_pairs(
    segments: np.ndarray, start: int, pairs: PairReadings, tokenizer: Any, top: int
) -> list[dict[str, Any]]:
    """The `top` strongest pairs, each with both texts as pieces [text, gain in nats], a source's gains null.

    The first token of a segment is never scored: its gain is null as well.
    """
    best = np.argsort(-pairs.strengths, kind="stable")[:top]
    found = []
    for pair in best:
        target, source = int(pairs.targets[pair]), int(pairs.sources[pair])
        gains = [None, *(round(float(gain), 4) for gain in pairs.token_gains_nats[pair])]
        found.append(
            {
                "target": start + target,
                "source": start + source,
                "strength": float(pairs.strengths[pair]),
                "gain_nats": float(pairs.gains_nats[pair]),
                "source_tokens": [[text, None] for text in token_texts(segments[source], tokenizer)],
                "target_tokens": [
                    list(piece) for piece in zip(token_texts(segments[target], tokenizer), gains, strict=True)
                ],
            }
        )
    return found


def _text(row: dict[str, Any], part: "ScoredPart", settings: "ScoreSettings") -> str:
    """Text of a scored row, from the unit of input that it was made from."""
    from longlode.corpus import Document, read_unit

    unit = part.units[part.number_at(row["place"])]
    for item in read_unit(unit, text_field=settings.text_field, encoding=settings.encoding):
        if isinstance(item, Document) and (item.file, item.row) == (row["file"], row["row"]):
            return item.text
    raise InputError(f"{row['file']}, row {row['row']}, has changed since it was scored. Score it again.")
