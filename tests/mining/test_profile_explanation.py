"""What made a profile score: carriers add up to it, the weakest boundary is where texts meet, signs are differences."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

from longlode.mining import make_scorer
from longlode.mining.distance_profile import OwnControl, distance_profile
from longlode.mining.distance_profile.carriers import carriers
from longlode.mining.gate import ParsedText, measure
from longlode.mining.gate.evidence import FAMILIES, GROUPS, about_family, group_of, signs
from longlode.mining.gate.model import packaged_gate
from longlode.mining.gate.passages import boundary_strengths
from longlode.mining.profile_explanation import explain_gate
from longlode.mining.scorers.profile import measure_text

NAME = "quelibrand"


def prose(seed: int, paragraphs: int, topic: int) -> str:
    """Paragraphs of common words and of a topic's own words, as real text shares them with what is near."""
    rng = random.Random(seed)
    common = [f"w{rng.choice('aeiou')}{n}x".replace(str(n), chr(97 + n % 26)) for n in range(80)]
    own = ["".join(random.Random(100 * topic + k).choices("bcdfgklmnprst", k=6)) for k in range(120)]
    found = []
    for place in range(paragraphs):
        near = own[place % 100 : place % 100 + 20]
        words = [rng.choice(common if rng.random() < 0.7 else near) for _ in range(60)]
        found.append(" ".join(words).capitalize() + ".")
    return "\n\n".join(found)


@pytest.fixture(scope="module")
def kinds():
    rng = np.random.default_rng(3)
    found = rng.zipf(1.3, 9000) % 700
    found[rng.integers(0, 9000, 40)] = 701
    return found.astype(np.int64)


def test_what_all_carriers_add_is_the_mean_gain(kinds):
    control = OwnControl(kinds, [f"word{k}" for k in range(702)])
    per_word = 1.7
    profile = distance_profile(kinds, control, per_word=per_word)
    found = carriers(kinds, control, per_word=per_word, top=10**6)
    assert len({one.kinds for one in found}) == len(found)
    gains = [one.gain_nats for one in found]
    assert gains == sorted(gains, reverse=True)
    # Those that add less than nothing are not given: an oracle over every item by plain loops has them.
    total = plain_gains(kinds, control, per_word, len(profile.octaves))
    assert sum(total.values()) == pytest.approx(profile.mean_nats)
    assert {one.kinds for one in found} == {item for item, gain in total.items() if gain > 0}
    for one in found[:200]:
        assert one.gain_nats == pytest.approx(total[one.kinds])


def plain_gains(kinds, control, per_word, num_octaves):
    """Mean gain of each word and pair, place by place."""
    total: Counter = Counter()
    for pairs in (False, True):
        weights = control.pair_weights if pairs else control.word_weights
        items = list(itertools.pairwise(kinds)) if pairs else [(kind,) for kind in kinds]
        last: dict = {}
        for place, item in enumerate(items):
            at = place + pairs
            if all(weights[kind] > 0 for kind in item):
                gap = (at - last[item]) * per_word if item in last else np.inf
                last[item] = at
                rarer = item[0] if weights[item[0]] >= weights[item[-1]] else item[-1]
                for k in range(num_octaves):
                    first = 1024 << k
                    exposure = min(max((at * per_word - first) / first, 0.0), 1.0)
                    if gap >= first and exposure > 0:
                        span = np.array([exposure * first / per_word])
                        (expected,) = control.expected(np.array([rarer]), span, first / per_word, pairs=pairs)
                        value = sum(weights[kind] for kind in item) * ((gap < 2 * first) - expected)
                        reach = np.clip((np.arange(len(kinds)) * per_word - first) / first, 0, 1).sum()
                        total[tuple(int(kind) for kind in item)] += value / reach / per_word / num_octaves
    return total


def test_returns_are_uses_with_none_between(kinds):
    control = OwnControl(kinds, [f"word{k}" for k in range(702)])
    for one in carriers(kinds, control, per_word=1.7, top=30):
        at = [
            place
            for place in range(len(kinds) - len(one.kinds) + 1)
            if tuple(kinds[place : place + len(one.kinds)]) == one.kinds
        ]
        far = [(a, b) for a, b in itertools.pairwise(at) if (b - a) * 1.7 >= 1024]
        assert one.num_returns == len(far)
        assert {(back.before, back.again) for back in one.returns} <= set(far)
        for back in one.returns:
            assert back.distance_tokens == round((back.again - back.before) * 1.7)


def test_the_weakest_boundary_is_where_two_texts_meet():
    first, second = prose(1, 90, topic=1), prose(2, 60, topic=2)
    told = make_scorer("profile").explain(first + "\n\n" + second, 5)
    boundary = told["boundary"]
    assert abs(boundary["character"] - len(first)) < 0.03 * len(first + second)
    assert boundary["share"] < 0.5 * boundary["typical"]
    assert (first + "\n\n" + second)[boundary["character"] :].startswith(boundary["after"])
    lowest = min(boundary["curve"], key=lambda point: point[1])
    assert lowest == [boundary["token"], pytest.approx(boundary["share"], abs=1e-4)]


def test_without_a_boundary_the_ratios_are_near_one():
    rng = random.Random(5)
    words = [
        f"{a}{b}{c}" for a in "bdfgkpstz" for b in ("ari", "elo", "omi", "uru", "enti") for c in "lmnrstvwxz"
    ]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    for ratios in boundary_strengths(ParsedText.of(" ".join(rng.choices(words, weights, k=9000)))).values():
        assert np.median(ratios) == pytest.approx(1, abs=0.1)
    assert boundary_strengths(ParsedText.of("a few words")) == {}


def test_a_sign_is_what_the_log_odds_lose_without_it():
    gate = packaged_gate()
    parsed = ParsedText.of(prose(7, 120, topic=3))
    features = measure(parsed, gate.known)
    found = signs(gate, features, 8000)
    assert {sign.name for sign in found} <= set(GROUPS)
    strengths = [abs(sign.nats) for sign in found]
    assert strengths == sorted(strengths, reverse=True)
    whole = gate.judge_features(features, 8000).log_odds
    for sign in found:
        # Against the means that were fitted, not against what is missing.
        usual = dict(features)
        for length in gate.by_length.values():
            assert np.allclose(length.design(length.mean[None])[:, : len(gate.names)], 0, atol=1e-6)
        for k, name in enumerate(gate.names):
            if group_of(name) == sign.name:
                usual[name] = np.nan
                assert np.isfinite(next(iter(gate.by_length.values())).mean[k])
        assert sign.nats == pytest.approx(whole - gate.judge_features(usual, 8000).log_odds)
        assert group_of(sign.feature) == sign.name


def test_every_family_and_every_feature_has_words():
    gate = packaged_gate()
    assert all(about_family(family) != family for family in gate.families)
    assert about_family("interleaved-400") == FAMILIES["interleaved"]
    assert about_family("unheard-of") == "unheard-of"
    assert group_of("hazard_name_64") == "names"
    assert group_of("hazard_rare_64") == "returns"


def test_the_name_that_returns_is_given_with_both_places():
    text = prose(11, 120, topic=4).split(" ")
    for place in (300, 2500, 4800, 6900):
        text.insert(place, NAME)
    told = make_scorer("profile").explain(" ".join(text), 3)
    (entry,) = (one for one in told["profile"]["carriers"] if one["text"] == NAME)
    assert entry["num_returns"] == 3
    for back in entry["returns"]:
        for place in (back["before"], back["again"]):
            assert place["text"] == NAME
            assert " ".join(text)[place["character"] :].startswith(NAME + place["after"])
        between = back["again"]["token"] - back["before"]["token"]
        assert between == pytest.approx(back["distance_tokens"], abs=1)
    assert [one["first_tokens"] for one in told["profile"]["octaves"]] == [1024, 2048, 4096]


def test_it_says_what_the_scorer_says_and_is_null_for_a_short_text():
    scorer = make_scorer("profile")
    short = scorer.explain("a few words", 5)
    assert (short["status"], short["gate"], short["boundary"], short["profile"]) == (
        "too_short",
        None,
        None,
        None,
    )
    text = prose(13, 120, topic=5)
    told, far = scorer.explain(text, 5), measure_text(text)
    assert told["gate"]["log_odds"] == pytest.approx(far.verdict.log_odds)
    assert told["gate"]["rivals"][0]["family"] == far.verdict.looks_like
    assert sum(one["share"] for one in told["gate"]["rivals"]) <= 1 + 1e-9
    assert told["profile"]["gain_nats"] == far.profile.mean_nats


def test_other_scorers_have_nothing_to_tell_without_a_reader():
    assert make_scorer("gzip").explain("text", 5) is None


def test_the_gate_explained_is_the_gate_that_scores():
    """Also of a text beyond the lengths of the weights, which is judged in parts."""
    rng = np.random.default_rng(4)
    text = " ".join(f"w{number}." for number in rng.zipf(1.3, 30_000) % 5000)
    parsed, gate = ParsedText.of(text), packaged_gate()
    explained = explain_gate(parsed, gate)
    verdict = gate.judge_parsed(parsed)
    assert explained["log_odds"] == verdict.log_odds
    assert explained["rivals"][0]["family"] == verdict.looks_like
    assert len(explained["parts"]) > 2
    assert explained["log_odds"] == pytest.approx(np.mean(explained["parts"]))


def test_families_that_read_the_same_are_one_rival():
    text = " ".join(f"w{number}." for number in np.random.default_rng(9).zipf(1.3, 4000) % 3000)
    parsed, gate = ParsedText.of(text), packaged_gate()
    _, of_parts = gate.in_parts(parsed)
    odds = of_parts.mean(axis=0)
    every: dict[str, float] = {}
    for family, one in zip(gate.families, np.exp(odds) / np.exp(odds).sum(), strict=True):
        every[about_family(family)] = every.get(about_family(family), 0.0) + float(one)
    told = explain_gate(parsed, gate)["rivals"]
    assert len({one["about"] for one in told}) == len(told)
    assert {one["about"]: one["share"] for one in told} == pytest.approx(
        {one["about"]: every[one["about"]] for one in told}
    )
