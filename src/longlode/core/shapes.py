"""The letters of shapes, fixed once for the whole code base.

    B batch        T tokens       N packed documents (cu_seqlens has N + 1 entries)
    H heads        K key dim      V value dim      D model dim      C chunk (tokens)
    L segment length (tokens)     S segments of a document          P sampled pairs

Layout is `[B, T, H, K]` everywhere. A suffix names the layout in dense code: `state_NHKV`.
"""

from typing import Any

from longlode.core.errors import ConfigError


def check_shape(name: str, tensor: Any, letters: str, sizes: dict[str, int]) -> None:
    """Check `tensor.shape` against `letters` and record the sizes it fixes.

    Args:
      name: what the message calls the tensor.
      tensor: anything with a `.shape`.
      letters: e.g. "B T H K"; a letter seen before must have the size it had then.
      sizes: letter -> size, updated in place.
    Raises: ConfigError that names the tensor, the shape it has and the shape expected.
    """
    names = letters.split()
    got = tuple(tensor.shape)
    expected = tuple(sizes.get(letter, "?") for letter in names)
    if len(got) != len(names) or any(e not in ("?", g) for e, g in zip(expected, got, strict=True)):
        want = ", ".join(
            letter if size == "?" else f"{letter}={size}"
            for letter, size in zip(names, expected, strict=True)
        )
        raise ConfigError(f"{name} has shape {list(got)}; expected [{want}].")
    sizes.update(zip(names, got, strict=True))
