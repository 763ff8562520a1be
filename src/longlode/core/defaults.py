"""Defaults that Python and the command line share; here, so that `--help` need not import what uses them."""

SCORER = "profile"
"""The scorer taken unless another is named."""

BYTES_PER_TOKEN = 4
"""Bytes of UTF-8 that count as a token where no tokenizer is read: about what common ones make of English and code."""

ROWS_PER_UNIT = 64
"""Documents of one piece of work."""
