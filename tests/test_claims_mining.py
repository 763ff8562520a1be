"""The mining claim's benchmark: its pool, its arms, its runs and its table, on made works."""

import dataclasses
import json
import random
from collections import Counter

import numpy as np
import pytest
import torch

from benchmarks import context_curve
from benchmarks.claims import mining, mining_measures, mining_table, mining_training
from benchmarks.claims.mining_arms import EVERYTHING, SCORED, PoolScores, Scored, choose, share_in_order
from benchmarks.claims.mining_junk import PIECE
from benchmarks.claims.mining_measures import Held, Measured, make_questions, measure
from benchmarks.claims.mining_pool import SHARE, make_pool, rows_per_work, works_for
from benchmarks.claims.mining_table import as_markdown, interval, table
from benchmarks.claims.mining_training import SETTINGS, Setting, in_training_order, run
from benchmarks.context_curve import Windows
from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer
from longlode.evaluate.surprisal import make_encode
from longlode.evaluate.tasks.base import Tokens
from longlode.models import LonglodeConfig, LonglodeForCausalLM, load, starter_folder

LENGTH = 400
WIDTH = LENGTH + 1


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(starter_folder())


def made_works(num_words=6000):
    """Two domains of two works, each of words of its own; and one in another language, and a list."""
    rng, works = random.Random(0), []
    for domain in ("book", "code", "list"):
        for number in range(2):
            words = [f"{domain[0]}{number}{rng.randrange(10**4)}" for _ in range(300)]
            text = " ".join(rng.choice(words) for _ in range(num_words))
            works.append(Work(f"{domain}/{number}", domain, "en", "fit", text))
    return [*works, Work("roman/1", "novel", "de", "fit", "der Wald " * num_words)]


@pytest.fixture(scope="module")
def pool(tokenizer):
    return make_pool(made_works(), tokenizer, length=LENGTH, tokens=24 * LENGTH, seed=3)


def pieces_of(rows):
    return Counter(tuple(row[at : at + PIECE]) for row in rows for at in range(0, WIDTH, PIECE))


def test_a_quarter_of_each_work_stays_in_order_and_the_rest_is_dealt_anew_within_the_domain(tokenizer, pool):
    works = {work.id: tokenizer.encode_long(work.text) for work in made_works()}
    assert set(pool.works) == {"book/0", "book/1", "code/0", "code/1"}
    whole = {
        name: ids[: len(ids) // WIDTH * WIDTH].reshape(-1, WIDTH).tolist() for name, ids in works.items()
    }
    for name in set(pool.works):
        own = pool.works == name
        assert pool.in_order[own].mean() == 1 / SHARE
        assert all(row in whole[name] for row in pool.rows[own & pool.in_order].tolist())
    for domain in ("book", "code"):
        kept = pool.rows[(pool.domains == domain) & pool.in_order].tolist()
        spliced = pool.rows[(pool.domains == domain) & ~pool.in_order].tolist()
        unused = pieces_of(row for name in whole if name.startswith(domain) for row in whole[name])
        assert not pieces_of(spliced) - (unused - pieces_of(kept)), "no token stands twice"
        assert not any(row in whole[f"{domain}/{n}"] for row in spliced for n in (0, 1))


def test_long_works_give_no_more_rows_than_are_needed():
    there_are = {"long": 90, "middle": 21, "short": 6, "tiny": 3}
    assert rows_per_work(there_are, 5) == {"long": 8, "middle": 8, "short": 4, "tiny": 0}
    assert rows_per_work(there_are, 28) == {"long": 88, "middle": 20, "short": 4, "tiny": 0}
    with pytest.raises(ConfigError, match="fewer --tokens"):
        rows_per_work(there_are, 29)


def test_a_small_pool_is_of_fewer_works_of_all_domains():
    domain_of = {
        f"{domain}{n}": domain for domain, count in (("a", 9), ("b", 2), ("c", 1)) for n in range(count)
    }
    there_are = dict.fromkeys(domain_of, 8) | {"a0": SHARE - 1}
    found = works_for(domain_of, there_are, 6, 0)
    assert Counter(name[0] for name in found) == {"a": 3, "b": 2, "c": 1}
    assert found != works_for(domain_of, there_are, 6, 1)
    assert set(works_for(domain_of, there_are, 99, 0)) == set(domain_of) - {"a0"}


def test_arms_take_the_same_share_of_each_work_and_what_they_say(pool):
    values = np.random.default_rng(0).normal(size=len(pool.rows))
    values[pool.in_order] += 100
    values[np.flatnonzero(pool.in_order)[0]] = np.nan
    chosen = {
        arm: choose(arm, pool, lambda _: values, 5)
        for arm in ("oracle", "spliced", "random", "gate", "gzip band")
    }
    for rows in chosen.values():
        assert pool.works[rows].tolist() == pool.works[chosen["random"]].tolist()
        assert len(set(rows.tolist())) == len(rows) == len(pool.rows) // SHARE
    assert pool.in_order[chosen["oracle"]].all()
    assert not pool.in_order[chosen["spliced"]].any()
    assert 0.05 < share_in_order(chosen["random"], pool) < 0.6
    assert pool.in_order[chosen["gate"]].sum() == pool.in_order.sum() - 1, "a row without a score comes last"
    assert not pool.in_order[chosen["gzip band"]].any(), "the middle of each work: the tops are in order"
    assert choose("random", pool, lambda _: values, 6).tolist() != chosen["random"].tolist()
    assert sorted(choose(EVERYTHING, pool, lambda _: values, 0)) == list(range(len(pool.rows)))
    with pytest.raises(ConfigError, match="paper"):
        choose("paper", pool, lambda _: values, 0)


def test_the_band_is_the_middle_of_the_ranking(pool):
    values = np.random.default_rng(1).normal(size=len(pool.rows))
    rows = choose("gzip band", pool, lambda _: values, 0)
    for own in pool.of_work:
        taken = set(rows.tolist()) & set(own.tolist())
        ranks = sorted(sorted(own, key=lambda n: values[n]).index(n) for n in taken)
        spare = len(own) - len(taken)
        assert ranks[0] in (spare // 2, -(-spare // 2))
        assert ranks[-1] - ranks[0] == len(taken) - 1


def test_rows_are_scored_by_the_engine_once(pool, tokenizer, tmp_path, monkeypatch):
    import zlib

    found = PoolScores(pool, tokenizer, tmp_path)(Scored("gzip"))
    texts = [tokenizer.decode(row.tolist()).encode() for row in pool.rows]
    want = [1 - len(zlib.compress(text)) / len(text) for text in texts]
    assert found == pytest.approx(want, abs=0.05), "gzip and zlib differ by their heads"
    gate = PoolScores(pool, tokenizer, tmp_path)(SCORED["gate"])
    assert gate.shape == (len(pool.rows),)
    monkeypatch.setattr("longlode.mining.engine.work.score_unit", lambda *_: pytest.fail("scored again"))
    assert PoolScores(pool, tokenizer, tmp_path)(Scored("gzip")).tolist() == found.tolist()


def small_model():
    torch.manual_seed(0)
    return LonglodeForCausalLM(
        LonglodeConfig(vocab_size=4096, hidden_size=16, num_heads=2, layers=["delta_net", "ngram_head"])
    )


def test_answers_of_the_tasks_are_asked_for(monkeypatch):
    monkeypatch.setattr(mining_measures, "TASK_TOKENS", 300)
    monkeypatch.setattr(mining_measures, "CONTEXTS", (4, 8))
    encode = make_encode(load(str(starter_folder()))[1])
    questions = make_questions(("recall", "verbatim_memory"), encode, count=3)
    model = small_model()
    rows = np.random.default_rng(0).integers(0, 4096, (2, 11))
    found = measure(model, Held({"prose": Windows(rows, np.array(["a", "b"]), 3)}, questions))
    assert found.losses["prose"].shape == (2, 2)
    text = questions["recall"]
    assert all(int(at[-1]) == len(row) - 1 for at, row in zip(text.asked, text.rows, strict=True))
    for number, (row, at) in enumerate(zip(text.rows, text.asked, strict=True)):
        with torch.no_grad():
            log_probs = model(torch.tensor([row])).logits[0].float().log_softmax(-1)
        want = np.mean([float(log_probs[place - 1, row[place]]) for place in at])
        assert found.tasks["recall"][number, 0] == pytest.approx(want, abs=0.02)
    again = Measured.from_json(json.loads(json.dumps(found.to_json())))
    assert again.tasks["verbatim_memory"].tolist() == found.tasks["verbatim_memory"].tolist()


def test_a_question_whose_answer_was_cut_off_is_refused(monkeypatch):
    monkeypatch.setattr(mining_measures, "TASK_TOKENS", 300)
    encode = make_encode(load(str(starter_folder()))[1])
    calls = Counter()

    def forgetful(text):
        calls["n"] += 1
        got = encode(text)
        return Tokens(got.ids[:40], got.offsets[:40])

    with pytest.raises(ConfigError, match="no token of the answer"):
        make_questions(("recall",), forgetful, count=1)


def held_windows(count=2, contexts=(4, 16)):
    rows = np.random.default_rng(0).integers(0, 4096, (count, contexts[-1] + 5))
    return Held({"prose": Windows(rows, np.array(["a", "b"])[:count], 5)}, {})


def test_a_stopped_run_goes_on_to_the_same_figures_and_is_not_repeated(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(mining_measures, "CONTEXTS", (4, 16))
    setting = Setting("scratch", 4800, 1e-3, 2 * LENGTH, 2, width=64, layers=["delta_net"])
    chosen, held = choose("oracle", pool, None, 0)[:12], held_windows()
    whole = run(setting, 0, pool, chosen, held, tmp_path / "whole")
    real, asked = mining_training._batches, []

    def stopping(rows, recipe, step):
        asked.append(step)
        for number, batch in enumerate(real(rows, recipe, step)):
            if len(asked) == 1 and number == 3:
                raise KeyboardInterrupt
            yield batch

    monkeypatch.setattr(mining_training, "_batches", stopping)
    recipe_of = Setting.recipe

    def often_saved(self, **sizes):
        recipe = recipe_of(self, **sizes)
        return recipe.model_copy(update={"run": recipe.run.model_copy(update={"checkpoint_every": 2})})

    monkeypatch.setattr(Setting, "recipe", often_saved)
    with pytest.raises(KeyboardInterrupt):
        run(setting, 0, pool, chosen, held, tmp_path / "stopped")
    resumed = run(setting, 0, pool, chosen, held, tmp_path / "stopped")
    assert asked == [0, 2]
    assert resumed.losses["prose"].tolist() == whole.losses["prose"].tolist()
    monkeypatch.setattr(
        mining_training, "train", lambda *_, **__: pytest.fail("a finished run is not repeated")
    )
    again = run(setting, 0, pool, chosen, held, tmp_path / "stopped")
    assert again.losses["prose"].tolist() == resumed.losses["prose"].tolist()


def test_the_starter_is_trained_on_from_its_own_weights(pool):
    setting = SETTINGS["starter"]
    recipe = setting.recipe(seed=0, length=4096, num_rows=5)
    starter, _ = load(str(starter_folder()))
    model = setting.model(recipe, pool.vocab_size)
    assert model.config.layers == starter.config.layers == recipe.model.layers
    for (name, ours), theirs in zip(model.named_parameters(), starter.parameters(), strict=True):
        assert torch.equal(ours, theirs.float()), name
    assert (recipe.num_steps, recipe.data.batch_size) == (5, 1)


def test_arms_of_a_size_read_the_same_works_at_the_same_step(pool):
    one, other = choose("oracle", pool, None, 0), choose("random", pool, None, 0)
    ordered = in_training_order(one, 4)
    assert pool.works[ordered].tolist() == pool.works[in_training_order(other, 4)].tolist()
    assert ordered.tolist() != in_training_order(one, 5).tolist()
    assert sorted(ordered) == sorted(one)


def measured(prose, task=0.0):
    return Measured(
        {"prose": np.array(prose, float)}, {"recall": np.array([[task, 0.5], [task + 1, 0.5]], float)}
    )


def test_the_table_is_of_paired_differences(pool, monkeypatch):
    runs = {
        ("random", 0): (choose("random", pool, None, 0), measured([[5, 4, 3], [6, 5, 5]])),
        ("oracle", 0): (choose("oracle", pool, None, 0), measured([[5, 4, 2.5], [6, 5, 4.5]], task=0.25)),
        ("oracle", 1): (choose("oracle", pool, None, 1), measured([[9, 9, 9], [9, 9, 9]])),
    }
    held = Held(
        {"prose": Windows(np.zeros((2, 2)), np.array(["a", "b"]), 1)},
        {"recall": mining_measures.Questions([], [])},
    )
    found = table(runs, held, pool)
    oracle = found["oracle"]
    assert (oracle["seeds"], oracle["in_order"]) == (2, 1.0)
    assert oracle["prose"]["loss_less_random"] == pytest.approx([-0.5] * 3), "of the seed that both have"
    assert oracle["prose"]["gain_less_random"] == pytest.approx([0.5] * 3)
    assert oracle["prose"]["loss"] == pytest.approx([7.25, 6.75, 6.25])
    assert oracle["recall"]["less_random"] == pytest.approx([0.25] * 3)
    assert found["random"]["prose"]["gain"] == pytest.approx(1.5)
    assert "less_random" not in found["random"]["recall"]
    lines = as_markdown(found).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert "**-0.500** (-0.500, -0.500)" in lines[3]


def test_intervals_hold_seeds_and_works():
    works = np.array(["a", "a", "b"])
    mean, low, high = interval(np.array([[1.0, 3.0, 4.0], [3.0, 5.0, 6.0]]), works)
    assert mean == pytest.approx(4.0)
    assert (low, high) == pytest.approx((2.0, 6.0))


def test_the_command_prints_the_same_again_without_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(context_curve, "CONTEXTS", (4, 8, 64))
    monkeypatch.setattr(context_curve, "KINDS", {"prose": ("book",)})
    monkeypatch.setattr(mining_measures, "CONTEXTS", (4, 8, 64))
    monkeypatch.setattr(mining_measures, "TASK_TOKENS", 300)
    for name in ("CONTEXTS", "GAIN"):
        monkeypatch.setattr(mining_table, name, (4, 8, 64) if name == "CONTEXTS" else (4, 64))
    small = dataclasses.replace(SETTINGS["scratch"], step_tokens=400)
    monkeypatch.setattr(mining, "SETTINGS", {"scratch": small})
    monkeypatch.setattr(mining, "works_of", lambda side: made_works(2500))
    monkeypatch.setattr(mining, "unseen", lambda work: True)
    sizes = ["--seeds", "1", "--length", "100", "--tokens", "1600", "--width", "64", "--windows", "2"]
    arguments = ["--work", str(tmp_path), *sizes, "--questions", "2", "--settings", "scratch"]
    arguments += ["--arms", "oracle,random,gzip"]
    mining.main(arguments)
    first = capsys.readouterr().out
    assert "gzip" in first
    assert len(list(tmp_path.glob("scratch-*/measured-*.json"))) == 3
    monkeypatch.setattr(
        mining_training, "train", lambda *_, **__: pytest.fail("a finished run is not repeated")
    )
    mining.main(arguments)
    assert capsys.readouterr().out == first
    saved = []
    monkeypatch.setattr(mining, "save", lambda *found: saved.append(found))
    mining.main([*arguments, "--save"])
    (_, result, text) = saved[0]
    assert str(tmp_path) not in json.dumps(result) + text
    assert [line for line in text.splitlines() if line.startswith("| gzip |")]
    with pytest.raises(ConfigError, match="nothing"):
        mining.main([*arguments, "--arms", "nothing"])
