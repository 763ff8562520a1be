"""Attention shares of a scorer against a slow computation from the model's own weights."""

import numpy as np
import pytest
import torch
from scorer_stand_ins import SIZE, VOCABULARY, build, make_tokenizer, stack

from longlode.core.errors import ConfigError, ScorerError
from longlode.models import scorer_attention
from longlode.models.scorer import LMScorer

LENGTH, NUM_SEGMENTS = 6, 4
NUM_TOKENS = LENGTH * NUM_SEGMENTS


@pytest.fixture(scope="module")
def texts():
    return np.random.default_rng(0).integers(0, VOCABULARY, (3, NUM_TOKENS))


def scorer_of(model):
    return LMScorer(model, make_tokenizer(), segment=LENGTH)


def by_hand(layers):
    """`[n, S, S]` from attention weights `[n, H, T, T]` a layer, one number at a time."""
    num_texts, num_heads = layers[0].shape[:2]
    shares = np.zeros((num_texts, NUM_SEGMENTS, NUM_SEGMENTS))
    for n in range(num_texts):
        for query in range(NUM_TOKENS):
            for key in range(query + 1):
                for weights in layers:
                    for head in range(num_heads):
                        shares[n, query // LENGTH, key // LENGTH] += weights[n, head, query, key]
    return shares / (len(layers) * num_heads * LENGTH)


@pytest.mark.parametrize("name", ["opt", "llama", "gpt2", "lfm2-hybrid"])
def test_shares_are_the_models_own_weights_summed(name, texts):
    model = build(name, torch.float64)
    scorer = scorer_of(model)
    before = model.config._attn_implementation
    shares = scorer.attention(texts)
    assert model.config._attn_implementation == before != "eager"
    assert not any(layer._forward_hooks for layer in model.modules())
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        found = model(input_ids=torch.from_numpy(texts), output_attentions=True, use_cache=False)
    layers = [weights.numpy() for weights in found.attentions if weights is not None]
    assert shares.shape == (3, NUM_SEGMENTS, NUM_SEGMENTS)
    np.testing.assert_allclose(shares, by_hand(layers), atol=1e-6)
    assert np.ptp(shares[:, -1, 0]) > 1e-3  # they do depend on the text


def rotated(x, theta):
    """Rotary positions by complex numbers: x `[T, K]` float64."""
    half = x.shape[1] // 2
    turned = (x[:, :half] + 1j * x[:, half:]) * np.exp(
        1j * np.arange(len(x))[:, None] * theta ** (-np.arange(half) / half)
    )
    return np.concatenate([turned.real, turned.imag], axis=1)


def test_our_own_layers_tell_the_attention_that_they_compute(texts):
    torch.manual_seed(0)
    model = stack("DA").double().eval()
    scorer = scorer_of(model)
    seen = []
    layer = next(m for m in model.modules() if type(m).__name__ == "FullAttention")
    handle = layer.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].numpy()))
    shares = scorer.attention(texts)
    handle.remove()
    num_heads, width = layer.settings.num_heads, layer.settings.head_dim
    weights = np.zeros((len(texts), num_heads, NUM_TOKENS, NUM_TOKENS))
    for n, x in enumerate(seen[-1]):
        for head in range(num_heads):
            part = slice(head * width, (head + 1) * width)
            q, k = (
                rotated(x @ projection.weight.detach().numpy()[part].T, layer.settings.rope_theta)
                for projection in (layer.q_proj, layer.k_proj)
            )
            for query in range(NUM_TOKENS):
                logits = k[: query + 1] @ q[query] / np.sqrt(width)
                weights[n, head, query, : query + 1] = np.exp(logits - logits.max())
                weights[n, head, query] /= weights[n, head, query].sum()
    np.testing.assert_allclose(shares, by_hand([weights]), atol=1e-6)


def test_rows_sum_to_one_in_any_batch(texts, monkeypatch):
    scorer = scorer_of(build("opt", torch.bfloat16))
    shares = scorer.attention(texts)
    np.testing.assert_allclose(shares.sum(axis=2), 1, atol=0.02)
    assert (np.triu(shares, 1) == 0).all()
    monkeypatch.setitem(scorer_attention._WEIGHT_BYTES, "cpu", 1)
    np.testing.assert_allclose(scorer.attention(texts), shares, atol=0.02)


def test_a_scorer_without_full_attention_says_what_is_needed(texts):
    for name in ("D", "mistral-window"):
        model = build(name)
        with pytest.raises(ScorerError, match=r"no layer of full attention.*facebook/opt-350m"):
            scorer_of(model).attention(texts)
        assert not any(layer._forward_hooks for layer in model.modules())


def test_texts_of_a_wrong_size_are_refused(texts):
    scorer = scorer_of(build("opt"))
    with pytest.raises(ConfigError, match=r"expected \[n, S L\] with L = 6"):
        scorer.attention(texts[:, :-1])
    with pytest.raises(ScorerError, match="reads at most 64 tokens; a window of attention has 72"):
        scorer.attention(np.tile(texts, 3))
    with pytest.raises(ConfigError, match="holds tokens"):
        scorer.attention(texts + SIZE["vocab_size"])
