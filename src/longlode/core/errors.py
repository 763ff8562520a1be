"""The errors longlode raises on purpose.

    LonglodeError                 everything below; the CLI prints its text and exits with 2, without a traceback
    |- InputError                 a file, folder or record that cannot be used
    |- ConfigError (ValueError)   an invalid setting, recipe key or argument
    |- BackendError               a requested backend or optional package that is not available
    |- ModelError                 a language model or tokenizer that cannot be loaded or used
    |- CheckpointError            a checkpoint that is missing, damaged or of another run
    `- RankError                  another process of a parallel run that failed or does not answer

A message says what is wrong, the value given, the values accepted and what to do, in that order.
Wrong tensor shapes are `ConfigError`s too: they are `ValueError`s for callers who catch those.
"""


class LonglodeError(Exception):
    """Root of every error that longlode raises on purpose."""


class InputError(LonglodeError):
    """A file, folder or record that cannot be used."""


class ConfigError(LonglodeError, ValueError):
    """An invalid setting, recipe key or argument."""


class BackendError(LonglodeError):
    """A requested backend or optional package that is not available."""


class ModelError(LonglodeError):
    """A language model or its tokenizer that cannot be loaded or used."""


class CheckpointError(LonglodeError):
    """A checkpoint that is missing, damaged, or belongs to another run."""


class RankError(LonglodeError):
    """Another process of a parallel run failed, or does not answer in time."""
