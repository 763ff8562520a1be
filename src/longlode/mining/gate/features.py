"""All features of a text by name; NaN where the text is too short for one."""

from longlode.mining.gate.direction import Directions, direction
from longlode.mining.gate.fluency import fluency, vocabulary
from longlode.mining.gate.links import links
from longlode.mining.gate.parsed_text import ParsedText
from longlode.mining.gate.passages import passages
from longlode.mining.gate.returns import returns, written_as_names
from longlode.mining.gate.signs import sign_style

FEWEST_WORDS = 500
"""Fewest words of a text that is measured."""


def measure(parsed: ParsedText, known: Directions) -> dict[str, float]:
    """About 195 features; the same names for every text. Cost: about 1.5 us per token, no model."""
    return {
        **vocabulary(parsed),
        **fluency(parsed),
        **returns(parsed),
        **passages(parsed),
        **links(parsed, written_as_names(parsed)),
        **sign_style(parsed),
        **direction(parsed, known),
    }
