"""Documents cut into segments of L tokens."""

import numpy as np

from longlode.core.errors import ConfigError


def split_segments(tokens: np.ndarray, segment: int) -> np.ndarray:
    """Cut tokens into whole segments; the ragged tail is dropped, as the release of ProLong does.

    Args: tokens int `[n]`; segment, L in tokens, at least 2 (the first token of a segment is never scored).
    Returns: a view of `tokens`, `[S, L]` with S = n // L.
    Raises: ConfigError when L is below 2.
    """
    if segment < 2:
        raise ConfigError(
            f"segment is {segment} tokens; expected at least 2, as its first token is not scored."
        )
    count = len(tokens) // segment
    return tokens[: count * segment].reshape(count, segment)
