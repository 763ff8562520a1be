"""What the demo's figures say, in plain sentences, also when they say nothing or speak against mining."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Auc:
    """Chance that an intact document scores above a spliced one (ties count half), with a 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    num_intact: int
    num_spliced: int

    def to_json(self) -> dict[str, float | int]:
        """The fields as plain JSON values."""
        return asdict(self)


def auc(intact: Sequence[float], spliced: Sequence[float], seed: int = 0) -> Auc | None:
    """AUC of two sets of scores; None when one of them is empty. Source: Mann and Whitney 1947; Efron 1979."""
    if not intact or not spliced:
        return None
    a, b = np.asarray(intact, float), np.asarray(spliced, float)
    wins = (a[:, None] > b[None, :]) + 0.5 * (a[:, None] == b[None, :])
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(_NUM_RESAMPLES):
        rows, columns = rng.integers(0, len(a), len(a)), rng.integers(0, len(b), len(b))
        means.append(wins[rows][:, columns].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return Auc(float(wins.mean()), float(low), float(high), len(a), len(b))


def findings(
    separation: Auc | None,
    halves: dict[str, dict[str, int]],
    comparison: dict[str, Any],
) -> list[str]:
    """One sentence a finding.

    Args:
      separation: of intact from spliced documents by the score.
      halves: "selected" and "random" -> source -> documents.
      comparison: what `evaluate.compare` gave, a = random half, b = selected half.
    """
    sentences = [_about_score(separation), _about_halves(halves)]
    rows = {(row["task"], row["metric"]): row for row in comparison["rows"]}
    if loss := rows.get(("loss_by_position", "nats")):
        sentences.append(_about_loss(loss))
    sentences += _about_far(comparison["loss_by_position"])
    sentences += [_about_task(row) for (task, metric), row in rows.items() if task != "loss_by_position" and metric == "smooth"]
    return sentences


def _about_score(separation: Auc | None) -> str:
    if separation is None:
        return "The score could not be tested: no intact or no spliced document was scored."
    figures = f"AUC {separation.value:.2f} (95 % interval {separation.low:.2f} to {separation.high:.2f})"
    if separation.low > 0.5:
        verdict = "The score tells intact files from spliced ones"
    elif separation.high < 0.5:
        verdict = "The score is upside down here: it ranks spliced files above intact ones"
    else:
        verdict = "The score does not tell intact files from spliced ones on this material"
    return f"{verdict}: {figures}, {separation.num_intact} against {separation.num_spliced} documents."


def _about_halves(halves: dict[str, dict[str, int]]) -> str:
    shares = [
        f"the {name} half holds {counts.get('intact', 0)} intact and {counts.get('spliced', 0)} spliced documents"
        for name, counts in halves.items()
    ]
    return f"{' and '.join(shares)}.".capitalize()


def _about_loss(row: dict[str, Any]) -> str:
    figures = (
        f"{row['b']:.3f} nats a token after training on the selected half, {row['a']:.3f} after the random half "
        f"(difference {_interval(row)})"
    )
    if row["favours"] == "b":
        return f"Mining helped the loss on held-out files: {figures}."
    if row["favours"] == "a":
        return f"Mining hurt the loss on held-out files: {figures}."
    return f"Mining made no difference that can be told in the loss on held-out files: {figures}."


def _about_far(curve: Sequence[dict[str, Any]]) -> list[str]:
    """The last bucket of positions, where the context is longest."""
    if not curve:
        return []
    last = max(curve, key=lambda row: (row["length"], row["bucket_stop"]))
    if last["low"] is None:
        return []
    where = f"With {last['bucket_start']} to {last['bucket_stop']} tokens of context"
    if last["high"] < 0:
        return [f"{where} the selected half is ahead: {_interval(last)} nats a token."]
    if last["low"] > 0:
        return [f"{where} the random half is ahead: {_interval(last)} nats a token."]
    return [f"{where} neither half is ahead: {_interval(last)} nats a token."]


def _about_task(row: dict[str, Any]) -> str:
    who = {"b": "the selected half is ahead", "a": "the random half is ahead", "": "no difference that can be told"}
    name = row["task"].replace("_", " ")
    return f"{name.capitalize()} at {row['length']} tokens: {who[row['favours']]} ({_interval(row)} nats, more is better)."


def _interval(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"{row['difference']:+.3f}, no interval"
    return f"{row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
