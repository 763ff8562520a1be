"""Loss by position: nats per token on held-out documents, by the number of tokens before.

The loss of a model that uses its context falls with the position; that of one that does not is flat after a few hundred
tokens. All buckets hold the same windows, so the curve compares positions, not documents.
"""

from typing import Any

from longlode.evaluate.tasks.base import MAIN, Curve, Example, Metric, Scores
from longlode.evaluate.tasks.heldout import HeldoutWindows

_FIRST_EDGE = 16


class LossByPosition(HeldoutWindows):
    """Mean surprisal in buckets of positions [1, 16), [16, 32), [32, 64) ... up to the length."""

    name = "loss_by_position"
    about = "surprisal of held-out documents by the number of tokens before"
    suites = ("basic", "text")
    weight_column = "num_scored"
    group_column = "text"
    key_columns = ("bucket_start",)
    curve = Curve("bucket_start", "bucket_stop", "nats")
    metrics = (
        Metric("hard", "tokens that greedy decoding gets right", "share", "higher"),
        Metric("smooth", "log-probability of the text", "nats/token", "higher"),
        Metric("nats", "loss", "nats/token", "lower", words="held-out loss", headline=True),
    )

    def make(self, length: int, seed: int) -> Example:
        """Window number `seed` (modulo their number); its text may run past `length` tokens, where the
        reader stops.
        """
        window, text, first = self.window(length, seed)
        return Example("", window, ((0, len(window)),), {"depth": None, "text": text, "first_token": first})

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """Make one row per bucket."""
        (score,) = scores[MAIN]
        rows = []
        for start, stop in bucket_edges(int(score.positions[-1]) + 1):
            inside = (score.positions >= start) & (score.positions < stop)
            nats = float(score.nats[inside].mean())
            rows.append(
                {
                    "bucket_start": start,
                    "bucket_stop": stop,
                    "num_scored": int(inside.sum()),
                    "hard": float(score.hits[inside].mean()),
                    "smooth": -nats,
                    "nats": nats,
                }
            )
        return rows


def bucket_edges(length: int) -> list[tuple[int, int]]:
    """Buckets [1, 16), [16, 32), [32, 64) ...; the last one stops at `length` positions."""
    edges = [1]
    edge = _FIRST_EDGE
    while edge < length:
        edges.append(edge)
        edge *= 2
    return list(zip(edges, [*edges[1:], length], strict=True)) if length > 1 else []
