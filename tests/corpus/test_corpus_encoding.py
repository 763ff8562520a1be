"""Encoding: what a tokenizer's native code does must not pass as something that nobody catches."""

import pytest

from longlode.core.errors import InputError
from longlode.core.model_names import starter_folder
from longlode.corpus import Tokenizer
from longlode.corpus.encoding import TextEncoder, guarded


class PanicException(BaseException):
    """What a panic of Rust becomes in Python."""


def test_a_panic_is_an_error_of_the_text():
    def panics():
        raise PanicException("retry-limit-in-match over")

    with pytest.raises(InputError, match="retry-limit-in-match over"):
        guarded(panics)


def test_an_interrupt_stays_one():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded(interrupted)


def test_a_run_of_blanks_that_makes_the_tokenizer_panic():
    text = "x" + " " * 11_000_000 + "y"
    tokenizer = Tokenizer.load(starter_folder())
    with pytest.raises(InputError, match="gave up on the text"):
        tokenizer.encode([text])
    # In pieces, as texts are encoded to be scored, it goes through.
    (found,) = TextEncoder(tokenizer.inner).encode([text])
    assert tokenizer.decode(found) == text
