"""`profile`, the default: the gain from far context of documents that are one text in their order, without a model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

import numpy as np

from longlode.core.defaults import BYTES_PER_TOKEN
from longlode.core.errors import ConfigError
from longlode.corpus import Document
from longlode.mining.baselines import estimated_tokens
from longlode.mining.distance_profile import OCTAVES, Control, OwnControl, Profile, distance_profile
from longlode.mining.distance_profile.corpus_text import CorpusText, fit_corpus_text, tally_documents
from longlode.mining.distance_profile.profile import LEAST_EXPOSURE, tokens_per_word
from longlode.mining.distance_profile.tables import choose_control
from longlode.mining.extras import ExtraColumn
from longlode.mining.gate import ParsedText, Verdict
from longlode.mining.gate.evidence import about_family
from longlode.mining.gate.features import FEWEST_WORDS
from longlode.mining.profile_explanation import explain_boundary, explain_gate, explain_profile
from longlode.mining.profile_weights import ProfileWeights, packaged_weights, read_weights
from longlode.mining.requests import Request, Words
from longlode.mining.scorers.base import DocumentScore, Scorer, SegmentedDocument

UNIT_NATS = 0.01
"""Mean gain per octave, nats per token, that counts as one."""

_OWN_RATE = (
    "no table for its language: subtracted is the document's own rate of words, which leaves bursts alone"
)


def octave_name(first_tokens: int) -> str:
    """Name of the column of an octave: "far_4k" for 4,096 to 8,192 tokens."""
    return f"far_{first_tokens // 1024}k"


def _octave_columns() -> tuple[ExtraColumn, ...]:
    gains, errors = [], []
    for first in OCTAVES:
        name, reach = octave_name(first), f"{first // 1024}k to {first // 512}k tokens back"
        about = (
            f"gain from context {reach}; 0: no more than from unrelated text; null: the document is too short"
        )
        gains.append(ExtraColumn(name, "float", "nats per token", about))
        error = f"standard error of {name}"
        errors.append(ExtraColumn(f"{name}_se", "float", "nats per token", error, in_report=False))
    return (*gains, *errors)


COLUMNS = (
    *_octave_columns(),
    ExtraColumn(
        "dependency_tokens",
        "int",
        "tokens",
        "distance up to which every octave of context has a gain; 0: none",
        in_table=True,
    ),
    ExtraColumn(
        "gate",
        "float",
        "nats",
        "log-odds that it is one text in its order; 0: even odds",
    ),
    ExtraColumn(
        "control",
        "str",
        "",
        "the subtracted control: `foreign:LANGUAGE`, `foreign:corpus`, or `own`",
    ),
    ExtraColumn(
        "rival",
        "str",
        "",
        "the kind of other text that it resembles most, in words, whatever its gate",
        in_table=True,
    ),
)
"""The extra columns."""
FEWEST_TOKENS = round(OCTAVES[0] * (1 + LEAST_EXPOSURE))
"""Fewest tokens of a text with an octave."""


@dataclass(frozen=True)
class FarContext:
    """Measurements of a text. verdict: None for a text too short for a score, which is not measured."""

    verdict: Verdict | None
    profile: Profile


_UNMEASURED = FarContext(None, Profile((), 0.0, "none"))


@dataclass(frozen=True, kw_only=True)
class ProfileOptions:
    """Options of the profile.

    background: the control that is subtracted: "packaged", the tables in the package, in other languages the document's
    own rate; "corpus", the other documents of the corpus, in any language, which takes a pass over it first.
    weights: a folder of `longlode fit-score`; "" for the packaged tables and gate.
    """

    background: Literal["packaged", "corpus"] = "packaged"
    weights: str = ""


class ProfileScorer(Scorer):
    """Rank the documents that pass the gate by their distance profile.

        score = tanh(z / 2) log(1 + exp(e m / UNIT_NATS))     z >= 0, the gate's log-odds
        score = z                                             z < 0

    with m the mean gain per octave and e in [0, 1) how much of it counts (`Profile.evidence`), less in short documents.

    So documents that the gate accepts as one text in its order score above 0, by their gain from far context, and all
    others below 0, by the odds against them. gain_nats is m. The extra columns have the octaves, the dependency length,
    the control that was subtracted and the gate's log-odds; `reason` only names doubts about a score.
    """

    name: ClassVar[str] = "profile"
    version: ClassVar[int] = 3
    min_segments: ClassVar[int] = 0
    extra_columns: ClassVar[tuple[ExtraColumn, ...]] = COLUMNS
    options_type: ClassVar[type] = ProfileOptions
    own: ProfileOptions
    asks = (Words,)

    def options(self) -> dict[str, Any]:
        """The fitted weights; neither pairs nor segments are read."""
        return {"fitted": self.weights.identity}

    def identity(self) -> dict[str, Any]:
        """Identity of its results: the fitted weights, not the folder that they are in."""
        found = super().identity()
        del found["options"]["weights"]
        return found

    @property
    def weights(self) -> ProfileWeights:
        """The weights of its options, read at first use. Raises: InputError, as `read_weights`."""
        return read_weights(self.own.weights) if self.own.weights else packaged_weights()

    @property
    def fits(self) -> bool:
        """True for the background of the corpus."""
        return self.own.background == "corpus"

    def tally(self, documents: Iterable[Document]) -> Any:
        """Count words."""
        return tally_documents(documents)

    def fit(self, tallies: Iterable[Any]) -> Any:
        """Fit how much documents of the corpus share. Raises: InputError for too few documents."""
        return fit_corpus_text(tallies)

    def fitted(self, state: Any) -> Self:
        """A copy that judges by the corpus."""
        return super().fitted(CorpusText(state))

    def text_requests(self, text: str) -> Sequence[Request]:
        """The request of its words, measured at once."""
        return (Words(text, partial(measure_text, corpus=self._corpus(), weights=self.weights)),)

    def _corpus(self) -> CorpusText | None:
        """The corpus to judge a text by, None for the packaged tables. Raises: ConfigError before the pass."""
        if self.fits and not isinstance(self.state, CorpusText):
            raise ConfigError(
                "the background 'corpus' takes a pass over the corpus first; score a corpus with `longlode score`."
            )
        return self.state

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """The score of what was measured."""
        (words,) = doc.of_text
        return score_of(words.kept)

    def explain(self, text: str, top: int) -> dict[str, Any]:
        """Explain the score of a text (`mining.profile_explanation` has the keys). Args: top, words and pairs."""
        parsed = ParsedText.of(text)
        far = measure_text(text, self._corpus(), self.weights)
        found = score_of(far)
        told: dict[str, Any] = {
            "kind": self.name,
            "score": found.score,
            "score_se": found.score_se,
            "status": found.status,
            "reason": found.reason,
            "num_words": parsed.num_words,
            "num_tokens": int(estimated_tokens(text)),
            **dict.fromkeys(("gate", "boundary", "profile")),
        }
        if far.verdict is None:
            return told
        control = _control_of(parsed, self._corpus(), self.weights)
        return told | {
            "gate": explain_gate(parsed, self.weights.gate),
            "boundary": explain_boundary(parsed),
            "profile": explain_profile(parsed, far.profile, control, self.weights.tables, top=top),
        }


def measure_text(
    text: str, corpus: CorpusText | None = None, weights: ProfileWeights | None = None
) -> FarContext:
    """Measure a text.

    Args: corpus, of which it is a document, to judge it by, None for the tables of the weights; weights, None for the
      packaged ones.
    """
    # Texts too short for an octave are not even read: most documents of a web corpus are.
    if len(text) < FEWEST_WORDS or estimated_tokens(text) < FEWEST_TOKENS:
        return _UNMEASURED
    weights = weights or packaged_weights()
    parsed = ParsedText.of(text)
    if parsed.num_words < FEWEST_WORDS:
        return _UNMEASURED
    per_word = tokens_per_word(text, parsed.num_words)
    profile = distance_profile(parsed.kinds, _control_of(parsed, corpus, weights), per_word=per_word)
    return FarContext(weights.gate.judge_parsed(parsed), profile)


def _control_of(parsed: ParsedText, corpus: CorpusText | None, weights: ProfileWeights) -> Control:
    if corpus is not None:
        return corpus.control(parsed.kinds, parsed.words)
    return choose_control(parsed.kinds, parsed.words, weights.tables)


def score_of(far: FarContext) -> DocumentScore:
    """The score; "too_short" without an octave or a verdict."""
    mean, error, extras = far.profile.mean_nats, far.profile.error_nats, extras_of(far)
    if far.verdict is None or mean is None or error is None:
        reason = f"fewer than {FEWEST_TOKENS:,} tokens ({BYTES_PER_TOKEN} bytes count as one) or {FEWEST_WORDS} words"
        return DocumentScore(None, status="too_short", reason=reason, extras=extras)
    odds = far.verdict.log_odds
    if odds < 0:
        score, score_error = odds, None
    else:
        sure, counted = np.tanh(odds / 2), far.profile.evidence / UNIT_NATS
        value = counted * mean
        score = float(sure * np.logaddexp(0.0, value))
        score_error = float(sure / (1 + np.exp(-value)) * error * counted)
    remarks = (
        [f"not one text in its order: most like {about_family(far.verdict.looks_like)}"] if odds < 0 else []
    )
    remarks += [_OWN_RATE] if far.profile.control == OwnControl.name else []
    return DocumentScore(
        score, gain_nats=mean, score_se=score_error, reason="; ".join(remarks), extras=extras
    )


def extras_of(far: FarContext) -> dict[str, float | int | str | None]:
    """Values of COLUMNS; none for a text too short for the gate, which was not measured."""
    if far.verdict is None:
        return {}
    found: dict[str, float | int | str | None] = {
        "gate": far.verdict.log_odds,
        "rival": about_family(far.verdict.looks_like),
        "control": far.profile.control,
    }
    for octave in far.profile.octaves:
        name = octave_name(octave.first_tokens)
        found |= {name: octave.gain_nats, f"{name}_se": octave.error_nats}
    if far.profile.octaves:
        found["dependency_tokens"] = far.profile.dependency_tokens
    return found
