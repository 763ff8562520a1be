"""The tokenizer of any model, as a `tokenizers.Tokenizer`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from longlode.core.errors import InputError, ModelError
from longlode.core.model_names import model_source
from longlode.corpus import Tokenizer
from longlode.corpus.tokens import CONFIG_NAME, TOKENIZER_NAME
from longlode.mining.engine.token_reader import TokenReader

# Classes that use tokenizer.json unchanged; others build or change the tokenizer in their own code.
_PLAIN_CLASSES = ("PreTrainedTokenizerFast", "TokenizersBackend")


@dataclass(frozen=True)
class TokenReaderSpec:
    """Arguments to load a `TokenReader`; picklable. path_or_id: as of `model_source`."""

    path_or_id: str

    def __call__(self) -> TokenReader:
        """Load only the tokenizer, through transformers only if its class does more than read tokenizer.json.

        Raises: ModelError that says what is missing.
        """
        try:
            folder = Path(model_source(self.path_or_id))
            if _is_plain(folder):
                return TokenReader(Tokenizer.load(folder))
        except InputError as error:
            raise ModelError(f"No model: {error}") from None
        from longlode.readers.source import load_reader_tokenizer

        tokenizer = load_reader_tokenizer(self.path_or_id)
        return TokenReader(Tokenizer(backend_of(tokenizer), {"eos_token": tokenizer.eos_token}))


def backend_of(tokenizer: Any) -> tokenizers.Tokenizer:
    """Return the fast tokenizer inside a transformers tokenizer. Raises: ModelError when there is none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(
            f"{type(tokenizer).__name__} has no fast tokenizer inside. Save one beside the model as tokenizer.json."
        )
    return backend


def _is_plain(folder: Path) -> bool:
    """Return True if a folder's tokenizer.json alone determines the tokens."""
    config = folder / CONFIG_NAME
    if not (folder / TOKENIZER_NAME).is_file() or not config.is_file():
        return False
    try:
        return json.loads(config.read_bytes()).get("tokenizer_class") in _PLAIN_CLASSES
    except (ValueError, AttributeError):
        return False
