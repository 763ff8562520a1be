"""Nats of labels and continued prompts on several ranks are those of one."""

import pytest
import torch
from sharded_steps import Case, model_of
from transformers import GenerationConfig

from longlode.models import LonglodeCache
from longlode.parallel import simulate
from longlode.parallel.reading import asked_scores, continue_prompt, label_nats, read_prompt

LAYERS = ("delta_net", "sliding_window_attention", "attention")


@pytest.mark.parametrize("documents", [None, [0, 5, 6, 30, 37]])
def test_nats_are_those_of_one_rank(documents):
    model = model_of(*LAYERS, num_heads=6).eval()
    case = Case(1 if documents else 2, 37, 3, documents)
    logits = model(input_ids=case.tokens, cu_seqlens=case.cu_seqlens, use_cache=False).logits
    asked = case.labels.clamp(min=0)[..., None]
    want = -logits.log_softmax(-1).gather(-1, asked)[..., 0].masked_fill(case.labels == -100, 0).detach()
    for scheme in ("gather", "ring"):
        found = simulate(
            3,
            lambda transport, scheme=scheme: label_nats(
                model, case.tokens, case.labels, transport, cu_seqlens=case.cu_seqlens, attention=scheme
            ),
        )
        for nats in found:
            torch.testing.assert_close(nats, want, rtol=0, atol=1e-11)


def test_asked_tokens_of_padded_rows_have_the_scores_of_one_rank():
    model, lengths = model_of(*LAYERS).eval(), [37, 20, 2]
    tokens = torch.randint(0, 50, (3, 37))
    rows, places = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.tensor([1, 13, 25, 36, 7, 19, 1])
    tokens[0, 25] = model(input_ids=tokens[:1, :25], use_cache=False).logits[0, -1].argmax()  # a hit
    wanted = tokens[rows, places]
    logits = model(input_ids=tokens, use_cache=False).logits[rows, places - 1].detach()
    want = -logits.log_softmax(-1).gather(-1, wanted[:, None])[:, 0]
    for nats, hits in simulate(
        3, lambda transport: asked_scores(model, tokens, lengths, rows, places, transport)
    ):
        torch.testing.assert_close(nats, want, rtol=0, atol=1e-11)
        assert torch.equal(hits, logits.argmax(-1) == wanted)
        assert hits[2]


def test_samples_of_a_prompt_and_a_filled_cache():
    model = model_of(*LAYERS).eval()
    tokens = torch.randint(0, 50, (2, 24))
    config = GenerationConfig(max_new_tokens=5, do_sample=True, num_return_sequences=3, pad_token_id=0)
    torch.manual_seed(1)
    want = model.generate(input_ids=tokens, generation_config=config)

    def work(transport):
        torch.manual_seed(1)  # of all threads: the last rank alone draws
        return continue_prompt(model, tokens, transport, generation_config=config)

    assert torch.equal(simulate(3, work)[-1], want)
    assert config.num_return_sequences == 3
    for length in (1, 14):
        first = LonglodeCache(len(LAYERS))
        model.model(input_ids=tokens[:, :9], past_key_values=first)
        want = model(input_ids=tokens[:, : 10 + length], use_cache=False).logits[:, -1]

        def fill(transport, first=first, length=length):
            cache = first.copy()
            read_prompt(model, tokens[:, 9 : 9 + length], transport, cache)
            return cache

        cache = simulate(3, fill)[-1]
        assert cache.num_positions == 9 + length
        after = model(input_ids=tokens[:, 9 + length : 10 + length], past_key_values=cache).logits[:, -1]
        torch.testing.assert_close(after, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("num_tokens", [1, 2, 29])
def test_a_prompt_goes_on_as_on_one_rank(num_tokens):
    model = model_of(*LAYERS).eval()
    tokens = torch.randint(0, 50, (2, num_tokens))
    options = {"max_new_tokens": 9, "do_sample": False}
    want = model.generate(input_ids=tokens, **options)
    *others, last = simulate(3, lambda transport: continue_prompt(model, tokens, transport, **options))
    assert others == [None, None]
    assert torch.equal(last, want)
