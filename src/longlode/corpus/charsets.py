"""Text encodings: UTF-8, or the one that the user names."""

import codecs
import difflib
import encodings.aliases

from longlode.core.errors import ConfigError

UTF8 = "utf-8"
UTF8_MARK = b"\xef\xbb\xbf"
"""Byte order mark at the beginning of some UTF-8 files."""
_ASCII = '\n{}[]",:\\ az09'


def check_encoding(name: str) -> str:
    """Return the canonical name of a text encoding: "iso8859-1" for "Latin-1". Raises: ConfigError if unknown."""
    try:
        found = codecs.lookup(name)
        "a".encode(name)
    except (LookupError, ValueError, TypeError):
        known = sorted({*encodings.aliases.aliases, *encodings.aliases.aliases.values()})
        near = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=2, cutoff=0.6)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ConfigError(
            f"encoding is {name!r}, which is no encoding of texts that Python knows.{hint} Expected one such as utf-8, "
            "latin-1, cp1252, utf-16, gb18030 or shift_jis."
        ) from None
    return found.name


def keeps_lines(encoding: str) -> bool:
    """Return True if the encoding writes JSON syntax and line ends as ASCII does.

    All do but UTF-16, UTF-32, UTF-7 and EBCDIC. Only then can a file be cut into lines before it is decoded.
    """
    try:
        return _ASCII.encode(encoding) == _ASCII.encode("ascii") and encoding != "utf-7"
    except UnicodeEncodeError:
        return False


def decode(data: bytes | bytearray, encoding: str, errors: str) -> str | None:
    """Decode bytes; under "strict" return None for bytes that are not of the encoding (`fault` then says where)."""
    try:
        return data.decode(encoding, errors)
    except UnicodeError:
        return None


def fault(data: bytes | bytearray, encoding: str) -> str:
    """Name the first byte of `data` that is not of the encoding, in words for a message."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        return f"not {encoding.upper()} at byte {error.start}"
    except UnicodeError as error:
        return f"not {encoding.upper()}: {error}"
    return ""
