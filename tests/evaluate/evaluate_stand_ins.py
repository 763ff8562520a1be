"""A small tokenizer and a model that recalls by copying, made in place; shared by the tests of this room."""

import random
from types import SimpleNamespace

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from longlode.evaluate.tasks import words as material


def tokenizer(bos=False):
    """Whole words with their space, single digits: answers take one token a word or digit."""
    words = [
        *material.NOUNS,
        *material.ADJECTIVES,
        *"0123456789",
        ".",
        ",",
        "=",
        ";",
        " ",
        "\n",
        "?",
        "line",
        "goes",
        "on",
        "Page",
    ]
    words += [part for seed in range(300) for part in material.filler_sentence(random.Random(seed)).split()]
    words += (_PASSKEY_WORDS + " " + _LIST_WORDS).split()
    vocab = dict.fromkeys(["<unk>", "<s>", *words, *(f" {word}" for word in words)])
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(vocab)}, "<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"\d| ?[A-Za-z]+|\s|[^\w\s]"), "isolated")
    if bos:
        inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>")


_PASSKEY_WORDS = """Somewhere in the lines below a pass code is hidden The other do not matter Find it and
    keep mind     field wide road long wind up On we walk Then turn back Keep What"""
_LIST_WORDS = "Before trip Mary wrote down this list of words When she came read once more said"


class Copier(nn.Module):
    """Predicts what followed the last time the last four tokens were seen, within `window` tokens."""

    def __init__(self, vocab_size, window=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.vocab_size, self.window = vocab_size, window
        self.config = PretrainedConfig(name_or_path="copier")
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    @property
    def base_model(self):
        return self

    def get_output_embeddings(self):
        return None

    def forward(self, input_ids, use_cache=False):
        logits = torch.zeros(*input_ids.shape, self.vocab_size)
        for row, tokens in enumerate(input_ids.tolist()):
            last_seen = {}
            for t in range(len(tokens)):
                recent = tuple(tokens[max(0, t - 3) : t + 1])
                seen = last_seen.get(recent)
                if seen is not None and (self.window is None or t - seen <= self.window):
                    logits[row, t, tokens[seen + 1]] = 12.0
                last_seen[recent] = t
        return SimpleNamespace(logits=logits)
