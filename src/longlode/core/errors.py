"""The errors longlode raises on purpose.

    LonglodeError                 everything below; the CLI prints its text and exits with 2, without a traceback
    |- InputError                 a file, folder or record that cannot be used
    |- ConfigError (ValueError)   a setting, recipe key or argument that makes no sense
    |- BackendError               a backend or optional package that was asked for and is not here
    |- ModelError                 a language model or tokenizer that cannot be loaded or used
    `- CheckpointError            a checkpoint that is missing, torn or belongs to another run

A message says what was wrong, what was got, what was expected and what to do, in that order.
Wrong tensor shapes are `ConfigError`s too: they are `ValueError`s for callers who catch those.
"""


class LonglodeError(Exception):
    """Root of every error that longlode raises on purpose."""


class InputError(LonglodeError):
    """A file, folder or record that cannot be used."""


class ConfigError(LonglodeError, ValueError):
    """A setting, recipe key or argument that makes no sense."""


class BackendError(LonglodeError):
    """A backend or optional package that was asked for and is not available."""


class ModelError(LonglodeError):
    """A language model or its tokenizer that cannot be loaded or used."""


class CheckpointError(LonglodeError):
    """A checkpoint that is missing, torn, or belongs to another run."""
