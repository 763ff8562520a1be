"""Names of files as text that can be stored and shown: not every name is UTF-8."""


def printable(name: str) -> str:
    r"""The name with each byte that is not UTF-8 written as `\xNN`; a UTF-8 name comes back unchanged.

    Args: name, as Python has it: bytes that cannot be decoded are lone surrogates (PEP 383).
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
