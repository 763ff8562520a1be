"""Attention shares of a reader against a slow computation from the model's own weights."""

import numpy as np
import pytest
import torch
from reader_stand_ins import SIZE, VOCABULARY, build, make_tokenizer, stack

from longlode.core.errors import ConfigError, ModelError
from longlode.readers import attention as reader_attention
from longlode.readers.lm import LMReader

LENGTH, NUM_SEGMENTS = 6, 4
NUM_TOKENS = LENGTH * NUM_SEGMENTS


@pytest.fixture(scope="module")
def texts():
    return np.random.default_rng(0).integers(0, VOCABULARY, (3, NUM_TOKENS))


def reader_of(model):
    return LMReader(model, make_tokenizer(), segment=LENGTH)


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
    reader = reader_of(model)
    before = model.config._attn_implementation
    shares = reader.attention(texts)
    assert model.config._attn_implementation == before != "eager"
    assert not any(layer._forward_hooks for layer in model.modules())
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        found = model(input_ids=torch.from_numpy(texts), output_attentions=True, use_cache=False)
    layers = [weights.numpy() for weights in found.attentions if weights is not None]
    assert shares.shape == (3, NUM_SEGMENTS, NUM_SEGMENTS)
    np.testing.assert_allclose(shares, by_hand(layers), atol=1e-6)
    assert np.ptp(shares[:, -1, 0]) > 1e-3  # they do depend on the text


def attention_that_runs(model, texts):
    """`[n, 1, T, T]` of the A layer, mean over heads, seen from outside: how far its output follows each value.

    With values of 1 at token j and 0 elsewhere, every channel of the output at token t is its head's weight from t to
    j. Nothing is asked about the number of heads or their size.
    """
    layer = next(m for m in model.modules() if type(m).__name__ == "FullAttention")
    weights = np.zeros((len(texts), 1, NUM_TOKENS, NUM_TOKENS))
    for j in range(NUM_TOKENS):

        def one_at_j(_, __, values, j=j):
            marked = torch.zeros_like(values)
            marked[:, j] = 1
            return marked

        def keep(_, inputs, j=j):
            weights[:, 0, :, j] = inputs[0].mean(-1).numpy()

        handles = layer.v_proj.register_forward_hook(one_at_j), layer.o_proj.register_forward_pre_hook(keep)
        with torch.inference_mode():
            model(torch.from_numpy(texts), use_cache=False)
        for handle in handles:
            handle.remove()
    return weights


@pytest.mark.parametrize(
    "heads", [{}, {"attn_num_heads": 4, "attn_head_dim": 6, "num_kv_heads": 2, "qkv_bias": True}]
)
def test_our_own_layers_tell_the_attention_that_they_compute(texts, heads):
    torch.manual_seed(0)
    model = stack("DA", **heads).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    shares = reader_of(model).attention(texts)
    np.testing.assert_allclose(shares, by_hand([attention_that_runs(model, texts)]), atol=1e-6)
    assert np.ptp(shares[:, -1, 0]) > 1e-3


def test_rows_sum_to_one_in_any_batch(texts, monkeypatch):
    reader = reader_of(build("opt", torch.bfloat16))
    shares = reader.attention(texts)
    np.testing.assert_allclose(shares.sum(axis=2), 1, atol=0.02)
    assert (np.triu(shares, 1) == 0).all()
    monkeypatch.setitem(reader_attention._WEIGHT_BYTES, "cpu", 1)
    np.testing.assert_allclose(reader.attention(texts), shares, atol=0.02)


def test_a_reader_without_full_attention_says_what_is_needed(texts):
    for name in ("D", "mistral-window"):
        model = build(name)
        with pytest.raises(ModelError, match=r"no layer of full attention.*facebook/opt-350m"):
            reader_of(model).attention(texts)
        assert not any(layer._forward_hooks for layer in model.modules())


def test_texts_of_a_wrong_size_are_refused(texts):
    reader = reader_of(build("opt"))
    with pytest.raises(ConfigError, match=r"expected \[n, S L\] with L = 6"):
        reader.attention(texts[:, :-1])
    with pytest.raises(ModelError, match="reads at most 64 tokens; a window of attention has 72"):
        reader.attention(np.tile(texts, 3))
    with pytest.raises(ConfigError, match="holds tokens"):
        reader.attention(texts + SIZE["vocab_size"])
