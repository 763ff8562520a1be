"""Tokenizers: a thin wrapper over `tokenizers`, and the training of a byte-level BPE."""

import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import fingerprint
from longlode.core.records import atomic_path, read_json, write_json
from longlode.core.token_cuts import can_be_cut, cut_text
from longlode.corpus.encoding import TextEncoder, guarded, vocabulary_size

TOKENIZER_NAME = "tokenizer.json"
CONFIG_NAME = "tokenizer_config.json"
END_OF_TEXT = "<|endoftext|>"

_END_NAMES = (END_OF_TEXT, "</s>", "<eos>", "<|end_of_text|>", "[SEP]")
_NUM_BYTES = 256
_PIECE_CHARACTERS = 1 << 16
_PIECES_AT_ONCE = 16
_CACHED_CHARACTERS = 1 << 20
# Without this key transformers returns token types as well, which `generate` refuses.
_MODEL_INPUTS = ["input_ids", "attention_mask"]

# Pieces that a token may not cross, first match first. Every character is in exactly one piece, so none is lost.
_PIECES = "|".join(
    (
        r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",  # a word, with the space, dot or underscore in front of it
        r"\p{N}",  # every digit alone: numbers of equal length have equally many tokens
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",  # punctuation, with the line end after it
        r"\s*[\r\n]+",  # blank lines
        r"\s+(?!\S)",  # a run of spaces or tabs, except the last, which belongs to the next word
        r"\s+",
    )
)


class Tokenizer:
    """A `tokenizers.Tokenizer` with its eos token. Texts are data: a text never encodes to a special token.

    Picklable, for worker processes.
    """

    def __init__(self, inner: tokenizers.Tokenizer, config: dict[str, Any]) -> None:
        """Wrap `inner`; `config` is what `tokenizer_config.json` holds (`eos_token` is read from it).

        Raises: InputError for a token id beyond any model's vocabulary.
        """
        self.vocab_size = vocabulary_size(inner)  # one more than the largest token id
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        self._inner = inner
        self._config = config

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle through the constructor: the inner object's own pickle loses `encode_special_tokens`."""
        return Tokenizer, (self._inner, self._config)

    @classmethod
    def load(cls, source: str | Path) -> "Tokenizer":
        """Load from a folder with `tokenizer.json`, or from that file itself.

        Raises: InputError when there is no such file or it is not a tokenizer.
        """
        given = Path(source)
        if not given.exists():
            raise InputError(
                f"{given} does not exist; expected a folder with {TOKENIZER_NAME} (a fast tokenizer's), or that file."
            )
        path = given / TOKENIZER_NAME if given.is_dir() else given
        if not path.is_file():
            raise InputError(f"{given} has no tokenizer: expected {path} (a fast tokenizer's file).")
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception for every fault of the file
            raise InputError(f"{path} is not a tokenizer file: {error}.") from None
        config_path = path.with_name(CONFIG_NAME)
        config = read_json(config_path) if config_path.is_file() else {}
        if not isinstance(config, dict):
            raise InputError(f"{config_path} does not hold a JSON object.")
        try:
            return cls(inner, config)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`; `AutoTokenizer.from_pretrained` reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / TOKENIZER_NAME) as temporary:
            temporary.write_text(self._inner.to_str(pretty=True), encoding="utf-8")
        write_json(folder / CONFIG_NAME, {"model_input_names": _MODEL_INPUTS, **self._config})

    @property
    def inner(self) -> tokenizers.Tokenizer:
        """The wrapped tokenizer; do not modify it."""
        return self._inner

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode texts to token ids; no special tokens are added, and text that spells one is encoded as plain text.

        Raises: InputError when the tokenizer gives up on a text.
        """
        encodings = guarded(self._inner.encode_batch_fast, list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_long(self, text: str) -> np.ndarray:
        """Encode one text of any length to int32 `[n]`: the ids of `encode`, in little memory.

        A tokenizer takes more than a hundred times the size of a text to encode it. Byte-level BPEs of the kinds known
        to `core.token_cuts` encode it in pieces; others encode it as a whole.
        """
        if not self._can_be_cut:
            return np.array(self.encode([text])[0], dtype=np.int32)
        found, pieces = [], cut_text(text, _PIECE_CHARACTERS)
        while group := list(itertools.islice(pieces, _PIECES_AT_ONCE)):
            found += [np.array(tokens, dtype=np.int32) for tokens in self.encode(group)]
        return np.concatenate(found) if found else np.zeros(0, dtype=np.int32)

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Encode texts of any length, each to int32 `[n]`: the ids of `encode`.

        For byte-level BPEs of the kinds known to `core.token_cuts`, words that were encoded before are found in a
        cache: on text that is mostly ASCII this is two to ten times as fast. Short texts should come many at a time.
        Raises: InputError when the tokenizer gives up on a text.
        """
        cached = [self._can_be_cut and self._encoder.caches(text) for text in texts]
        short = [n for n, text in enumerate(texts) if cached[n] and len(text) <= _CACHED_CHARACTERS]
        found = (
            dict(zip(short, self._encoder.encode_short([texts[n] for n in short]), strict=True))
            if short
            else {}
        )
        return [
            found[n]
            if n in found
            else self._encoder.encode_pieces(cut_text(text, _CACHED_CHARACTERS))
            if cached[n]
            else self.encode_long(text)
            for n, text in enumerate(texts)
        ]

    @cached_property
    def _encoder(self) -> TextEncoder:
        return TextEncoder(self._inner, special_as_text=True)

    @cached_property
    def _can_be_cut(self) -> bool:
        return can_be_cut(self._inner.to_str())

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode token ids to text, special tokens spelled out."""
        return self._inner.decode([int(token) for token in tokens], skip_special_tokens=False)

    @property
    def eos_id(self) -> int | None:
        """Id of the token that ends a document: the config's `eos_token`, else one of a common name, else None."""
        named = self._config.get("eos_token")
        if isinstance(named, dict):
            named = named.get("content")
        for name in [named] if isinstance(named, str) else _END_NAMES:
            found = self._inner.token_to_id(name)
            if found is not None:
                return found
        return None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the tokenizer's vocabulary, rules and eos token."""
        return fingerprint([self._inner.to_str(), self.eos_id])


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Train a lossless byte-level BPE for prose and code: digits one by one, runs of spaces kept.

    A word includes the one space before it; longer runs of spaces, as in indentation, become tokens of their own.
    `<|endoftext|>` is bos, eos and pad. Too little text for `vocab_size` gives a smaller vocabulary.

    Args: texts, read once; vocab_size, at least 257 (the bytes and the special token).
    Raises: ConfigError if vocab_size is smaller; InputError if there is no text.
    Source: byte-level BPE, Radford et al. 2019 (GPT-2), section 2.2.
    """
    if vocab_size <= _NUM_BYTES:
        raise ConfigError(
            f"vocab_size is {vocab_size}; expected at least {_NUM_BYTES + 1} (bytes and one special)."
        )
    inner = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_PIECES), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    counted = _Counted(texts)
    guarded(inner.train_from_iterator, counted, trainer=trainer)
    if not counted.num_characters:
        raise InputError("There is no text to train a tokenizer on.")
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT)
    return Tokenizer(inner, {"tokenizer_class": "PreTrainedTokenizerFast", **names})


class _Counted:
    """Iterator over texts that counts their characters."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = iter(texts)
        self.num_characters = 0

    def __iter__(self) -> "_Counted":
        return self

    def __next__(self) -> str:
        text = next(self._texts)
        self.num_characters += len(text)
        return text
