"""Short cuts of the gate and the profile against what they stand for: the same numbers, bit for bit."""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from longlode.mining.distance_profile.control import ForeignText
from longlode.mining.distance_profile.tables import KNOWN_SHARE, choose_control
from longlode.mining.gate.direction import Directions
from longlode.mining.gate.features import measure
from longlode.mining.gate.fluency import CONTRASTS, GAPS, fluency
from longlode.mining.gate.medians import median, middle_of, quantile_of
from longlode.mining.gate.parsed_text import ParsedText
from longlode.mining.gate.passages import _by_lag, _expected
from longlode.mining.scorers.profile import FEWEST_TOKENS, measure_text, score_of

SAMPLES = {
    "ascii": [
        "parse",
        "HTTPServer",
        "x2",
        "the",
        "The_end",
        "12",
        "CAPS",
        "a.b",
        "\n\n",
        "(so)",
        '"No!"',
        "\t",
    ],
    "mixed": [
        "größer",
        "Straße",
        "naïve",
        "42nd",
        "日本語",
        "文、章。",
        "カタカナ",
        "Zoë",
        "\n",
        "²",
        "\U0001f600",
        "ﬁn",
        "Ⅷ",
    ],
}


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_part_equals_the_same_characters_read_anew(kind: str) -> None:
    rng = random.Random(kind)
    for trial in range(24):
        joints = (" ", "", "") if trial % 4 == 0 else (" ", " ", "_", "")
        text = "".join(
            rng.choice(SAMPLES[kind]) + rng.choice(joints) for _ in range(rng.choice((3, 60, 900)))
        )
        whole = ParsedText.of(text)
        start, stop = sorted(rng.choices(range(len(text) + 1), k=2))
        part, anew = whole.part(start, stop), ParsedText.of(text[start:stop])
        assert part.text == anew.text
        assert part.words == anew.words
        for name in ("starts", "kinds", "classes", "ink", "sentence_starts", "paragraph_starts"):
            np.testing.assert_array_equal(getattr(part, name), getattr(anew, name), err_msg=name)
        known = Directions.none()
        assert measure(part, known) == pytest.approx(measure(anew, known), abs=0, nan_ok=True)
        some = replace(known, words=tuple(sorted(set(anew.words))[::3]))
        whole.by_type(some.numbers_of)
        np.testing.assert_array_equal(part.by_type(some.numbers_of), some.numbers_of(anew.words))


@pytest.mark.parametrize("number", [0, 1, 5000, 60_000])
def test_weights_of_direction_equal_a_dictionary(number: int) -> None:
    rng = np.random.default_rng(number)
    keys = np.unique(rng.integers(0, 1 << 60, number))
    weights = rng.normal(size=len(keys))
    known = Directions((), {"line": keys}, {"line": weights})
    asked = rng.integers(0, 1 << 60, (400, 13))
    if number:
        asked[rng.random(asked.shape) < 0.5] = rng.choice(keys)
        asked[::2, 1] = rng.choice(keys, 200)
        asked[1::2] = rng.choice(keys, (200, 13))  # 60,000 keys: many share a hash
    table = dict(zip(keys.tolist(), weights.tolist(), strict=True))
    expected = np.array([[table.get(key, 0.0) for key in row] for row in asked.tolist()])
    np.testing.assert_array_equal(known.weights_of("line", asked), expected.sum(axis=1))
    assert np.count_nonzero(expected) > 2000 * (number > 0) - 1


@pytest.mark.parametrize("num_types", [1, 30, 3000])
def test_shares_of_repeated_pairs_equal_those_of_counted_tuples(num_types: int) -> None:
    rng = random.Random(num_types)
    for n in (1, 2, 3, 39, 40, 41, 700):
        names = [f"w{chr(97 + k % 26)}{'x' * (k // 26)}" for k in range(min(num_types, 400))]
        words = [rng.choice(names) for _ in range(n)]
        found = fluency(ParsedText.of(" ".join(words)))

        def share(items: list[tuple[str, ...]]) -> float:
            return (len(items) - len(set(items))) / max(1, len(items)) + 1e-3

        repeated = {gap: share(list(zip(words, words[gap:], strict=False))) for gap in GAPS}
        assert found["pairs_1"] == np.log(repeated[1])
        for near, far in CONTRASTS:
            assert found[f"pairs_{near}_{far}"] == np.log(repeated[near] / repeated[far])
        assert found["triples"] == np.log(share(list(zip(words, words[1:], words[2:], strict=False))))


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 9, 64, 128])
def test_means_by_distance_equal_those_of_plain_sums(number: int) -> None:
    alike = np.random.default_rng(number).random((number, number))
    means, pairs = _by_lag(alike)
    assert means.tolist() == [0.0, *(np.trace(alike, k) / (number - k) for k in range(1, number))]
    expected = _expected(means, pairs)
    weighed = means * pairs
    for k in range(number):
        low, high = (max(1, k - k // 4), min(number, k + k // 4 + 1)) if k >= 4 else (k, k + 1)
        mean = np.sum(weighed[low:high]) / np.sum(pairs[low:high]) if k >= 4 else means[k]
        assert np.all(np.diagonal(expected, k) == mean + 2e-3)
        assert np.all(np.diagonal(expected, -k) == mean + 2e-3)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 95, 96, 1001])
def test_medians_and_quantiles_equal_those_of_numpy(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    ordered = np.sort(values)
    assert median(values) == middle_of(ordered) == np.median(values)
    for share in (0.0, 0.05, 0.1, 0.37, 0.5, 0.9, 1.0):
        assert quantile_of(ordered, share) == np.quantile(values, share)


def test_the_chosen_table_is_the_one_that_holds_most_words() -> None:
    rng = random.Random(5)
    names = [f"w{number}" for number in range(3000)] + [str(number) for number in range(50)]
    shares = np.zeros((21, 11)) + 0.01
    chosen = set()
    for trial in range(30):
        words = rng.sample(names, rng.choice((5, 300, 2500)))
        kinds = np.array([int(len(words) * rng.random() ** 3) for _ in range(4000)])
        tables = []
        for number in range(4):
            held = rng.sample(names, int(len(names) * rng.choice((0.3, 0.6, 0.7, 0.8, 0.9))))
            tables.append(ForeignText(str(number), dict.fromkeys(held, 3), 100, shares, shares))
        if trial % 3 == 0:
            tables[2] = ForeignText("2", tables[1].counts, 100, shares, shares)  # as many: the first is taken
        known = []
        for table in tables:
            counted = [words[kind] for kind in kinds if not words[kind].isdigit()]
            known.append(sum(word in table.counts for word in counted) / len(counted))
        best = int(np.argmax(known))
        expected = f"foreign:{best}" if known[best] >= KNOWN_SHARE else "own"
        assert choose_control(kinds, words, tables).name == expected
        assert [table.known_share(kinds, words) for table in tables] == known
        chosen.add(expected)
    assert len(chosen) == 5


def test_documents_too_short_for_an_octave_are_not_measured() -> None:
    words = list(itertools.islice(itertools.cycle(["alpha", "beta", "gamma"]), 2000))
    short, long = " ".join(words[:800]), " ".join(words)
    assert len(short) < 4 * FEWEST_TOKENS < len(long)
    assert measure_text(short).verdict is None
    assert score_of(measure_text(short)).extras == {}
    assert score_of(measure_text(short)).status == "too_short"
    assert measure_text(long).verdict is not None
    assert measure_text("x" * 20_000).verdict is None  # long, but one word
