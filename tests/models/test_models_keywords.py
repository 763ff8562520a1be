"""Keywords that transformers, PEFT and TRL pass to `forward` and `generate`: read, left unread, or refused."""

import pytest
import torch
from transformers import DataCollatorWithFlattening

from longlode.core.errors import ConfigError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM, load, starter_folder
from longlode.models.keywords import CACHE_KEYWORD

GREEDY = {"max_new_tokens": 6, "do_sample": False}


def tiny(mixers="DS"):
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(**sizes, mixers=mixers, intermediate_size=48, initializer_range=0.3)
    return LonglodeForCausalLM(config).double().eval()


def tokens(rows=2, length=9, seed=1):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


HARMLESS = {
    "PEFT with a task type": {"output_attentions": None, "output_hidden_states": None, "return_dict": None},
    "asking for nothing": {"output_attentions": False, "output_router_logits": False, "head_mask": None},
    "older transformers": {"cache_position": torch.arange(9), "token_type_ids": torch.zeros(2, 9).long()},
    "causal, as it is": {"is_causal": True},
    "a future keyword, unused": {"some_new_option": None},
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_changes_nothing_is_accepted(case):
    model, x = tiny(), tokens()
    want = model(x, labels=x)
    got = model(x, labels=x, **HARMLESS[case])
    assert torch.equal(got.logits, want.logits)
    assert torch.equal(got.loss, want.loss)
    assert torch.equal(model.model(x, **HARMLESS[case]).last_hidden_state, model.model(x).last_hidden_state)


@pytest.mark.parametrize(
    ("keyword", "error"),
    [
        ({"head_mask": torch.ones(2, 4)}, ConfigError),
        ({"is_causal": False}, ConfigError),
        ({"encoder_hidden_states": torch.ones(2, 9, 24)}, ConfigError),
        ({"atention_mask": torch.ones(2, 9)}, TypeError),
    ],
)
def test_what_would_change_the_answer_is_refused(keyword, error):
    for model in (tiny(), tiny().model):
        with pytest.raises(error, match=next(iter(keyword))):
            model(tokens(), **keyword)


def test_a_four_dimensional_mask_is_refused():
    with pytest.raises(ConfigError, match=r"attention_mask has shape \[2, 1, 9, 9\]"):
        tiny()(tokens(), attention_mask=torch.ones(2, 1, 9, 9))


def test_shift_labels_win_over_labels():
    model, x, shifted = tiny(), tokens(), tokens(seed=4)
    both = model(x, labels=x, shift_labels=shifted).loss
    assert torch.equal(both, model(x, shift_labels=shifted).loss)
    assert not torch.equal(both, model(x, labels=x).loss)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_the_cache_has_two_names(name):
    model, x, more = tiny(), tokens(), tokens(2, 3, 5)
    model(x, **{name: (cache := LonglodeCache(2))})
    assert cache.num_positions == 9
    want = model(torch.cat((x, more), 1)).logits[:, 9:]
    torch.testing.assert_close(model(more, **{name: cache.copy()}).logits, want, rtol=0, atol=1e-11)
    whole = torch.cat((x, more), 1)
    said = model.generate(whole, **{name: cache.copy()}, return_dict_in_generate=True, **GREEDY)
    assert torch.equal(said.sequences, model.generate(whole, **GREEDY))
    assert isinstance(said[CACHE_KEYWORD], LonglodeCache)


def test_two_different_caches_are_refused():
    model, x, cache = tiny(), tokens(), LonglodeCache(2)
    model(x, past_key_values=cache, cache=cache)
    with pytest.raises(ConfigError, match="names of one thing"):
        model(x, past_key_values=LonglodeCache(2), cache=LonglodeCache(2))


@pytest.mark.parametrize("flash", [False, True])
@pytest.mark.parametrize("positions", [False, True])
def test_numbered_documents_are_packed_documents(flash, positions):
    model, x = tiny(), tokens(1)
    offsets = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
    want = model(x, cu_seqlens=offsets, labels=x)
    given = {"seq_idx": torch.tensor([[0, 0, 0, 1, 2, 2, 2, 2, 2]], dtype=torch.int32)}
    if flash:
        given |= {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets, "max_length_q": 5, "max_length_k": 5}
    if positions:
        given["position_ids"] = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3, 4]])
    assert torch.equal(model(x, labels=x, **given).loss, want.loss)
    assert torch.equal(model(x, seq_idx=torch.zeros(1, 9).int()).logits, model(x).logits)


def test_contradicting_numbers_of_documents_are_refused():
    model = tiny()
    numbers = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1, 1])
    with pytest.raises(ConfigError, match=r"seq_idx says \[0, 3, 9\]"):
        model(tokens(1), seq_idx=numbers, cu_seqlens=torch.tensor([0, 4, 9]))
    with pytest.raises(ConfigError, match="batch of 2 rows"):
        model(tokens(2), seq_idx=numbers)
    with pytest.raises(ConfigError, match="seq_idx has shape"):
        model(tokens(1), seq_idx=numbers[1:])


def test_the_flattening_collator_numbers_documents():
    rows = [{"input_ids": tokens(1, n, n)[0].tolist()} for n in (4, 9, 3)]
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=True, return_seq_idx=True)
    batch, model = collator(rows), tiny()
    texts = [torch.tensor([row["input_ids"]]) for row in rows]
    total = sum(model(x, labels=x).loss * (x.shape[1] - 1) for x in texts)
    torch.testing.assert_close(model(**batch).loss, total / sum(x.shape[1] - 1 for x in texts))


def test_generate_stops_at_a_string():
    model, tokenizer = load(starter_folder())
    prompt = tokenizer("def main(", return_tensors="pt")
    free = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    stop = tokenizer.decode(free[0, -4:])
    got = model.generate(
        **prompt, max_new_tokens=12, do_sample=False, stop_strings=[stop], tokenizer=tokenizer
    )
    assert torch.equal(got, free)
    stop = tokenizer.decode(free[0, -8:-6])
    got = model.generate(
        **prompt, max_new_tokens=12, do_sample=False, stop_strings=[stop], tokenizer=tokenizer
    )
    assert got.shape[1] < free.shape[1]
    assert torch.equal(got, free[:, : got.shape[1]])


def test_tools_that_ask_for_code_on_the_hub_find_none(tmp_path):
    config = tiny().config
    assert config.auto_map == {}
    config.save_pretrained(tmp_path)
    assert "auto_map" not in (tmp_path / "config.json").read_text()
