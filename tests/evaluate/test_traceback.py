"""Which segments an answer is attributed to."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluate_stand_ins import Copier, tokenizer

from longlode.core.errors import ConfigError
from longlode.evaluate import trace_answer
from longlode.evaluate.surprisal import make_encode

FILLER = [f"Page {k} . line goes on . " for k in range(7)]


def test_the_segment_with_the_fact_has_it_all():
    tok = tokenizer()
    segments = [*FILLER[:3], "the field road = 7 ; ", *FILLER[3:]]
    found = trace_answer(Copier(len(tok)), tok, segments, "the field road = ", "7", num_orders=8)
    assert len(found) == 8
    best = max(found, key=lambda one: one.shapley)
    assert best.segment == 3
    assert best.leave_one_out > 4
    assert best.shapley > 0.9 * sum(one.shapley for one in found)
    assert all(abs(one.leave_one_out) < 1 for one in found if one.segment != 3)


def test_a_fact_that_stands_there_twice_is_shared():
    tok = tokenizer()
    segments = ["the field road = 7 ; ", FILLER[0], "the field road = 7 ; ", FILLER[1]]
    found = trace_answer(Copier(len(tok)), tok, segments, "the field road = ", "7")
    assert abs(found[0].leave_one_out) < 1e-6
    assert found[0].shapley > 2
    assert found[0].shapley == pytest.approx(found[2].shapley, rel=0.3)
    assert all(one.error == 0 for one in found)


class Sums(Copier):
    """Surprisal decided by all tokens before, so that every subset has another value."""

    def forward(self, input_ids, use_cache=False):
        mixed = torch.sin(input_ids.double() * 12.9898).cumsum(1)
        return SimpleNamespace(
            logits=torch.sin(mixed[..., None] + torch.arange(self.vocab_size) * 0.7).float()
        )


def test_shapley_values_are_those_of_the_definition():
    tok = tokenizer()
    model, encode = Sums(len(tok)), make_encode(tok)
    segments, question, answer = ["Page 1 ", "line 2 ", "goes 3 ", "on 4 "], "= ", "5 6"

    def value(subset):
        prompt = "".join(segments[k] for k in sorted(subset)) + question
        tokens = encode(prompt + answer)
        log_probs = model(torch.tensor([tokens.ids])).logits[0].log_softmax(-1)
        return sum(
            float(log_probs[t - 1, tokens.ids[t]]) for t in tokens.positions(len(prompt), len(prompt) + 3)
        )

    found = trace_answer(model, tok, segments, question, answer)
    for one in range(4):
        gains = []
        for order in itertools.permutations(range(4)):
            before = order[: order.index(one)]
            gains.append(value([*before, one]) - value(before))
        assert found[one].shapley == pytest.approx(np.mean(gains), abs=1e-4)
    assert sum(one.shapley for one in found) == pytest.approx(value(range(4)) - value(()), abs=1e-4)
    many = trace_answer(model, tok, segments * 2, question, answer, num_orders=6)
    assert all(one.error > 0 for one in many)


def test_what_cannot_be_traced_is_refused():
    tok = tokenizer()
    for segments, answer, orders in (([], "7", 4), (["a"], "", 4), (["a"], "7", 1)):
        with pytest.raises(ConfigError, match="expected a segment"):
            trace_answer(Copier(len(tok)), tok, segments, "= ", answer, num_orders=orders)
    with pytest.raises(ConfigError, match="question"):
        trace_answer(Copier(len(tok)), tok, ["Page "], "", "7")
