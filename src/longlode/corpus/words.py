"""Words of a text, the same whatever tokenizer a scorer has: lower case, identifiers taken apart."""

import re

_PART = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]"  # kana and Han are written without spaces: a character each
    r"|[A-Z]+(?![^\W\d_A-Z])"  # HTTP in HTTPServer, and whole words in capitals
    r"|[A-Z]?[^\W\d_A-Z\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+"  # Server in HTTPServer, was, größer
    r"|\d+"
)


def word_starts(text: str) -> list[int]:
    """Where each word of `split_words` begins, in characters."""
    return [part.start() for part in _PART.finditer(text)]


def split_words(text: str) -> list[str]:
    """The words of a text in order, lower case; `parse_HTTPHeader2` gives parse, http, header, 2."""
    return [part.lower() for part in _PART.findall(text)]
