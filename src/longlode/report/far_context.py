"""Columns of scorers that measure far context: the gate, the profile by distance, the distance of context use.

They are known by their names in the parts (`extras.gate`, `extras.far_4k`, ...), whatever scorer wrote them.
"""

import math
import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_OCTAVE = re.compile(r"extras\.far_(\d+)k")
GATE, REACH, RIVAL = "extras.gate", "extras.dependency_tokens", "extras.rival"


@dataclass(frozen=True, eq=False)
class FarContext:
    """Measurements of R documents at D distances, NaN where there are none.

    starts: first tokens of the octaves [start, 2 start), ascending, `[D]`. gains, errors: nats per token, `[R, D]`.
    gate: log-odds in nats, `[R]`, 0 or more passes. reach: tokens up to which every octave helps, `[R]`. rivals: the
    family of text, other than one text in its order, that each resembles most, `[R]`.
    """

    starts: tuple[int, ...]
    gains: np.ndarray
    errors: np.ndarray
    gate: np.ndarray
    reach: np.ndarray
    rivals: list[str]

    @property
    def columns(self) -> set[str]:
        """Names of the columns read here, and of the errors."""
        octaves = {f"extras.far_{start // 1024}k" for start in self.starts}
        return octaves | {f"{name}_se" for name in octaves} | {GATE, REACH, RIVAL}

    @property
    def passes(self) -> np.ndarray:
        """Documents that pass the gate, bool `[R]`."""
        return self.gate >= 0

    @property
    def measured(self) -> np.ndarray:
        """The distance in tokens up to which each document is long enough to be measured, 0 if nowhere, `[R]`."""
        known = np.isfinite(self.gains)
        ends = 2 * np.asarray(self.starts, dtype=np.int64)
        return np.where(known, ends, 0).max(axis=1, initial=0)


def far_context(table: pa.Table) -> FarContext | None:
    """Read the columns of a scores folder; None where the scorer measures no gate and no far context."""
    starts = sorted(int(found[1]) for name in table.column_names if (found := _OCTAVE.fullmatch(name)))
    gains = _columns(table, [f"extras.far_{start}k" for start in starts])
    kept = [place for place in range(len(starts)) if np.isfinite(gains[:, place]).any()]
    gate = _columns(table, [GATE])[:, 0]
    if not kept or not np.isfinite(gate).any():
        return None
    starts = [starts[place] for place in kept]
    rivals = table.column(RIVAL).to_pylist() if RIVAL in table.column_names else []
    return FarContext(
        starts=tuple(1024 * start for start in starts),
        gains=gains[:, kept],
        errors=_columns(table, [f"extras.far_{start}k_se" for start in starts]),
        gate=gate,
        reach=_columns(table, [REACH])[:, 0],
        rivals=[rival or "" for rival in rivals] or [""] * table.num_rows,
    )


def _columns(table: pa.Table, names: list[str]) -> np.ndarray:
    """Numeric columns side by side, float64 `[rows, names]`; NaN for what is absent or null."""
    found = np.full((table.num_rows, len(names)), np.nan)
    for place, name in enumerate(names):
        if name in table.column_names and not pa.types.is_string(table.schema.field(name).type):
            column = table.column(name).cast(pa.float64())
            found[:, place] = column.to_numpy(zero_copy_only=False)
    return found


def thousands(tokens: float) -> str:
    """Tokens in units of 1,024: "4k" for 4,096."""
    return f"{tokens / 1024:g}k"


def octave(start: int) -> str:
    """An octave for an axis: "4k–8k" for 4,096 to 8,192 tokens back."""
    return f"{start // 1024}\u2013{start // 512}k"


def probability(log_odds: float) -> str:
    """Log-odds in nats as a probability in per cent, never rounded to certainty."""
    share = 100 / (1 + math.exp(-max(-60.0, min(60.0, log_odds))))
    if share >= 99.95 or share < 0.05:
        return "over 99.9 %" if share > 50 else "under 0.1 %"
    return f"{share:.1f} %" if share >= 99 or share < 1 else f"{share:.0f} %"
