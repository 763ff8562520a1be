"""The gate is upside down in no language: text in its order above what is not, with a table of the language or none."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from benchmarks.labelled import data_folder
from benchmarks.quality_measures import auc
from benchmarks.works import Work, works_of
from longlode.core.errors import InputError
from longlode.mining.gate.model import packaged_gate
from longlode.synthetic import controls
from longlode.synthetic.disorder import permuted
from longlode.synthetic.families import Draw, splice, stretch

LENGTH = 8192
ALPHABET = "абвгдежзийклмнопрстуфхцчшщ"


def no_corpus() -> bool:
    try:
        return not (data_folder() / "languages").is_dir()
    except InputError:
        return True


needs_corpus = pytest.mark.skipif(
    no_corpus(), reason="no development corpus: set LONGLODE_DATA to its folder"
)


def odds(text: str) -> float:
    verdict = packaged_gate().judge(text)
    assert verdict is not None
    return verdict.log_odds


def in_letters_of_its_own(text: str) -> str:
    """The text by a cipher whose letters no table knows, but for signs and numbers."""
    latin = "abcdefghijklmnopqrstuvwxyz"
    table = dict(zip(latin + latin.upper(), ALPHABET + ALPHABET.upper(), strict=True))
    return text.translate(str.maketrans(table))


def stands_above(works: list[Work], change: Callable[[str], str] = str, least: float = 0.75) -> None:
    """Stretches of the works stand above salad, splices and shuffled paragraphs of the same works."""
    rng = random.Random(0)
    draw = Draw(works, LENGTH, rng, works, works)
    whole = [stretch(work.text, LENGTH, rng) for work in works for _ in range(3)]
    coherent = [odds(change(text)) for text in whole if text]
    assert len(coherent) >= 6
    for name, make in {
        "spliced": splice(1500),
        "permuted": lambda d: permuted(None)(d.stretch(rng.choice(works)) or "", d),
        "shuffled": lambda d: "\n\n".join(
            sorted(controls.blocks(d.stretch(rng.choice(works)) or ""), key=lambda _: rng.random())
        ),
    }.items():
        negatives = [odds(change(text)) for _ in range(4) if (text := make(draw))]
        assert len(negatives) == 4
        assert auc(np.array(coherent), np.array(negatives)) > least, name


@needs_corpus
@pytest.mark.parametrize("language", ["de", "es", "fr", "pl", "zh"])
def test_novels_of_each_language_stand_above_what_is_made_of_them(language: str) -> None:
    stands_above([work for work in works_of("dev") if work.language == language])


@needs_corpus
def test_novels_in_letters_that_no_table_knows_stand_above_what_is_made_of_them() -> None:
    stands_above([work for work in works_of("dev") if work.language == "de"], in_letters_of_its_own)


def written_work(seed: int) -> Work:
    """A made-up language: topics come in bursts, words have neighbours that they like, paragraphs vary in length."""
    rng = random.Random(seed)

    def word() -> str:
        return "".join(rng.choice("бвдкмнрст") + rng.choice("аеиоу") for _ in range(rng.randint(1, 4)))

    common = [word() for _ in range(40)]
    phrases = [f"{rng.choice(common)} {word()}" for _ in range(80)]
    pool = [word() for _ in range(900)]
    names = [word().capitalize() for _ in range(20)]
    paragraphs, topic, cast = [], rng.sample(pool, 30), rng.sample(names, 3)
    for number in range(700):
        if number % 5 == 0:
            topic = [*topic[6:], *rng.sample(pool, 6)]
        if number % 25 == 0:
            cast = [*cast[1:], rng.choice(names)]
        sentences = []
        for _ in range(rng.randint(1, 5)):
            parts = [rng.choice(cast), *(rng.choice(phrases) for _ in range(rng.randint(1, 3)))]
            for _ in range(rng.randint(2, 5)):
                parts += [rng.choice(common), rng.choice(topic)]
            sentences.append(" ".join(parts).capitalize() + rng.choice((".", ".", ".", "?")))
        paragraphs.append(" ".join(sentences))
    return Work(f"made-up/{seed}", "novel", "xx", "dev", "\n\n".join(paragraphs))


def test_a_made_up_language_scores_above_fakes_made_of_it() -> None:
    # Its paragraphs follow each other by topic alone, so that shuffling them takes less away.
    stands_above([written_work(seed) for seed in range(3)], least=0.6)
