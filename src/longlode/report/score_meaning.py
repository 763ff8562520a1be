"""Unit of a score and meaning of its zero, for axes and captions."""

from collections.abc import Mapping
from dataclasses import dataclass

from longlode.report.read import Found
from longlode.report.text import clipped


@dataclass(frozen=True)
class Meaning:
    """A score's unit, "" for a pure number; zero: what 0 means; above, below: documents on either side, or ""."""

    unit: str
    zero: str
    above: str = ""
    below: str = ""

    def axis(self, scorer: str) -> str:
        """The label of an axis of scores."""
        name = f"score ({scorer})" if scorer else "score"
        return f"{name}, {self.unit}" if self.unit else name


_GATED = Meaning(
    "",
    "Above 0: the document passes the gate, and the score grows with what far context is worth to it, one per 0.01 "
    "nats per token. Below 0: the gate stops it, and the score is its log-odds in nats",
    "pass the gate",
    "are stopped by it",
)
_ODDS = Meaning(
    "nats",
    "Log-odds that the document is one text in its own order; 0: as likely as not",
    "are more likely than not one text in its own order",
    "are not",
)
_STRENGTH = Meaning(
    "share of perplexity",
    "The share of a segment's perplexity that an earlier segment takes away; 0: no earlier segment helps",
)
_KNOWN = {
    "coherence": _ODDS,
    "default": _ODDS,
    "strength": _STRENGTH,
    "gzip": Meaning("", "1 minus compressed size over size; 0: gzip finds nothing that repeats"),
    "context_gain": Meaning("nats per token", "What earlier text takes off the loss; 0: nothing"),
    "order": Meaning("nats per token", "Order contrast; 0: other places of the document would do as well"),
}
_UNKNOWN = Meaning("", "")


def meaning(scorer: str, *, gated: bool) -> Meaning:
    """Look up a scorer. gated: its parts have the column of the gate, which decides the sign of its score."""
    return _GATED if gated else _KNOWN.get(scorer, _UNKNOWN)


def scorer_name(found: Found) -> str:
    """The name of the scorer in a record; older records have it among the settings."""
    given = found.record.get("scorer")
    settings = found.record.get("settings")
    if given is None and isinstance(settings, Mapping):
        given = settings.get("scorer")
    name = given.get("name") if isinstance(given, Mapping) else given
    return clipped(name, 40) if isinstance(name, str) else ""
