"""Tokens put together from stretches against those of the tokenizer on the whole text."""

import copy
import json
import pickle
import random

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from longlode.corpus import encoded_pieces
from longlode.corpus.encoded_pieces import piece_cutter
from longlode.corpus.encoding import TextEncoder
from longlode.models import starter_folder

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
ALPHABETS = ("aabB1 2 \n,'", "ab \n\"'(.-", "ab12 \t\r\n,.'s't'll<|>é漢\u0301\u00a0\x1c ", "ab \n", "жé漢 ")


def listed(arrays):
    return [tokens.tolist() for tokens in arrays]


def gpt2():
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def llama():
    split = pre_tokenizers.Split(Regex(LLAMA), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def wrapped(pre_tokenizer):
    """A small BPE, trained on what the tests are about."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|end of text|>"], initial_alphabet=alphabet, show_progress=False
    )
    rng = random.Random(0)
    texts = ["".join(rng.choices(one, k=3000)) for one in ALPHABETS]
    inner.train_from_iterator(texts, trainer=trainer)
    return inner


def starter():
    return Tokenizer.from_file(str(starter_folder() / "tokenizer.json"))


@pytest.mark.parametrize("make", [starter, lambda: wrapped(gpt2()), lambda: wrapped(llama())])
def test_the_tokens_are_those_of_the_tokenizer(make, monkeypatch):
    encoder = TextEncoder(make())
    assert encoder._marks == ["<|"]
    monkeypatch.setattr(encoded_pieces, "_KEPT_PIECES", 500)
    rng = random.Random(1)
    for alphabet in ALPHABETS:
        for size in (0, 1, 2, 3, 7, 30, 30, 500, 5000):
            monkeypatch.setattr(encoded_pieces, "_BLOCK_BYTES", rng.choice([5, 64, 1 << 17]))
            monkeypatch.setattr(encoded_pieces, "_KEPT_SHARE", rng.choice([0.0, 0.7]))
            monkeypatch.setattr(encoded_pieces, "_LONG_BYTES", rng.choice([4, 48]))
            texts = ["".join(rng.choices(alphabet, k=size)) for _ in range(5)] + ["a <|end of text|> b"]
            assert listed(encoder.encode(texts)) == listed(encoder._encode_plainly(texts))
            together = [text for text in texts if encoder.caches(text)]
            assert listed(encoder.encode_short(together)) == listed(encoder._encode_plainly(together))


def test_what_precedes_a_text_in_a_batch_does_not_cut_it():
    encoder = TextEncoder(starter())
    texts = ["(", '"he', " ", "-she", "it", "\nwas", " ", "\nwas"]  # alone, a sign belongs to its word
    assert listed(encoder.encode_short(texts)) == listed(encoder._encode_plainly(texts))


def test_a_cut_in_the_wrong_place_is_seen(monkeypatch):
    kinds = np.zeros(256, dtype=np.uint8)
    kinds[ord(" ")] = encoded_pieces._DIGIT  # cuts between a space and its word
    monkeypatch.setattr(encoded_pieces, "_kinds", lambda: kinds)
    encoder = TextEncoder(starter())
    texts = ["the cat and the dog"]
    assert listed(encoder.encode(texts)) != listed(encoder._encode_plainly(texts))


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": None},
        {"model": {"type": "Unigram"}},
        {"model": {"type": "BPE", "dropout": 0.1}},
        {"added_tokens": [{"content": "<x>", "lstrip": True, "rstrip": False, "single_word": False}]},
    ],
)
def test_what_is_not_known_to_be_cut_is_left_to_the_tokenizer(change):
    found = json.loads(TextEncoder(starter()).to_str())
    assert piece_cutter(json.dumps(found)) == ["<|"]
    assert piece_cutter(json.dumps(found | change)) is None


def test_nothing_is_left_half_done_by_a_text_that_fails(monkeypatch):
    encoder = TextEncoder(starter())
    right = encoder._pieces._encode
    fails = iter([MemoryError("no memory")])

    def once(texts):
        for error in fails:
            raise error
        return right(texts)

    monkeypatch.setattr(encoder._pieces, "_encode", once)
    with pytest.raises(MemoryError):
        encoder.encode(["the cat sat"])
    texts = ["zebra runs away fast today", "the cat sat"]
    assert listed(encoder.encode(texts)) == listed(encoder._encode_plainly(texts))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_an_encoder_can_be_copied_and_sent(copied):
    encoder = TextEncoder(starter())
    expected = listed(encoder.encode(["one of the cats"]))
    assert listed(copied(encoder).encode(["one of the cats"])) == expected


def test_texts_with_few_places_to_cut_go_to_the_tokenizer(monkeypatch):
    encoder = TextEncoder(starter())
    monkeypatch.setattr(encoder._pieces, "tokens", None)
    texts = ["Пётр сказал, что придёт", "漢字かな"]
    assert listed(encoder.encode(texts)) == listed(encoder._encode_plainly(texts))
