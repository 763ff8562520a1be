"""Layers of a model as data: mixer, settings and kind of block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from longlode.core.errors import ConfigError
from longlode.mixers import LETTERS, MIXERS, MixerConfig, parse_stack

BlockKind = Literal["mixer_mlp", "mixer", "parallel"]
"""In order: x + mixer(norm(x)), then x + SwiGLU(norm(x)); the mixer alone; x + mixer(norm(x)) + SwiGLU(norm(x))."""

_LETTER_OF = {name: letter for letter, name in LETTERS.items()}


@dataclass(frozen=True)
class LayerConfig:
    """One layer of a model.

    name: of the mixer, in `MIXERS`. mixer: its settings, complete. block: kind of block around it.
    """

    name: str
    mixer: MixerConfig
    block: BlockKind = "mixer_mlp"


def layers_of_stack(stack: str, shared: Mapping[str, Any]) -> tuple[LayerConfig, ...]:
    """Make the layers of a stack of letters ("DS*12"), each with the model's settings. Raises: ConfigError."""
    configs = {
        letter: MIXERS.get(LETTERS[letter]).from_settings({}, shared) for letter in set(parse_stack(stack))
    }
    return tuple(LayerConfig(LETTERS[letter], configs[letter]) for letter in parse_stack(stack))


def layers_of_list(
    layers: Sequence[Any], shared: Mapping[str, Any], providers: Mapping[str, str] | None, saved: bool
) -> tuple[LayerConfig, ...]:
    """Make the layers of a list.

    Args: layers: per layer the name of a mixer, or {"mixer": name, "block": kind, and its settings}. shared: settings
      of the model, for those that a layer leaves out. providers: package of each mixer that is not longlode's.
      saved: True if the list was read from a file.
    Raises: ConfigError that names the layer; BackendError when a mixer's package is not installed.
    """
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise ConfigError(f"layers is {layers!r}; expected a list with an entry per layer.")
    return tuple(_layer(number, entry, shared, providers or {}, saved) for number, entry in enumerate(layers))


def _layer(
    number: int, entry: Any, shared: Mapping[str, Any], providers: Mapping[str, str], saved: bool
) -> LayerConfig:
    given = {"mixer": entry} if isinstance(entry, str) else entry
    if not isinstance(given, Mapping) or not isinstance(given.get("mixer"), str):
        raise ConfigError(
            f"Layer {number} is {entry!r}; expected the name of a mixer, or a table with the key `mixer` and settings."
        )
    name: str = given["mixer"]
    block: Any = given.get("block", "mixer_mlp")
    if block not in get_args(BlockKind):
        raise ConfigError(
            f"The block of layer {number} is {block!r}; expected {', '.join(get_args(BlockKind))}."
        )
    settings = {key: value for key, value in given.items() if key not in ("mixer", "block")}
    kind = MIXERS.get(name, provider=providers.get(name), saved=saved)
    try:
        return LayerConfig(name, kind.from_settings(settings, shared), block)
    except ConfigError as error:
        raise ConfigError(f"Layer {number}: {error}") from None


def providers_of(layers: Sequence[LayerConfig]) -> dict[str, str] | None:
    """Map each mixer that is not longlode's to its package; None when there are none."""
    found = {layer.name: MIXERS.provider(layer.name) for layer in layers}
    return {name: package for name, package in found.items() if package != "longlode"} or None


def short_name(layers: Sequence[LayerConfig]) -> str:
    """Write the mixers of a stack as text: their letters, or their names in brackets: "DS[my_mixer]"."""
    return "".join(_LETTER_OF.get(layer.name, f"[{layer.name}]") for layer in layers)
