"""transformers: `generate` in its modes, what it passes to `forward`, `pipeline`, loading by Auto classes."""

import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, TextStreamer, pipeline

from peers import tiny

PACKAGES = ("transformers",)
STACKS = ["DS", "DD", "CL", "GA", "MA"]
NEW_TOKENS = 12


@pytest.fixture(scope="module", params=STACKS)
def model(request):
    return tiny.model(request.param)


def greedy_by_hand(model, prompt):
    """The most likely next token, again and again, each time from the whole text and without a cache."""
    ids = prompt
    for _ in range(NEW_TOKENS):
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[:, -1]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids


def generated(model, prompt, **settings):
    """`generate` without the end token, so that all rows have NEW_TOKENS more."""
    defaults = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    return model.generate(prompt, **{**defaults, **settings})


def test_greedy_is_the_argmax_of_the_whole_text(model):
    prompt = tiny.token_rows()
    torch.testing.assert_close(generated(model, prompt), greedy_by_hand(model, prompt), rtol=0, atol=0)


def test_left_padding_changes_nothing(model):
    short, long = tiny.token_rows(1, 9, seed=1), tiny.token_rows(1, 31, seed=2)
    rows = torch.cat([torch.cat([torch.ones(1, 22, dtype=torch.long), short], 1), long])
    mask = torch.ones_like(rows)
    mask[0, :22] = 0
    together = generated(model, rows, attention_mask=mask)
    assert together[0, 31:].tolist() == generated(model, short)[0, 9:].tolist()
    assert together[1, 31:].tolist() == generated(model, long)[0, 31:].tolist()


def test_beams_are_at_least_as_likely_as_greedy(model):
    prompt = tiny.token_rows(1)
    beams = generated(model, prompt, num_beams=3, num_return_sequences=2)
    assert beams.shape == (2, 40 + NEW_TOKENS)

    def log_likelihood(row):
        with torch.no_grad():
            log_probs = model(input_ids=row[None]).logits.log_softmax(-1)[0, 39:-1]
        return log_probs.gather(1, row[40:, None]).sum()

    assert log_likelihood(beams[0]) >= log_likelihood(generated(model, prompt)[0]) - 1e-4


def test_sampling_repeats_with_its_seed(model):
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(generated(model, tiny.token_rows(), do_sample=True, top_p=0.9, num_return_sequences=2))
    assert torch.equal(*drawn)
    assert drawn[0].shape == (4, 40 + NEW_TOKENS)
    assert not torch.equal(drawn[0][0], drawn[0][1])


def test_prefill_in_chunks_and_scores(model):
    prompt = tiny.token_rows()
    whole = generated(model, prompt, output_scores=True, return_dict_in_generate=True)
    pieces = generated(model, prompt, output_scores=True, return_dict_in_generate=True, prefill_chunk_size=16)
    assert torch.equal(whole.sequences, pieces.sequences)
    torch.testing.assert_close(whole.scores, pieces.scores, rtol=1e-4, atol=1e-5)


def test_going_on_from_past_key_values(model):
    prompt = tiny.token_rows()
    first = generated(model, prompt, max_new_tokens=5, return_dict_in_generate=True)
    rest = generated(
        model,
        first.sequences,
        # Else `generate` takes a written token that equals the padding token for padding.
        attention_mask=torch.ones_like(first.sequences),
        max_new_tokens=NEW_TOKENS - 5,
        past_key_values=first.past_key_values,
    )
    assert torch.equal(rest, generated(model, prompt))


def test_inputs_embeds_are_as_good_as_tokens(model):
    prompt = tiny.token_rows()
    embedded = model.get_input_embeddings()(prompt)
    written = model.generate(
        inputs_embeds=embedded, max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=1
    )
    assert torch.equal(written, generated(model, prompt)[:, 40:])


def test_classifier_free_guidance(model):
    guided = generated(model, tiny.token_rows(), guidance_scale=1.5)
    assert guided.shape == (2, 40 + NEW_TOKENS)


def test_stop_strings_end_a_row(model):
    words, prompt = tiny.tokenizer(), tiny.token_rows(1)
    # Half a character cannot be searched for: only tokens that are text of themselves.
    others = [number for number in range(320) if not words.decode([number]).strip().isalpha()]
    plain = generated(model, prompt, suppress_tokens=others)[0, 40:]
    stop = words.decode(plain[3:5])  # greedy decoding writes it, but not as its first token
    stopped = generated(model, prompt, suppress_tokens=others, stop_strings=[stop], tokenizer=words)[0, 40:]
    assert stopped.tolist() == plain[: len(stopped)].tolist()
    assert len(stopped) <= 5
    assert stop in words.decode(stopped)


@pytest.mark.parametrize("num_assistant_tokens", [1, 4])
def test_assisted_generation_writes_what_greedy_writes(model, num_assistant_tokens):
    prompt = tiny.token_rows(1)
    assistant = copy.deepcopy(model)
    with torch.no_grad():  # near enough to be right at times, and wrong at others
        for weight in assistant.parameters():
            weight.add_(0.05 * weight.std() * torch.randn_like(weight) if weight.numel() > 1 else 0)
    assistant.generation_config.num_assistant_tokens = num_assistant_tokens
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assert torch.equal(generated(model, prompt, assistant_model=assistant), generated(model, prompt))


def test_prompt_lookup_writes_what_greedy_writes(model):
    prompt = tiny.token_rows(1, 20).repeat(1, 2)  # what came before is there to be found
    plain = generated(model, prompt)
    assert torch.equal(generated(model, prompt, prompt_lookup_num_tokens=3), plain)


HARMLESS = {
    "output_attentions": False,
    "output_hidden_states": None,
    "cache_position": torch.arange(40),
    "token_type_ids": None,
    "head_mask": None,
    "return_dict": True,
}


@pytest.mark.parametrize("keyword", HARMLESS)
def test_forward_takes_what_changes_nothing(model, keyword):
    ids = tiny.token_rows()
    with torch.no_grad():
        plain, told = model(input_ids=ids).logits, model(input_ids=ids, **{keyword: HARMLESS[keyword]}).logits
        assert torch.equal(plain, told)
        model.model(input_ids=ids, **{keyword: HARMLESS[keyword]})


def test_labels_beside_shift_labels(model):
    """Context parallelism passes both; the shifted ones are the targets."""
    ids, targets = tiny.token_rows(), tiny.token_rows(seed=5)
    with torch.no_grad():
        both = model(input_ids=ids, labels=ids, shift_labels=targets)
        expected = torch.nn.functional.cross_entropy(both.logits.flatten(0, 1), targets.flatten())
    torch.testing.assert_close(both.loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mixers", ["AA", "AS", "GA"])
def test_attentions_are_shares_of_the_past(mixers):
    model, ids = tiny.model(mixers), tiny.token_rows()
    with torch.no_grad():
        outputs = model(input_ids=ids, output_attentions=True)
        torch.testing.assert_close(outputs.logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-5)
    shares = [layer for layer in outputs.attentions if layer is not None]
    assert len(shares) == sum(letter in "AS" for letter in mixers)
    for layer in shares:
        assert layer.shape == (2, 2, 40, 40)
        torch.testing.assert_close(layer.sum(-1), torch.ones(2, 2, 40), rtol=0, atol=1e-5)
        assert float(layer.triu(1).abs().max()) == 0
    if "S" in mixers:
        assert float(shares[mixers.index("S")].tril(-24).abs().max()) == 0, "a window of 24 tokens"


def test_generate_returns_attentions():
    written = generated(
        tiny.model("AA"), tiny.token_rows(), output_attentions=True, return_dict_in_generate=True
    )
    assert len(written.attentions) == NEW_TOKENS
    assert written.attentions[-1][0].shape == (2, 2, 1, 40 + NEW_TOKENS - 1)


def test_auto_classes_pipeline_and_streamer(model_folder, capsys):
    loaded = AutoModelForCausalLM.from_pretrained(model_folder)
    words = AutoTokenizer.from_pretrained(model_folder)
    prompt = words(["The lamp hides", "A lode"], padding=True, padding_side="left", return_tensors="pt")
    settings = {"max_new_tokens": 8, "do_sample": False}
    by_hand = words.batch_decode(loaded.generate(**prompt, **settings), skip_special_tokens=True)
    write = pipeline("text-generation", model=str(model_folder))
    write.tokenizer.padding_side = "left"
    by_pipeline = [
        row[0]["generated_text"] for row in write(["The lamp hides", "A lode"], batch_size=2, **settings)
    ]
    assert by_pipeline == by_hand
    single = words(["The lamp hides"], return_tensors="pt")
    capsys.readouterr()
    streamed = loaded.generate(**single, **settings, streamer=TextStreamer(words, skip_special_tokens=True))
    assert capsys.readouterr().out.strip() == words.decode(streamed[0], skip_special_tokens=True).strip()


def test_a_stack_overridden_at_load_time_can_be_saved_and_loaded(model_folder, tmp_path):
    config = AutoConfig.from_pretrained(model_folder, mixers="DSD")
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.num_hidden_layers == len(again.model.layers) == len(again.config.layer_types) == 3
