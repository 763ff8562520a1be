"""Defaults that Python and the command line share; here, so that `--help` need not import what uses them."""

SCORER = "profile"
"""The scorer taken unless another is named."""

ROWS_PER_UNIT = 64
"""Documents of one piece of work."""
