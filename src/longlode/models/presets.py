"""Presets: model sizes of the DeltaNet paper (arXiv 2406.06484) and their hybrids."""

from dataclasses import dataclass

from longlode.core.errors import ConfigError
from longlode.models.config import LonglodeConfig


@dataclass(frozen=True)
class _Size:
    hidden_size: int
    num_heads: int


_SIZES = {"340m": _Size(hidden_size=1024, num_heads=8), "1.3b": _Size(hidden_size=2048, num_heads=16)}
_STACKS = {
    "delta_net": "D*24",
    "delta_net-swa": "DS*12",
    # Global attention in the second layer and in layer 12 of 24 (index N/2 - 1), as in H3.
    "delta_net-global": "DA D*9 A D*12",
    "transformer": "A*24",
}

PRESETS: tuple[str, ...] = tuple(f"{stack}-{size}" for stack in _STACKS for size in _SIZES)
"""Names accepted by `preset`."""


def preset(name: str) -> LonglodeConfig:
    """Make the configuration called `name`: 24 layers, heads of 128, a vocabulary of 32000, untied.

    Args: name: one of `PRESETS`, e.g. "delta_net-340m" (374.4 million parameters), "delta_net-swa-1.3b".
    Raises: ConfigError that lists the names.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}; expected one of {', '.join(PRESETS)}.")
    stack, _, size = name.rpartition("-")
    sizes = _SIZES[size]
    return LonglodeConfig(
        mixers=_STACKS[stack],
        hidden_size=sizes.hidden_size,
        num_heads=sizes.num_heads,
        vocab_size=32000,
        bos_token_id=1,
        eos_token_id=2,
    )
