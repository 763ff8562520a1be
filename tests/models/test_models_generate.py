"""`generate` and the cache: every way to read and write text gives what one full forward gives."""

import pytest
import torch
from transformers import DynamicCache

from longlode.core.errors import ConfigError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM

STACKS = ["DD", "GD", "DS", "DA", "SA", "LC", "MD"]
EXACT = {"rtol": 0, "atol": 1e-11}


def tiny(mixers, seed=0):
    torch.manual_seed(seed)
    config = LonglodeConfig(
        vocab_size=40,
        hidden_size=24,
        num_heads=4,
        num_kv_heads=2,
        window=5,
        mixers=mixers,
        intermediate_size=48,
        initializer_range=0.3,
    )
    return LonglodeForCausalLM(config).double().eval()


def tokens(rows=2, length=11, seed=1):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def greedy_without_cache(model, x, count):
    with torch.no_grad():
        for _ in range(count):
            x = torch.cat((x, model(x, use_cache=False).logits[:, -1:].argmax(-1)), 1)
    return x


@pytest.mark.parametrize("stack", STACKS)
def test_greedy_is_argmax_of_the_full_forward(stack):
    model, x = tiny(stack), tokens()
    want = greedy_without_cache(model, x, 9)
    out = model.generate(
        x, max_new_tokens=9, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    assert torch.equal(out.sequences, want)
    full = model(want[:, :-1]).logits[:, -9:]
    # generate hands logits out in float32.
    torch.testing.assert_close(torch.stack(out.logits, 1), full.float(), rtol=0, atol=1e-6)
    assert type(out.past_key_values) is LonglodeCache
    assert out.past_key_values.get_seq_length() == 11 + 9 - 1


@pytest.mark.parametrize("stack", STACKS)
def test_beams_equal_beams_without_cache(stack):
    model, x = tiny(stack), tokens()
    options = {"max_new_tokens": 7, "num_beams": 4, "num_return_sequences": 3, "do_sample": False}
    scored = {"return_dict_in_generate": True, "output_scores": True}
    with_cache = model.generate(x, **options, **scored)
    without = model.generate(x, **options, **scored, use_cache=False)
    assert torch.equal(with_cache.sequences, without.sequences)
    torch.testing.assert_close(with_cache.sequences_scores, without.sequences_scores, rtol=0, atol=1e-6)
    assert not torch.equal(with_cache.sequences[::3], model.generate(x, max_new_tokens=7, do_sample=False))


def test_sampling_with_and_without_cache():
    model, x = tiny("DS"), tokens()
    draws = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        draws.append(model.generate(x, max_new_tokens=8, do_sample=True, top_k=10, use_cache=use_cache))
    assert torch.equal(*draws)


@pytest.mark.parametrize("stack", STACKS)
def test_left_padded_batch_equals_each_alone(stack):
    model = tiny(stack)
    prompts = [tokens(1, n, seed=n) for n in (11, 3, 1)]
    width = 11
    x = torch.cat([torch.nn.functional.pad(p, (width - p.shape[1], 0)) for p in prompts])
    mask = (x != 0).long()
    logits = model(x, attention_mask=mask).logits
    for row, prompt in enumerate(prompts):
        torch.testing.assert_close(logits[row, -prompt.shape[1] :], model(prompt).logits[0], **EXACT)
    batched = model.generate(x, attention_mask=mask, max_new_tokens=8, do_sample=False)
    for row, prompt in enumerate(prompts):
        assert torch.equal(
            batched[row, width:], model.generate(prompt, max_new_tokens=8)[0, prompt.shape[1] :]
        )
    # Without a mask, padding is read as text: the mask is what makes the difference.
    assert not torch.allclose(model(x).logits[1, -3:], model(prompts[1]).logits[0])


@pytest.mark.parametrize("stack", STACKS)
def test_right_padding_does_not_reach_the_tokens(stack):
    model, x = tiny(stack), tokens()
    mask = torch.ones_like(x)
    mask[1, 6:] = 0
    got = model(x * mask, attention_mask=mask).logits
    torch.testing.assert_close(got[1, :6], model(x[1:, :6]).logits[0], **EXACT)
    torch.testing.assert_close(got[0], model(x[:1]).logits[0], **EXACT)


@pytest.mark.parametrize("stack", STACKS)
def test_pieces_tokens_and_whole_agree(stack):
    model, x = tiny(stack), tokens()
    whole = model(x).logits
    for cuts in ([4, 9, 11], [1, 2, 11], list(range(1, 12))):
        cache, start, parts = LonglodeCache(2), 0, []
        for stop in cuts:
            out = model(x[:, start:stop], past_key_values=cache)
            assert out.past_key_values is cache
            parts.append(out.logits)
            start = stop
        torch.testing.assert_close(torch.cat(parts, 1), whole, **EXACT)
        assert cache.get_seq_length() == 11
    chunked = model.generate(x, max_new_tokens=5, do_sample=False, prefill_chunk_size=4)
    assert torch.equal(chunked, greedy_without_cache(model, x, 5))


def test_generate_from_embeddings():
    model, x = tiny("DS"), tokens()
    options = {"max_new_tokens": 5, "do_sample": False}
    got = model.generate(inputs_embeds=model.model.embeddings(x), **options)
    assert torch.equal(got, model.generate(x, **options)[:, 11:])


@pytest.mark.parametrize("stack", STACKS)
def test_a_conversation_goes_on_from_its_cache(stack):
    model, x = tiny(stack), tokens()
    first = model.generate(x, max_new_tokens=4, do_sample=False, return_dict_in_generate=True)
    turn = torch.cat((first.sequences, tokens(2, 3, seed=8)), 1)
    again = model.generate(turn, max_new_tokens=4, do_sample=False, past_key_values=first.past_key_values)
    assert torch.equal(again, greedy_without_cache(model, turn, 4))


def test_constant_size_without_full_attention():
    for stack, grows in (("DDS", False), ("DA", True)):
        model, cache, sizes = tiny(stack), LonglodeCache(len(stack)), []
        for start in (0, 20, 40):
            model(tokens(1, 20, seed=start), past_key_values=cache)
            # Storage, not shape: a slice of the whole text's keys would count as small and not be.
            sizes.append(
                sum(t.untyped_storage().nbytes() for layer in cache.layers for t in layer.state.values())
            )
        assert (sizes[2] > sizes[1] > sizes[0]) if grows else (len(set(sizes)) == 1), (stack, sizes)


@pytest.mark.parametrize("stack", STACKS)
def test_selected_rows_live_on_their_own(stack):
    model, x = tiny(stack), tokens(3)
    cache = model(x).past_key_values
    frozen = [{name: t.clone() for name, t in layer.state.items()} for layer in cache.layers]
    rows = torch.tensor([2, 0, 0, 1])
    chosen = cache.select(rows)
    assert (chosen.batch_size, chosen.num_positions, len(chosen)) == (4, 11, 2)
    more = tokens(4, 6, seed=3)
    want = model(torch.cat((x[rows], more), 1)).logits[:, 11:]
    torch.testing.assert_close(model(more, past_key_values=chosen).logits, want, **EXACT)
    for layer in chosen.layers:
        for value in layer.state.values():
            value.zero_()
    for layer, before in zip(cache.layers, frozen, strict=True):
        for name, value in before.items():
            assert torch.equal(layer.state[name], value)
    assert cache.num_positions == 11


def test_cache_operations_of_transformers():
    model, x = tiny("DA"), tokens(2)
    cache = model(x).past_key_values
    cache.batch_repeat_interleave(2)
    assert cache.batch_size == 4
    cache.batch_select_indices(torch.tensor([3, 0]))
    more = tokens(2, 2, seed=4)
    want = model(torch.cat((x[[1, 0]], more), 1)).logits[:, -2:]
    torch.testing.assert_close(model(more, past_key_values=cache).logits, want, **EXACT)
    assert cache.get_mask_sizes(3, 0) == (16, 0)
    assert (cache.get_max_length(), cache.is_compileable) == (-1, False)
    with pytest.raises(ConfigError, match="rows 0 to 1"):
        cache.select(torch.tensor([2]))
    cache.reset()
    assert (cache.batch_size, cache.get_seq_length(), cache.num_bytes) == (-1, 0, 0)
    with pytest.raises(ConfigError, match="empty cache"):
        cache.select(torch.tensor([0]))


def test_what_cannot_work_is_refused():
    model, x = tiny("DA"), tokens()
    with pytest.raises(ConfigError, match="DynamicCache"):
        model(x, past_key_values=DynamicCache())
