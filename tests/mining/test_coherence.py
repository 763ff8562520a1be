"""Seams against their definition, the background table, and the coherence score on documents of known make."""

import itertools
import json
import random

import numpy as np
import pytest

from longlode.core.errors import InputError
from longlode.mining.coherence import features as coherence
from longlode.mining.coherence.background import (
    RAREST,
    as_background,
    count_words,
    packaged_background,
    read_background,
    write_background,
)
from longlode.mining.coherence.boundaries import CUT_STEP, far_shares, link_shares
from longlode.mining.coherence.order import Occurrences, information, order_contrast


def links(kinds, weights, span, *, drop=False):
    """drop: leave out what has no weight beforehand."""
    seen = Occurrences(kinds, weights[kinds] > 0 if drop else None)
    return link_shares(seen, weights[kinds[seen.position[seen.first[:-1]]]], span)


def links_by_definition(kinds, weights, span, cut):
    left, right = set(kinds[cut - span : cut]), set(kinds[cut : cut + span])
    total = sum(weights[kind] for kind in right)
    return sum(weights[kind] for kind in right & left) / total if total else 0.0


@pytest.mark.parametrize(("n", "span"), [(200, 30), (100, 50), (120, 7), (64, 32)])
def test_link_shares_equal_the_definition(n, span):
    rng = np.random.default_rng(n)
    kinds = rng.integers(0, 40, n)
    weights = rng.random(40) * (rng.random(40) < 0.7)
    shares, cuts = links(kinds, weights, span)
    assert cuts.tolist() == list(range(span, n - span + 1, CUT_STEP))
    expected = [links_by_definition(kinds.tolist(), weights, span, cut) for cut in cuts]
    np.testing.assert_allclose(shares, expected, atol=1e-9)
    np.testing.assert_array_equal(links(kinds, weights, span, drop=True)[0], shares)
    if len(cuts) > 1:
        moved = [links_by_definition(kinds.tolist(), weights, span, cut - 1) for cut in cuts[1:]]
        assert not np.allclose(shares[1:], moved), "a cut one word off must be told apart"


@pytest.mark.parametrize(("n", "span", "gap"), [(120, 10, 40), (60, 20, 20), (31, 5, 30)])
def test_far_shares_equal_the_definition(n, span, gap):
    kinds = np.random.default_rng(n).integers(0, 25, n)
    found = far_shares(Occurrences(kinds), span, gap)
    for at, share in enumerate(found):
        starts = [s for s in range(n - span + 1) if s + span <= at - gap or s >= at + gap]
        holds = [kinds[at] in kinds[s : s + span] for s in starts]
        assert share == pytest.approx(np.mean(holds) if starts else 0.0, abs=1e-12), at
    wanted = kinds % 3 > 0
    some = far_shares(Occurrences(kinds, wanted), span, gap)
    np.testing.assert_array_equal(some, np.where(wanted, found, 0.0))


def test_nothing_to_cut_and_no_window():
    shares, cuts = links(np.arange(5), np.ones(5), 3)
    assert (len(shares), len(cuts)) == (0, 0)
    assert far_shares(Occurrences(np.arange(5)), 6, 1).tolist() == [0.0] * 5


def test_background_survives_its_file(tmp_path):
    counts, num_windows = count_words(["the cat " * 600, "the dog", "the cat", "the owl", "a the"])
    assert num_windows == 6
    assert counts["the"] == 6
    write_background(tmp_path / "words.tsv", counts, num_windows)
    again = read_background(tmp_path / "words.tsv")
    assert again.shares == as_background(counts, num_windows).shares
    assert again.share(["the", "owl"]).tolist() == [pytest.approx(6.5 / 7), RAREST]


@pytest.mark.parametrize(
    ("text", "message"), [("5\t-\nno tab\n", "line 2: 'no tab'"), ("5\t-\n", "no words")]
)
def test_a_table_that_is_none_is_refused(tmp_path, text, message):
    (tmp_path / "words.tsv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_background(tmp_path / "words.tsv")


def test_the_packaged_table_knows_what_is_common():
    the, said, zanzibar = packaged_background().share(["the", "said", "xzanzibarq"])
    assert the > 0.9 > said > zanzibar == RAREST


SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu")
COMMON = (
    "the",
    "of",
    "and",
    "was",
    "said",
    "in",
    "to",
    "a",
    "that",
    "it",
    "he",
    "his",
    "as",
    "with",
    "but",
    "not",
)


def new_words(rng, count):
    """Made-up words, in no table."""
    return ["x" + "".join(rng.choices(SYLLABLES, k=4)) for _ in range(count)]


def story(rng, num_sections=40, section_words=150, cast=None):
    """Sections with a topic of their own each; neighbouring topics overlap, and names go through the whole.

    cast: who appears; None for new names in every section.
    """
    topics = [new_words(rng, 15) for _ in range(num_sections + 1)]
    words = []
    for number in range(num_sections):
        topic, names = topics[number] + topics[number + 1], cast or new_words(rng, 12)
        for _ in range(section_words):
            chance = rng.random()
            words.append(rng.choice(topic if chance < 0.2 else names if chance < 0.3 else COMMON))
    return words


def measurements(words):
    tokens = np.unique(words, return_inverse=True)[1]
    return coherence.Measurements(tokens, coherence.read_words(" ".join(words), packaged_background()))


def score(words):
    return coherence.coherence_score(measurements(words), coherence.packaged_weights())


def test_ranks_a_story_above_what_was_made_of_it():
    rng = random.Random(0)
    whole = story(rng, cast=new_words(rng, 12))
    sections = [whole[at : at + 50] for at in range(0, len(whole), 50)]
    shuffled = [word for part in rng.sample(sections, len(sections)) for word in part]
    glued = [word for _ in range(5) for word in story(rng, num_sections=8, cast=new_words(rng, 12))]
    renamed = story(rng)
    best, error = score(whole)
    assert error > 0
    for worse in (shuffled, glued, renamed):
        assert best > score(worse)[0] + 1


def test_the_weakest_boundary_is_where_the_texts_meet():
    rng = random.Random(1)
    first, second = (story(rng, num_sections=10, cast=new_words(rng, 12)) for _ in range(2))
    seam = coherence.weakest_seam(coherence.read_words(" ".join(first + second), packaged_background()))
    place = len(first)
    assert abs(seam.word - place) <= 2 * CUT_STEP
    assert seam.share < seam.typical


def test_factors_make_the_score():
    features = measurements(story(random.Random(2))).features()
    weights = coherence.packaged_weights()
    p = np.exp(sum(weights.factors(features).values()))
    assert weights.log_odds(features) == pytest.approx(np.log(p / (1 - p)), rel=1e-6)
    assert set(weights.weights) == {"order", "seams", "names"}
    assert all(set(w) <= set(features) for w in weights.weights.values())


def test_features_beyond_what_was_seen_are_clipped():
    features = measurements(story(random.Random(3))).features()
    weights = coherence.packaged_weights()
    for name, (low, high, _, _) in weights.scales.items():
        assert weights.log_odds(features | {name: high + 100}) == weights.log_odds(features | {name: high})
        assert weights.log_odds(features | {name: low - 100}) == weights.log_odds(features | {name: low})


def test_weights_between_two_lengths_are_between_those_of_the_two():
    features = measurements(story(random.Random(4))).features()
    weights = coherence.packaged_weights()
    scaled = {
        name: (np.clip(features[name], low, high) - mean) / std
        for name, (low, high, mean, std) in weights.scales.items()
    }

    def log_p(factor, mix):
        z = np.dot(mix, weights.biases[factor])
        z += sum(np.dot(mix, w) * scaled[name] for name, w in weights.weights[factor].items())
        return -np.log1p(np.exp(-z))

    a, b = weights.lengths[:2]
    assert (a, b) == (4096, 8192)
    for num_tokens, share in ((1000, 1.0), (a, 1.0), (a * 2**0.25, 0.75), (b, 0.0)):
        found = weights.factors(features | {"length": np.log(num_tokens)})
        mix = [share, 1 - share] + [0.0] * (len(weights.lengths) - 2)
        assert found == pytest.approx({factor: log_p(factor, mix) for factor in found}, rel=1e-9)
    beyond = [weights.log_odds(features | {"length": np.log(n)}) for n in (weights.lengths[-1], 10**6)]
    assert beyond[0] == beyond[1] != weights.log_odds(features | {"length": np.log(a)})


def plain_measurements(tokens, words, left_out):
    """The features as they are defined, of what remains without the places in [left_out[0], left_out[1])."""
    n, m = len(tokens), len(words.kinds)
    found = {"length": np.log(max(n, 1))}

    def kept(places, length):
        return np.array(
            [not left_out[0] <= place / max(length, 1) < left_out[1] for place in places], dtype=bool
        )

    def mean(values, weights, keep):
        total = sum(weights[keep])
        return sum((np.asarray(values) * weights)[keep]) / total if total > 0 else 0.0

    for name, (near, span) in {"order": coherence.spans(n), "close_order": coherence.CLOSE_ORDER}.items():
        result = order_contrast(tokens, near=near, span=span)
        value = mean(result.contrast * information(tokens), result.counted.astype(float), kept(range(n), n))
        found[name] = np.log(max(value, 2e-3))
    nats = -np.log(words.shares)
    keep, ones = kept(range(m), m), np.ones(m)
    found["information"] = mean(nats[words.kinds], ones, keep)
    found["share_rare"] = np.log(mean((words.shares < 0.03)[words.kinds], ones, keep) + 1e-2)
    pages = [slice(at, at + 300) for at in range(0, max(m - 299, 1), 300)]
    types = [len(set(words.kinds[page])) / max(1, min(300, m)) for page in pages]
    found["types"] = mean(types, np.ones(len(pages)), kept([page.start for page in pages], m))
    near, span = coherence.WORD_ORDER
    result = order_contrast(words.kinds, near=near, span=max(1, min(span, m // 6)))
    value = mean(
        result.contrast * np.where(words.shares < 0.1, nats, 0.0)[words.kinds],
        result.counted.astype(float),
        keep,
    )
    found["word_order"] = np.log(max(value, 2e-3))
    for full in (60, 300, 600):
        span = max(1, min(full, m // 4))
        far = far_shares(Occurrences(words.kinds), span, max(1, m // 3)) if m else np.zeros(0)
        for label, limit in {"rare": 0.03, "uncommon": 0.1}.items():
            weights = np.where(words.shares < limit, nats, 0.0)
            found[f"far_{label}_{full}"] = np.log(mean(far, weights[words.kinds], keep) + 2e-2)
            shares, cuts = links(words.kinds, weights, span)
            rest = shares[kept(cuts, m)]
            for level, share in {"lowest": 0.02, "low": 0.1, "middle": 0.5}.items():
                value = np.quantile(rest, share) if len(rest) else 0.0
                found[f"{level}_links_{label}_{full}"] = np.log(value + 2e-2)
    return found


@pytest.mark.parametrize("num_words", [0, 1, 2, 7, 55, 290, 1000, 2500])
def test_the_features_and_the_jackknife_equal_their_definition(num_words):
    words = story(random.Random(num_words), num_sections=20)[:num_words]
    tokens = np.unique(words, return_inverse=True)[1] if words else np.zeros(0, dtype=np.int32)
    read = coherence.read_words(" ".join(words), packaged_background())
    measured, weights = coherence.Measurements(tokens, read), coherence.packaged_weights()
    score, error = coherence.coherence_score(measured, weights)
    parts = [(9.0, 9.0), *itertools.pairwise(np.linspace(0, 1, coherence.NUM_BLOCKS + 1).tolist())]
    expected = [plain_measurements(tokens, read, part) for part in parts]
    for name, values in measured.values.items():
        np.testing.assert_allclose(
            values, [one[name] for one in expected], rtol=1e-12, atol=1e-13, err_msg=name
        )
    whole, *without = [weights.log_odds(one) for one in expected]
    assert score == pytest.approx(whole, rel=1e-9)
    spread = np.array(without) - np.mean(without)
    assert error == pytest.approx(np.sqrt(0.9 * np.sum(spread**2)), rel=1e-9, abs=1e-9)
    if num_words > 1000:
        assert error > 0.01
        wrong = np.array(list(plain_measurements(tokens, read, (0.1, 0.21)).values()))
        assert not np.allclose([values[2] for values in measured.values.values()], wrong, rtol=1e-6)


def test_the_fingerprint_follows_weights_and_table(tmp_path):
    (tmp_path / "words.tsv").write_text("9\t-\n8\tthe\n")
    text = coherence.WEIGHTS_FILE.read_text()
    (tmp_path / "a.json").write_text(text)
    found = json.loads(text)
    found["biases"]["order"][0] += 1
    (tmp_path / "b.json").write_text(json.dumps(found))
    a, b = (coherence.read_weights(tmp_path / f"{name}.json", tmp_path / "words.tsv") for name in "ab")
    (tmp_path / "words.tsv").write_text("9\t-\n7\tthe\n")
    c = coherence.read_weights(tmp_path / "a.json", tmp_path / "words.tsv")
    assert len({a.fingerprint, b.fingerprint, c.fingerprint}) == 3
