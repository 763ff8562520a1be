"""Context curve: gain from longer context, in octaves of distance, on held-out documents.

The last tokens of a window are predicted several times, after 16, 32, 64 ... tokens of the text before them. A row
is one doubling of one window: the loss after the shorter context minus that after the longer one, of the same tokens.
Loss by position compares different tokens; this compares a token with itself, so it needs far fewer documents, and
the gain can only come from the text farther back.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from longlode.core.errors import ConfigError
from longlode.evaluate.statistics import context_used
from longlode.evaluate.tasks.base import MAIN, Curve, Example, Metric, Scores
from longlode.evaluate.tasks.heldout import HeldoutWindows

_NEAREST = 16  # tokens: the context of the first reading
_LEAST = 4 * _NEAREST  # tokens: below it there is no octave to compare


class ContextCurve(HeldoutWindows):
    """Loss of a window's last tokens after less minus after more context, one row per doubling of the context."""

    name = "context_curve"
    about = "what each doubling of the context is worth to the same tokens of held-out documents"
    suites = ("basic", "text")
    group_column = "text"
    key_columns = ("context_start",)
    curve = Curve("context_start", "context_stop", "gain")
    metrics = (
        Metric(
            "gain",
            "loss of the same tokens that a doubling of the context saves",
            "nats/token",
            "higher",
            words="worth of the context at that distance",
            headline=True,
            baseline=0.0,
            at_baseline="no use of more context is shown",
        ),
        Metric(
            "hits_gained",
            "tokens that greedy decoding gets right only with the doubled context",
            "share",
            "higher",
        ),
        Metric(
            "context_used",
            "distance beyond which more context adds less than its interval; the greatest distance means at least that",
            "tokens",
            "higher",
            words="context used",
            headline=True,
            averaged=False,
        ),
    )

    def __init__(self, targets: int = 128) -> None:
        """Score the last `targets` tokens of a window, or a quarter of it where that is less."""
        if targets < 1:
            raise ConfigError(f"targets is {targets}; expected 1 token or more.")
        self.targets = targets

    def options(self) -> dict[str, Any]:
        """The number of targets."""
        return {"targets": self.targets}

    def num_available(self, length: int, asked: int) -> int:
        """Number of windows, at most `asked`; none below 64 tokens."""
        return 0 if length < _LEAST else super().num_available(length, asked)

    def make(self, length: int, seed: int) -> Example:
        """Window number `seed` (modulo their number) and its readings after shorter contexts."""
        if length < _LEAST:
            raise ConfigError(
                f"task {self.name!r} compares contexts of {_NEAREST} tokens and more; got a length of {length}. "
                f"Ask for a length of at least {_LEAST}."
            )
        window, text, first = self.window(length, seed)
        tokens = self.encode(window).first(length)
        targets = min(self.targets, length // 4)
        span = (tokens.offsets[-targets][0], tokens.offsets[-1][1])
        *shorter, longest = contexts(len(tokens) - targets)
        meta = {"depth": None, "text": text, "first_token": first, "num_targets": targets}
        variants = {
            str(context): Example("", window, (span,), meta, last=context + targets) for context in shorter
        }
        return Example("", window, (span,), {**meta, "context": longest}, variants)

    def rows(self, example: Example, scores: Scores) -> list[dict[str, Any]]:
        """One row per doubling, from the nearest; the last one may be less than a doubling."""
        readings = [(int(name), scores[name][0]) for name in example.variants]
        readings.append((example.meta["context"], scores[MAIN][0]))
        rows = []
        for (start, near), (stop, far) in itertools.pairwise(readings):
            rows.append(
                {
                    "context_start": start,
                    "context_stop": stop,
                    "nats_before": near.mean_nats,
                    "nats": far.mean_nats,
                    "gain": near.mean_nats - far.mean_nats,
                    "hits_gained": float(far.hits.mean() - near.hits.mean()),
                    "hard": float(far.hits.mean()),
                    "smooth": -far.mean_nats,
                }
            )
        return rows

    def derived(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Context used, with intervals that resample documents; with one document, its windows."""
        windows: dict[int, list[Mapping[str, Any]]] = {}
        for row in rows:
            windows.setdefault(row["example"], []).append(row)
        parts = [sorted(part, key=lambda row: row["context_start"]) for part in windows.values()]
        edges = [parts[0][0]["context_start"], *(row["context_stop"] for row in parts[0])]
        losses = np.array([[part[0]["nats_before"], *(row["nats"] for row in part)] for part in parts])
        texts = [part[0]["text"] for part in parts]
        used = context_used(losses, edges, texts if len(set(texts)) > 1 else None)
        return {} if used is None else {"context_used": float(used)}


def contexts(longest: int) -> list[int]:
    """Context lengths 16, 32, 64 ... and the longest one, which may be less than twice the one before."""
    found = []
    context = _NEAREST
    while context < longest:
        found.append(context)
        context *= 2
    return [*found, longest]
