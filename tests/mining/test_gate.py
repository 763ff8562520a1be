"""What each measurement of the gate sees, on texts made for it; the fit; weights on disk."""

import random
from pathlib import Path

import numpy as np
import pytest

from longlode.core.errors import InputError
from longlode.mining.gate.direction import Directions, direction, learn_directions
from longlode.mining.gate.features import measure
from longlode.mining.gate.fit import COHERENT, fit_length, write_gate
from longlode.mining.gate.fluency import fluency
from longlode.mining.gate.minimize import minimize
from longlode.mining.gate.model import read_gate
from longlode.mining.gate.parsed_text import ParsedText
from longlode.mining.gate.passages import passages
from longlode.mining.gate.returns import returns
from longlode.mining.gate.signs import sign_style

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def word(rng: random.Random) -> str:
    return "".join(rng.choices(SYLLABLES, k=3))


def story(seed: int, num_sentences: int = 500, topic_sentences: int = 40) -> list[str]:
    """Sentences with fixed phrases, and rare words that come in bursts and come back; paragraphs ask, then answer."""
    rng = random.Random(seed)
    common = ["and", "the", "of", "to", "in", "was", "that", "he", "it", "with"]
    phrases = [" ".join((rng.choice(common), rng.choice(common), word(rng))) for _ in range(60)]
    pool = [word(rng) for _ in range(400)]
    sentences = []
    for number in range(num_sentences):
        if number % topic_sentences == 0:
            topic = rng.sample(pool, 14)
        inner = [
            rng.choice(phrases),
            rng.choice(topic),
            rng.choice(common),
            rng.choice(topic),
            rng.choice(phrases),
        ]
        text = " ".join(inner)
        end = '?"' if number % 9 == 2 else "."
        sentences.append(('"' if number % 9 in (2, 3) else "") + text.capitalize() + end)
    return sentences


def join(sentences: list[str], size: int = 3) -> str:
    parts = [" ".join(sentences[n : n + size]) for n in range(0, len(sentences), size)]
    return "\n\n".join(parts)


@pytest.fixture(scope="module")
def known() -> Directions:
    return learn_directions([ParsedText.of(join(story(seed))) for seed in range(20, 30)])


def of(text: str) -> ParsedText:
    return ParsedText.of(text)


def test_a_reading_knows_its_words_paragraphs_and_sentences() -> None:
    parsed = of('One two. "Three?" Four\n\nFive six!\nSeven')
    assert [parsed.words[k] for k in parsed.kinds] == [
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
    ]
    assert [parsed.text[s : s + 3] for s in parsed.starts] == [
        "One",
        "two",
        "Thr",
        "Fou",
        "Fiv",
        "six",
        "Sev",
    ]
    # One blank line in 40 characters: paragraphs.
    assert parsed.paragraph.tolist() == [0, 0, 0, 0, 1, 1, 1]
    starts = [parsed.text[s:].lstrip()[:4] for s in parsed.sentence_starts if parsed.text[s:].strip()]
    assert starts == ["One ", '"Thr', "Four", "Five", "Seve"] or starts[:2] == ["One ", '"Thr']


def test_hazards_fall_with_distance_in_text_with_topics_and_not_in_shuffled_text() -> None:
    sentences = story(1)
    shuffled = random.Random(0).sample(sentences, len(sentences))
    slopes = []
    for one in (sentences, shuffled):
        found = returns(of(join(one)))
        slopes.append(found["hazard_mid_64"] - found["hazard_mid_1024"])
    assert slopes[0] > slopes[1] + 0.5
    assert abs(slopes[1]) < 0.4


def test_hazards_equal_a_plain_loop() -> None:
    parsed = of(join(story(2, 200)))
    n, near, far = parsed.num_words, 16, 32
    hits, expected = 0, 0.0
    for place, kind in enumerate(parsed.kinds.tolist()):
        count = int(parsed.counts[kind])
        before = parsed.kinds[max(0, place - near + 1) : place]
        if not 2 <= count <= 6 or place < far or kind in before:
            continue
        hits += kind in parsed.kinds[place - far + 1 : place - near + 1]
        expected += 1 - (1 - (far - near) / (n - near)) ** (count - 1)
    assert returns(parsed)["hazard_rare_16"] == pytest.approx(np.log((hits + 3) / (expected + 3)))


def test_pairs_are_repeated_in_fluent_text_and_not_in_salad() -> None:
    text = join(story(3))
    words = text.split()
    for start in range(0, len(words), 20):
        part = words[start : start + 20]
        random.Random(start).shuffle(part)
        words[start : start + 20] = part
    fluent, salad = fluency(of(text)), fluency(of(" ".join(words)))
    assert fluent["pairs_1_8"] > salad["pairs_1_8"] + 0.15
    assert abs(salad["pairs_1_8"]) < 0.1


def test_a_boundary_is_seen_between_halves_of_two_stories() -> None:
    one, two = story(4, 300), story(5, 300)
    whole, glued = join(one), join(one[:150] + two[:150])
    for name in ("cut_quarter_least", "cut_third_least"):
        assert passages(of(glued))[name] < passages(of(whole))[name] - 0.2


def test_paragraphs_of_two_stories_in_turn_are_unlike_their_neighbours() -> None:
    one, two = (join(story(seed, 300)).split("\n\n") for seed in (6, 7))
    mixed = [part for pair in zip(one[:50], two[:50], strict=True) for part in pair]
    whole, turns = passages(of("\n\n".join(one))), passages(of("\n\n".join(mixed)))
    assert turns["paragraph_12"] < -1
    assert whole["paragraph_12"] > turns["paragraph_12"] + 0.7


def test_direction_changes_sign_when_paragraphs_are_reversed(known: Directions) -> None:
    parts = join(story(8)).split("\n\n")
    forward = direction(of("\n\n".join(parts)), known)
    backward = direction(of("\n\n".join(reversed(parts))), known)
    random.Random(0).shuffle(parts)
    mixed = direction(of("\n\n".join(parts)), known)
    assert forward["direction_paragraph"] > 3
    assert backward["direction_paragraph"] == pytest.approx(-forward["direction_paragraph"], abs=0.3)
    assert abs(mixed["direction_paragraph"]) < forward["direction_paragraph"] / 2


def test_signs_tell_where_the_punctuation_changes() -> None:
    plain = join(story(10, 300))
    half = len(plain) // 2
    changed = plain[:half] + plain[half:].replace(".", " --").replace('"', "'")
    assert sign_style(of(changed))["signs_quarter_most"] > sign_style(of(plain))["signs_quarter_most"] + 1


@pytest.mark.parametrize(
    "text", ["", "x", "1 2 3 " * 300, "水" * 700, "a\n" * 600, "word " * 600, "\ud800 x y " * 300]
)
def test_odd_texts_are_measured_or_refused_without_a_warning(
    text: str, known: Directions, tmp_path: Path
) -> None:
    parsed = of(text)
    if parsed.num_words >= 500:
        found = measure(parsed, known)
        assert all(isinstance(value, float) and not np.isinf(value) for value in found.values())
    gate = fitted(known, tmp_path)
    verdict = gate.judge(text)
    assert (verdict is None) == (parsed.num_words < 500)
    assert verdict is None or np.isfinite(verdict.log_odds)


def fitted(known: Directions, folder: Path):  # a Gate
    """A small gate: stories against shuffled and reversed ones."""
    rows, labels = [], []
    for seed in range(12):
        parts = join(story(seed, 200)).split("\n\n")
        mixed = random.Random(seed).sample(parts, len(parts))
        for label, one in ((COHERENT, parts), ("shuffled", mixed), ("reversed", parts[::-1])):
            rows.append(measure(of("\n\n".join(one)), known))
            labels.append(label)
    names = list(rows[0])
    values = np.array([[row[name] for name in names] for row in rows])
    families = ["shuffled", "reversed"]
    weights = fit_length(values, labels, ["x"] * len(labels), families)
    write_gate(folder, names, families, {1000: weights, 4000: weights}, known)
    return read_gate(folder)


def test_a_fitted_gate_judges_new_texts_and_names_what_they_look_like(
    known: Directions, tmp_path: Path
) -> None:
    gate = fitted(known, tmp_path)
    parts = join(story(50, 200)).split("\n\n")
    good, bad = gate.judge("\n\n".join(parts)), gate.judge("\n\n".join(parts[::-1]))
    assert good is not None
    assert bad is not None
    assert good.log_odds > 0 > bad.log_odds
    assert bad.looks_like == "reversed"
    assert gate.judge("too short") is None


def test_a_text_beyond_the_weights_is_judged_by_its_stretches_as_well(
    known: Directions, tmp_path: Path
) -> None:
    gate = fitted(known, tmp_path)  # up to 4,000 tokens
    text = join(story(51, 1500))
    size = round(len(text) * 4000 / (len(text.encode()) / 4))
    starts = [(len(text) - size) * k // 3 for k in range(4)]
    starts[1:] = [text.find("\n", start) + 1 for start in starts[1:]]
    odds = [gate.judge_features(measure(of(text[s : s + size]), gate.known), 4000).log_odds for s in starts]
    whole = gate.judge_features(measure(of(text), gate.known), len(text) / 4).log_odds
    verdict = gate.judge(text)
    assert verdict is not None
    assert verdict.log_odds == pytest.approx(np.mean([whole, *odds]))
    near = text[: 4 * 4500]
    verdict = gate.judge(near)
    assert verdict is not None
    assert verdict.log_odds == gate.judge_features(measure(of(near), gate.known), 4500).log_odds


def test_minimize_finds_the_least_of_a_quadratic_and_of_a_curved_valley() -> None:
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    matrix, target = root @ root.T + np.eye(6), rng.normal(size=6)
    found = minimize(lambda x: (x @ matrix @ x / 2 - target @ x, matrix @ x - target), np.zeros(6), steps=200)
    assert np.allclose(found, np.linalg.solve(matrix, target), atol=1e-4)

    def valley(x: np.ndarray) -> tuple[float, np.ndarray]:
        a, b = 1 - x[0], x[1] - x[0] ** 2
        return float(a**2 + 100 * b**2), np.array([-2 * a - 400 * x[0] * b, 200 * b])

    assert np.allclose(minimize(valley, np.array([-1.2, 1.0]), steps=500), 1.0, atol=1e-3)


def test_unfit_weights_and_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gate\.json"):
        read_gate(tmp_path)
    with pytest.raises(InputError, match="families"):
        fit_length(np.zeros((2, 1)), [COHERENT, "odd"], ["x", "x"], ["shuffled"])
