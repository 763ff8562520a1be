"""Junk of the mining claim's mixed pool, what arms take of it, and compressors as scores."""

import random
import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import equal_documents
from benchmarks.claims.mining_arms import SCORED, PoolScores
from benchmarks.claims.mining_counts import as_markdown, taken_of
from benchmarks.claims.mining_junk import KINDS, Slot, cipher, columns, make_junk, thread
from benchmarks.claims.mining_pool import IN_ORDER, SHARE, Pool, make_pool
from benchmarks.compressors import COMPRESSORS, NEAR_BYTES
from benchmarks.labelled import Labelled
from benchmarks.works import Work
from longlode.core.errors import ConfigError
from longlode.corpus import Tokenizer
from longlode.models import starter_folder
from longlode.readers.tokens import TokenReaderSpec

LENGTH = 400
OWN_TOKENS = ("spliced", "interleaved", "shuffled", "reversed")


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(starter_folder())


def prose(seed, num_words):
    """Sentences of invented words in paragraphs."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("aeioubdklmnrst", k=rng.randint(3, 8))) for _ in range(400)]
    lines = [" ".join(rng.choices(words, k=12)).capitalize() + "." for _ in range(num_words // 12)]
    return "\n\n".join("\n".join(lines[at : at + 4]) for at in range(0, len(lines), 4))


def works():
    return [
        Work(f"{domain}/{n}", domain, "en", "dev", prose(f"{domain}{n}", 5000))
        for domain in ("book", "code")
        for n in range(2)
    ]


@pytest.fixture(scope="module")
def pool(tokenizer):
    return make_pool(works(), tokenizer, length=LENGTH, tokens=40 * LENGTH, seed=1, make="mixed")


def test_the_mixed_pool_has_a_quarter_in_order_of_each_work_and_ten_kinds_of_junk(pool):
    for rows in pool.of_work:
        assert pool.in_order[rows].sum() == len(rows) // SHARE
    counts = Counter(pool.kinds[~pool.in_order].tolist())
    assert set(counts) == set(KINDS)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert pool.rows.shape == (len(pool.kinds), LENGTH + 1)


def test_kinds_of_own_tokens_hold_every_token_of_their_rows_once_in_another_order(tokenizer):
    width, slots = 1600, []
    for work in works()[:2]:
        ids = tokenizer.encode_long(work.text)
        text = tokenizer.decode(ids[: 2 * width].tolist())
        slots += [Slot(ids[start : start + width], text, work) for start in range(0, 10 * width, width)]
    rows, kinds = make_junk(slots, tokenizer, np.random.default_rng(0))
    for kind in OWN_TOKENS:
        own = [n for n, each in enumerate(kinds) if each == kind]
        before = np.concatenate([slots[n].row for n in own])
        after = np.concatenate([rows[n] for n in own])
        assert Counter(before.tolist()) == Counter(after.tolist())
        assert not any(np.array_equal(rows[n], slots[n].row) for n in own)
    assert len(rows) == len(slots)
    assert {len(row) for row in rows} == {width}


def test_a_cipher_is_one_table_of_words_and_keeps_where_they_return():
    text = prose(3, 600)
    made = cipher(text, random.Random(0))
    before, after = (re.findall(r"[a-z]{2,}", part.lower()) for part in (text, made))
    table = dict(zip(before, after, strict=True))
    assert [table[word] for word in before] == after
    assert len(set(table.values())) == len(table)
    assert not any(word == other for word, other in table.items())
    assert re.sub("[A-Za-z]+", "", made) == re.sub("[A-Za-z]+", "", text)


def test_columns_read_down_are_the_text():
    text = prose(4, 600)
    lines = columns(text, random.Random(0)).split("\n")
    width = random.Random(0).randint(36, 46) + 3
    assert any(line[width - 3 : width] == "   " and line[width:].strip() for line in lines)
    read = " ".join([line[:width] for line in lines] + [line[width:] for line in lines]).split()
    assert read == text.split()[: len(read)]
    assert len(read) > 0.95 * len(text.split())


def test_posts_of_a_thread_quote_the_two_before_them():
    text = prose(5, 600)
    posts = re.split(r"(?m)^On \d+/\d+ \w+ wrote:\n", thread(text, random.Random(0)))
    new = [re.sub(r"(?m)^>.*\n?", "", post).strip() for post in posts]
    assert "\n".join(new).split() == text.split()
    quoted = [re.findall(r"(?m)^> (?!>)(.*)", post) for post in posts]
    older = [re.findall(r"(?m)^> > (.*)", post) for post in posts]
    for n in range(2, len(posts)):
        assert " ".join(quoted[n]).split() == new[n - 1].split()
        assert " ".join(older[n]).split() == new[n - 2].split()


def test_what_arms_take_is_counted_by_kind():
    kinds = np.array([IN_ORDER, IN_ORDER, "thread", "thread", "cipher", "cipher"])
    made = Pool(np.zeros((6, 2), np.int32), np.array(["a"] * 6), np.array(["book"] * 6), kinds, 9)
    taken = taken_of({"x": [np.array([0, 1, 2]), np.array([0, 2, 3])], "y": [np.array([4, 5, 0])]}, made)
    assert taken["x"] == pytest.approx({IN_ORDER: 0.5, "thread": 0.75, "cipher": 0.0})
    assert taken["y"] == pytest.approx({IN_ORDER: 1 / 3, "thread": 0.0, "cipher": 1.0})
    assert [line.split(" | ")[0] for line in as_markdown(taken).splitlines()[2:]] == ["| x", "| y"]


def test_compressors_tell_near_from_far():
    rng = random.Random(0)
    part, between = (("".join(rng.choices("abcdefghij ", k=n))) for n in (1500, 2 * NEAR_BYTES))
    far_text, near_text = part + between + part, part + part + between
    far, near = ({name: score(text) for name, score in COMPRESSORS.items()} for text in (far_text, near_text))
    assert far["lzma_far"] > 0.04
    assert abs(near["lzma_far"]) < 0.01
    assert near["lzma_near"] > far["lzma_near"] + 0.04
    for found in (far, near):
        assert found["lzma"] == pytest.approx(found["lzma_near"] + found["lzma_far"])


def test_attention_mass_asks_for_a_model_that_has_attention(pool, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match="attention-reader"):
        PoolScores(pool, tokenizer, tmp_path)(SCORED["attention_mass"])


def test_kept_scores_are_not_computed_again(tmp_path, monkeypatch):
    texts = [prose(n, 900) for n in range(3)]
    documents = [Labelled(str(n), "coherent", "book", text, np.zeros(0)) for n, text in enumerate(texts)]
    options = SimpleNamespace(pairs=4, seed=0, keep=tmp_path)
    asked = (("gzip",), " now", documents, options, TokenReaderSpec(str(starter_folder())))
    found = equal_documents._scores(*asked)
    assert list(found) == ["gzip now"]
    monkeypatch.setattr(equal_documents, "run_all", lambda *_: pytest.fail("scored again"))
    assert equal_documents._scores(*asked)["gzip now"].tolist() == found["gzip now"].tolist()
