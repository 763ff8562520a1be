"""The reader: reading on from a kept state must equal reading the pair afresh, for every kind of model."""

import numpy as np
import pytest
import torch
from reader_stand_ins import LENGTH, MODELS, SIZE, VOCABULARY, build, make_tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from longlode.core.errors import ConfigError, ModelError
from longlode.corpus import encoding
from longlode.mining.reader import CONTINUES, READS_PAIRS, READS_WHOLE_TEXTS, SHOWS_ATTENTION
from longlode.readers import lm as reader_module
from longlode.readers.lm import LMReader

NUM_SEGMENTS = 12


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(1)
    segments = rng.integers(0, VOCABULARY, (NUM_SEGMENTS, LENGTH))
    sources = np.array([3, 0, 11, 7, 7, 3, 1, 2, 3, 4, 5, 6, 8, 9, 10, 3, 0])
    targets = segments[rng.integers(0, NUM_SEGMENTS, len(sources))]
    return segments, sources, targets


@torch.inference_mode()
def read_afresh(model, texts, first):
    """NLL of positions `first` to the end, from the model's own logits over the whole text."""
    tokens = torch.from_numpy(texts)
    logits = model(input_ids=tokens).logits.double()[:, first - 1 : -1]
    return functional.cross_entropy(logits.transpose(1, 2), tokens[:, first:], reduction="none").numpy()


def largest_error(reader, pairs):
    """Largest difference from reading every segment and every pair [s_j; s_i] afresh."""
    segments, sources, targets = pairs
    alone, states = reader.alone(segments)
    given = reader.given(states, sources, targets)
    fresh = read_afresh(reader.model, np.concatenate([segments[sources], targets], 1), LENGTH + 1)
    assert alone.shape == (len(segments), LENGTH - 1)
    assert given.shape == fresh.shape == (len(sources), LENGTH - 1)
    return max(np.abs(alone - read_afresh(reader.model, segments, 1)).max(), np.abs(given - fresh).max())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_reuse_equals_reading_the_pair_afresh(name, dtype, tolerance, tokenizer, pairs):
    reader = LMReader(build(name, dtype), tokenizer, segment=LENGTH, batch_tokens=5 * LENGTH)
    assert largest_error(reader, pairs) <= tolerance


@pytest.mark.parametrize("name", ["opt", "D"])
def test_half_precision_stays_near(name, tokenizer, pairs):
    reader = LMReader(build(name, torch.bfloat16), tokenizer, segment=LENGTH)
    alone, states = reader.alone(pairs[0])
    given = reader.given(states, *pairs[1:])
    precise = LMReader(reader.model.double(), tokenizer, segment=LENGTH)
    alone_precise, states = precise.alone(pairs[0])
    assert alone.dtype == given.dtype == np.float32
    assert np.abs(alone - alone_precise).mean() < 0.05
    assert np.abs(given - precise.given(states, *pairs[1:])).mean() < 0.05


@pytest.mark.parametrize("name", MODELS)
def test_batches_and_budget_do_not_change_scores(name, tokenizer, pairs):
    model = build(name)
    outcomes = []
    for batch_tokens, state_bytes in ((1, None), (5 * LENGTH, None), (5 * LENGTH, 0), (1 << 20, 1 << 30)):
        reader = LMReader(
            model, tokenizer, segment=LENGTH, batch_tokens=batch_tokens, state_bytes=state_bytes
        )
        alone, states = reader.alone(pairs[0])
        outcomes.append((alone, reader.given(states, *pairs[1:]), states))
    for alone, given, _ in outcomes:
        np.testing.assert_allclose(alone, outcomes[0][0], rtol=0, atol=2e-5)
        np.testing.assert_allclose(given, outcomes[0][1], rtol=0, atol=2e-5)
    kept, dropped = outcomes[1], outcomes[2]
    assert dropped[2].num_bytes == 0 < kept[2].num_bytes
    np.testing.assert_array_equal(dropped[1], kept[1])


def test_states_of_a_budget_are_kept_in_part(tokenizer, pairs):
    model = build("llama")
    reader = LMReader(model, tokenizer, segment=LENGTH, batch_tokens=4 * LENGTH)
    whole = reader.alone(pairs[0])[1].num_bytes
    # 2 (keys, values) x 2 layers x 2 KV heads x 8 numbers x 4 bytes a token
    assert whole == NUM_SEGMENTS * LENGTH * 2 * 2 * 2 * 8 * 4
    reader.state_bytes = whole // 2
    states = reader.alone(pairs[0])[1]
    assert [cache is None for cache in states.caches] == [False, True, True]
    assert largest_error(reader, pairs) <= 1e-4


def test_given_leaves_the_states_as_they_were(tokenizer, pairs):
    for name in ("opt", "mistral-window", "DA"):
        reader = LMReader(build(name), tokenizer, segment=LENGTH)
        states = reader.alone(pairs[0])[1]
        before = states.num_bytes
        first = reader.given(states, *pairs[1:])
        np.testing.assert_array_equal(reader.given(states, *pairs[1:]), first)
        assert states.num_bytes == before


def test_empty_calls(tokenizer, pairs):
    reader = LMReader(build("D"), tokenizer, segment=LENGTH)
    none = np.empty((0, LENGTH), np.int64)
    nll, states = reader.alone(none)
    assert nll.shape == (0, LENGTH - 1)
    assert reader.given(states, np.empty(0, np.int64), none).shape == (0, LENGTH - 1)


class _WrongPositions:
    """A wrong variant: reads on as if the target stood at positions 0 to L - 1."""

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, *, input_ids, **others):
        positions = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        return self.reader(input_ids=input_ids, position_ids=positions, **others)


@pytest.mark.parametrize("name", ["opt", "llama", "gpt2"])
def test_wrong_positions_are_found(name, tokenizer, pairs):
    reader = LMReader(build(name), tokenizer, segment=LENGTH)
    reader._reader = _WrongPositions(reader._reader)
    assert largest_error(reader, pairs) > 1e-2
    with pytest.raises(ModelError, match="does not continue exactly from its own cache"):
        reader._probe()


@pytest.mark.parametrize("name", ["opt", "D"])
def test_shifted_sources_are_found(name, tokenizer, pairs, monkeypatch):
    reader = LMReader(build(name), tokenizer, segment=LENGTH)
    right = reader_module.select
    monkeypatch.setattr(reader_module, "select", lambda cache, rows: right(cache, (rows + 1) % NUM_SEGMENTS))
    assert largest_error(reader, pairs) > 1e-2


def test_only_scored_positions_reach_the_head(tokenizer, pairs):
    model = build("opt")
    reader = LMReader(model, tokenizer, segment=LENGTH)
    seen = []
    model.lm_head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    _, states = reader.alone(pairs[0])
    reader.given(states, *pairs[1:])
    assert sum(seen) == (NUM_SEGMENTS + len(pairs[1])) * (LENGTH - 1)


def test_no_source_is_read_twice(tokenizer, pairs):
    model = build("DA")
    reader = LMReader(model, tokenizer, segment=LENGTH)
    read = []
    model.model.embeddings.register_forward_hook(
        lambda module, inputs, output: read.append(inputs[0].numel())
    )
    _, states = reader.alone(pairs[0])
    reader.given(states, *pairs[1:])
    assert sum(read) == NUM_SEGMENTS * LENGTH + len(pairs[1]) * (LENGTH - 1)


def test_memory_shortage_halves_the_batch(tokenizer, pairs, monkeypatch, caplog):
    reader = LMReader(build("D"), tokenizer, segment=LENGTH)
    expected = largest_error(reader, pairs)
    forward = reader._forward

    def short_of_memory(inputs, cache):
        if len(inputs) > 3:
            raise torch.OutOfMemoryError
        return forward(inputs, cache)

    monkeypatch.setattr(reader, "_forward", short_of_memory)
    assert largest_error(reader, pairs) <= max(1e-4, expected)
    assert reader.batch_tokens <= 3 * LENGTH
    assert "out of memory" in caplog.text
    monkeypatch.setattr(
        reader, "_forward", lambda inputs, cache: (_ for _ in ()).throw(torch.OutOfMemoryError)
    )
    with pytest.raises(ModelError, match="does not fit into the memory"):
        reader.alone(pairs[0])


def test_arguments_out_of_range(tokenizer, pairs):
    reader = LMReader(build("D"), tokenizer, segment=LENGTH)
    segments, sources, targets = pairs
    _, states = reader.alone(segments)
    with pytest.raises(ConfigError, match=r"segments has shape \[24\]"):
        reader.alone(segments[0])
    with pytest.raises(ConfigError, match="L from 2 to 24"):
        reader.alone(np.tile(segments, 2))
    with pytest.raises(ConfigError, match="the model knows 0 to 319"):
        reader.alone(segments + VOCABULARY)
    with pytest.raises(ConfigError, match="each from 0 to 11"):
        reader.given(states, sources + 1, targets)
    with pytest.raises(ConfigError, match="one per target"):
        reader.given(states, sources[1:], targets)
    with pytest.raises(ConfigError, match="batch_tokens is 0"):
        LMReader(reader.model, tokenizer, segment=LENGTH, batch_tokens=0)


def test_unfit_models(tokenizer):
    with pytest.raises(ModelError, match="reads at most 64 tokens; two segments of 33 need 66"):
        LMReader(build("opt"), tokenizer, segment=33)
    small = LlamaForCausalLM(LlamaConfig(**{**SIZE, "vocab_size": 100}, intermediate_size=64))
    with pytest.raises(ModelError, match="do not belong together"):
        LMReader(small, tokenizer, segment=LENGTH)
    with pytest.raises(ModelError, match="no causal LM head"):
        LMReader(build("llama").model, tokenizer, segment=LENGTH)


def test_encode_any_length(tokenizer, monkeypatch):
    reader = LMReader(build("D"), tokenizer, segment=LENGTH)
    texts = ["the cat sat\n\n on the mat " * 200, "", "x", "caf\u00e9 \u4e2d\u6587 " * 50]
    whole = [found.tolist() for found in reader.encode(texts)]
    assert [tokenizer.decode(tokens) for tokens in whole] == texts
    monkeypatch.setattr(encoding, "_PIECE_CHARACTERS", 100)
    monkeypatch.setattr(encoding, "_GROUP_CHARACTERS", 1000)
    assert [found.tolist() for found in reader.encode(texts)] == whole
    unbroken = "x" * 1234
    assert tokenizer.decode(reader.encode([unbroken])[0]) == unbroken
    assert tokenizer.decode(reader.encode(["a\ud800b"])[0]) == "a?b"
    assert reader.encode([]) == []


PIECE = 16
"""Tokens of a segment in the chains below: four fit the shortest context of the stand-ins."""


def read_chain(reader, segments, orders):
    """Read rows of segments one after the other, each `continued` from the last. Gives nll of all but the first."""
    _, states = reader.alone(segments[orders[0]])
    found = []
    for step in orders[1:]:
        nll, states = reader.continued(states, np.arange(len(step)), segments[step])
        found.append(nll)
    return np.stack(found, axis=1), states


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("state_bytes", [None, 0])
def test_continuing_equals_reading_the_whole_afresh(name, state_bytes, tokenizer, pairs):
    reader = LMReader(build(name), tokenizer, segment=LENGTH, batch_tokens=3 * PIECE, state_bytes=state_bytes)
    segments = pairs[0][:, :PIECE]
    rng = np.random.default_rng(3)
    orders = rng.integers(0, NUM_SEGMENTS, (4, 5))
    found, _ = read_chain(reader, segments, orders)
    whole = np.concatenate([segments[order] for order in orders], axis=1)
    fresh = read_afresh(reader.model, whole, 1).reshape(5, -1)
    expected = np.stack([fresh[:, n * PIECE : (n + 1) * PIECE - 1] for n in (1, 2, 3)], axis=1)
    assert np.abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("name", ["opt", "mistral-window", "lfm2-hybrid", "DA"])
def test_states_that_were_continued_can_be_used_in_any_order_and_stay_as_they_were(name, tokenizer, pairs):
    reader = LMReader(build(name), tokenizer, segment=LENGTH, batch_tokens=3 * PIECE)
    segments = pairs[0][:, :PIECE]
    _, first = reader.alone(segments)
    sources, nexts = np.array([7, 0, 7, 11, 3]), np.array([1, 2, 3, 4, 5])
    _, second = reader.continued(first, sources, segments[nexts])
    whole = np.concatenate([segments[sources], segments[nexts]], axis=1)
    use, targets = np.array([4, 0, 0, 2]), np.array([6, 8, 9, 10])
    fresh = read_afresh(reader.model, np.concatenate([whole[use], segments[targets]], 1), whole.shape[1] + 1)
    for _ in range(2):
        given = reader.given(second, use, segments[targets])
        assert np.abs(given - fresh).max() <= 1e-4
        assert np.abs(reader.continued(second, use, segments[targets])[0] - fresh).max() <= 1e-4
    again = reader.given(first, sources, segments[nexts])
    pair = read_afresh(reader.model, whole, PIECE + 1)
    assert np.abs(again - pair).max() <= 1e-4


def test_a_chain_from_its_neighbours_state_is_found(tokenizer, pairs, monkeypatch):
    reader = LMReader(build("llama"), tokenizer, segment=LENGTH)
    segments, orders = pairs[0][:, :PIECE], np.arange(12).reshape(4, 3)
    right, _ = read_chain(reader, segments, orders)
    select = reader_module.select
    monkeypatch.setattr(
        reader_module, "select", lambda cache, rows, **keep: select(cache, (rows + 1) % 3, **keep)
    )
    wrong, _ = read_chain(reader, segments, orders)
    assert np.abs(wrong - right).max(axis=(0, 2)).min() > 1e-2


def test_more_than_the_context_is_refused(tokenizer, pairs):
    reader = LMReader(build("opt"), tokenizer, segment=LENGTH)
    _, states = read_chain(reader, pairs[0], np.arange(4).reshape(2, 2))
    for call in (reader.continued, reader.given):
        with pytest.raises(ModelError, match="at most 64 tokens; 48 were read and 24 are to follow"):
            call(states, np.arange(2), pairs[0][:2])


def test_every_call_reads_in_the_readers_own_threads(tokenizer, pairs, monkeypatch):
    """Whatever the process is set to: so a score does not depend on how many workers share the machine."""
    reader = LMReader(build("DA"), tokenizer, segment=LENGTH)
    seen = []
    reader.model.get_decoder().register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    segments, sources, targets = pairs

    def read_all():
        seen.clear()
        _, states = reader.alone(segments)
        reader.given(states, sources, targets)
        reader.continued(states, sources, targets)
        reader.attention(segments[:2].reshape(1, -1))
        return set(seen)

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert read_all() == {1}
        reader.use_threads(2)
        assert read_all() == {2}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    with pytest.raises(ConfigError, match="at least 1"):
        reader.use_threads(0)


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_text_in_pieces_equals_one_pass(name, tokenizer):
    model = build(name, torch.float64)
    text = np.random.default_rng(5).integers(0, VOCABULARY, 53)
    expected = read_afresh(model, text[None], 1)[0]
    for piece in (7, 52, 500):
        reader = LMReader(model, tokenizer, segment=LENGTH, batch_tokens=piece)
        np.testing.assert_allclose(reader.whole(text), expected, atol=1e-10)
    assert reader.whole(text[:1]).shape == (0,)


def test_a_whole_text_beyond_the_context_is_refused(tokenizer):
    reader = LMReader(build("opt"), tokenizer, segment=LENGTH)
    with pytest.raises(ModelError, match="at most 64 tokens; the text has 65"):
        reader.whole(np.zeros(65, dtype=np.int64))
    with pytest.raises(ConfigError, match="holds tokens"):
        reader.whole(np.full(5, VOCABULARY))


def test_a_reader_knows_whether_its_model_shows_attention(tokenizer):
    for name, can in (("opt", True), ("llama", True), ("DA", True), ("D", False)):
        reader = LMReader(build(name), tokenizer, segment=LENGTH)
        why = SHOWS_ATTENTION.why_not(reader)
        assert ("no layer of full attention" in why) is not can
        assert (
            READS_PAIRS.why_not(reader)
            == CONTINUES.why_not(reader)
            == READS_WHOLE_TEXTS.why_not(reader)
            == ""
        )
