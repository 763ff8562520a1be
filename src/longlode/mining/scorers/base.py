"""Base of scorers: the readings that a scorer requests of a document, and the score that it makes from them.

A scorer never sees the reader. For each document the engine takes its `text_requests` while the text is in memory,
lets it `choose` segments, and takes its `requests`; it reads those of many documents together, and passes the readings
to `finish`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import orjson
from pydantic import Field

from longlode.core.errors import ConfigError
from longlode.core.options import build
from longlode.corpus import Document
from longlode.mining.extras import ExtraColumn
from longlode.mining.requests import Request, reads_model, reads_tokens
from longlode.mining.sampling import sample_segments

MAX_SEGMENTS = 256
"""Most segments read per document: 32,768 tokens at 128 per segment, the release's window."""


@dataclass(frozen=True, eq=False)
class SegmentedDocument:
    """One document as a scorer sees it. Dimensions: S chosen segments of L tokens each, F segments of other documents.

    document: the corpus document with its `text` EMPTIED: a unit of work keeps tokens, not texts.
    tokens: int64 `[S, L]`, the chosen segments in document order.
    positions: int64 `[S]`, the place of each in the whole document, ascending.
    num_total_segments: whole segments in the document, >= S.
    all_tokens: int32 `[num_tokens]`, the whole document, the ragged tail included.
    `foreign`: int64 `[F, L]`, segments of other documents of the unit, F <= the scorer's num_foreign. F is 0
      when the unit holds no other document, so a scorer must cope with any F from 0.
    repetition, gzip_ratio: the signals of `mining.baselines`; gzip_ratio is of the whole text.
    of_text: the readings of the scorer's `text_requests`, in their order.
    """

    document: Document
    tokens: np.ndarray
    positions: np.ndarray
    num_total_segments: int
    all_tokens: np.ndarray
    foreign: np.ndarray
    repetition: float | None
    gzip_ratio: float | None
    of_text: tuple[Any, ...] = ()

    @property
    def segments(self) -> np.ndarray:
        """The chosen segments, then those of other documents, int64 `[S + F, L]`."""
        return np.concatenate([self.tokens, self.foreign])

    @property
    def num_segments(self) -> int:
        """S, the chosen segments."""
        return len(self.tokens)

    @property
    def num_tokens(self) -> int:
        """Tokens of the whole document."""
        return len(self.all_tokens)


@dataclass(frozen=True)
class DocumentScore:
    """Result of a scorer for one document. None becomes null in the output, and so does a score unless "ok".

    score: higher = more long-range dependency. num_pairs: pairs inside the document that were read.
    strength_mean: mean DST over those pairs; strength_max_mean: mean over targets of their strongest pair.
    gain_nats: the scorer's measure of gain, nats per token. specificity_mean: mean DSP over targets.
    score_se: standard error of the score, in its units, where the scorer has one.
    status: "ok" | "too_short" | "skipped" | "failed"; reason: of the status; of an "ok", a warning
      for the user.
    extras: values of the scorer's `extra_columns`, by name; None or absent where there is no value.
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
    """Options of a scorer that has none of its own."""


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """max_segments: most segments read per document."""

    max_segments: Annotated[int, Field(ge=2)] = MAX_SEGMENTS


class Scorer(ABC):
    """Base class that turns readings of a reader into a document's score; pure numpy, picklable, without state between
    documents.

    name, version: part of every result's name; raise `version` when the numbers change.
    num_foreign: segments of other documents wanted with each document.
    min_segments: a document with fewer whole segments is "too_short" and never reaches the scorer.
    default_pairs: number of pairs read per document by default; 0 where the score needs none, so that no
      model is read. least_pairs: the fewest pairs that can be set.
    extra_columns: columns of its own that it fills besides those of every scorer.
    options_type: a frozen dataclass of its own options, typed, with defaults; JSON values. `own` holds the given
      values. One of a scorer that chooses segments inherits from SegmentOptions.
    reads_metadata: True if it looks at `document.metadata`, the other fields of a record; else they are not read.
    state: of a scorer that `fits`, from the corpus; None before.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    num_foreign: ClassVar[int] = 0
    min_segments: ClassVar[int] = 2
    default_pairs: ClassVar[int] = 500
    least_pairs: ClassVar[int] = 0
    extra_columns: ClassVar[tuple[ExtraColumn, ...]] = ()
    options_type: ClassVar[type] = SegmentOptions
    reads_metadata: ClassVar[bool] = False
    own: Any
    state: Any = None

    def __init__(
        self,
        *,
        pairs: int | Literal["default"] | None = "default",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Args: pairs, number to read per document, None for all, 0 for none, "default" for `default_pairs`;
        options, values of `options_type`.
        Raises: ConfigError for an option that the scorer does not have and for a value that it does not take.
        """
        if pairs == "default":
            pairs = self.default_pairs
        if pairs is not None and pairs < self.least_pairs:
            why = f" (the score of {self.name!r} is made of pairs)" if pairs == 0 else ""
            raise ConfigError(
                f"pairs is {pairs}; expected at least {self.least_pairs}{why}, or None for all pairs."
            )
        self.pairs = pairs
        self.own = build(self.options_type, options, f"the scorer {self.name!r}")

    @property
    def asks(self) -> tuple[type[Request], ...]:
        """Types of the requests that it may make with its options. A reader that cannot serve one is refused before the
        run; none is loaded for a scorer without requests to one, and only a model's tokenizer for `Tokens`.
        A subclass may set a plain attribute.
        """
        return ()

    @property
    def reads_tokens(self) -> bool:
        """True if it needs a reader, even if only for its tokens; else its documents have S = 0."""
        return reads_tokens(self.asks)

    @property
    def reads_model(self) -> bool:
        """True if it needs more of a reader than its tokens."""
        return reads_model(self.asks)

    @property
    def max_segments(self) -> int:
        """Most segments chosen per document."""
        return int(getattr(self.own, "max_segments", MAX_SEGMENTS))

    @property
    def least_segments(self) -> int:
        """A document with fewer whole segments is "too_short": `min_segments`, or more if its options need it."""
        return self.min_segments

    def explain(self, text: str, top: int) -> dict[str, Any] | None:
        """Explain the score of a text, as JSON with its own "kind"; None for scorers that need a reader for it.

        Args: top, number of words or similar items to name.
        """
        return None

    def options(self) -> dict[str, Any]:
        """Settings that determine the numbers besides name, version and options, as JSON; part of results' names."""
        return {"pairs": self.pairs}

    def identity(self) -> dict[str, Any]:
        """Identity of its results: name, version, options, and the extra columns where there are any, as JSON."""
        extras = {column.name: column.dtype for column in self.extra_columns}
        # As it comes back from a record, where tuples are lists.
        own = orjson.loads(orjson.dumps(asdict(self.own)))
        known = {"name": self.name, "version": self.version, "options": self.options() | own}
        return known | ({"extras": extras} if extras else {})

    @property
    def fits(self) -> bool:
        """True if its options need a pass over the corpus before scoring: `tally`, `fit`, `fitted`."""
        return False

    def tally(self, documents: Iterable[Document]) -> Any:
        """Tally of one unit of work in the pass, as JSON.

        Args: documents of the unit, those without a text left out; in any process, in any order of units.
        """
        raise NotImplementedError(f"the scorer {self.name!r} says that it `fits`; it needs a `tally` too.")

    def fit(self, tallies: Iterable[Any]) -> Any:
        """Combine tallies into the state that documents are scored with, as JSON: it is sent to every worker and
        names every part.

        Args: tallies, in the order of the units, each from `tally`.
        """
        raise NotImplementedError(f"the scorer {self.name!r} says that it `fits`; it needs a `fit` too.")

    def fitted(self, state: Any) -> Self:
        """A copy that scores with a state from `fit`; here it is kept as `state`."""
        other = copy.copy(self)
        other.state = state
        return other

    def text_requests(self, text: str) -> Sequence[Request]:
        """Requests about the text, such as `Words`; read before `requests` is called and the text is dropped."""
        return ()

    def choose(self, num_total: int, rng: np.random.Generator) -> np.ndarray:
        """The segments to keep of a document's `num_total`, ascending: all, or `max_segments` at random."""
        return sample_segments(num_total, self.max_segments, rng)

    def requests(self, doc: SegmentedDocument, rng: np.random.Generator) -> Sequence[Request]:
        """Requests about this document's tokens, each of a type that it `asks` for."""
        return ()

    @abstractmethod
    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """The score from the readings.

        Args: readings, of `requests`, in their order, each of its request's type; the engine has checked that they are
          finite where they must be.
        """
