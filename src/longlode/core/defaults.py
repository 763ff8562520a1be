"""Defaults shared by Python and the command line, kept here so that `--help` imports nothing heavy."""

SCORER = "profile"
"""Name of the default scorer."""

BYTES_PER_TOKEN = 4
"""UTF-8 bytes counted as one token where no tokenizer is read: about the average of common ones on English and code."""

ROWS_PER_UNIT = 4096
"""Most documents per unit of work; units close earlier, by bytes."""

UNITS_PER_PART = 64
"""Mean number of units whose results are merged into one file."""
