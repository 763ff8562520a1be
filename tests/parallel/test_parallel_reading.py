"""Nats of labels and continued prompts on several ranks are those of one."""

import pytest
import torch
from sharded_steps import Case, model_of

from longlode.parallel import simulate
from longlode.parallel.reading import continue_prompt, label_nats

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


@pytest.mark.parametrize("num_tokens", [1, 2, 29])
def test_a_prompt_goes_on_as_on_one_rank(num_tokens):
    model = model_of(*LAYERS).eval()
    tokens = torch.randint(0, 50, (2, num_tokens))
    options = {"max_new_tokens": 9, "do_sample": False}
    want = model.generate(input_ids=tokens, **options)
    *others, last = simulate(3, lambda transport: continue_prompt(model, tokens, transport, **options))
    assert others == [None, None]
    assert torch.equal(last, want)
