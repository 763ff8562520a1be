"""How the bytes of a text stand for characters: UTF-8, or what the user says."""

import codecs
import difflib
import encodings.aliases

from longlode.core.errors import ConfigError

UTF8 = "utf-8"
_ASCII = '\n{}[]",:\\ az09'


def check_encoding(name: str) -> str:
    """The canonical name of an encoding: "iso8859-1" for "Latin-1". Raises: ConfigError for what is none of texts."""
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
    """Whether the letters of JSON and the ends of lines are the same bytes as in ASCII, as in all but UTF-16, UTF-32,
    UTF-7 and EBCDIC: only then can a file be cut into lines before it is decoded.
    """
    try:
        return _ASCII.encode(encoding) == _ASCII.encode("ascii") and encoding != "utf-7"
    except UnicodeEncodeError:
        return False


def decode(data: bytes | bytearray, encoding: str, errors: str) -> str | None:
    """Decode, or return None for bytes that are not of the encoding under "strict" (`fault` then says where)."""
    try:
        return data.decode(encoding, errors)
    except UnicodeError:
        return None


def fault(data: bytes | bytearray, encoding: str) -> str:
    """Where `data` stops being of the encoding, in words."""
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        return f"not {encoding.upper()} at byte {error.start}"
    except UnicodeError as error:
        return f"not {encoding.upper()}: {error}"
    return ""
