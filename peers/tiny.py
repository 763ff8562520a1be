"""Models, tokenizers and texts for the tests of this folder: tiny, seeded, made on the spot."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from longlode.models import LonglodeConfig, LonglodeForCausalLM

_SUBJECTS = ("The miner", "A lode", "The vein", "An old map", "The lamp", "Her notebook")
_VERBS = ("follows", "crosses", "remembers", "hides", "measures", "leaves")
_OBJECTS = ("the northern shaft", "a seam of tin", "the flooded level", "what was said before", "the slate")
END, PAD = "<end>", "<pad>"


def sentences(num: int, *, seed: int = 0) -> list[str]:
    """`num` sentences of a small language; the same for the same seed."""
    draw = random.Random(seed)
    return [f"{draw.choice(_SUBJECTS)} {draw.choice(_VERBS)} {draw.choice(_OBJECTS)}." for _ in range(num)]


def texts(num: int, *, num_sentences: int | None = None, seed: int = 0) -> list[str]:
    """`num` texts of so many sentences each, or of two to nine."""
    draw = random.Random(seed)
    lengths = [num_sentences or draw.randint(2, 9) for _ in range(num)]
    return [" ".join(sentences(length, seed=draw.randrange(10**6))) for length in lengths]


def tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of 320 entries, trained on `texts`; it loses nothing."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        texts(50),
        trainers.BpeTrainer(vocab_size=320, special_tokens=[END, PAD], initial_alphabet=alphabet),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=END, pad_token=PAD, clean_up_tokenization_spaces=False
    )


def config(mixers: str = "DS", **settings: object) -> LonglodeConfig:
    """The configuration of a tiny model; its vocabulary holds that of `tokenizer`."""
    sizes: dict[str, object] = {
        "vocab_size": 320,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "window": 24,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    return LonglodeConfig(mixers=mixers, **{**sizes, **settings})


def model(mixers: str = "DS", **settings: object) -> LonglodeForCausalLM:
    """A tiny model with the weights of seed 0, in evaluation mode."""
    torch.manual_seed(0)
    return LonglodeForCausalLM(config(mixers, **settings)).eval()


def folder(path: Path, mixers: str = "DS", **settings: object) -> Path:
    """Write a tiny model and its tokenizer as `save_pretrained` does; return `path`."""
    model(mixers, **settings).save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


def token_rows(num_rows: int = 2, num_tokens: int = 40, *, seed: int = 0) -> torch.Tensor:
    """Random token ids `[rows, tokens]`, none of them special."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(2, 320, (num_rows, num_tokens), generator=draw)
