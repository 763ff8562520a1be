"""Prefix linear attention: against plain loops, and where its prefix reaches."""

import math

import pytest
import torch
from mixer_laws import SHARED, T, build, inputs, packed

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, SequenceContext
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM

CONFIG = MIXERS.get("prefix_linear_attention").from_settings({}, SHARED)
EXACT = {"rtol": 0, "atol": 1e-11}


def by_hand(mixer, x, length):
    """y of one document x `[T, D]`, one pair of tokens at a time."""
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}

    def features(name):
        u = x @ weights[f"{name}.weight"].T
        return torch.where(u > 0, u + 1, u.exp())

    q, k, e = features("q_proj"), features("k_proj"), features("prefix_k_proj")
    v, u = x @ weights["v_proj.weight"].T, x @ weights["prefix_v_proj.weight"].T
    K = mixer.config.head_dim
    output = torch.zeros_like(v)
    for head in range(mixer.config.num_heads):
        part = slice(head * K, (head + 1) * K)
        for t in range(len(x)):
            o = sum((q[t, part] @ k[j, part]) * v[j, part] for j in range(t + 1))
            o = o + sum((q[t, part] @ e[j, part]) * u[j, part] for j in range(length))
            o = o / math.sqrt(K)
            o = o / math.sqrt(float(o @ o) / K + mixer.config.norm_eps)
            output[t, part] = o * weights["o_norm.weight"]
    return output @ weights["o_proj.weight"].T


def test_against_plain_loops():
    mixer, x = build(CONFIG), inputs(2)
    y = mixer(x, None, SequenceContext.of(x, prefix_lengths=torch.tensor([7, 0]))).y
    torch.testing.assert_close(y[0], by_hand(mixer, x[0], 7), **EXACT)
    torch.testing.assert_close(y[1], by_hand(mixer, x[1], 0), **EXACT)


def test_prefixes_of_packed_and_of_padded_documents():
    mixer, x, offsets = build(CONFIG), inputs(1), [0, 6, 7, T]
    lengths = torch.tensor([4, 1, 0])
    y = mixer(x, None, packed(x, offsets, prefix_lengths=lengths)).y[0]
    for n, length in enumerate(lengths.tolist()):
        document = slice(offsets[n], offsets[n + 1])
        torch.testing.assert_close(y[document], by_hand(mixer, x[0, document], length), **EXACT)
    mask = torch.arange(T) >= torch.tensor([[5], [0]])
    x = inputs(2).masked_fill(~mask[..., None], float("nan"))
    y = mixer(x, None, SequenceContext.of(x, mask=mask, prefix_lengths=torch.tensor([3, 2]))).y
    torch.testing.assert_close(y[0, 5:], by_hand(mixer, x[0, 5:], 3), **EXACT)
    torch.testing.assert_close(y[1], by_hand(mixer, x[1], 2), **EXACT)


def test_after_the_prefix_it_goes_on_as_linear_attention():
    mixer, x = build(CONFIG), inputs(1)
    whole = mixer(x, None, SequenceContext.of(x, prefix_lengths=torch.tensor([7])))
    head = x[:, :7]
    state = mixer(head, None, SequenceContext.of(head, prefix_lengths=torch.tensor([7]))).state
    for t in range(7, T):
        y_t, state = mixer.step(x[:, t], state)
        torch.testing.assert_close(y_t, whole.y[:, t], **EXACT)


def test_a_model_writes_on_from_a_prefix():
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=40,
        hidden_size=24,
        num_heads=4,
        window=5,
        initializer_range=0.3,
        layers=["prefix_linear_attention", "sliding_window_attention"],
    )
    model = LonglodeForCausalLM(config).double().eval()
    x = torch.randint(1, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    options = {"max_new_tokens": 6, "do_sample": False}
    lengths = torch.tensor([9, 4])
    want = x
    with torch.no_grad():
        for _ in range(6):
            logits = model(want, use_cache=False, prefix_lengths=lengths).logits
            want = torch.cat((want, logits[:, -1:].argmax(-1)), 1)
    got = model.generate(x, prefix_lengths=lengths, **options)
    assert torch.equal(got, want)
    assert not torch.equal(got, model.generate(x, **options))
    model(x[:, :3], cache=(cache := LonglodeCache(2)))
    with pytest.raises(ConfigError, match=r"the cache has read \[3, 3\]"):
        model(x[:, 3:], cache=cache, prefix_lengths=lengths)
