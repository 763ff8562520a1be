"""The mining claim's benchmark: its pool, its arms, and what it measures, on made works."""

import random
from collections import Counter

import numpy as np
import pytest
import torch

from benchmarks import context_curve
from benchmarks.claims import mining
from benchmarks.claims.mining_pool import PIECE, choose, make_pool
from benchmarks.context_curve import CONTEXTS, Windows, losses, make_windows, mean_and_error
from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer
from longlode.models import LonglodeConfig, LonglodeForCausalLM, starter_folder

LENGTH = 400


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


def test_both_halves_of_the_pool_hold_as_much_of_every_work(tokenizer):
    works = made_works()
    pool = make_pool(works, tokenizer, length=LENGTH, seed=3)
    kept, shuffled = pool.rows[pool.in_order], pool.rows[~pool.in_order]
    assert kept.shape == shuffled.shape
    assert Counter(pool.works[pool.in_order]) == Counter(pool.works[~pool.in_order])
    assert {name.split("/")[0] for name in pool.works} == {"book", "code"}
    texts = {work.id: tokenizer.encode_long(work.text) for work in works}
    for row, name in zip(kept, pool.works[pool.in_order], strict=True):
        cuts = texts[name][: len(texts[name]) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1)
        assert (cuts == row).all(1).any(), "a kept row is a cut of its work"
    rows = {name: {tuple(row) for row in kept[pool.works[pool.in_order] == name].tolist()} for name in texts}
    pieces = Counter()
    for name, tokens in texts.items():
        if name.startswith("book"):
            for row in tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].reshape(-1, LENGTH + 1).tolist():
                if tuple(row) not in rows[name]:
                    pieces.update({tuple(row[at : at + PIECE]): 1 for at in range(0, LENGTH + 1, PIECE)})
    books = shuffled[[name.startswith("book") for name in pool.works[~pool.in_order]]]
    found = Counter(
        tuple(row[at : at + PIECE]) for row in books.tolist() for at in range(0, LENGTH + 1, PIECE)
    )
    assert not found - pieces, "shuffled rows hold no other text"
    assert sum((pieces - found).values()) <= 2, "but for an odd row per work, all of it"


def test_arms_choose_as_many_rows(tokenizer):
    pool = make_pool(made_works(), tokenizer, length=LENGTH, seed=0)
    chosen = {arm: choose(arm, pool, tokenizer, 5) for arm in ("oracle", "spliced", "random", "gzip")}
    assert len({len(rows) for rows in chosen.values()}) == 1
    assert all(len(set(rows.tolist())) == len(rows) for rows in chosen.values())
    assert pool.in_order[chosen["oracle"]].all()
    assert not pool.in_order[chosen["spliced"]].any()
    assert 0.2 < pool.in_order[chosen["random"]].mean() < 0.8
    assert choose("random", pool, tokenizer, 6).tolist() != chosen["random"].tolist()
    with pytest.raises(ConfigError, match="made of pairs"):
        choose("paper", pool, tokenizer, 0)


def test_losses_are_of_the_same_targets_after_more_and_more_context():
    torch.manual_seed(0)
    config = LonglodeConfig(vocab_size=50, hidden_size=16, num_heads=2, layers=["delta_net", "ngram_head"])
    model = LonglodeForCausalLM(config)
    rows = torch.randint(50, (5, CONTEXTS[-1] + 7)).numpy()
    found = losses(model, Windows(rows, np.array(list("aabbb")), 7))
    assert model.training
    model.eval()
    for column, context in enumerate(CONTEXTS[:3]):
        for number, row in enumerate(rows):
            text = torch.from_numpy(row[CONTEXTS[-1] - context :])[None]
            with torch.no_grad():
                log_probs = model(text).logits[0].log_softmax(-1)
            want = -np.mean([float(log_probs[at - 1, text[0, at]]) for at in range(context, context + 7)])
            assert found[number, column] == pytest.approx(want, abs=1e-5)
    mean, error = mean_and_error(np.array([1.0, 3.0, 5.0, 5.0, 5.0]), np.array(list("aabbb")))
    assert (mean, error) == pytest.approx((3.5, 1.5))


def test_windows_stand_in_their_works(tokenizer):
    works = [Work(w.id, w.domain, w.language, "dev", w.text) for w in made_works(9000)]
    found = make_windows(works, tokenizer, windows=3, targets=5)
    texts = {work.id: " ".join(map(str, tokenizer.encode_long(work.text))) for work in works}
    assert found["prose"].works.tolist() == ["book/0", "book/1", "book/0"]
    for part in found.values():
        assert part.rows.shape == (3, CONTEXTS[-1] + 5)
        for row, work in zip(part.rows.tolist(), part.works, strict=True):
            assert " ".join(map(str, row)) in texts[work]


def test_an_arm_runs_once_and_is_compared_with_random(tmp_path, monkeypatch, capsys):
    short = (4, 8, 16, 256, 300)
    for module in (context_curve, mining):
        monkeypatch.setattr(module, "CONTEXTS", short)
    monkeypatch.setattr(mining, "GAIN", (16, 300))
    monkeypatch.setattr(mining, "works_of", lambda side: made_works())
    monkeypatch.setattr(context_curve, "KINDS", {"prose": ("book",)})
    arguments = [
        "--work",
        str(tmp_path),
        "--seeds",
        "1",
        "--length",
        "100",
        "--tokens",
        "17000",
        "--width",
        "64",
    ]
    arguments += ["--windows", "2", "--arms", "oracle,random"]
    mining.main(arguments)
    first = capsys.readouterr().out
    assert len(list(tmp_path.glob("*/losses-*.json"))) == 2
    monkeypatch.setattr(mining, "train", lambda *_, **__: pytest.fail("a finished run is not repeated"))
    mining.main(arguments)
    assert capsys.readouterr().out == first
    assert "oracle, prose" in first


def test_intervals_hold_seeds_and_works():
    works = np.array(["a", "a", "b"])
    mean, low, high = mining.interval(np.array([[1.0, 3.0, 4.0], [3.0, 5.0, 6.0]]), works)
    assert mean == pytest.approx(4.0)
    assert (low, high) == pytest.approx((2.0, 6.0))
