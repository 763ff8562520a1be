"""What a scorer is: which segments and pairs to read, and what the readings say about the document.

A scorer never sees the reader. The engine asks it to `choose` segments and `plan` pairs for each
document, reads the pairs of many documents together, and hands the readings back to `finish`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import orjson

from longlode.core.errors import ConfigError
from longlode.core.options import build
from longlode.corpus import Document
from longlode.mining.extras import ExtraColumn
from longlode.mining.sampling import sample_segments

MAX_SEGMENTS = 256
"""Segments read of one document at most: 32,768 tokens at 128 a segment, the release's window."""


@dataclass(frozen=True, eq=False)
class SegmentedDocument:
    """One document as a scorer sees it. Letters: S segments that were chosen, L tokens each, F foreign
    ones.

    document: the corpus document with its `text` EMPTIED: a unit of work keeps tokens, not texts.
    tokens: int64 `[S, L]`, the chosen segments in document order.
    positions: int64 `[S]`, the place of each in the whole document, ascending.
    num_total_segments: whole segments in the document, >= S.
    all_tokens: int32 `[num_tokens]`, the whole document, the ragged tail included.
    foreign: int64 `[F, L]`, segments of other documents of the unit, F <= the scorer's num_foreign. F is 0
      when the unit holds no other document, so a scorer must cope with any F from 0.
    repetition, gzip_ratio: the signals of `mining.baselines`; gzip_ratio is of the whole text.
    digest: what the scorer's `digest` kept of the text.
    attention: for `finish` of a scorer that needs windows, the shares of each, float32 `[S_w, S_w]` as of
      `AttendingReader.attention`; else empty.
    """

    document: Document
    tokens: np.ndarray
    positions: np.ndarray
    num_total_segments: int
    all_tokens: np.ndarray
    foreign: np.ndarray
    repetition: float | None
    gzip_ratio: float | None
    digest: Any = None
    attention: tuple[np.ndarray, ...] = ()

    @property
    def num_segments(self) -> int:
        """S, the chosen segments."""
        return len(self.tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole document."""
        return len(self.all_tokens)


@dataclass(frozen=True, eq=False)
class PairPlan:
    """The pairs to read: `targets[p]` is read after `sources[p]`. Both int32 `[P]`, row numbers of the
    tokens.

    A source of S or more means foreign segment `source - S`.

    continues: bool `[P]`, or None for nowhere. Where it is True the target is read after all that the pair before
    it in the plan has read, that pair's target included, not after its source alone. So pairs (1|0), (2|1), (3|2)
    of which the last two continue give s_3 after s_0 s_1 s_2. The source is then the target of the pair before.

    windows: int `[W, 2]`, for scorers with `needs_windows`: rows first to stop - 1 are read in one pass for its
    attention. They must be neighbours in the document.
    """

    targets: np.ndarray
    sources: np.ndarray
    continues: np.ndarray | None = None
    windows: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Raises: ConfigError when they differ in length or are not vectors."""
        shapes = {self.sources.shape, *([] if self.continues is None else [self.continues.shape])}
        if self.targets.ndim != 1 or shapes != {self.targets.shape}:
            raise ConfigError(
                f"a pair plan has targets of shape {self.targets.shape}, and sources and continues of "
                f"{sorted(shapes)}; expected vectors of one length."
            )

    @classmethod
    def empty(cls) -> "PairPlan":
        """A plan that reads no pair."""
        return cls(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))

    def check(self, doc: SegmentedDocument) -> None:
        """Raises: ConfigError when a pair names a segment that the document does not have."""
        limits = (
            ("target", self.targets, len(doc.tokens)),
            ("source", self.sources, len(doc.tokens) + len(doc.foreign)),
        )
        for name, values, limit in limits:
            if values.size and (values.min() < 0 or values.max() >= limit):
                raise ConfigError(
                    f"a pair plan names {name} {values.min()}..{values.max()}; expected 0..{limit - 1}."
                )
        if self.windows is not None and self.windows.size:
            first, stop = self.windows.T
            if first.min() < 0 or stop.max() > len(doc.tokens) or (stop - first).min() < 1:
                raise ConfigError(
                    f"a plan names windows within {first.min()}..{stop.max()}; expected 0..{len(doc.tokens)}, none "
                    "of them empty."
                )
        if self.continues is None:
            return
        later = np.flatnonzero(self.continues)
        if (later == 0).any() or (self.sources[later] != self.targets[later - 1]).any():
            raise ConfigError(
                "a pair plan continues a pair from something else than the one before; expected its source to be "
                "the target of that one."
            )


@dataclass(frozen=True)
class DocumentScore:
    """What a scorer says of one document. None becomes null in the result, and so does a score unless
    "ok".

    score: higher = more long-range dependency. num_pairs: pairs inside the document that were read.
    strength_mean: mean DST over those pairs; strength_max_mean: mean over targets of their strongest pair.
    gain_nats: what the scorer counts as gained, nats a token. specificity_mean: mean DSP over targets.
    score_se: standard error of the score, in its units, where the scorer knows one.
    status: "ok" | "too_short" | "skipped" | "failed"; reason: why, also for an "ok" that the reader should
      know of.
    extras: values of the scorer's `extra_columns`, by name; None or absent where there is nothing to say.
    """

    score: float | None
    num_pairs: int | None = None
    strength_mean: float | None = None
    strength_max_mean: float | None = None
    gain_nats: float | None = None
    specificity_mean: float | None = None
    score_se: float | None = None
    status: str = "ok"
    reason: str = ""
    extras: Mapping[str, float | int | str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class NoOptions:
    """Of a scorer that has none of its own."""


class Scorer(ABC):
    """Turns readings of a reader into a document's score; pure numpy, picklable, without state between
    documents.

    name, version: part of every result's name; raise `version` when the numbers change.
    num_foreign: foreign segments wanted with each document.
    min_segments: a document with fewer whole segments is "too_short" and never reaches the scorer.
    needs_reader: False for scorers that read no tokens; their documents have S = 0.
    needs_readings: False for those that want the reader's tokens but no pass of its model.
    needs_unpaired: False for those that want nothing of a segment that is in no pair: it is not read.
    needs_windows: True for those that read the attention over the plan's windows, and no segment or pair.
    needs_pairs: True for those whose score is made of the `pairs` they sample: they refuse to read none.
    default_pairs: how many are read of a document unless told otherwise; 0 where the score needs none, so that no
      model is read.
    extra_columns: columns of its own that it fills besides those of every scorer.
    options_type: a frozen dataclass of its own options, typed, with defaults; JSON values. `own` holds what was given.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    num_foreign: ClassVar[int] = 0
    min_segments: ClassVar[int] = 2
    needs_reader: ClassVar[bool] = True
    needs_readings: ClassVar[bool] = True
    needs_unpaired: ClassVar[bool] = True
    needs_windows: ClassVar[bool] = False
    needs_pairs: ClassVar[bool] = False
    default_pairs: ClassVar[int] = 500
    extra_columns: ClassVar[tuple[ExtraColumn, ...]] = ()
    options_type: ClassVar[type] = NoOptions
    own: Any

    def __init__(
        self,
        *,
        pairs: int | Literal["default"] | None = "default",
        max_segments: int = MAX_SEGMENTS,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Args: pairs, how many to read of a document, None for all, 0 for none, "default" for `default_pairs`;
        max_segments, how many segments at most; options, values of `options_type`.
        Raises: ConfigError for an option that the scorer does not have and for a value that it does not take.
        """
        if pairs == "default":
            pairs = self.default_pairs
        least = 1 if self.needs_pairs else 0
        if pairs is not None and pairs < least:
            why = f" (the score of {self.name!r} is made of pairs)" if pairs == 0 else ""
            raise ConfigError(f"pairs is {pairs}; expected at least {least}{why}, or None for all pairs.")
        if max_segments < 2:
            raise ConfigError(
                f"max_segments is {max_segments}; expected at least 2, as a pair has two segments."
            )
        self.pairs = pairs
        self.max_segments = max_segments
        self.own = build(self.options_type, options, f"the scorer {self.name!r}")

    @property
    def reads_model(self) -> bool:
        """Whether the model has to be run at all, set up as it is; if not, the reader's tokenizer is enough."""
        return self.needs_reader and self.needs_readings

    @property
    def least_segments(self) -> int:
        """A document with fewer whole segments is "too_short": `min_segments`, or what its own options need."""
        return self.min_segments

    def digest(self, text: str) -> Any:
        """What `finish` will need of the text itself, as `SegmentedDocument.digest`: the text is let go before."""
        return None

    def explain(self, text: str, top: int) -> dict[str, Any] | None:
        """What made the score of a text, as JSON with its own "kind"; None for scorers that need a reader to tell.

        Args: top, words or the like to name.
        """
        return None

    def options(self) -> dict[str, Any]:
        """What shapes the numbers besides name, version and its own options, as JSON; part of every result's name."""
        return {"pairs": self.pairs, "max_segments": self.max_segments}

    def identity(self) -> dict[str, Any]:
        """What names its results: name, version, options, and the extra columns where there are any, as JSON."""
        extras = {column.name: column.dtype for column in self.extra_columns}
        # As it comes back from a record, where tuples are lists.
        own = orjson.loads(orjson.dumps(asdict(self.own)))
        known = {"name": self.name, "version": self.version, "options": self.options() | own}
        return known | ({"extras": extras} if extras else {})

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """Which of a document's `num_total` segments to keep, ascending: all, or `max_segments` at random."""
        return sample_segments(num_total, self.max_segments, rng)

    @abstractmethod
    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """Which pairs to read of this document."""

    @abstractmethod
    def finish(
        self, doc: SegmentedDocument, plan: PairPlan, alone: np.ndarray, given: np.ndarray
    ) -> DocumentScore:
        """The score from the readings.

        Args: alone float32 `[S + F, L - 1]`, nats of each segment's tokens (foreign ones last), NaN where it was
          not read for want of `needs_unpaired`; given float32
          `[P, L - 1]`, nats of each pair's target after its source. All finite: the engine has checked. Both
          have no rows if the scorer needs no readings, or windows instead.
        """
