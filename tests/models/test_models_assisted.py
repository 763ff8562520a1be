"""Assisted generation, and the cache that is cut back for it: token for token what plain reading gives."""

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM
from longlode.models.rewind import Rewind

STACKS = ["DD", "GD", "DS", "DA", "SA", "LC", "MD"]
EXACT = {"rtol": 0, "atol": 1e-11}
GREEDY = {"max_new_tokens": 24, "do_sample": False, "return_dict_in_generate": True}


def tiny(mixers, seed=0):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(**sizes, mixers=mixers, intermediate_size=48, initializer_range=0.3)
    return LonglodeForCausalLM(config).double().eval()


def tokens(rows, length, seed=1):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def near(model, noise):
    """A draft model that is right now and then."""
    other = LonglodeForCausalLM(model.config).double().eval()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    other.generation_config.assistant_confidence_threshold = 0.0
    return other


def watched(model, monkeypatch, x, assistant):
    """What assisted generation gives, how often the model was called, and what each cut dropped."""
    dropped, calls, crop = [], [], LonglodeCache.crop

    def counted(cache, num_tokens):
        dropped.append(num_tokens)
        crop(cache, num_tokens)

    with monkeypatch.context() as patch:
        patch.setattr(LonglodeCache, "crop", counted)
        handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
        out = model.generate(x, assistant_model=assistant, **GREEDY)
        handle.remove()
    return out, len(calls), dropped


def assert_same_cache(got, want):
    assert got.num_positions == want.num_positions
    for layer, other in zip(got.layers, want.layers, strict=True):
        assert layer.state.keys() == other.state.keys()
        for name, value in other.state.items():
            torch.testing.assert_close(layer.state[name], value, **EXACT)


@pytest.mark.parametrize("length", [7, 150])
@pytest.mark.parametrize("stack", STACKS)
def test_assisted_greedy_is_greedy(stack, length, monkeypatch):
    model, x = tiny(stack), tokens(1, length)
    want = model.generate(x, **GREEDY)
    for assistant in (near(model, 0), near(model, 0.05), tiny("D", 5)):
        got, num_calls, dropped = watched(model, monkeypatch, x, assistant)
        assert torch.equal(got.sequences, want.sequences)
        rejected = min(dropped) < 0
        assert rejected or num_calls <= 3, "one draft was rejected, or all of 20 tokens and more were taken"
        if assistant.config.mixers != stack:
            assert rejected
        again = model(got.sequences[:, :-1]).past_key_values
        model.model.catch_up(got.past_key_values)
        assert_same_cache(got.past_key_values, again)


@pytest.mark.parametrize("stack", STACKS)
def test_prompt_lookup_is_greedy(stack):
    model, x = tiny(stack), tokens(1, 12).repeat(1, 8)
    want = model.generate(x, **GREEDY).sequences
    for num_drafted in (3, 10):
        got = model.generate(x, prompt_lookup_num_tokens=num_drafted, **GREEDY).sequences
        assert torch.equal(got, want)


def test_assisted_after_padding():
    model, x = tiny("DS"), tokens(1, 9)
    x[0, :3] = 0
    mask = (x != 0).long()
    want = model.generate(x, attention_mask=mask, **GREEDY).sequences
    got = model.generate(x, attention_mask=mask, assistant_model=near(model, 0.05), **GREEDY).sequences
    assert torch.equal(got, want)


def test_assisted_sampling_draws_what_the_model_may_say():
    model, x = tiny("DA"), tokens(1, 7)
    torch.manual_seed(3)
    options = {**GREEDY, "do_sample": True, "top_k": 1}
    got = model.generate(x, assistant_model=near(model, 0.05), **options).sequences
    assert torch.equal(got, model.generate(x, **GREEDY).sequences)


def forgetful(self, target):
    """A wrong variant: goes back to the mark and leaves out what lies between it and the cut."""
    return self.marks[max(n for n, mark in enumerate(self.marks) if mark.position <= target)].states


def read_cut_and_go_on(model, masked, how):
    x, more = tokens(2, 200), tokens(2, 6, 2)
    mask = torch.ones(2, 200, dtype=torch.bool)
    if masked:
        mask[0, :150], mask[1, 160:170] = False, False
    cache = LonglodeCache(2)
    model(x[:, :90], attention_mask=mask[:, :90], past_key_values=cache)
    cache.activate_past_recording()
    for start, stop in ((90, 92), (92, 93), (93, 200)):
        model(x[:, start:stop], attention_mask=mask[:, start:stop], past_key_values=cache)
    cache.crop(-how)
    kept = 200 - how
    assert cache.num_positions == kept
    whole = torch.cat((x[:, :kept], more), 1)
    whole_mask = torch.cat((mask[:, :kept], mask.new_ones(2, 6)), 1)
    want = model(whole, attention_mask=whole_mask).logits[:, kept:]
    return cache, more, want, whole_mask


@pytest.mark.parametrize("dropped", [0, 1, 63, 64, 65, 106, 107, 108, 109, 110])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("stack", ["DS", "GA", "LM"])
def test_cut_anywhere_and_go_on(stack, masked, dropped):
    model = tiny(stack)
    cache, more, want, mask = read_cut_and_go_on(model, masked, dropped)
    got = model(more, attention_mask=mask, past_key_values=cache).logits
    torch.testing.assert_close(got, want, **EXACT)


def test_the_law_rejects_a_cache_that_leaves_out_the_tokens_before_the_cut(monkeypatch):
    monkeypatch.setattr(Rewind, "go_back", forgetful)
    model = tiny("DS")
    cache, more, want, mask = read_cut_and_go_on(model, False, 30)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(
            model(more, attention_mask=mask, past_key_values=cache).logits, want, **EXACT
        )


def test_a_cut_cache_is_copied_chosen_from_and_saved_as_any_other(tmp_path):
    model = tiny("DS")
    cache, more, want, _ = read_cut_and_go_on(model, False, 30)
    chosen = cache.select(torch.tensor([1, 0, 1]))
    torch.testing.assert_close(
        model(more[[1, 0, 1]], past_key_values=chosen).logits, want[[1, 0, 1]], **EXACT
    )
    torch.testing.assert_close(model(more, past_key_values=cache.copy()).logits, want, **EXACT)
    cache.save(tmp_path / "state", model=model)
    again = LonglodeCache.load(tmp_path / "state", model=model)
    for one in (again, cache):
        torch.testing.assert_close(model(more, past_key_values=one).logits, want, **EXACT)
    cache.reset()
    assert model(more, past_key_values=cache).logits.equal(model(more).logits)


def test_what_was_not_recorded_cannot_be_dropped():
    model, cache = tiny("DS"), LonglodeCache(2)
    model(tokens(1, 9), past_key_values=cache)
    cache.crop(0)
    with pytest.raises(ConfigError, match="drop 2 of 9 positions; it can drop 0"):
        cache.crop(-2)
    cache.activate_past_recording()
    model(tokens(1, 3), past_key_values=cache)
    with pytest.raises(ConfigError, match="drop 4 of 12 positions; it can drop 3"):
        cache.crop(-4)
    cache.crop(torch.tensor(-3))
    assert (cache.num_positions, type(cache.num_positions)) == (9, int)
    with pytest.raises(ConfigError, match="drop 1 of 9 positions; it can drop 0"):
        cache.crop(-1)
