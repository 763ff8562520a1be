"""Texts cut in pieces give the tokens of the whole text, for the tokenizers of which that is claimed."""

import json
import random
import re

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from longlode.core import token_cuts
from longlode.core.token_cuts import can_be_cut, cut_text
from longlode.corpus import train_bpe

LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
ALPHABETS = (
    "aabB1 2 \n,'",
    "ab12 \t\r\n,.'s't'll<|>é漢\u0301\u00a0\u0085\x1c ",
    "ab \n",
    "жé漢。\n ",
    "\n\r \t\u2028a!",
)


def gpt2():
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def llama():
    split = pre_tokenizers.Split(Regex(LLAMA), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def texts(seed, size):
    rng = random.Random(seed)
    return ["".join(rng.choices(alphabet, k=size)) for alphabet in ALPHABETS]


def trained(pre_tokenizer):
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(texts(0, 3000), trainer=trainer)
    return inner


def ours():
    return train_bpe(texts(0, 3000), 600)._inner


def ids(inner, text):
    return inner.encode(text, add_special_tokens=False).ids


def differing(inner, num_characters):
    """How many of some texts have other tokens in pieces than whole."""
    return sum(
        [token for piece in cut_text(text, num_characters) for token in ids(inner, piece)] != ids(inner, text)
        for seed in range(60)
        for text in texts(seed, 300)
    )


@pytest.mark.parametrize("make", [ours, lambda: trained(gpt2()), lambda: trained(llama())])
def test_pieces_have_the_tokens_of_the_whole(make):
    inner = make()
    assert can_be_cut(inner.to_str())
    for num_characters in (1, 7, 50):
        assert differing(inner, num_characters) == 0


@pytest.mark.parametrize(
    ("cut", "make"),
    [
        (r"(?<= )(?=[a-z])", ours),  # between a space and its word
        (r"(?<=\n)(?=\S)", lambda: trained(gpt2())),  # GPT-2 takes the last of two line ends alone
        (r"(?<=[a-z])(?=[a-z])", lambda: trained(llama())),
    ],
)
def test_a_wrong_place_to_cut_is_seen(monkeypatch, cut, make):
    monkeypatch.setattr(token_cuts, "_CUT", re.compile(cut))
    assert differing(make(), 7) > 0


def test_pieces_make_up_the_text_and_are_no_longer_than_they_must():
    text = "one two\nthree,four 漢字\n漢字" * 50
    pieces = list(cut_text(text, 20))
    assert "".join(pieces) == text
    assert 20 <= min(map(len, pieces[:-1])) <= max(map(len, pieces)) < 40
    assert list(cut_text("", 5)) == []
    assert list(cut_text("漢" * 100, 5)) == ["漢" * 100]


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
        {"added_tokens": [{"content": "two words", "lstrip": False, "rstrip": False, "single_word": False}]},
    ],
)
def test_other_tokenizers_are_not_said_to_be_cut(change):
    found = json.loads(ours().to_str())
    assert can_be_cut(json.dumps(found))
    assert not can_be_cut(json.dumps(found | change))
