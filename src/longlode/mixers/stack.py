"""A stack of layers as text: "D*24", "DS*12", "D A D*22". Letters are short names of built-in mixers."""

from longlode.core.errors import ConfigError

LETTERS = {
    "D": "delta_net",
    "G": "gated_delta_net",
    "S": "sliding_window_attention",
    "A": "attention",
    "L": "linear_attention",
    "C": "gated_linear_attention",
    "M": "mamba2",
}
"""Letter -> name of a mixer. New mixers need no letter: a list of layers names them."""

_MAX_LAYERS = 1024


def parse_stack(text: str) -> str:
    """Expand a stack to one letter per layer: "DS*2" -> "DSDS", "D A D*3" -> "DADDD".

    Args: text: groups of letters separated by spaces; "*n" repeats the group it follows n times.
    Raises: ConfigError that shows the text, the position and the letters allowed.
    """
    letters: list[str] = []
    position = 0
    for group in text.split(" "):
        name, star, count_text = group.partition("*")
        for offset, letter in enumerate(name):
            if letter not in LETTERS:
                allowed = ", ".join(f"{key} ({mixer})" for key, mixer in LETTERS.items())
                raise _stack_error(text, position + offset, f"{letter!r} is no mixer; use {allowed}")
        if star and not name:
            raise _stack_error(text, position, "'*' has no letters before it; write e.g. 'D*24'")
        count = 1
        if star:
            if not (
                count_text.isascii() and count_text.isdigit() and len(count_text) < 8 and int(count_text) > 0
            ):
                raise _stack_error(
                    text,
                    position + len(name) + 1,
                    f"{count_text!r} is no count; write a whole number after '*'",
                )
            count = int(count_text)
        if len(letters) + count * len(name) > _MAX_LAYERS:
            raise _stack_error(text, position, f"more than {_MAX_LAYERS} layers")
        letters.extend(name * count)
        position += len(group) + 1
    if not letters:
        raise ConfigError("The stack of mixers is empty; write e.g. 'D*24' for 24 DeltaNet layers.")
    return "".join(letters)


def _stack_error(text: str, position: int, what: str) -> ConfigError:
    return ConfigError(f"The stack of mixers {text!r} cannot be read at position {position + 1}: {what}.")
