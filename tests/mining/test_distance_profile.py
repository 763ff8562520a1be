"""The distance profile on text with planted dependencies, against plain loops, and its controls."""

import random
from pathlib import Path

import numpy as np
import pytest

from longlode.core.errors import ConfigError, InputError
from longlode.corpus.words import shared_vocabulary
from longlode.mining.distance_profile import ForeignControl, ForeignText, OwnControl, distance_profile
from longlode.mining.distance_profile.control import CLASSES, SPANS, Control, fit_foreign, from_json
from longlode.mining.distance_profile.profile import octave_gains
from longlode.mining.distance_profile.tables import choose_control, packaged_tables, read_tables, write_tables

VOCABULARY = [f"w{''.join(chr(97 + int(c)) for c in str(n))}" for n in range(4000)]


def zipf_words(rng: random.Random, num_words: int) -> list[str]:
    weights = [1 / (n + 3) for n in range(len(VOCABULARY))]
    return rng.choices(VOCABULARY, weights, k=num_words)


def kinds_of(words: list[str]) -> tuple[np.ndarray, list[str]]:
    types = list(dict.fromkeys(words))
    number = {word: n for n, word in enumerate(types)}
    return np.array([number[word] for word in words]), types


@pytest.fixture(scope="module")
def table() -> ForeignText:
    rng = random.Random(5)
    texts = [(f"g{n}", "zipf", " ".join(zipf_words(rng, 30_000))) for n in range(8)]
    return fit_foreign(texts, "xx")


def planted(
    rng: random.Random, distance: int, matching: int, total: int = 40, num_words: int = 24_000
) -> list[str]:
    """Zipf words with `total` names that are used again `distance` words later, `matching` of them under their name."""
    words = zipf_words(rng, num_words)
    for number in range(total):
        at = rng.randrange(0, num_words - 2 * distance - 1)
        later = at + distance + rng.randrange(distance // 4, 3 * distance // 4)
        words[at] = f"name{chr(97 + number // 26)}{chr(97 + number % 26)}"
        words[later] = words[at] if number < matching else words[at].replace("name", "other")
    return words


@pytest.mark.parametrize("distance", [1024, 2048, 4096])
def test_a_planted_dependency_raises_its_octave_and_no_other(table: ForeignText, distance: int) -> None:
    rng = random.Random(distance)
    changes: dict[int, list[float]] = {}
    for _ in range(4):
        seed = rng.random()
        found = {}
        for matching in (0, 40):
            kinds, words = kinds_of(planted(random.Random(seed), distance, matching))
            found[matching] = distance_profile(kinds, table.control(words), per_word=1.0)
        for bare, full in zip(found[0].octaves, found[40].octaves, strict=True):
            change = (full.gain_nats - bare.gain_nats) / bare.error_nats
            changes.setdefault(bare.first_tokens, []).append(change)
    errors = {first: float(np.mean(values)) for first, values in changes.items()}
    assert errors.pop(distance) > 3
    assert max(map(abs, errors.values())) < 1


def test_unrelated_text_gains_nothing(table: ForeignText) -> None:
    """Independent words are their own foreign text: every octave is zero within its error, or a little of it."""
    profiles = []
    for seed in range(6):
        kinds, words = kinds_of(zipf_words(random.Random(seed), 24_000))
        profiles.append(distance_profile(kinds, table.control(words), per_word=1.0))
    for number, octave in enumerate(profiles[0].octaves):
        mean = np.mean([p.octaves[number].gain_nats for p in profiles])
        spread = np.std([p.octaves[number].gain_nats for p in profiles], ddof=1)
        assert abs(mean) < 0.03, octave.first_tokens  # twenty times less than with an expectation of 0
        # And the stated error is that of the spread over documents, within a factor of three.
        stated = np.mean([p.octaves[number].error_nats for p in profiles])
        assert spread / 3 < stated < 3 * spread


def test_dependency_length_ends_where_the_topic_changes(table: ForeignText) -> None:
    """Pieces with 60 names each that stop at the end of the piece."""
    lengths = {}
    for piece in (2048, 8192):
        rng = random.Random(piece)
        words = zipf_words(rng, 32_768)
        for start in range(0, len(words), piece):
            names = [f"n{''.join(chr(97 + int(c)) for c in str(start + k))}" for k in range(60)]
            for at in range(start, start + piece, 20):
                words[at] = rng.choice(names)
        kinds, types = kinds_of(words)
        lengths[piece] = distance_profile(kinds, table.control(types), per_word=1.0).dependency_tokens
    assert 1024 <= lengths[2048] <= 2048
    assert 4096 <= lengths[8192] <= 8192


class NoChance(Control):
    """Expects nothing; every word weighs one nat, no pair anything."""

    name = "none"

    def __init__(self, num_types: int) -> None:
        self.word_weights, self.pair_weights = np.ones(num_types), np.zeros(num_types)

    def expected(self, kinds: np.ndarray, span: np.ndarray, near: float, *, pairs: bool) -> np.ndarray:
        return np.zeros(len(kinds))


def test_hits_equal_a_plain_loop() -> None:
    rng = random.Random(0)
    words = rng.choices([f"t{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(400)], k=9_000)
    kinds, types = kinds_of(words)
    for gains in octave_gains(kinds, NoChance(len(types)), per_word=1.5, octaves=(512, 1024, 2048)):
        value = np.zeros(len(words))
        last: dict[str, int] = {}
        for place, word in enumerate(words):
            gap = 1.5 * (place - last[word]) if word in last else None
            last[word] = place
            if gap is not None and gains.first_tokens <= gap < 2 * gains.first_tokens:
                value[place] = 1.0
        assert np.array_equal(np.bincount(gains.place, gains.value, len(words)), value)


def test_a_pair_counts_where_its_words_alone_do_not() -> None:
    """Two common words side by side again after a while."""
    rng = random.Random(1)
    counts = dict.fromkeys(VOCABULARY, 60)
    shares = np.zeros((len(CLASSES), len(SPANS)))
    table = ForeignText("xx", counts, 300, shares, shares)  # every word in a fifth of the windows
    words = rng.choices(VOCABULARY, k=12_000)
    kinds, types = kinds_of(words)
    bare = distance_profile(kinds, table.control(types), per_word=1.0)
    for at in range(100, 8000, 200):
        words[at + 1500 : at + 1502] = words[at : at + 2]
    kinds, types = kinds_of(words)
    full = distance_profile(kinds, table.control(types), per_word=1.0)
    assert full.octaves[0].gain_nats > bare.octaves[0].gain_nats + 0.005


def test_own_control_sees_bursts_and_not_what_is_everywhere() -> None:
    rng = random.Random(2)
    steady = zipf_words(rng, 24_000)
    burst = list(steady)
    for start in range(0, 24_000, 6000):
        names = [f"b{''.join(chr(97 + int(c)) for c in str(start + k))}" for k in range(100)]
        for at in range(start, start + 6000, 25):
            burst[at] = rng.choice(names)
    gains = []
    for words in (steady, burst):
        kinds, types = kinds_of(words)
        profile = distance_profile(kinds, OwnControl(kinds, types), per_word=1.0)
        assert profile.control == "own"
        gains.append(profile.octaves[1].gain_nats)
    assert abs(gains[0]) < 0.015 < 0.02 < gains[1]


def test_octaves_beyond_the_document_are_left_out(table: ForeignText) -> None:
    kinds, words = kinds_of(zipf_words(random.Random(3), 3000))
    profile = distance_profile(kinds, table.control(words), per_word=1.0)
    assert [octave.first_tokens for octave in profile.octaves] == [1024, 2048]
    empty = distance_profile(kinds[:50], table.control(words), per_word=1.0)
    assert empty.octaves == ()
    assert empty.mean_nats is None
    assert empty.dependency_tokens == 0
    with pytest.raises(ConfigError, match="per_word"):
        distance_profile(kinds, table.control(words), per_word=0.0)


def test_a_table_survives_json_and_few_documents_are_refused(table: ForeignText) -> None:
    again = from_json(table.to_json(), table.counts)
    kinds, words = kinds_of(zipf_words(random.Random(4), 3000))
    one, two = (
        t.control(words).expected(kinds, np.full(3000, 500.0), 0.0, pairs=False) for t in (table, again)
    )
    assert np.allclose(one, two, atol=1e-5)
    with pytest.raises(InputError, match="shape"):
        from_json(table.to_json() | {"words": [[0.0]]}, {})
    with pytest.raises(InputError, match="groups"):
        fit_foreign([("a", "k", "one two"), ("b", "k", "three")], "xx")
    assert isinstance(table.control(words), ForeignControl)


def test_the_control_follows_the_language(table: ForeignText, tmp_path: Path) -> None:
    other = ForeignText("yy", {"quite": 3, "different": 9}, 300, table.words, table.pairs)
    write_tables(tmp_path, (table, other))
    tables = read_tables(tmp_path)
    assert [t.language for t in tables] == ["xx", "yy"]
    assert tables[0].counts == table.counts
    kinds, words = kinds_of(zipf_words(random.Random(6), 3000))
    assert choose_control(kinds, words, tables).name == "foreign:xx"
    unknown = [word + "q" for word in words]
    assert choose_control(kinds, unknown, tables).name == "own"
    # Below the limit no table is used, however much better than the others it is.
    half = [word if n % 2 else word + "q" for n, word in enumerate(words)]
    assert choose_control(np.arange(len(words)), half, tables).name == "own"
    (tmp_path / "yy.tsv").write_text("three\tquite\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 1"):
        read_tables(tmp_path)


def test_packaged_tables_know_their_languages() -> None:
    texts = {
        "en": "It was the best of times, it was the worst of times, it was the age of wisdom, and she said so to him",
        "de": "Es war einmal ein alter Mann, der hatte drei Söhne, und als er sterben sollte, sprach er zu ihnen",
        "fr": "Il était une fois un vieil homme qui avait trois fils, et quand il dut mourir, il leur dit ceci",
        "es": "Había una vez un hombre viejo que tenía tres hijos, y cuando iba a morir les dijo a todos ellos",
        "pl": "Był sobie raz stary człowiek, który miał trzech synów, a kiedy miał umrzeć, rzekł do nich tak",
        "own": "Egyszer volt egy öreg ember, akinek három fia volt, és amikor meg kellett halnia, így szólt hozzájuk",
    }
    for language, text in texts.items():
        kinds, words = shared_vocabulary().read(text)
        name = choose_control(kinds, words, packaged_tables()).name
        assert name == ("own" if language == "own" else f"foreign:{language}")
