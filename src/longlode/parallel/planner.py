"""Groups of ranks that fit the documents of a step: long documents on many ranks, short ones on few.

    plan = plan_groups(lengths, num_ranks=8, cost=cost, max_tokens=32768)

FlexSP (arXiv 2412.01523): the slowest group decides the time of a step, so groups of different sizes and the documents
of each are chosen together, by a mixed-integer linear program (scipy's HiGHS; extra `planner`). `CostModel.fit` takes
measured times, as `python -m benchmarks.sharding_cost` does for a recipe.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from longlode.core.errors import BackendError, ConfigError

_MOST_LENGTHS = 16
"""Distinct lengths that the program distinguishes; more are grouped, each counted as its group's longest."""

_MOST_MIXTURES = 500
"""Mixtures of group sizes that are tried with greedy assignment, besides the program."""


@dataclass(frozen=True)
class CostModel:
    """Seconds of a step of one group of d ranks that reads documents of lengths n, each document on all d.

        fixed + (d - 1) per_rank + sum(n) / d per_token + sum(n^2) / d per_pair + sum(n) (d - 1) / d per_sent

    fixed: of any step. per_rank: waiting for each further rank. per_token: linear mixers, MLP, head. per_pair: full
    attention. per_sent: tokens that a rank receives from others. All in seconds, none below 0.
    """

    fixed: float
    per_rank: float
    per_token: float
    per_pair: float
    per_sent: float

    def seconds(self, size: int, lengths: Sequence[int]) -> float:
        """Return the seconds of a group of `size` ranks with these documents; 0 without documents."""
        if not lengths:
            return 0.0
        return self.of_group(size) + sum(self.of_document(size, length) for length in lengths)

    def of_group(self, size: int) -> float:
        """Return the seconds that a group takes besides its documents."""
        return self.fixed + (size - 1) * self.per_rank

    def of_document(self, size: int, length: int) -> float:
        """Return the seconds that one document adds."""
        per_token = self.per_token + (size - 1) * self.per_sent
        return (length * per_token + length**2 * self.per_pair) / size

    @classmethod
    def fit(cls, measured: Iterable[tuple[int, Sequence[int], float]]) -> "CostModel":
        """Fit to (ranks, lengths, seconds) by least squares of relative errors, coefficients not below 0.

        Raises: ConfigError for fewer than 5 measurements, or one of no ranks or no time; BackendError without scipy.
        """
        rows, seconds = [], []
        for size, lengths, taken in measured:
            if size < 1 or not 0 < taken < float("inf"):
                raise ConfigError(
                    f"A measurement is of {size} ranks and {taken} seconds; expected at least 1, and more than 0."
                )
            tokens, pairs = sum(lengths), sum(length**2 for length in lengths)
            rows.append([1.0, size - 1, tokens / size, pairs / size, tokens * (size - 1) / size])
            seconds.append(taken)
        if len(rows) < 5:
            raise ConfigError(
                f"A cost model has 5 coefficients and got {len(rows)} measurements; measure more."
            )
        relative = np.array(rows) / np.array(seconds)[:, None]
        scale = np.maximum(np.abs(relative).max(0), 1e-300)
        found, _ = _optimize().nnls(relative / scale, np.ones(len(rows)))
        return cls(*(found / scale).tolist())


@dataclass(frozen=True)
class Group:
    """Consecutive ranks that share each of some documents. documents: their places in the list of lengths."""

    first_rank: int
    size: int
    documents: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class GroupPlan:
    """Groups of a step, largest first; ranks after the last group have nothing to do.

    single_size, single_seconds: the best plan found with groups of one size, for comparison.
    """

    groups: tuple[Group, ...]
    single_size: int
    single_seconds: float

    @cached_property
    def seconds(self) -> float:
        """Seconds of the slowest group."""
        return max(group.seconds for group in self.groups)


def plan_groups(
    lengths: Sequence[int],
    num_ranks: int,
    cost: CostModel,
    max_tokens: int,
    *,
    sizes: Sequence[int] | None = None,
    seconds: float = 5.0,
    gap: float = 0.0,
) -> GroupPlan:
    """Choose groups of ranks and the documents of each, so that the slowest group is as fast as possible.

    Args: lengths: tokens of each document. max_tokens: most that a rank can hold, on average over its group. sizes:
      sizes of groups to choose from; None: all up to num_ranks. seconds: limit of the search; the best plan found by
      then is returned, never worse than the best that greedy assignment finds with one size. With at most 16 distinct
      lengths and enough time it is the optimum. gap: a plan at most this part slower than any could be is good enough;
      where greedy assignment finds one, the program is not asked.
    Raises: ConfigError if the documents do not fit; BackendError without scipy.
    """
    chosen = sorted(set(range(1, num_ranks + 1) if sizes is None else sizes), reverse=True)
    _check_amounts(lengths, num_ranks, max_tokens)
    if not chosen or chosen[-1] < 1 or chosen[0] > num_ranks:
        raise ConfigError(
            f"sizes are {chosen} on {num_ranks} ranks; expected some, from 1 to the number of ranks."
        )
    if sum(lengths) > num_ranks * max_tokens:
        raise ConfigError(
            f"{sum(lengths):,} tokens came for {num_ranks} ranks of {max_tokens:,}; expected at most "
            f"{num_ranks * max_tokens:,}. Give fewer documents per step, or cut it into more parts."
        )
    problem = _Problem(tuple(lengths), num_ranks, cost, max_tokens)
    single = {size: problem.greedy([size] * (num_ranks // size)) for size in chosen}
    found = {size: plan for size, plan in single.items() if plan is not None}
    best_size = min(found, key=lambda size: problem.slowest(found[size]), default=0)
    best = found.get(best_size)
    mixed = map(problem.greedy, itertools.islice(_mixtures(chosen, num_ranks), _MOST_MIXTURES))
    candidates = [plan for plan in (best, *mixed) if plan is not None]
    reached = min(map(problem.slowest, candidates), default=None)
    if reached is None or reached > (1 + gap) * problem.least_seconds(chosen):
        exact = _solve(problem, chosen, reached, seconds, gap)
        candidates += [] if exact is None else [exact]
    if not candidates:
        raise ConfigError(
            f"No groups of {num_ranks} ranks with {max_tokens:,} tokens each hold these documents (the longest has "
            f"{max(lengths):,}). Give fewer documents per step, or allow more tokens per rank."
        )
    plan = min(candidates, key=problem.slowest)
    single_seconds = float("inf") if best is None else problem.slowest(best)
    return GroupPlan(problem.groups(plan), best_size, single_seconds)


def plan_rounds(
    lengths: Sequence[int],
    num_ranks: int,
    cost: CostModel,
    max_tokens: int,
    *,
    sizes: Sequence[int] | None = None,
    seconds: float = 5.0,
    gap: float = 0.0,
) -> list[GroupPlan]:
    """Plan a step whose documents may not fit at once: as few rounds of groups, one after the other, as hold them.

    Documents of like length share a round. Args and errors: as of `plan_groups`; seconds and gap are of one round.
    """
    _check_amounts(lengths, num_ranks, max_tokens)
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    num_rounds = max(1, -(-sum(lengths) // (num_ranks * max_tokens)))
    while True:
        rounds = _runs(order, lengths, num_rounds)
        try:
            plans = [
                plan_groups(
                    [lengths[place] for place in part],
                    num_ranks,
                    cost,
                    max_tokens,
                    sizes=sizes,
                    seconds=seconds,
                    gap=gap,
                )
                for part in rounds
            ]
        except ConfigError:
            if num_rounds >= len(order):
                raise
            num_rounds += 1
            continue
        return [_renumbered(plan, part) for plan, part in zip(plans, rounds, strict=True)]


def _check_amounts(lengths: Sequence[int], num_ranks: int, max_tokens: int) -> None:
    """Check that there are documents, and ranks with place. Raises: ConfigError."""
    least = {"lengths": min(lengths, default=0), "num_ranks": num_ranks, "max_tokens": max_tokens}
    for name, value in least.items():
        if value < 1:
            given = f"{len(lengths)} numbers from {value} up" if name == "lengths" else value
            raise ConfigError(f"{name} is {given}; expected at least 1 to plan a step.")


def _runs(order: Sequence[int], lengths: Sequence[int], most: int) -> list[list[int]]:
    """Cut documents, in this order, into at most `most` runs, so that the largest has the fewest tokens."""
    low, high = max(lengths), sum(lengths)
    while low < high:  # the fewest tokens per run that make few enough runs
        middle = (low + high) // 2
        low, high = (low, middle) if len(_filled(order, lengths, middle)) <= most else (middle + 1, high)
    return _filled(order, lengths, low)


def _filled(order: Sequence[int], lengths: Sequence[int], limit: int) -> list[list[int]]:
    """Cut documents into runs of at most `limit` tokens, each as long as can be."""
    runs, held = [[order[0]]], lengths[order[0]]
    for place in order[1:]:
        held += lengths[place]
        if held > limit:
            runs.append([])
            held = lengths[place]
        runs[-1].append(place)
    return runs


def _renumbered(plan: GroupPlan, places: Sequence[int]) -> GroupPlan:
    """Name the documents by their places in a longer list."""
    groups = [replace(one, documents=tuple(sorted(places[d] for d in one.documents))) for one in plan.groups]
    return replace(plan, groups=tuple(groups))


Assignment = list[tuple[int, list[int]]]
"""Size and documents of each group."""


@dataclass(frozen=True)
class _Problem:
    lengths: tuple[int, ...]
    num_ranks: int
    cost: CostModel
    max_tokens: int

    def greedy(self, sizes: Sequence[int]) -> Assignment | None:
        """Give the documents, longest first, to the group that then ends first; None if one finds no place."""
        plan: Assignment = [(size, []) for size in sizes]
        held, taken = [0] * len(sizes), [self.cost.of_group(size) for size in sizes]
        for place in sorted(range(len(self.lengths)), key=lambda place: -self.lengths[place]):
            length = self.lengths[place]
            fitting = [g for g, size in enumerate(sizes) if held[g] + length <= size * self.max_tokens]
            if not fitting:
                return None
            group = min(fitting, key=lambda g: taken[g] + self.cost.of_document(sizes[g], length))
            plan[group][1].append(place)
            held[group] += length
            taken[group] += self.cost.of_document(sizes[group], length)
        return plan

    def least_seconds(self, sizes: Sequence[int]) -> float:
        """Seconds below which no plan can be: of the longest document, and of all ranks working all the time."""
        longest = max(self.lengths)
        alone = min(self.cost.seconds(size, [longest]) for size in sizes)
        work = [min(size * self.cost.of_document(size, length) for size in sizes) for length in self.lengths]
        return max(alone, sum(work) / self.num_ranks)

    def slowest(self, plan: Assignment) -> float:
        """Seconds of the slowest group."""
        return max(self.seconds(size, places) for size, places in plan)

    def seconds(self, size: int, places: Sequence[int]) -> float:
        return self.cost.seconds(size, [self.lengths[place] for place in places])

    def groups(self, plan: Assignment) -> tuple[Group, ...]:
        """Lay the groups out over the ranks, largest first."""
        used = sorted(((size, places) for size, places in plan if places), key=lambda one: (-one[0], one[1]))
        firsts = itertools.accumulate((size for size, _ in used), initial=0)
        return tuple(
            Group(first, size, tuple(sorted(places)), self.seconds(size, places))
            for first, (size, places) in zip(firsts, used, strict=False)
        )

    @cached_property
    def classes(self) -> list[tuple[int, list[int]]]:
        """Documents of equal length, as (length, places); of more than 16 lengths neighbours are grouped."""
        distinct, counts = np.unique(self.lengths, return_counts=True)
        found: list[tuple[int, list[int]]] = []
        low = 0
        for high in _class_ends(distinct, counts):
            places = [p for p, length in enumerate(self.lengths) if low < length <= high]
            # The longest first: those get the groups that are laid out first.
            found.append((high, sorted(places, key=lambda place: -self.lengths[place])))
            low = high
        return found


def _class_ends(distinct: np.ndarray, counts: np.ndarray) -> list[int]:
    """Return the longest length of each class, of at most 16, so that the fewest tokens are counted too many."""
    N = len(distinct)
    if N <= _MOST_LENGTHS:
        return distinct.tolist()
    number = np.concatenate(([0], np.cumsum(counts)))
    tokens = np.concatenate(([0], np.cumsum(counts * distinct)))
    # excess[n]: fewest for the first n lengths in k classes; cut[k][n]: where the last of these classes begins.
    excess, cuts = np.append(0.0, np.full(N, np.inf)), []
    for _ in range(_MOST_LENGTHS):
        fewest, cut = excess.copy(), np.zeros(N + 1, dtype=int)
        for n in range(1, N + 1):
            total = excess[:n] + distinct[n - 1] * (number[n] - number[:n]) - (tokens[n] - tokens[:n])
            cut[n] = total.argmin()
            fewest[n] = total[cut[n]]
        excess = fewest
        cuts.append(cut)
    ends, n = [], N
    for cut in reversed(cuts):
        if n:
            ends.append(int(distinct[n - 1]))
            n = int(cut[n])
    return ends[::-1]


def _mixtures(sizes: Sequence[int], num_ranks: int) -> Iterator[list[int]]:
    """Yield all sizes of groups that use the ranks; sizes descend. A few ranks may be left over."""
    fitting = [size for size in sizes if size <= num_ranks]
    if not fitting:
        yield []
    for size in fitting:
        for rest in _mixtures([other for other in sizes if other <= size], num_ranks - size):
            yield [size, *rest]


def _solve(
    problem: _Problem, sizes: Sequence[int], bound: float | None, seconds: float, gap: float
) -> Assignment | None:
    """Solve the program: y, groups that are used; x, documents of each class in each; T, seconds of the slowest.

    bound: seconds that a plan is known to reach, for scale. Returns None where none was found in time.
    """
    groups = [size for size in sizes for _ in range(problem.num_ranks // size)]
    classes, cost = problem.classes, problem.cost
    G, C = len(groups), len(classes)
    scale = bound or cost.seconds(1, problem.lengths)
    counts = np.array([len(places) for _, places in classes], dtype=float)
    tokens = np.array([length for length, _ in classes], dtype=float)
    width = G + G * C + 1
    rows, low, high = [], [], []

    def add(
        least: float, most: float, used: dict[int, float], held: dict[int, np.ndarray], slowest: float
    ) -> None:
        row = np.zeros(width)
        for group, value in used.items():
            row[group] = value
        for group, values in held.items():
            row[G + group * C : G + (group + 1) * C] = values
        row[-1] = slowest
        rows.append(row)
        low.append(least)
        high.append(most)

    add(0, problem.num_ranks, {g: float(size) for g, size in enumerate(groups)}, {}, 0)
    for c in range(C):
        add(counts[c], counts[c], {}, {g: np.eye(C)[c] for g in range(G)}, 0)
    for g, size in enumerate(groups):
        add(
            -np.inf, 0, {g: -1.0}, {g: tokens / (size * problem.max_tokens)}, 0
        )  # they fit, and only where used
        each = np.array([cost.of_document(size, length) for length, _ in classes])
        add(-np.inf, 0, {g: cost.of_group(size) / scale}, {g: each / scale}, -1.0)
        if g and groups[g - 1] == size:
            add(0, np.inf, {g - 1: 1.0, g: -1.0}, {}, 0)  # groups of one size are used in order
    found = _milp(np.array(rows), low, high, np.concatenate((np.ones(G), np.tile(counts, G))), seconds, gap)
    if found is None:
        return None
    held = np.rint(found[G:-1]).astype(int).reshape(G, C)
    left = [iter(places) for _, places in classes]
    return [
        (size, [place for c in range(C) for place in itertools.islice(left[c], int(held[g, c]))])
        for g, size in enumerate(groups)
    ]


def _milp(
    rows: np.ndarray, low: list[float], high: list[float], most: np.ndarray, seconds: float, gap: float
) -> Any:
    """Minimise the last variable; the others are whole numbers from 0 to `most`. Returns None without a solution."""
    optimize = _optimize()
    goal = np.zeros(rows.shape[1])
    goal[-1] = 1
    result = optimize.milp(
        goal,
        constraints=optimize.LinearConstraint(rows, low, high),
        integrality=np.append(np.ones(len(most)), 0),
        bounds=optimize.Bounds(np.zeros(len(goal)), np.append(most, np.inf)),
        options={"time_limit": seconds, "mip_rel_gap": gap},
    )
    return result.x


def _optimize() -> Any:
    try:
        from scipy import optimize
    except ImportError:
        raise BackendError(
            "longlode.parallel.planner needs scipy, which is not installed; pip install 'longlode[planner]'."
        ) from None
    return optimize
