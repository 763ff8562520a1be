"""Settings of a scoring run that are not the estimator's."""

from dataclasses import asdict, dataclass
from typing import Any

from longlode.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How documents are read and cut, and what is kept.

    segment: L, tokens a segment, at least 2.
    seed: of every draw (segments, pairs, foreign segments).
    text_field: the field of a record that holds its text.
    keep_pairs: also store every pair inside the document with its two readings.
    rows_per_unit: documents in one unit of work; part of a unit's identity, so of the names of the parts.
    batch_segments, batch_pairs: read in one call of the scorer; halved when memory runs out. Speed only.
    """

    segment: int = 128
    seed: int = 0
    text_field: str = "text"
    keep_pairs: bool = False
    rows_per_unit: int = 256
    batch_segments: int = 256
    batch_pairs: int = 1024

    def __post_init__(self) -> None:
        """Raises: ConfigError that names the setting, what it is and what is expected."""
        least = {"segment": 2, "rows_per_unit": 1, "batch_segments": 1, "batch_pairs": 1}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected at least {minimum}.")
        if not self.text_field:
            raise ConfigError("text_field is empty; expected the name of the field that holds the text.")

    def identity(self) -> dict[str, Any]:
        """The settings that shape a result, as JSON: all but the batch sizes and the cut into units."""
        speed = ("batch_segments", "batch_pairs", "rows_per_unit")
        return {name: value for name, value in asdict(self).items() if name not in speed}
