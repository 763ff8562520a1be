"""Padding anywhere, conversations in padded batches, positions, packed rows: each exact, or refused."""

import itertools

import pytest
import torch
from transformers import DataCollatorWithFlattening, Trainer, TrainingArguments

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM

STACKS = ["DD", "GD", "DS", "DA", "SA", "LC", "MD"]
EXACT = {"rtol": 0, "atol": 1e-11}


def tiny(mixers, seed=0):
    torch.manual_seed(seed)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(**sizes, mixers=mixers, intermediate_size=48, initializer_range=0.3)
    return LonglodeForCausalLM(config).double().eval()


def tokens(rows, length, seed=1):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


# Three turns of three rows: 1 at tokens. Padding at the left, at the right, within, and everywhere in a row.
TURNS = [
    [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1]],
    [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]],
    [[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [1, 0, 0, 0, 1]],
]


def conversation(seed=3):
    masks = [torch.tensor(turn) for turn in TURNS]
    return masks, [tokens(3, mask.shape[1], seed + n) * mask for n, mask in enumerate(masks)]


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("with_past", [False, True])
def test_padding_anywhere_in_a_conversation(stack, with_past, tmp_path):
    model, cache = tiny(stack), LonglodeCache(2)
    masks, turns = conversation()
    logits = []
    for n, (x, mask) in enumerate(zip(turns, masks, strict=True)):
        given = torch.cat(masks[: n + 1], 1) if with_past else mask
        logits.append(model(x, attention_mask=given, past_key_values=cache).logits)
        if n == 1:
            cache.save(tmp_path / "state", model=model)
            cache = LonglodeCache.load(tmp_path / "state", model=model)
    got, x, mask = torch.cat(logits, 1), torch.cat(turns, 1), torch.cat(masks, 1).bool()
    assert torch.equal(cache.mask, mask)
    once = model(x, attention_mask=mask, output_hidden_states=True)
    next_token = torch.tensor([[7], [8], [9]])
    then = model(next_token, past_key_values=cache).logits
    for row in range(3):
        alone = torch.cat((x[row][mask[row]], next_token[row]))[None]
        want = model(alone, output_hidden_states=True)
        torch.testing.assert_close(got[row][mask[row]], want.logits[0, :-1], **EXACT)
        torch.testing.assert_close(then[row, 0], want.logits[0, -1], **EXACT)
        torch.testing.assert_close(once.logits[row][mask[row]], want.logits[0, :-1], **EXACT)
        for ours, theirs in zip(once.hidden_states, want.hidden_states, strict=True):
            torch.testing.assert_close(ours[row][mask[row]], theirs[0, :-1], **EXACT)


@pytest.mark.parametrize("stack", STACKS)
def test_generate_goes_on_with_turns_of_different_length(stack):
    model, prompts, turns = tiny(stack), [tokens(1, n, n) for n in (5, 2)], [tokens(1, n, n) for n in (1, 4)]
    options = {"max_new_tokens": 3, "do_sample": False}

    def padded(rows):
        width = max(row.shape[1] for row in rows)
        return torch.cat([torch.nn.functional.pad(row, (width - row.shape[1], 0)) for row in rows])

    x = padded(prompts)
    first = model.generate(x, attention_mask=(x != 0).long(), return_dict_in_generate=True, **options)
    said, turn = first.sequences, padded(turns)
    mask = torch.cat(((x != 0).long(), torch.ones(2, 3, dtype=torch.long), (turn != 0).long()), 1)
    whole = torch.cat((said, turn), 1)
    got = model.generate(
        whole, attention_mask=mask, past_key_values=first.past_key_values, num_beams=1, **options
    )
    chunks = model.generate(whole, attention_mask=mask, prefill_chunk_size=3, **options)
    for row in range(2):
        alone = torch.cat((prompts[row], said[row : row + 1, x.shape[1] :], turns[row]), 1)
        want = model.generate(alone, **options)[0, -3:]
        assert torch.equal(got[row, -3:], want)
        assert torch.equal(chunks[row, -3:], want)


def test_rows_of_a_padded_cache_are_chosen_with_their_padding():
    model, cache = tiny("DS"), LonglodeCache(2)
    x, mask = tokens(2, 5), torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    model(x, attention_mask=mask, past_key_values=cache)
    cache.reorder_cache(torch.tensor([1, 0, 0]))
    assert cache.mask.long().tolist() == mask[[1, 0, 0]].tolist()
    assert cache.num_padding(3).tolist() == [0, 2, 2]
    more = tokens(3, 2, 5)
    got = model(more, attention_mask=torch.cat((mask[[1, 0, 0]], torch.ones(3, 2)), 1), past_key_values=cache)
    want = model(torch.cat((x[:1, 2:], more[1:2]), 1)).logits[0, 3:]
    torch.testing.assert_close(got.logits[1], want, **EXACT)
    cache.reset()
    assert cache.mask is None


def test_a_mask_that_rewrites_the_past_is_refused():
    model, x = tiny("DA"), tokens(2, 6)
    cache = model(x).past_key_values
    mask, more = torch.ones(2, 8), tokens(2, 2)
    mask[1, 4:6] = 0
    with pytest.raises(ConfigError, match="read as text"):
        model(more, attention_mask=mask, past_key_values=cache)
    hidden = torch.ones(2, 6)
    hidden[0, 0] = 0
    cache = model(x, attention_mask=hidden).past_key_values
    with pytest.raises(ConfigError, match="read as padding"):
        model(more, attention_mask=torch.ones(2, 8), past_key_values=cache)
    for shape in ((2, 7), (2, 9), (2, 1), (1, 8)):
        with pytest.raises(ConfigError, match=r"expected \[2, 2\] or, the past in front, \[2, 8\]"):
            model(more, attention_mask=torch.ones(shape), past_key_values=cache)
    with pytest.raises(ConfigError, match="cache has 2 rows and the input 1"):
        model(more[:1], past_key_values=cache)


def test_generate_with_nothing_new_to_read_is_refused():
    model, x = tiny("DS"), tokens(1, 6)
    for text in (x, x[:, :2]):
        with pytest.raises(
            ConfigError, match=f"has read 6 positions, and the text .* {text.shape[1]} in all"
        ):
            model.generate(text, past_key_values=model(x).past_key_values, max_new_tokens=2)


def test_positions_that_agree_are_accepted():
    model, x = tiny("DS"), tokens(2, 6)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    want = model(x, attention_mask=mask).logits
    counted = (mask.cumsum(1) - 1).clamp(min=0)
    for positions in (torch.arange(6), torch.arange(6)[None], counted, counted + 7):
        assert torch.equal(model(x, attention_mask=mask, position_ids=positions).logits, want)
    more, whole = tokens(2, 3, 5), torch.cat((mask, torch.ones(2, 3, dtype=torch.long)), 1)
    for start in (torch.tensor([[4], [6]]), torch.tensor([[6], [6]])):
        cache = model(x, attention_mask=mask).past_key_values
        positions = start + torch.arange(3)
        got = model(more, attention_mask=whole, past_key_values=cache, position_ids=positions).logits
        torch.testing.assert_close(
            got, model(torch.cat((x, more), 1), attention_mask=whole).logits[:, 6:], **EXACT
        )
    options = {"attention_mask": mask, "max_new_tokens": 4, "do_sample": False}
    assert torch.equal(model.generate(x, position_ids=counted, **options), model.generate(x, **options))


@pytest.mark.parametrize("stack", ["DS", "GA", "LM"])
def test_positions_that_start_anew_are_packed_documents(stack):
    model, x = tiny(stack), tokens(1, 9)
    positions = torch.tensor([[0, 1, 2, 0, 0, 1, 2, 3, 4]])
    offsets = torch.tensor([0, 3, 4, 9], dtype=torch.int32)
    want = model(x, cu_seqlens=offsets, labels=x)
    flash = {"cu_seq_lens_q": offsets, "cu_seq_lens_k": offsets, "max_length_q": 5, "max_length_k": 5}
    for given in (
        {"position_ids": positions},
        {"position_ids": positions, "attention_mask": torch.ones_like(x)},
        {"position_ids": positions, "cu_seqlens": offsets},
        flash,
        {"position_ids": positions, **flash},
    ):
        got = model(x, labels=x, **given)
        assert torch.equal(got.logits, want.logits)
        assert torch.equal(got.loss, want.loss)
        assert got.past_key_values is None
    assert not torch.allclose(model(x).logits, want.logits)


def test_positions_that_are_neither_are_refused():
    model, x = tiny("DS"), tokens(2, 6)
    anew, cache = torch.tensor([0, 1, 2, 0, 1, 2]), model(x).past_key_values
    for said, text, given in (
        ("neither count up", x, {"position_ids": anew}),
        ("neither count up", x[:1], {"position_ids": torch.tensor([0, 1, 3, 4, 5, 6])}),
        ("neither count up", x[:1], {"position_ids": torch.tensor([0, 1, 2, 1, 2, 3])}),
        ("neither count up", x, {"position_ids": torch.arange(6), "past_key_values": cache}),
        ("has shape", x, {"position_ids": torch.arange(5)}),
        ("cu_seqlens says", x[:1], {"position_ids": anew, "cu_seqlens": torch.tensor([0, 2, 6])}),
        ("cu_seqlens says", x[:1], {"position_ids": torch.arange(6), "cu_seqlens": torch.tensor([0, 2, 6])}),
    ):
        with pytest.raises(ConfigError, match=said):
            model(text, **given)


@pytest.mark.parametrize("flash", [False, True])
def test_trainer_on_packed_batches(flash, tmp_path):
    """transformers' padding-free collator: loss and first step are those of the documents one by one."""
    model, rows = tiny("DS").float(), [{"input_ids": tokens(1, n, n)[0].tolist()} for n in (4, 9, 3, 6)]
    options = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "learning_rate": 1e-2}
    arguments = TrainingArguments(
        tmp_path, max_steps=3, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **options
    )
    collator = DataCollatorWithFlattening(return_flash_attn_kwargs=flash)
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows, data_collator=collator)
    texts = [torch.tensor([row["input_ids"]]) for row in rows]
    total = sum(model(x, labels=x).loss.item() * (x.shape[1] - 1) for x in texts)
    loss = trainer.evaluate()["eval_loss"]
    assert loss == pytest.approx(total / sum(x.shape[1] - 1 for x in texts), rel=1e-5)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < loss


def of_mixer(name):
    """A model of two layers of one mixer; None where it cannot pack."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(**sizes, layers=[name, name], intermediate_size=48, initializer_range=0.3)
    model = LonglodeForCausalLM(config).double().eval()
    return model if all(block.attn.traits.packs for block in model.model.layers) else None


def read_alone(model, pieces):
    """Logits of a document's pieces, read one after the other with a cache of its own."""
    cache = LonglodeCache(2)
    return [model(piece, past_key_values=cache).logits for piece in pieces]


@pytest.mark.parametrize("name", MIXERS.names())
def test_packed_documents_go_on_from_a_cache_of_a_row_each(name):
    model = of_mixer(name)
    if model is None:
        pytest.skip(f"{name} does not pack")
    # Three documents, of which each piece adds some tokens; one is shorter than any window, one ends with a block.
    lengths = [[4, 1, 8], [1, 6, 2], [3, 2, 1]]
    texts = [[tokens(1, n, seed=10 * i + d) for d, n in enumerate(row)] for i, row in enumerate(lengths)]
    alone = [read_alone(model, [text[d] for text in texts] + [tokens(1, 2, seed=99)]) for d in range(3)]
    cache = None
    for i, (row, text) in enumerate(zip(lengths, texts, strict=True)):
        offsets = torch.tensor([0, *itertools.accumulate(row)], dtype=torch.int32)
        out = model(torch.cat(text, 1), cu_seqlens=offsets, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        for d, part in enumerate(out.logits.split(row, dim=1)):
            torch.testing.assert_close(part, alone[d][i], **EXACT)
    assert (~cache.mask).sum(1).tolist() == [cache.num_positions - sum(x) for x in zip(*lengths, strict=True)]
    # From here on one document per row.
    then = model(tokens(1, 2, seed=99).expand(3, -1), past_key_values=cache).logits
    torch.testing.assert_close(then, torch.cat([logits[-1] for logits in alone]), **EXACT)


def test_packed_documents_go_on_after_rows_and_the_other_way_round():
    model, x = tiny("DA"), tokens(2, 6)
    rows = model(x, attention_mask=torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]), use_cache=True)
    more, offsets = tokens(1, 5, seed=8), torch.tensor([0, 3, 5])
    packed = model(more, cu_seqlens=offsets, past_key_values=rows.past_key_values).logits
    for d, text in enumerate((x[:1], x[1:, 2:])):
        piece = more[:, offsets[d] : offsets[d + 1]]
        want = model(torch.cat((text, piece), 1)).logits[:, text.shape[1] :]
        torch.testing.assert_close(packed[:, offsets[d] : offsets[d + 1]], want, **EXACT)
    numbers = torch.tensor([[0, 0, 0, 1, 1]])
    by_numbers = model(x, attention_mask=torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]]), use_cache=True)
    by_numbers = model(more, seq_idx=numbers, past_key_values=by_numbers.past_key_values).logits
    assert torch.equal(by_numbers, packed)


def test_a_cache_that_does_not_fit_packed_documents_is_refused():
    model, x = tiny("DD"), tokens(1, 6)
    cache = model(x, use_cache=True).past_key_values
    offsets = torch.tensor([0, 2, 6])
    with pytest.raises(ConfigError, match=r"1 rows and the input 2"):
        model(x, cu_seqlens=offsets, past_key_values=cache)
    with pytest.raises(ConfigError, match="position_ids"):
        model(x, position_ids=torch.tensor([[0, 1, 0, 1, 2, 3]]), past_key_values=cache)
    recording = LonglodeCache(2)
    recording.activate_past_recording()
    with pytest.raises(ConfigError, match="records"):
        model(x, cu_seqlens=offsets, past_key_values=recording)
    model.train().gradient_checkpointing_enable()
    with pytest.raises(ConfigError, match="gradient checkpointing"):
        model(x, cu_seqlens=offsets, past_key_values=LonglodeCache(2))
