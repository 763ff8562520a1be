"""`profile`, the default: what far context is worth where a text is one text in its order; no model, no tokenizer."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from longlode.core.errors import InputError
from longlode.mining.baselines import BYTES_PER_TOKEN, estimated_tokens
from longlode.mining.distance_profile import OCTAVES, OwnControl, Profile, distance_profile
from longlode.mining.distance_profile.profile import LEAST_EXPOSURE, tokens_per_word
from longlode.mining.distance_profile.tables import choose_control, packaged_tables, tables_fingerprint
from longlode.mining.extras import ExtraColumn
from longlode.mining.gate import Reading, Verdict
from longlode.mining.gate.features import FEWEST_WORDS
from longlode.mining.gate.model import packaged_gate
from longlode.mining.profile_explanation import explain_boundary, explain_gate, explain_profile
from longlode.mining.scorers.base import DocumentScore, PairPlan, Scorer, SegmentedDocument

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
            f"what context {reach} adds; 0: no more than foreign text gives; null: the document is too short"
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
        "distance up to which every octave pays; 0: not even the first",
        in_table=True,
    ),
    ExtraColumn(
        "gate",
        "float",
        "nats",
        "log-odds that it is one text in its order; 0: as likely as not",
        in_table=True,
    ),
    ExtraColumn("control", "str", "", 'what was subtracted: "foreign:LANGUAGE", or "own" without a table'),
    ExtraColumn(
        "rival",
        "str",
        "",
        "family of texts that are not one that it is most like, whatever its gate",
        in_table=True,
    ),
)
"""The extra columns."""
FEWEST_TOKENS = round(OCTAVES[0] * (1 + LEAST_EXPOSURE))
"""A shorter text has no octave."""


@dataclass(frozen=True)
class FarContext:
    """What is kept of a text. verdict: None for a text too short for the gate."""

    verdict: Verdict | None
    profile: Profile


class ProfileScorer(Scorer):
    """Rank by the distance profile what passes the gate.

        score = tanh(z / 2) log(1 + exp(m / UNIT_NATS))     z >= 0, the gate's log-odds; m, mean gain per octave
        score = z                                           z < 0

    So what the gate takes for one text in its order scores above 0 by what far context is worth to it, and everything
    else below 0 by how surely it is not. gain_nats is m. The extra columns have the octaves, the dependency length, the
    control that was subtracted and the gate's log-odds; `reason` says only what puts a score in doubt.
    """

    name: ClassVar[str] = "profile"
    version: ClassVar[int] = 2
    min_segments: ClassVar[int] = 0
    needs_reader: ClassVar[bool] = False
    extra_columns: ClassVar[tuple[ExtraColumn, ...]] = COLUMNS

    def options(self) -> dict[str, Any]:
        """What was fitted; neither pairs nor segments are read."""
        return {"gate": packaged_gate().fingerprint, "foreign_text": tables_fingerprint()}

    def digest(self, text: str) -> FarContext:
        """Measure a text."""
        reading = Reading.of(text)
        if reading.num_words < FEWEST_WORDS:
            return FarContext(None, Profile((), 0.0, "none"))
        control = choose_control(reading.kinds, reading.words, packaged_tables())
        per_word = tokens_per_word(text, reading.num_words)
        profile = distance_profile(reading.kinds, control, per_word=per_word)
        return FarContext(packaged_gate().judge_reading(reading), profile)

    def explain(self, text: str, top: int) -> dict[str, Any]:
        """Why the text scores as it does (`mining.profile_explanation` has the keys). Args: top, words and pairs."""
        reading = Reading.of(text)
        far = self.digest(text)
        found = score_of(far)
        told: dict[str, Any] = {
            "kind": self.name,
            "score": found.score,
            "score_se": found.score_se,
            "status": found.status,
            "reason": found.reason,
            "num_words": reading.num_words,
            "num_tokens": int(estimated_tokens(text)),
            **dict.fromkeys(("gate", "boundary", "profile")),
        }
        if far.verdict is None:
            return told
        control = choose_control(reading.kinds, reading.words, packaged_tables())
        return told | {
            "gate": explain_gate(reading, packaged_gate()),
            "boundary": explain_boundary(reading),
            "profile": explain_profile(reading, far.profile, control, packaged_tables(), top=top),
        }

    def plan(self, doc: SegmentedDocument, rng: np.random.Generator) -> PairPlan:
        """No pair."""
        return PairPlan.empty()

    def finish(
        self, doc: SegmentedDocument, plan: PairPlan, alone: np.ndarray, given: np.ndarray
    ) -> DocumentScore:
        """The score of what `digest` measured. Raises: InputError for a document that came without it."""
        far = doc.digest
        if not isinstance(far, FarContext):
            raise InputError("the profile needs the words of the text; the document came without.")
        return score_of(far)


def score_of(far: FarContext) -> DocumentScore:
    """The score; "too_short" without an octave or a verdict."""
    mean, error, extras = far.profile.mean_nats, far.profile.error_nats, extras_of(far)
    if far.verdict is None or mean is None or error is None:
        needed = f"{FEWEST_WORDS} words" if far.verdict is None else f"{FEWEST_TOKENS:,} tokens"
        reason = f"fewer than {needed} ({BYTES_PER_TOKEN} bytes count as a token)"
        return DocumentScore(None, status="too_short", reason=reason, extras=extras)
    odds = far.verdict.log_odds
    if odds < 0:
        score, score_error = odds, None
    else:
        sure, value = np.tanh(odds / 2), mean / UNIT_NATS
        score = float(sure * np.logaddexp(0.0, value))
        score_error = float(sure / (1 + np.exp(-value)) * error / UNIT_NATS)
    remarks = [f"not one text in its order: most like {far.verdict.looks_like}"] if odds < 0 else []
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
        "rival": far.verdict.looks_like,
        "control": far.profile.control,
    }
    for octave in far.profile.octaves:
        name = octave_name(octave.first_tokens)
        found |= {name: octave.gain_nats, f"{name}_se": octave.error_nats}
    if far.profile.octaves:
        found["dependency_tokens"] = far.profile.dependency_tokens
    return found
