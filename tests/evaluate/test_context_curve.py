"""The context curve: the same targets after less and more context, and where more stops to help."""

import random

import numpy as np
import pytest
from evaluate_stand_ins import Copier, tokenizer

from longlode.core.errors import ConfigError
from longlode.core.rows import read_rows
from longlode.evaluate import evaluate
from longlode.evaluate.statistics import context_used
from longlode.evaluate.surprisal import SurprisalMeter, losses_after, make_encode
from longlode.evaluate.tasks.base import Tokens
from longlode.evaluate.tasks.context_curve import ContextCurve, contexts
from longlode.evaluate.tasks.words import NOUNS

PERIOD = 100


def periodic(number, tokens=900):
    """A text whose every token is that of 100 tokens earlier."""
    words = random.Random(number).sample(NOUNS, PERIOD)
    return " ".join(words[place % PERIOD] for place in range(tokens))


def curve_of(model, tok, folder, length=600, **options):
    texts = [periodic(number) for number in range(6)]
    found = evaluate(
        model, tok, tasks=[ContextCurve(**options)], lengths=[length], texts=texts, out=folder, num_examples=6
    )
    used = [row["mean"] for row in found["summary"] if row["metric"] == "context_used"]
    return {(row["start"], row["stop"]): row["mean"] for row in found["curves"]["context_curve"]}, used


@pytest.mark.parametrize("bos", [False, True])
def test_only_the_octave_that_holds_the_source_is_worth_something(bos, tmp_path):
    tok = tokenizer(bos)
    curve, used = curve_of(Copier(len(tok)), tok, tmp_path, targets=40)
    longest = 600 - 40
    assert list(curve) == [(16, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, longest)]
    assert curve[64, 128] > 3
    assert all(abs(gain) < 1e-6 for octave, gain in curve.items() if octave != (64, 128))
    assert used == [128]
    rows = read_rows(tmp_path / "examples.parquet")
    assert all(row["gain"] == pytest.approx(row["nats_before"] - row["nats"]) for row in rows)


def test_a_model_that_sees_no_farther_uses_the_least(tmp_path):
    tok = tokenizer()
    curve, used = curve_of(Copier(len(tok), window=PERIOD - 1), tok, tmp_path)
    assert set(curve.values()) == {0.0}
    assert used == [16]


def test_every_reading_ends_in_the_same_tokens():
    tok = tokenizer(bos=True)
    encode = make_encode(tok)
    task = ContextCurve(targets=20).bound_to(encode, [periodic(0)])
    example = task.make(300, 0)
    whole = encode(example.text).first(300)
    assert len(whole) == 300
    for name, side in example.variants.items():
        read = whole.last(side.last)
        assert read.ids[0] == whole.ids[0] == tok.bos_token_id
        assert read.ids[1:] == whole.ids[-int(name) - 20 :]
        asked = read.positions(*side.answer_spans[0])
        assert asked.tolist() == list(range(int(name) + 1, int(name) + 21))


def test_last_keeps_special_tokens_at_the_start():
    tokens = Tokens([1, 5, 6, 7], [(0, 0), (0, 2), (2, 3), (3, 5)])
    assert tokens.last(2) == Tokens([1, 6, 7], [(0, 0), (2, 3), (3, 5)])
    assert tokens.last(9) == tokens
    assert Tokens([5, 6], [(0, 1), (1, 2)]).last(1).ids == [6]


def test_contexts_double_up_to_the_longest():
    assert contexts(128) == [16, 32, 64, 128]
    assert contexts(200) == [16, 32, 64, 128, 200]


def test_losses_after_is_a_plain_loop_over_rows_and_contexts():
    tok = tokenizer()
    encode = make_encode(tok)
    rows = [encode(periodic(number, 300)).ids for number in range(3)]
    meter = SurprisalMeter(Copier(len(tok)), batch_tokens=500)
    found = losses_after(meter, rows, [8, 50, 250], 30)
    for number, row in enumerate(rows):
        for column, context in enumerate([8, 50, 250]):
            cut = row[-30 - context :]
            ((nats, _),) = meter.read([cut], [np.arange(context, context + 30)])
            assert found[number, column] == pytest.approx(nats.sum() / 30)
    with pytest.raises(ConfigError, match="rows of 331"):
        losses_after(meter, rows, [301], 30)


def test_context_used_is_the_last_gain_that_its_interval_supports():
    rng = np.random.default_rng(3)
    sizes, edges = 40, [16, 32, 64, 128, 256]
    noise = rng.normal(0, 0.01, (sizes, 5))
    falling = np.array([3.0, 2.5, 2.2, 2.2, 2.2])
    assert context_used(falling + noise, edges) == 64
    assert context_used(np.array([3.0, 2.9, 2.8, 2.7, 2.6]) + noise, edges) == 256
    assert context_used(np.array([2.0, 2.1, 2.2, 2.3, 2.4]) + noise, edges) == 16
    # worse beyond the training length does not undo what came before
    assert context_used(np.array([3.0, 2.8, 2.6, 2.9, 3.5]) + noise, edges) == 64
    # a plateau before a late gain is no end
    assert context_used(np.array([3.0, 2.8, 2.8, 2.8, 2.6]) + noise, edges) == 256


def test_windows_of_one_document_count_once():
    """Twenty windows of two documents that disagree show nothing; as twenty documents they would."""
    losses = np.array([[3.0, 2.0]] * 15 + [[3.0, 3.3]] * 5)
    losses += np.random.default_rng(0).normal(0, 0.01, losses.shape)
    assert context_used(losses, [16, 32], ["a"] * 15 + ["b"] * 5) == 16
    assert context_used(losses, [16, 32]) == 32
    assert context_used(losses, [16, 32], ["a"] * 20) is None
