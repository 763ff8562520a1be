"""Settings of a scoring run, except those of the scorer."""

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from longlode.core.defaults import ROWS_PER_UNIT, UNITS_PER_PART
from longlode.core.errors import ConfigError
from longlode.corpus.charsets import UTF8, check_encoding

_POSITIVE = (
    "rows_per_unit",
    "units_per_part",
    "threads",
    "batch_segments",
    "batch_pairs",
    "silent_seconds",
    "stuck_seconds",
    "lease_seconds",
)
"""Settings of at least 1; none of them affects scores without a model."""
ENGINES = ("processes", "ray")
BYTES_PER_UNIT = 8 << 20
"""About 2 million tokens of English: some seconds on a core, for a score that reads no model."""
BYTES_PER_UNIT_OF_MODEL = 512 << 10
"""A model reads so much in a second on a fast GPU, in a minute on a core, if it is small."""


def _lease_seconds() -> float:
    """Raises: ConfigError for a variable that holds no number."""
    given = os.environ.get("LONGLODE_LEASE_SECONDS", "60")
    try:
        return float(given)
    except ValueError:
        raise ConfigError(f"LONGLODE_LEASE_SECONDS is {given!r}; expected a number of seconds.") from None


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """Settings for reading and cutting documents, and for the stored results.

    segment: L, tokens per segment, at least 2.
    seed: of every draw (segments, pairs, segments of other documents).
    text_field: the field of a record that holds its text, or several as of `corpus.read`. encoding: as there.
    keep_pairs: also store every pair inside the document with its two readings.
    rows_per_unit, bytes_per_unit: most documents, and most bytes, in one unit of work; part of a unit's identity, so of
      the names of the parts. bytes_per_unit 0: by the scorer, less where it reads a model.
    units_per_part: mean number of units whose parts are merged into one file when they are done; 1: none are.
    threads: per process that reads the model, for any number of workers: sums round differently with another number
      of threads. Part of the name of results read with a model, and of no others.
    batch_segments, batch_pairs: number read in one call of the reader; halved when memory runs out. Speed only.
    silent_seconds: a worker process that gives no sign of life for so long (one is due every second; stopped, or
      swapped out) is replaced, and its unit tried once more.
    stuck_seconds: the same for one that gets nothing done: no batch of documents encoded, no block of segments read.
    verify: hash all finished parts again, also those that have the size and the time of when they were hashed last.
    engine: where the workers are: "processes" of this machine, or "ray", actors of a Ray cluster.
    lease_seconds: another run on the folder that gives no sign for so long has ended; its units are done here. By
      default 60, or the environment variable LONGLODE_LEASE_SECONDS.
    """

    segment: int = 128
    seed: int = 0
    text_field: str = "text"
    encoding: str = UTF8
    keep_pairs: bool = False
    rows_per_unit: int = ROWS_PER_UNIT
    bytes_per_unit: int = 0
    units_per_part: int = UNITS_PER_PART
    threads: int = 1
    batch_segments: int = 256
    batch_pairs: int = 1024
    silent_seconds: float = 60.0
    stuck_seconds: float = 6 * 3600.0
    lease_seconds: float = field(default_factory=_lease_seconds)
    engine: str = "processes"
    verify: bool = False

    def __post_init__(self) -> None:
        """Raises: ConfigError that names the setting, what it is and what is expected."""
        least = {"segment": 2, "bytes_per_unit": 0, **dict.fromkeys(_POSITIVE, 1)}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {minimum}.")
        if self.engine not in ENGINES:
            raise ConfigError(f"engine is {self.engine!r}; expected one of {', '.join(ENGINES)}.")
        object.__setattr__(self, "encoding", check_encoding(self.encoding))
        if not self.text_field:
            raise ConfigError("text_field is empty; expected the name of the field that holds the text.")

    def unit_bytes(self, *, reads_model: bool) -> int:
        """Most bytes in one unit. Args: reads_model, of the scorer."""
        return self.bytes_per_unit or (BYTES_PER_UNIT_OF_MODEL if reads_model else BYTES_PER_UNIT)

    def identity(self) -> dict[str, Any]:
        """The settings that determine every result, as JSON: without the cut into units and those of speed."""
        speed = (*_POSITIVE, "bytes_per_unit", "engine", "verify")
        found = {name: value for name, value in asdict(self).items() if name not in speed}
        if self.encoding == UTF8:
            del found["encoding"]  # as before there was a choice, so that older parts keep their names
        return found
