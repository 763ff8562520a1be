"""Explanation of a profile score as plain data, printed by `longlode explain` and drawn by the report.

    {"kind": "profile",
     "score", "score_se", "status", "reason",      as in the scores; score null where there is none
     "num_words", "num_tokens",                    tokens of 4 bytes; so are all distances and places below
     "gate": {"log_odds", "probability",           nats; that it is one text in its order
              "parts": [nats, ...],                log-odds of the whole and of stretches of it; log_odds is their mean
              "rivals": [{"family", "about", "share"}],   most likely first; shares of what is not one text, at most 3
              "signs": [{"name", "about", "nats", "feature", "value"}]},   strongest first; nats > 0: for one text
     "boundary": {"share", "typical", "span_tokens",      null where the text is too short to be cut
                  "character", "token", "before", "after",
                  "curve": [[token, share], ...]},
     "profile": {"control", "known_share",
                 "gain_nats", "gain_se", "reference_nats", "dependency_tokens",
                 "octaves": [{"first_tokens", "last_tokens", "gain_nats", "error_nats", "exposure_tokens", "certain"}],
                 "carriers": [{"text", "is_pair", "gain_nats", "num_returns",
                               "returns": [{"distance_tokens", "before": PLACE, "again": PLACE}]}]}}

    PLACE = {"token", "character", "before", "text", "after"}

gate, boundary and profile are null for a text that is too short for the gate.
gate.signs: log-odds of the whole minus those with this kind of measurement replaced by that of usual text in its order.
boundary: the cut whose two sides share least, relative to passages equally far apart elsewhere in the text (1 is
usual), with the curve of that ratio along the text.
profile.carriers: the words and pairs that add most to gain_nats; before and again, two uses with no other between.
profile.reference_nats: gain of the octave before the first.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from longlode.corpus.words import word_bounds
from longlode.mining.baselines import estimated_tokens
from longlode.mining.distance_profile import Control, ForeignText, Profile
from longlode.mining.distance_profile.carriers import Carrier, carriers
from longlode.mining.distance_profile.profile import tokens_per_word
from longlode.mining.gate import Gate, ParsedText, measure
from longlode.mining.gate.evidence import about_family, signs
from longlode.mining.gate.passages import block_words, boundary_strengths

NUM_RIVALS = 3
SIDE_CHARACTERS = 160
"""Characters of text shown on either side of a boundary."""
PLACE_CHARACTERS = 60
"""Characters of text shown on either side of a word."""


def explain_gate(parsed: ParsedText, gate: Gate) -> dict[str, Any]:
    """`gate` of the module's docstring."""
    parts, of_parts = gate.in_parts(parsed)
    odds, rivals = float(parts.mean()), of_parts.mean(axis=0)
    shares = np.exp(rivals - np.logaddexp.reduce(rivals))
    # Families that read the same in words are one kind, in the place of the likeliest of them.
    kinds: dict[str, list[int]] = {}
    for k in np.argsort(-shares, kind="stable").tolist():
        kinds.setdefault(about_family(gate.families[k]), []).append(k)
    return {
        "log_odds": odds,
        "probability": float(1 / (1 + np.exp(-odds))),
        "parts": parts.tolist(),
        "rivals": [
            {"family": gate.families[members[0]], "about": about, "share": float(shares[members].sum())}
            for about, members in [*kinds.items()][:NUM_RIVALS]
        ],
        "signs": [
            {
                "name": sign.name,
                "about": sign.about,
                "nats": sign.nats,
                "feature": sign.feature,
                "value": sign.value,
            }
            for sign in signs(gate, measure(parsed, gate.known), estimated_tokens(parsed.text))
        ],
    }


def explain_boundary(parsed: ParsedText) -> dict[str, Any] | None:
    """`boundary` of the module's docstring: the weakest of all widths, in deviations of its width."""
    found = boundary_strengths(parsed)
    if not found:
        return None
    depth = {
        span: (float(np.log(ratio + 1e-2).min()) - float(np.median(np.log(ratio + 1e-2))))
        / (float(np.log(ratio + 1e-2).std()) + 0.1)
        for span, ratio in found.items()
    }
    span = min(depth, key=lambda name: depth[name])
    ratio, size = found[span], block_words(parsed.num_words)
    weakest = int(np.argmin(ratio))
    per_word = tokens_per_word(parsed.text, parsed.num_words)
    at = _near_paragraph(parsed, span + weakest * size, size)
    curve = [
        [round((span + k * size) * per_word), round(float(value), 4)]
        for k, value in enumerate(ratio.tolist())
    ]
    return {
        "share": float(ratio[weakest]),
        "typical": float(np.median(ratio)),
        "span_tokens": round(span * per_word),
        "character": at,
        "token": round((span + weakest * size) * per_word),
        "before": parsed.text[max(0, at - SIDE_CHARACTERS) : at],
        "after": parsed.text[at : at + SIDE_CHARACTERS],
        "curve": curve,
    }


def _near_paragraph(parsed: ParsedText, word: int, reach: int) -> int:
    """Character where the paragraph begins that is nearest to a word, or the word itself if none is within reach."""
    starts = parsed.starts
    low, high = int(starts[max(0, word - reach)]), int(starts[min(len(starts) - 1, word + reach)])
    here = int(starts[min(len(starts) - 1, word)])
    near = parsed.paragraph_starts[(parsed.paragraph_starts >= low) & (parsed.paragraph_starts <= high)]
    return int(near[np.argmin(np.abs(near - here))]) if len(near) else here


def explain_profile(
    parsed: ParsedText, profile: Profile, control: Control, tables: Sequence[ForeignText], *, top: int
) -> dict[str, Any]:
    """`profile` of the module's docstring. Args: top, how many carriers."""
    per_word = tokens_per_word(parsed.text, parsed.num_words)
    found = carriers(parsed.kinds, control, per_word=per_word, top=top)
    ends = word_bounds(parsed.codes)[1]
    return {
        "control": profile.control,
        "known_share": max((table.known_share(parsed.kinds, parsed.words) for table in tables), default=0.0),
        "gain_nats": profile.mean_nats,
        "gain_se": profile.error_nats,
        "reference_nats": profile.reference_nats,
        "dependency_tokens": profile.dependency_tokens if profile.octaves else None,
        "octaves": [
            {
                "first_tokens": octave.first_tokens,
                "last_tokens": 2 * octave.first_tokens,
                "gain_nats": octave.gain_nats,
                "error_nats": octave.error_nats,
                "exposure_tokens": octave.exposure_tokens,
                "certain": octave.certain,
            }
            for octave in profile.octaves
        ],
        "carriers": [_carrier(parsed, one, ends, per_word) for one in found],
    }


def _carrier(parsed: ParsedText, one: Carrier, ends: np.ndarray, per_word: float) -> dict[str, Any]:
    def place(word: int) -> dict[str, Any]:
        start, stop = int(parsed.starts[word]), int(ends[word + len(one.kinds) - 1])
        return {
            "token": round(word * per_word),
            "character": start,
            "before": parsed.text[max(0, start - PLACE_CHARACTERS) : start],
            "text": parsed.text[start:stop],
            "after": parsed.text[stop : stop + PLACE_CHARACTERS],
        }

    return {
        "text": " ".join(parsed.words[kind] for kind in one.kinds),
        "is_pair": len(one.kinds) == 2,
        "gain_nats": one.gain_nats,
        "num_returns": one.num_returns,
        "returns": [
            {
                "distance_tokens": back.distance_tokens,
                "before": place(back.before),
                "again": place(back.again),
            }
            for back in one.returns
        ],
    }
