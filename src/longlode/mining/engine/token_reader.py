"""Reader with the tokens of a model and without the model, for scores that need only tokens."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from longlode.core.fingerprints import fingerprint
from longlode.core.model_names import starter_folder
from longlode.corpus import Tokenizer
from longlode.corpus.encoding import TextEncoder


class TokenReader:
    """A reader that only encodes texts.

    The fingerprint names the tokenizer alone: models that share one give the same results here.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Args: tokenizer, whose tokens are used; it also decodes them for explanations."""
        self.tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer.inner)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the tokenizer; the same on every machine."""
        return fingerprint({"tokenizer": self._encoder.to_str()})

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """See `TextEncoder.encode`; the tokens are those of `LMReader` with the same tokenizer."""
        return self._encoder.encode(texts)


def packaged_tokens() -> TokenReader:
    """The tokens of the starter, which ships with longlode. Raises: InputError when it is absent."""
    return TokenReader(Tokenizer.load(Path(starter_folder())))
