"""Names of tensor dimensions, fixed once for the whole code base.

    B batch        T tokens       N packed documents (cu_seqlens has N + 1 entries)
    H heads        K key dim      V value dim      D model dim      C chunk (tokens)
    L segment length (tokens)     S segments of a document          P sampled pairs

Layout is `[B, T, H, K]` everywhere. A suffix names the layout in dense code: `state_NHKV`.
"""

from typing import Any

from longlode.core.errors import ConfigError


def check_shape(name: str, tensor: Any, dimensions: str, sizes: dict[str, int]) -> None:
    """Check `tensor.shape` against `dimensions` and record the sizes it fixes.

    Args:
      name: what the message calls the tensor.
      tensor: anything with a `.shape`.
      dimensions: their names, e.g. "B T H K"; a name seen before must have the size it had then.
      sizes: name -> size, updated in place.
    Raises: ConfigError that names the tensor, its shape and the expected shape.
    """
    names = dimensions.split()
    got = tuple(tensor.shape)
    expected = tuple(sizes.get(one, "?") for one in names)
    if len(got) != len(names) or any(e not in ("?", g) for e, g in zip(expected, got, strict=True)):
        want = ", ".join(
            one if size == "?" else f"{one}={size}" for one, size in zip(names, expected, strict=True)
        )
        raise ConfigError(f"{name} has shape {list(got)}; expected [{want}].")
    sizes.update(zip(names, got, strict=True))
