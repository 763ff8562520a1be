"""The `profile` scorer: the gate decides the sign, the profile ranks, and nothing is silently 0."""

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from longlode.api.results import read_result
from longlode.mining import make_scorer, score
from longlode.mining.distance_profile import Octave, Profile
from longlode.mining.gate import Verdict
from longlode.mining.scorers.profile import COLUMNS, UNIT_NATS, FarContext, measure_text, score_of


def far(log_odds: float, *gains: float) -> FarContext:
    octaves = tuple(Octave(1024 << k, gain, 0.01, 5000.0) for k, gain in enumerate(gains))
    return FarContext(Verdict(log_odds, "two-halves"), Profile(octaves, 0.1, "foreign:en"))


def test_documents_that_pass_the_gate_rank_by_their_profile_above_the_rest() -> None:
    scores = [
        score_of(one).score
        for one in (
            far(-4, 0.2, 0.2),
            far(-1, 0.2),
            far(0, 0.2),
            far(4, -0.05),
            far(4, 0.01),
            far(4, 0.02, 0.04),
        )
    ]
    assert None not in scores
    assert scores == sorted(scores)  # type: ignore[type-var]
    assert scores[0] == -4
    assert scores[2] == pytest.approx(0)  # continuous where the gate changes its mind


def test_the_gain_of_a_short_document_counts_less() -> None:
    scores, errors = [], []
    for exposure in (100.0, 2048.0, 50_000.0, 1e9):
        octaves = (Octave(1024, 0.05, 0.01, exposure),)
        found = score_of(FarContext(Verdict(4.0, "two-halves"), Profile(octaves, 0.1, "foreign:en")))
        assert found.gain_nats == 0.05  # the measurement itself is reported as it is
        scores.append(found.score)
        errors.append(found.score_se)
    assert scores == sorted(scores)
    assert errors == sorted(errors)
    half, whole = (np.tanh(2.0) * np.log1p(np.exp(gain / UNIT_NATS)) for gain in (0.025, 0.05))
    assert scores[1] == pytest.approx(half)
    assert scores[3] == pytest.approx(whole, rel=1e-4)


def test_a_dependency_is_no_longer_than_its_document() -> None:
    gains = (0.2, 0.2)
    octaves = tuple(Octave(1024 << k, gain, 0.01, 900.0) for k, gain in enumerate(gains))
    assert Profile(octaves, 0.1, "own", 2700.0).dependency_tokens == 2700
    assert Profile(octaves, 0.1, "own", 9000.0).dependency_tokens == 4096
    words = [f"w{k % 700}" for k in range(1400)]  # all of it comes back after 700 words
    text = " ".join(words)
    profile = measure_text(text).profile
    assert 0 <= profile.dependency_tokens <= len(text) / 4
    assert profile.num_tokens == pytest.approx(len(text) / 4)


def test_the_row_says_what_was_found() -> None:
    found = score_of(far(3, 0.06, 0.05, 0.001))
    assert found.status == "ok"
    assert found.gain_nats == pytest.approx(0.037)
    assert found.score_se is not None
    assert found.score_se > 0
    assert found.reason == ""
    assert found.extras == {
        **{"far_1k": 0.06, "far_2k": 0.05, "far_4k": 0.001},
        **{"far_1k_se": 0.01, "far_2k_se": 0.01, "far_4k_se": 0.01},
        **{
            "dependency_tokens": 4096,
            "gate": 3,
            "control": "foreign:en",
            "rival": "two documents, one after the other",
        },
    }


def test_the_reason_says_what_puts_a_score_in_doubt() -> None:
    assert "two documents, one after the other" in score_of(far(-3, 0.1)).reason
    foreign = far(3, 0.1)
    own = replace(foreign, profile=replace(foreign.profile, control="own"))
    assert "own rate" in score_of(own).reason


def test_every_octave_has_a_column_and_its_error() -> None:
    names = [column.name for column in COLUMNS]
    for name in ("1k", "2k", "4k", "8k", "16k", "32k", "64k"):
        assert {f"far_{name}", f"far_{name}_se"} <= set(names)
    assert all(column.doc for column in COLUMNS)


def test_short_texts_are_too_short() -> None:
    for text in ("", "a few words", "one two three " * 170):  # over 500 words, but no octave
        found = score_of(measure_text(text))
        assert found.status == "too_short"
        assert found.extras == {}  # nothing was measured


def test_documents_are_scored_by_the_engine_without_a_reader(tmp_path: Path) -> None:
    rng = random.Random(0)
    words = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("arin", "elo", "omi", "uter", "ani")]
    texts = [" ".join(rng.choices(words, k=2500)), "too short"]
    rows = "".join(json.dumps({"id": str(n), "text": text}) + "\n" for n, text in enumerate(texts))
    (tmp_path / "in.jsonl").write_text(rows, encoding="utf-8")
    result = score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=make_scorer("profile"))
    assert result.counts["ok"] == 1
    assert result.counts["too_short"] == 1
    rows = read_result(tmp_path / "scores").table().to_pylist()
    long = next(row for row in rows if row["status"] == "ok")
    assert isinstance(long["extras.far_1k"], float)
    assert long["extras.far_64k"] is None
    assert isinstance(long["extras.dependency_tokens"], int)
    assert long["extras.control"]
    assert long["extras.rival"]
