"""Comparison of several scores folders: rank correlation over shared documents, and the distributions of scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from markupsafe import Markup

from longlode.core.ranking import spearman
from longlode.report.charts import Series, legend, lines
from longlode.report.scores import Corpus
from longlode.report.selection import Identity
from longlode.report.text import clipped

MAX_FOLDERS = 8
MIN_SHARED = 3
"""Fewest documents for a rank correlation."""
_NUM_BINS = 30


@dataclass(frozen=True)
class Agreement:
    """Two folders: their names, the number of documents that both scored, and the rank correlation of the scores."""

    a: str
    b: str
    num_shared: int
    spearman: float | None


@dataclass(frozen=True)
class Overlay:
    """The scores of the folders of one scorer in one chart. zero: the meaning of a score of 0, or ""."""

    scorer: str
    zero: str
    legend: Markup
    chart: Markup


@dataclass(frozen=True)
class Together:
    """num_documents: different documents in all folders, each counted once."""

    num_documents: int
    pairs: list[Agreement]
    overlays: list[Overlay]


def together(corpora: Sequence[Corpus]) -> Together | None:
    """Compare scores folders by the documents (file, row, id) that they share; None for fewer than two."""
    if len(corpora) < 2:
        return None
    known = {identity for one in corpora for identity in one.identities}
    scored = [
        (one.name, {one.identities[place]: float(one.score[place]) for place in one.scored.tolist()})
        for one in corpora[:MAX_FOLDERS]
    ]
    pairs = [_agreement(a, b, one, other) for (a, one), (b, other) in combinations(scored, 2)]
    return Together(len(known), [pair for pair in pairs if pair.num_shared], _overlays(corpora[:MAX_FOLDERS]))


def _agreement(a: str, b: str, one: dict[Identity, float], other: dict[Identity, float]) -> Agreement:
    shared = [key for key in one if key in other]
    first, second = (np.array([scores[key] for key in shared]) for scores in (one, other))
    return Agreement(a, b, len(shared), spearman(first, second) if len(shared) >= MIN_SHARED else None)


def _overlays(corpora: Sequence[Corpus]) -> list[Overlay]:
    """One chart per scorer that made the scores of two folders or more."""
    by_scorer: dict[str, list[Corpus]] = {}
    for one in corpora:
        if len(one.scored) > 1:
            by_scorer.setdefault(one.scorer, []).append(one)
    return [
        _overlay(scorer, same, f"overlay-{place}")
        for place, (scorer, same) in enumerate(by_scorer.items())
        if len(same) > 1
    ]


def _overlay(scorer: str, corpora: Sequence[Corpus], key: str) -> Overlay:
    """Outlines of histograms on one axis, as shares of each folder's documents, since folders differ in size."""
    values = [one.score[one.scored] for one in corpora]
    low, high = np.quantile(np.concatenate(values), [0.005, 0.995]).tolist()
    edges = np.linspace(low, high if high > low else low + 1.0, _NUM_BINS + 1)
    series = []
    for one, scores in zip(corpora, values, strict=True):
        counts, _ = np.histogram(np.clip(scores, edges[0], edges[-1]), edges)
        steps = np.repeat(100 * counts / len(scores), 2).tolist()
        series.append(Series(clipped(one.name, 60), np.repeat(edges, 2)[1:-1].tolist(), steps))
    meaning = corpora[0].meaning
    chart = lines(
        series,
        key=key,
        title=f"Distributions of scores, {scorer or 'unknown scorer'}",
        x_label=meaning.axis(scorer),
        y_label="% of the folder's documents; the outermost bars hold all beyond",
    )
    return Overlay(scorer, meaning.zero, legend([one.name for one in series]), chart)
