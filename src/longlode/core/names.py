"""File names as text that can be stored and shown, also those that are not UTF-8."""


def printable(name: str) -> str:
    r"""Write each byte of a name that is not UTF-8 as `\xNN`; a UTF-8 name is returned unchanged.

    Args: name, as Python has it: bytes that cannot be decoded are lone surrogates (PEP 383).
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
