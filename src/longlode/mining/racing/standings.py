"""Rule that decides documents in a race, without readers and files (`race.py` has those).

Every document is read at `first_pairs` pairs, then, as long as it is open, at twice as many, up to the most. After each
round the cut is the value that separates the best share `top`, and a document is decided when

    |score - cut| > z * error,     error^2 = (1 - T / N) s^2 / T

with s the standard deviation of its T values and N all the pairs it has: that is the variance of a mean of T draws
without replacement, exactly, even if pairs of one target are correlated. `score_se` would be the wrong error here: it
is that of another text of the same kind, counts targets that were never written, and does not go to 0 when all pairs
are read; a race by it would read on where more pairs can change nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from longlode.core.errors import ConfigError
from longlode.mining.selection_rule import check_groups

FIRST_PAIRS = 32
CONFIDENCE = 1.5


@dataclass(frozen=True, kw_only=True)
class RaceRule:
    """Rule of a race.

    top: the share that will be selected, between 0 and 1. by: of "length", "source", as of `select`.
    first_pairs: read of every document, at least 2. z: distance of score and cut in standard errors at which a document
    is decided, above 0.
    """

    top: float
    by: tuple[str, ...] = ()
    first_pairs: int = FIRST_PAIRS
    z: float = CONFIDENCE

    def __post_init__(self) -> None:
        """Raises: ConfigError that says what is expected."""
        if not 0 < self.top < 1:
            raise ConfigError(
                f"a race for the top {self.top} decides nothing; expected a share between 0 and 1, such as 0.5 for the "
                "best half."
            )
        if self.first_pairs < 2:
            raise ConfigError(
                f"first_pairs is {self.first_pairs}; expected at least 2, as one has no spread."
            )
        if not 0 < self.z < np.inf:
            raise ConfigError(
                f"z is {self.z}; expected a number of standard errors above 0, such as {CONFIDENCE}."
            )
        check_groups(self.by)


@dataclass(frozen=True, eq=False)
class Standings:
    """State of D documents, `[D]` each.

    num_read, total, squares: number, sum and sum of squares of the values of the pairs read so far. num_all: pairs that
    the document has. group: within which the best share is taken; -1 for a document that cannot be selected (no score,
    or an id that occurred before), which is never read again.
    """

    num_read: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    num_all: np.ndarray
    group: np.ndarray

    @classmethod
    def blank(cls, num_all: np.ndarray) -> "Standings":
        """State before any reading, with all documents in one group."""
        count = len(num_all)
        return cls(
            np.zeros(count, dtype=np.int64),
            np.zeros(count),
            np.zeros(count),
            num_all,
            np.zeros(count, np.int64),
        )

    def add(self, document: int, values: np.ndarray) -> None:
        """Count the values `[P]` of more pairs of one document."""
        self.num_read[document] += len(values)
        self.total[document] += values.sum()
        self.squares[document] += np.square(values).sum()

    @property
    def scores(self) -> np.ndarray:
        """Mean of each, NaN where nothing was read."""
        return np.divide(
            self.total, self.num_read, out=np.full(len(self.total), np.nan), where=self.num_read > 0
        )

    @property
    def errors(self) -> np.ndarray:
        """Standard error of each mean as an estimate of that over all pairs; infinite below two pairs, 0 for all."""
        count = np.maximum(self.num_read, 2)
        spread = np.maximum(0.0, self.squares - np.square(self.total) / count) / (count - 1)
        unread = np.maximum(0.0, 1 - self.num_read / np.maximum(self.num_all, 1))
        errors = np.sqrt(unread * spread / count)
        return np.where((self.num_read < 2) & (unread > 0), np.inf, errors)

    @property
    def is_whole(self) -> np.ndarray:
        """True for documents all of whose pairs were read."""
        return self.num_read >= self.num_all


@dataclass(frozen=True, eq=False)
class PairRange:
    """Pairs to read next of some documents: their pairs start to stop - 1. documents: their numbers, None for all."""

    start: int
    stop: int
    documents: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round, and the counts after it.

    pairs: the most that any document was given so far. documents: that were read in this round. num_decided: clear of
    the cut, with pairs left; num_spent: without pairs left, or at the most; num_open: the others, but for documents
    that cannot be selected.
    """

    pairs: int
    documents: int
    num_decided: int
    num_spent: int
    num_open: int


Read = Callable[[Sequence[PairRange]], Standings]
"""Function that reads the ranges, which share no document, and returns the standings afterwards."""


def run_rounds(rule: RaceRule, most: int | None, read: Read) -> Iterator[Round]:
    """Read until no document is open. Args: most, pairs of a document; None for all there are.

    A document is open when its interval holds the current cut, even if it was decided before: the cut moves, and not
    reopening documents near it costs more mistakes than it saves reading (docs/experiments/prolong.md).
    """
    limit = np.iinfo(np.int64).max // 2 if most is None else most
    first = min(rule.first_pairs, limit)
    standings = read([PairRange(0, first, None)])
    reach = np.full(len(standings.group), first)
    num_documents = len(reach)
    while True:
        can_win = standings.group >= 0
        is_spent = can_win & (standings.is_whole | (reach >= limit))
        is_open = can_win & ~is_spent & ~is_clear(standings, rule)
        yield Round(
            pairs=int(reach.max(initial=0)),
            documents=num_documents,
            num_decided=int((can_win & ~is_spent & ~is_open).sum()),
            num_spent=int(is_spent.sum()),
            num_open=int(is_open.sum()),
        )
        if not is_open.any():
            return
        pair_ranges = [
            PairRange(start, min(2 * start, limit), np.flatnonzero(is_open & (reach == start)))
            for start in np.unique(reach[is_open]).tolist()
        ]
        reach[is_open] = np.minimum(2 * reach[is_open], limit)
        num_documents = int(is_open.sum())
        standings = read(pair_ranges)


def is_clear(standings: Standings, rule: RaceRule) -> np.ndarray:
    """True where a score is further from its group's cut than z errors, bool `[D]`."""
    scores, cuts = standings.scores, np.full(len(standings.group), np.nan)
    order = np.argsort(standings.group, kind="stable")
    groups, starts = np.unique(standings.group[order], return_index=True)
    for group, members in zip(groups, np.split(order, starts[1:]), strict=True):
        if group >= 0:
            cuts[members] = cut(scores[members], rule.top)
    clear: np.ndarray = np.abs(scores - cuts) > rule.z * standings.errors
    return clear


def cut(scores: np.ndarray, top: float) -> float:
    """Value that separates the best share: half way between the last that `select` keeps and the first that it drops.

    -inf when all are kept. Args: scores float `[n]`, n >= 1, all finite.
    """
    ordered = np.sort(scores)[::-1]
    kept = max(1, int(top * len(scores) + 0.5))
    if kept >= len(scores):
        return -np.inf
    return float((ordered[kept - 1] + ordered[kept]) / 2)
