"""What the demo's figures say, in plain sentences, also when they say nothing or speak against mining."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from longlode.core.ranking import wins
from longlode.demo.material import INTACT, SPLICED

FILES = "files"
_CAVEAT = (
    "One training run each, of about a minute: the intervals cover the held-out examples, not the luck of a seed. "
    "This shows that the path works; it does not settle what mining is worth."
)
_NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Auc:
    """Chance that an intact document scores above a spliced one, ties half; a 95 % bootstrap interval."""

    value: float
    low: float
    high: float
    num_intact: int
    num_spliced: int


def auc(intact: Sequence[float], spliced: Sequence[float], seed: int = 0) -> Auc | None:
    """AUC of two sets of scores; None when one is empty. Source: Mann and Whitney 1947, Efron 1979."""
    if not intact or not spliced:
        return None
    a, b = np.asarray(intact, float), np.asarray(spliced, float)
    won = wins(a, b)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(_NUM_RESAMPLES):
        rows, columns = rng.integers(0, len(a), len(a)), rng.integers(0, len(b), len(b))
        means.append(won[rows][:, columns].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return Auc(float(won.mean()), float(low), float(high), len(a), len(b))


def findings(
    separation: dict[str, Auc], halves: dict[str, dict[str, int]], comparison: dict[str, Any]
) -> list[str]:
    """One sentence a finding.

    Args:
      separation: of intact from spliced documents, by "score" and by baselines.
      halves: "selected" and "random" -> documents by source, and FILES -> how many files their text is from.
      comparison: what `evaluate.compare` gave, a = random half, b = selected half.
    """
    rows = {(row["task"], row["metric"]): row for row in comparison["rows"]}
    sentences = [about_score(separation.get("score")), *about_baselines(separation), about_halves(halves)]
    if loss := rows.get(("loss_by_position", "nats")):
        sentences.append(about_loss(loss))
    if far := _far(comparison["curves"].get("loss_by_position", [])):
        sentences.append(about_far(far))
    if passkey := rows.get(("passkey", "hard")):
        sentences.append(about_passkey(passkey))
    if repeated := rows.get(("repeated_list", "smooth")):
        sentences.append(about_repeated_list(repeated))
    sentences.append(_CAVEAT)
    return sentences


def about_score(separation: Auc | None) -> str:
    """Whether the score tells intact documents from spliced ones."""
    if separation is None:
        return "The score could not be tested: no intact or no spliced document was scored."
    if separation.low > 0.5:
        verdict = "The score tells intact files from spliced ones"
    elif separation.high < 0.5:
        verdict = "The score is upside down here: it ranks spliced files above intact ones"
    else:
        verdict = "The score does not tell intact files from spliced ones on this material"
    return (
        f"{verdict}: AUC {separation.value:.3f} (95 % interval {separation.low:.3f} to "
        f"{separation.high:.3f}; {separation.num_intact} intact, {separation.num_spliced} spliced)."
    )


def about_baselines(separation: dict[str, Auc]) -> list[str]:
    """What simpler signals reach on the same documents."""
    others = [f"{name} {one.value:.3f}" for name, one in separation.items() if name != "score"]
    return [f"On the same files simpler signals reach an AUC of: {', '.join(others)}."] if others else []


def about_halves(halves: dict[str, dict[str, int]]) -> str:
    """What the two halves are made of."""
    shares = [
        f"the {name} half holds {counts[INTACT]} intact and {counts[SPLICED]} spliced documents, with text of "
        f"{counts[FILES]} files"
        for name, counts in halves.items()
    ]
    sentence = "; ".join(shares)
    return f"{sentence[0].upper()}{sentence[1:]}."


def about_loss(row: dict[str, Any]) -> str:
    """The loss on held-out files after training on either half."""
    verdict = {
        "b": "Mining helped here: held-out loss is lower after the selected half",
        "a": "Mining did not help here: held-out loss is higher after the selected half",
        "": "Mining did not help here: held-out losses cannot be told apart",
    }[row["favours"]]
    return f"{verdict}, {row['b']:.3f} against {row['a']:.3f} nats a token ({_difference(row)})."


def about_far(row: dict[str, Any]) -> str:
    """The same where the context is longest."""
    sign = 0 if row["low"] is None or row["low"] <= 0 <= row["high"] else row["mean"]
    verdict = (
        "the selected half is ahead"
        if sign < 0
        else "the random half is ahead"
        if sign > 0
        else "neither half is ahead"
    )
    where = f"{row['start']} to {row['stop']} tokens"
    return f"After {where} of context, {verdict} ({_difference(row | {'difference': row['mean']})} nats per token)."


def about_passkey(row: dict[str, Any]) -> str:
    """Whether either model finds a number said once; models of the demo's size do not."""
    figures = f"{row['b']:.0%} right after the selected half, {row['a']:.0%} after the random half"
    hopeless = max(row["a"], row["b"]) < 0.05
    remark = "models this small, trained this briefly, cannot do it" if hopeless else _difference(row)
    return f"Passkey at {row['length']} tokens: {figures}; {remark}."


def about_repeated_list(row: dict[str, Any]) -> str:
    """Whether a list read a second time surprises less: below 1 it does."""
    return (
        f"A list read a second time keeps {row['b']:.2f} of its surprisal after the selected half, "
        f"{row['a']:.2f} after the random half (1 = nothing remembered; {_difference(row)})."
    )


def _far(curve: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The last bucket of positions."""
    return max(curve, key=lambda row: (row["length"], row["stop"]), default=None)


def _difference(row: dict[str, Any]) -> str:
    if row["low"] is None:
        return f"difference {row['difference']:+.3f}, too few examples for an interval"
    return f"difference {row['difference']:+.3f}, 95 % interval {row['low']:+.3f} to {row['high']:+.3f}"
