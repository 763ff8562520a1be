"""Documents section: for a few documents, the reasons for the score first, pairwise maps second."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from longlode.report.distance_charts import ProfileScale, profile_chart, profile_scale
from longlode.report.explanation import Explanation, explanation
from longlode.report.far_context import probability, thousands
from longlode.report.maps import MapView, map_view
from longlode.report.scores import Corpus
from longlode.report.selection import Identity
from longlode.report.text import as_number, clipped, number, visible
from longlode.report.words import WordsView, words_view

MAX_EXPLAINED = 12
NUM_ENDS = 3
"""Documents shown at each end of the scores, besides those that were explained."""
NUM_NEAR = 2
"""Documents shown on either side of the gate."""
_BEGIN_CHARS, _BEGIN_LINES, _READ_CHARS = 400, 5, 2000


@dataclass(frozen=True)
class Card:
    """One document.

    role: why it is shown. decided: sentences. others: its scores in further folders. excerpt: its beginning.
    """

    anchor: str
    id: str
    place: str
    role: str
    score: float | None
    score_se: float | None
    decision: str
    others: list[tuple[str, float]]
    decided: list[str]
    excerpt: str
    explained: Explanation
    profile: Markup | None
    words: WordsView | None
    map: MapView | None


def cards(
    corpora: Sequence[Corpus],
    explained: Sequence[Sequence[Mapping[str, Any]]],
    texts: Mapping[Identity, str],
    tops: Sequence[float],
) -> tuple[list[Card], dict[Identity, str]]:
    """Lay out some documents of all folders, each once, and give the anchor of each.

    Args: explained, for each folder what its explain.json holds. texts, beginnings of documents. tops, the ends of the
      colour scales of all maps.
    """
    chosen: dict[Identity, tuple[Corpus, str, Mapping[str, Any]]] = {}
    for corpus, documents in zip(corpora, explained, strict=True):
        for one in documents[:MAX_EXPLAINED]:
            chosen.setdefault(identity_of(one), (corpus, str(one.get("label") or "explained"), one))
    for corpus in corpora:
        for row, role in _roles(corpus):
            chosen.setdefault(corpus.identities[row], (corpus, role, {}))
    ordered = sorted(chosen.items(), key=lambda item: _rank(item[0], item[1]))
    profiles = [
        (corpus.far.gains[place], corpus.far.errors[place])
        for identity, (corpus, _, _) in ordered
        if corpus.far and (place := corpus.places.get(identity, -1)) >= 0
    ]
    scale = profile_scale(profiles)
    anchors = {identity: f"document-{number}" for number, (identity, _) in enumerate(ordered)}
    views = [
        _card(identity, corpus, role, one, corpora, anchors[identity], texts.get(identity, ""), scale, tops)
        for identity, (corpus, role, one) in ordered
    ]
    return views, anchors


def identity_of(one: Mapping[str, Any]) -> Identity:
    """The document that an entry of explain.json is about."""
    row = one.get("row")
    return str(one.get("file") or ""), row if isinstance(row, int) else -1, str(one.get("id") or "")


def _rank(identity: Identity, given: tuple[Corpus, str, Mapping[str, Any]]) -> float:
    """Sort key of the page: descending scores."""
    corpus, _, one = given
    place = corpus.places.get(identity)
    score = as_number(one.get("score")) if place is None else float(corpus.score[place])
    return math.inf if score is None or not math.isfinite(score) else -score


def _roles(corpus: Corpus) -> Iterable[tuple[int, str]]:
    """The rows at both ends of the scores, and those next to the gate on either side."""
    order = corpus.scored[np.argsort(-corpus.score[corpus.scored], kind="stable")]
    num = min(NUM_ENDS, (len(order) + 1) // 2)
    yield from ((int(place), "best") for place in order[:num])
    yield from ((int(place), "worst") for place in order[len(order) - num :])
    if corpus.far:
        gate = corpus.far.gate[order]
        for chosen in (gate >= 0, gate < 0):
            near = order[chosen][np.argsort(np.abs(gate[chosen]), kind="stable")[:NUM_NEAR]]
            yield from ((int(place), "near the gate") for place in near)


def _card(
    identity: Identity,
    corpus: Corpus,
    role: str,
    one: Mapping[str, Any],
    corpora: Sequence[Corpus],
    anchor: str,
    text: str,
    scale: ProfileScale,
    tops: Sequence[float],
) -> Card:
    file, row, name = identity
    place = corpus.places.get(identity)
    shown = map_view(one, f"{anchor}-map", tops) if one else None
    told = explanation(one, anchor, name)
    decision, why = corpus.decisions.of(identity) if corpus.decisions else ("", "")
    others = [
        (other.name, float(other.score[there]))
        for other in corpora
        if other is not corpus
        and (there := other.places.get(identity)) is not None
        and np.isfinite(other.score[there])
    ]
    return Card(
        anchor=anchor,
        id=clipped(name, 120),
        place=clipped(file, 160) + ("" if row < 0 else f", row {row}"),
        role=clipped(role, 20),
        score=as_number(one.get("score")) if place is None else as_number(float(corpus.score[place])),
        score_se=_cell(corpus, "score_se", place),
        decision=clipped(f"{decision}: {why}" if why else decision, 120),
        others=others,
        decided=_decided(corpus, place, told.rivals),
        excerpt=clipped("\n".join(_lines(text)), _BEGIN_CHARS),
        explained=told,
        profile=None if place is None else _profile(corpus, place, anchor, name, scale),
        words=words_view(one.get("order"), shown.size if shown else 0),
        map=shown,
    )


def _lines(text: str) -> list[str]:
    """The first lines of a text that are not blank."""
    return [line.rstrip() for line in visible(text[:_READ_CHARS]).splitlines() if line.strip()][:_BEGIN_LINES]


def _cell(corpus: Corpus, name: str, place: int | None) -> float | None:
    if place is None or name not in corpus.table.column_names:
        return None
    return as_number(corpus.table.column(name)[place].as_py())


def _decided(corpus: Corpus, place: int | None, rivals: str) -> list[str]:
    """Sentences on the reasons for the score, of a scorer with a gate. rivals: other kinds of text that it could be."""
    far = corpus.far
    if far is None or place is None or not np.isfinite(far.gate[place]):
        return []
    gate = float(far.gate[place])
    verb = "Passes the gate" if gate >= 0 else "Stopped by the gate"
    other = rivals or clipped(far.rivals[place], 60)
    sentences = [
        f"{verb}: log-odds {number(gate)} nats, {probability(gate)} likely one text in its own order."
    ]
    sentences += [f"If it is not, it is most like: {other}."] if other else []
    reach, gain = far.reach[place], _cell(corpus, "gain_nats", place)
    if np.isfinite(reach):
        start = thousands(far.starts[0])
        sentences.append(
            f"Context helps up to {thousands(reach)} tokens back."
            if reach
            else f"Context beyond {start} tokens back does not help."
        )
    if gain is not None:
        sentences.append(f"Mean gain over the distances measured: {number(gain)} nats per token.")
    if gate < 0:
        sentences.append("The gate alone made the score; the profile had no part in it.")
    return sentences


def _profile(corpus: Corpus, place: int, anchor: str, name: str, scale: ProfileScale) -> Markup | None:
    far = corpus.far
    if far is None or not np.isfinite(far.gains[place]).any():
        return None
    return profile_chart(
        far.starts, far.gains[place], far.errors[place], far.reach[place], scale,
        key=f"{anchor}-profile", name=clipped(name, 80),
    )  # fmt: skip
