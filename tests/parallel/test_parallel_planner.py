"""Groups that fit the lengths: the optimum of small cases, and never worse than one size of group."""

import itertools
import math

import numpy as np
import pytest

from longlode.core.errors import ConfigError
from longlode.parallel import planner
from longlode.parallel.planner import CostModel, plan_groups, plan_rounds

pytest.importorskip("scipy")


def random_cost(rng):
    return CostModel(*(rng.uniform(0, 1, 5) * [1.0, 0.5, 1e-2, 1e-4, 5e-3]).tolist())


def sizes_of_groups(num_ranks, largest=None):
    """All multisets of group sizes that use at most these ranks."""
    yield ()
    for size in range(1, min(num_ranks, largest or num_ranks) + 1):
        for rest in sizes_of_groups(num_ranks - size, size):
            yield (size, *rest)


def seconds_of(cost, size, lengths):
    """The formula of the class, written out."""
    if not lengths:
        return 0.0
    total = cost.fixed + cost.per_rank * (size - 1)
    for n in lengths:
        total += (
            cost.per_token * n / size + cost.per_pair * n * n / size + cost.per_sent * n * (size - 1) / size
        )
    return total


def brute_force(lengths, num_ranks, cost, max_tokens):
    best = math.inf
    for sizes in sizes_of_groups(num_ranks):
        for choice in itertools.product(range(len(sizes)), repeat=len(lengths)):
            held = [
                [n for n, g in zip(lengths, choice, strict=True) if g == group] for group in range(len(sizes))
            ]
            if all(sum(one) <= size * max_tokens for size, one in zip(sizes, held, strict=True)):
                best = min(best, max(seconds_of(cost, s, one) for s, one in zip(sizes, held, strict=True)))
    return best


def assert_valid(plan, lengths, num_ranks, cost, max_tokens):
    assert sorted(place for group in plan.groups for place in group.documents) == list(range(len(lengths)))
    stop = 0
    for group in plan.groups:
        assert group.first_rank == stop
        stop += group.size
        held = [lengths[place] for place in group.documents]
        assert sum(held) <= group.size * max_tokens
        assert group.seconds == pytest.approx(seconds_of(cost, group.size, held))
    assert stop <= num_ranks


def test_the_optimum_of_small_cases():
    rng = np.random.default_rng()
    for _ in range(6):
        lengths = rng.integers(1, 200, rng.integers(1, 6)).tolist()
        cost, num_ranks = random_cost(rng), int(rng.integers(1, 5))
        max_tokens = math.ceil(max(sum(lengths), 1.5 * max(lengths)) / num_ranks * rng.uniform(1, 2)) + 1
        best = brute_force(lengths, num_ranks, cost, max_tokens)
        if math.isinf(best):
            with pytest.raises(ConfigError, match="tokens"):
                plan_groups(lengths, num_ranks, cost, max_tokens)
            continue
        plan = plan_groups(lengths, num_ranks, cost, max_tokens, seconds=30)
        assert_valid(plan, lengths, num_ranks, cost, max_tokens)
        assert plan.seconds == pytest.approx(best, rel=1e-5)


def test_never_worse_than_one_size_and_better_on_a_long_tail():
    rng = np.random.default_rng()
    # Tokens that other ranks send are dear, and one document needs two ranks; with one size, all others would too.
    cost = CostModel(fixed=0.01, per_rank=0.02, per_token=1e-5, per_pair=1e-12, per_sent=2e-5)
    lengths = [100_000, *rng.integers(6000, 12000, 38).tolist()]
    plan = plan_groups(lengths, 8, cost, 64_000, sizes=(1, 2, 4, 8), seconds=2)
    assert_valid(plan, lengths, 8, cost, 64_000)
    assert plan.single_seconds == min(
        plan_groups(lengths, 8, cost, 64_000, sizes=(size,), seconds=0.2).single_seconds for size in (2, 4, 8)
    )
    assert plan.seconds < 0.95 * plan.single_seconds
    assert len({group.size for group in plan.groups}) > 1


def test_a_cost_model_is_found_again_from_its_times():
    rng = np.random.default_rng()
    cost = random_cost(rng)
    measured = []
    for _ in range(20):
        size, lengths = int(rng.integers(1, 9)), rng.integers(10, 5000, 3).tolist()
        measured.append((size, lengths, seconds_of(cost, size, lengths)))
    fitted = CostModel.fit(measured)
    for size, lengths, seconds in measured:
        assert fitted.seconds(size, lengths) == pytest.approx(seconds, rel=1e-6)
    with pytest.raises(ConfigError, match="5"):
        CostModel.fit(measured[:4])
    for size, seconds in ((0, 1.0), (1, 0.0), (1, math.nan), (2, -1.0)):
        with pytest.raises(ConfigError, match=f"{size} ranks and {seconds} seconds"):
            CostModel.fit([*measured, (size, [5], seconds)])


@pytest.mark.parametrize("plan", [plan_groups, plan_rounds])
@pytest.mark.parametrize(
    ("lengths", "num_ranks", "max_tokens", "named"),
    [([], 2, 9, "lengths"), ([5, 0], 2, 9, "lengths"), ([5], 0, 9, "num_ranks"), ([5], 2, 0, "max_tokens")],
)
def test_amounts_below_one_are_named(plan, lengths, num_ranks, max_tokens, named):
    with pytest.raises(ConfigError, match=f"^{named} is"):
        plan(lengths, num_ranks, CostModel(1, 1, 1, 1, 1), max_tokens)


def test_documents_that_do_not_fit_are_refused():
    cost = random_cost(np.random.default_rng())
    with pytest.raises(ConfigError, match="400"):
        plan_groups([300, 101], 4, cost, 100)
    with pytest.raises(ConfigError, match="longest"):
        plan_groups([300], 4, cost, 100, sizes=(1, 2))


def test_a_step_that_does_not_fit_is_read_in_as_few_rounds_as_hold_it():
    rng = np.random.default_rng(0)
    cost = random_cost(rng)
    lengths = [*rng.integers(1, 40, 30).tolist(), 90]
    rounds = plan_rounds(lengths, 4, cost, 50, seconds=0.2, gap=0.05)
    assert len(rounds) == -(-sum(lengths) // 200)
    read = [[place for group in plan.groups for place in group.documents] for plan in rounds]
    assert sorted(place for places in read for place in places) == list(range(31))
    for plan in rounds:
        for group in plan.groups:
            held = [lengths[place] for place in group.documents]
            assert sum(held) <= group.size * 50
            assert group.seconds == pytest.approx(seconds_of(cost, group.size, held))
    # 3 x 30 tokens on ranks of 40: two would fit by their sum, and none of the groups holds three.
    assert len(plan_rounds([30, 30, 30], 2, cost, 45, sizes=[1])) == 2
    with pytest.raises(ConfigError, match="100"):
        plan_rounds([10, 100], 2, cost, 49)


def test_no_plan_is_faster_than_the_bound_that_ends_the_search(monkeypatch):
    rng = np.random.default_rng(1)
    for _ in range(20):
        cost, lengths = random_cost(rng), rng.integers(1, 60, 4).tolist()
        problem = planner._Problem(tuple(lengths), 3, cost, 200)
        assert problem.least_seconds([1, 2, 3]) <= brute_force(lengths, 3, cost, 200) * (1 + 1e-12)
    monkeypatch.setattr(planner, "_solve", None)  # would fail if it were asked
    even = CostModel(fixed=1, per_rank=1, per_token=1, per_pair=0, per_sent=0)
    plan = plan_groups([50] * 4, 4, even, 100, gap=0.05)
    assert [group.size for group in plan.groups] == [1, 1, 1, 1]
