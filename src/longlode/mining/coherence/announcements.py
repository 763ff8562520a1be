"""Words behind the coherence score: the order contrast summed by token type, with an example of each."""

from dataclasses import dataclass

import numpy as np

from longlode.mining.coherence.order import Occurrences, contrast_of


@dataclass(frozen=True)
class Announcement:
    """Contribution of one token type to the order contrast, and its clearest use.

    token: the type. contribution_nats: its part of the score, nats per token; over all types the parts add up to it.
    num_uses: counted positions where it does not stand in the near context; num_announced: those with an
    occurrence in the mid window before. expected: the share of the windows elsewhere that hold it, mean over the uses.
    used_at: the announced position where it is expected least (the first of several);
    announced_at: its last occurrence in the mid window of that use.
    """

    token: int
    contribution_nats: float
    num_uses: int
    num_announced: int
    expected: float
    used_at: int
    announced_at: int


def announcements(tokens: np.ndarray, *, near: int, span: int, top: int) -> list[Announcement]:
    """The `top` token types that add most to the order contrast, the largest first; only those that add something.

    Args: tokens int `[n]`, the whole document; near, span as for `order_contrast`.
    """
    tokens = np.asarray(tokens)
    seen = Occurrences(tokens)
    result = contrast_of(seen, near=near, span=span)
    num_counted = int(result.counted.sum())
    if not num_counted:
        return []
    # What is not counted has no contrast and adds nothing.
    added = [
        np.bincount(part.group, weights=result.contrast[part.position] * part.nats()[part.group])
        for part in seen.parts()
    ]
    sums = np.concatenate(added) / num_counted
    best = [number for number in np.argsort(-sums, kind="stable")[:top] if sums[number] > 0]
    return [
        _announcement(
            int(tokens[seen.position[seen.first[number]]]),
            float(sums[number]),
            seen.position[seen.first[number] : seen.first[number + 1]],
            result.contrast,
            near,
        )
        for number in best
    ]


def _announcement(
    token: int, contribution: float, places: np.ndarray, contrast: np.ndarray, near: int
) -> Announcement:
    """Describe one type. Args: places, its positions; contrast `[n]` of the document."""
    # A hit has contrast 1 - expected, a miss -expected; positions that are near or not counted have exactly 0.
    uses = places[contrast[places] != 0]
    hits = uses[contrast[uses] > 0]
    used_at = int(hits[np.argmax(contrast[hits])])
    before = places[places < used_at - near]
    return Announcement(
        token=token,
        contribution_nats=contribution,
        num_uses=len(uses),
        num_announced=len(hits),
        expected=float((len(hits) - contrast[uses].sum()) / len(uses)),
        used_at=used_at,
        announced_at=int(before[-1]),
    )
