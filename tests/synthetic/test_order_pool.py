"""The pool of known order: what its rows are made of, and choices within works."""

from collections import Counter

import numpy as np
import pytest

from longlode.core.errors import ConfigError
from longlode.synthetic.order_pool import OrderPool, dealt_anew, make_order_pool

WIDTH, PIECE = 47, 10


@pytest.mark.parametrize("share", [2, 3])
def test_every_work_gives_each_part_its_share_and_no_token_stands_twice(share):
    rng = np.random.default_rng()
    lengths = {f"work {number}": int(rng.integers(0, 9 * WIDTH)) for number in range(6)} | {"long": 7 * WIDTH}
    ids = rng.permutation(sum(lengths.values()))
    works = dict(zip(lengths, np.split(ids, np.cumsum([*lengths.values()])[:-1]), strict=True))
    pool = make_order_pool(works, WIDTH, rng, share=share, piece=PIECE)
    assert len(np.unique(pool.rows)) == pool.rows.size
    assert pool.rows.shape[1] == WIDTH
    rows, kept = Counter(pool.works.tolist()), Counter(pool.works[pool.in_order].tolist())
    for name, tokens in works.items():
        assert rows.get(name, 0) == len(tokens) // WIDTH // share * share
        assert kept.get(name, 0) * share == rows.get(name, 0)
    place = {token: (name, at) for name, tokens in works.items() for at, token in enumerate(tokens.tolist())}
    for row, name in zip(pool.rows[pool.in_order].tolist(), pool.works[pool.in_order], strict=True):
        assert [place[token] for token in row] == [(name, place[row[0]][1] + step) for step in range(WIDTH)]
    for row in pool.rows[~pool.in_order].tolist():
        for start in range(0, WIDTH, PIECE):
            name, at = place[row[start]]
            some = row[start : start + PIECE]
            assert [place[token] for token in some] == [(name, at + step) for step in range(len(some))]


def test_pieces_are_dealt_to_rows_of_other_works():
    rows = [np.full(100, number) for number in range(8)]
    dealt = dealt_anew(rows, PIECE, np.random.default_rng(0))
    assert all(len(set(row.tolist())) > 3 for row in dealt)
    assert Counter(np.concatenate(dealt).tolist()) == Counter(np.concatenate(rows).tolist())
    assert dealt_anew([], PIECE, np.random.default_rng(0)) == []


def test_a_choice_takes_the_best_rows_of_each_work_and_rows_without_a_score_last():
    works = np.array(["b", "a", "b", "a", "b", "b"])
    pool = OrderPool(np.zeros((6, 3), np.int32), works, np.zeros(6, bool), 2)
    values = np.array([np.nan, -5.0, 1.0, np.nan, 3.0, 2.0])
    assert pool.best_of_each_work(values).tolist() == [1, 4, 5]
    assert pool.best_of_each_work(-values).tolist() == [1, 2, 5]


def test_works_that_are_too_short_are_refused():
    with pytest.raises(ConfigError, match="94"):
        make_order_pool({"short": np.arange(50)}, WIDTH, np.random.default_rng(0))
