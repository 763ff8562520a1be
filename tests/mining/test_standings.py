"""The rule of a race alone: the error of a draw, the cut, who is open, and who is again when the cut comes near."""

import math

import numpy as np
import pytest

from longlode.core.errors import ConfigError
from longlode.mining import RaceRule
from longlode.mining.coherence.uncertainty import mean_error
from longlode.mining.racing.standings import PairRange, Standings, cut, is_clear, run_rounds


def standings_of(values, counts=None):
    """Of lists of values; counts, pairs that each document has, else those."""
    standings = Standings.blank(np.array(counts or [len(one) for one in values]))
    for number, one in enumerate(values):
        standings.add(number, np.array(one, dtype=float))
    return standings


def test_the_error_is_the_spread_of_repeated_draws_and_the_jackknife_is_not():
    rng = np.random.default_rng(0)
    targets, _ = np.tril_indices(24, -1)
    values = rng.normal(0.0, 1.0, 24)[targets] + rng.normal(0.0, 0.5, len(targets))
    for size in (32, 128):
        means, errors, others = [], [], []
        for _ in range(600):
            drawn = rng.choice(len(values), size, replace=False)
            means.append(values[drawn].mean())
            errors.append(standings_of([values[drawn]], [len(values)]).errors[0])
            others.append(mean_error(targets[drawn], values[drawn]))
        assert np.mean(errors) == pytest.approx(np.std(means), rel=0.08)
        assert np.mean(others) > 1.2 * np.std(means)  # what racing must not go by


def test_the_error_vanishes_with_all_pairs_and_is_unknown_below_two():
    standings = standings_of([[1.0, 3.0], [1.0, 3.0], [2.0], [2.0], []], [2, 5, 1, 5, 5])
    assert standings.errors.tolist() == [0, pytest.approx(math.sqrt(3 / 5 * 2 / 2)), 0, np.inf, np.inf]
    assert standings.is_whole.tolist() == [True, False, True, False, False]
    np.testing.assert_array_equal(standings.scores, [2, 2, 2, 2, np.nan])


def test_adding_in_pieces_is_adding_at_once():
    values = np.random.default_rng(1).normal(3.0, 1.0, 50)
    whole, pieces = standings_of([values], [400]), Standings.blank(np.array([400]))
    for piece in np.split(values, [3, 20, 41]):
        pieces.add(0, piece)
    assert pieces.scores[0] == pytest.approx(values.mean())
    assert pieces.errors[0] == pytest.approx(whole.errors[0])
    assert whole.errors[0] == pytest.approx(values.std(ddof=1) / math.sqrt(50) * math.sqrt(1 - 50 / 400))


@pytest.mark.parametrize("top", [0.01, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("size", [1, 2, 3, 10, 41])
def test_the_cut_leaves_as_many_above_it_as_select_keeps(top, size):
    scores = np.random.default_rng(size).normal(size=size)
    kept = max(1, math.floor(top * size + 0.5))
    assert (scores > cut(scores, top)).sum() == kept
    if kept == size:
        assert cut(scores, top) == -np.inf


def test_clear_is_further_than_z_errors_from_the_cut_of_its_own_group():
    # Scores 0, 1, 2, 3 with the same error; as two groups of two the cuts are 0.5 and 2.5, as one it is 1.5.
    values = [[s - 0.3, s + 0.3] for s in (0.0, 1.0, 2.0, 3.0)]
    standings = standings_of(values, [1000] * 4)
    error = standings.errors[0]
    assert error == pytest.approx(0.3, rel=0.01)
    rule = RaceRule(top=0.5, z=2.0)
    assert is_clear(standings, rule).tolist() == [True, False, False, True]
    standings.group[:] = [0, 0, 1, 1]
    assert not is_clear(standings, rule).any()
    assert is_clear(standings, RaceRule(top=0.5, z=1.0)).all()
    standings.group[:] = [
        0,
        0,
        -1,
        0,
    ]  # the third cannot be selected and moves no cut: of three two are kept, so it is 0.5
    assert is_clear(standings, rule).tolist() == [False, False, False, True]


def race(values, orders, rule, most=None):
    """Race documents whose values in reading order are given. Returns: rounds, ranges read, standings."""
    standings = Standings.blank(np.array([len(one) for one in values]))
    pair_ranges = []

    def read(asked):
        for pair_range in asked:
            pair_ranges.append(pair_range)
            for number in orders if pair_range.documents is None else pair_range.documents.tolist():
                standings.add(
                    number, np.array(values[number][pair_range.start : pair_range.stop], dtype=float)
                )
        return standings

    return list(run_rounds(rule, most, read)), pair_ranges, standings


def noise(mean, size, seed, spread=1.0):
    return (mean + spread * np.random.default_rng(seed).normal(size=size)).tolist()


def test_ranges_double_up_to_the_most_and_follow_on():
    values = [noise(0.0, 500, n) for n in range(6)]
    rounds, pair_ranges, standings = race(values, range(6), RaceRule(top=0.5, first_pairs=8, z=100.0), 50)
    assert [(w.start, w.stop) for w in pair_ranges] == [(0, 8), (8, 16), (16, 32), (32, 50)]
    assert isinstance(pair_ranges[0], PairRange)
    assert pair_ranges[0].documents is None
    assert all(w.documents.tolist() == list(range(6)) for w in pair_ranges[1:])
    assert standings.num_read.tolist() == [50] * 6
    assert [one.pairs for one in rounds] == [8, 16, 32, 50]
    assert (rounds[-1].num_spent, rounds[-1].num_decided, rounds[-1].num_open) == (6, 0, 0)
    # With no most all pairs are read; below first_pairs there is one round.
    assert race(values, range(6), RaceRule(top=0.5, z=1e9), None)[2].num_read.tolist() == [500] * 6
    assert [(w.start, w.stop) for w in race(values, range(6), RaceRule(top=0.5), 20)[1]] == [(0, 20)]


def test_the_clear_ones_stop_and_the_others_go_on():
    means = [0.0, 0.1, 4.9, 5.0, 10.0, 10.1]
    values = [noise(mean, 4000, n) for n, mean in enumerate(means)]
    rounds, _, standings = race(values, range(6), RaceRule(top=0.5, first_pairs=16, z=2.0), 1024)
    assert standings.num_read[[0, 1, 4, 5]].tolist() == [16] * 4
    assert (standings.num_read[[2, 3]] >= 512).all()
    assert rounds[0].num_decided == 4
    assert rounds[1].documents == 2


def swinging(mean, spread, size):
    return [mean + spread * (-1) ** n for n in range(size)]


def test_a_document_that_the_cut_comes_near_is_read_again():
    # The first pairs of document 1 lie: in round one the cut is 1.75, in round two 0.25, close to document 0.
    values = [swinging(0.0, 1.0, 4000), swinging(3.0, 4.0, 16) + swinging(-3.0, 4.0, 3984)]
    values += [swinging(0.5, 4.0, 4000), swinging(9.0, 0.1, 4000)]
    rounds, pair_ranges, standings = race(values, range(4), RaceRule(top=0.5, first_pairs=16), 1024)
    asked = [(w.start, w.stop, w.documents.tolist()) for w in pair_ranges[1:4]]
    assert asked == [(16, 32, [1, 2]), (16, 32, [0]), (32, 64, [1, 2])]
    assert len(pair_ranges) > len(rounds)
    assert (rounds[0].num_decided, rounds[0].num_open, rounds[2].documents) == (2, 2, 3)
    assert (standings.scores > cut(standings.scores, 0.5)).tolist() == [False, False, True, True]


def test_who_cannot_be_selected_is_read_once():
    standings = Standings.blank(np.array([100, 100, 100]))
    standings.group[:] = [0, -1, 0]

    def read(pair_ranges):
        for pair_range in pair_ranges:
            for number in range(3) if pair_range.documents is None else pair_range.documents:
                standings.add(number, np.arange(pair_range.stop - pair_range.start) + 0.1 * number)
        return standings

    list(run_rounds(RaceRule(top=0.5, z=1e9), None, read))
    assert standings.num_read.tolist() == [128, 32, 128]


def test_rules_that_make_no_sense_are_refused():
    for top in (0, 1, 1.5, math.nan):
        with pytest.raises(ConfigError, match="decides nothing"):
            RaceRule(top=top)
    with pytest.raises(ConfigError, match="first_pairs is 1"):
        RaceRule(top=0.5, first_pairs=1)
    for z in (0, -1, math.inf, math.nan):
        with pytest.raises(ConfigError, match="standard errors above 0"):
            RaceRule(top=0.5, z=z)
    with pytest.raises(ConfigError, match="cannot group by 'topic'"):
        RaceRule(top=0.5, by=("topic",))
