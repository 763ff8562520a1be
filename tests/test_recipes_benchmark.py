"""`benchmarks.recipes` without its corpus: documents, sizes of equal compute, and the table by plain loops."""

import math
import random

import numpy as np
import pytest

from benchmarks import recipes_runs
from benchmarks.claims.mining_measures import CONTEXTS, Held, Measured, Questions
from benchmarks.context_curve import Windows
from benchmarks.recipes_corpus import LONGEST, MOST_OF_A_WORK, SHORT, SHORTEST, _documents
from benchmarks.recipes_runs import DIVIDE, PLAIN
from benchmarks.recipes_table import as_markdown, table
from benchmarks.works import Work
from recipes.scaled_down import LONG_RECIPES


class Words:
    """A tokenizer of numbers."""

    def encode_long(self, text):
        return np.array([int(word) for word in text.split()])

    def decode(self, ids):
        return " ".join(map(str, ids))


@pytest.mark.parametrize(
    ("domain", "source", "most"), [("book", "books", LONGEST), ("technical", "other", SHORT)]
)
def test_a_work_is_cut_into_documents_that_follow_one_another(domain, source, most):
    text = " ".join(map(str, range(70_000)))
    rows = list(_documents(Work("w", domain, "en", "fit", text), Words(), random.Random()))
    assert {row["source"] for row in rows} == {source}
    assert all(SHORTEST <= row["size"] <= most for row in rows[:-1])
    numbers = " ".join(row["text"] for row in rows).split()
    assert numbers == [str(one) for one in range(len(numbers))]
    assert MOST_OF_A_WORK - SHORTEST < len(numbers) <= MOST_OF_A_WORK


def test_steps_are_searched_until_the_operations_agree(monkeypatch):
    """Operations that grow in jumps, as those of stages of whole steps do."""
    monkeypatch.setattr(recipes_runs, "_facts", lambda steps: {"flops": 7.0 * (steps // 3) + 2.0 * steps})
    for wanted in (40.0, 333.0, 1000.0):
        found = recipes_runs._sized(lambda steps: steps, wanted)
        assert math.isclose(7.0 * (found // 3) + 2.0 * found, wanted, rel_tol=0.15)


def test_every_long_recipe_is_run():
    assert DIVIDE.keys() == set(LONG_RECIPES)


def test_the_table_by_plain_loops():
    rng = np.random.default_rng()
    works = np.array(["a", "a", "b"])
    windows = {"prose": Windows(np.zeros((3, 8), dtype=np.int64), works, 2)}
    held = Held(windows, {"recall": Questions([[1]] * 4, [np.array([0])] * 4)})
    runs = {}
    for arm in (PLAIN, "progressive"):
        for seed in (0, 1):
            before, after = (
                Measured({"prose": rng.normal(size=(3, len(CONTEXTS)))}, {"recall": rng.random((4, 2))})
                for _ in range(2)
            )
            facts = {"steps": 5, "tokens": 100, "flops": 2.0 if arm == PLAIN else 3.0}
            runs[arm, seed] = {**facts, "before": before.to_json(), "after": after.to_json()}
    rows = table(runs, held)

    def mean(arm, get):
        """Mean over seeds of the mean over works."""
        return np.mean([get(runs[arm, seed]) for seed in (0, 1)])

    def loss(run, context):
        values = [row[CONTEXTS.index(context)] for row in run["before"]["losses"]["prose"]]
        return ((values[0] + values[1]) / 2 + values[2]) / 2

    def less(get):
        return mean("progressive", get) - mean(PLAIN, get)

    columns = rows["progressive"]["columns"]
    found = columns["prose: loss after 4,096"]["less_plain"]
    assert found[0] == pytest.approx(less(lambda run: loss(run, 4096)))
    assert found[1] <= found[0] <= found[2]
    gain = columns["prose: gain 256 to 1,024"]["less_plain"][0]
    assert gain == pytest.approx(less(lambda run: loss(run, 256) - loss(run, 1024)))
    right = columns["recall, after SFT: right"]["less_plain"][0]
    assert right == pytest.approx(
        less(lambda run: np.mean([row[1] for row in run["after"]["tasks"]["recall"]]))
    )
    assert "less_plain" not in rows[PLAIN]["columns"]["recall: right"]
    text = as_markdown(rows)
    assert "| progressive | 2 | 5 | 100 | 1.50 |" in text
    assert f"{found[0]:+.3f}" in text
