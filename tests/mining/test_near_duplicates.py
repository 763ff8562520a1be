"""Near-duplicates by MinHash against exact Jaccard similarities."""

import random
import sys

import duckdb
import pytest

from longlode.core.errors import BackendError, ConfigError
from longlode.core.records import read_jsonl, write_jsonl
from longlode.mining import make_scorer, score, select
from longlode.mining.near_duplicates import (
    NUM_HASHES,
    check_threshold,
    drop_near_duplicates,
    rows_per_band,
    shingles,
)
from longlode.mining.selection_files import read_selection


def jaccard(one, other):
    first, second = set(shingles(one)), set(shingles(other))
    return len(first & second) / len(first | second)


def base_of(rows):
    base = duckdb.connect()
    base.execute("CREATE TABLE ranked (id VARCHAR, value DOUBLE, kind VARCHAR, why VARCHAR)")
    base.executemany("INSERT INTO ranked VALUES (?, ?, NULL, NULL)", rows)
    return base


def family(draw, number, share):
    """A text, and versions of it with more and more words replaced, at most `share`."""
    words = [f"w{draw.randrange(10**6)}" for _ in range(400)]
    texts = [" ".join(words)]
    for version in range(1, number):
        changed = list(words)
        for _ in range(int(share * 400 * version / number)):
            changed[draw.randrange(400)] = f"new{draw.randrange(10**6)}"
        texts.append(" ".join(changed))
    return texts


def test_what_is_similar_to_a_better_one_is_dropped():
    pytest.importorskip("rensa", reason="needs longlode[dedup]")
    draw = random.Random()
    texts = {f"{group}-{n}": text for group in range(6) for n, text in enumerate(family(draw, 12, 0.12))}
    signs = "".join(chr(draw.randrange(0x4E00, 0x9000)) for _ in range(600))
    texts |= {"empty": "... !", "文": signs, "字": signs + "終"}
    names = list(texts)
    draw.shuffle(names)
    values = {name: float(len(names) - n) for n, name in enumerate(names)}
    base = base_of(list(values.items()))
    number = drop_near_duplicates(base, texts.items(), 0.7)
    rows = base.execute("SELECT id, kind, why FROM ranked").fetchall()
    dropped = {name: why for name, kind, why in rows if kind == "near-duplicate"}
    assert len(dropped) == number
    for name, why in dropped.items():
        better = why.split()[2]
        assert values[better] > values[name]
        assert jaccard(texts[name], texts[better]) > 0.7 - 4 * (0.7 * 0.3 / NUM_HASHES) ** 0.5
    kept = [name for name in texts if name not in dropped]
    assert {"empty"} <= set(kept)
    assert len({"文", "字"} & set(kept)) == 1
    for one in kept:  # nothing close to the very same is left twice
        assert all(
            jaccard(texts[one], texts[other]) < 0.97 for other in kept if other != one and "-" in one + other
        )


def test_order_of_reading_changes_nothing():
    pytest.importorskip("rensa", reason="needs longlode[dedup]")
    draw = random.Random()
    texts = {f"{group}-{n}": text for group in range(5) for n, text in enumerate(family(draw, 6, 0.2))}
    values = [(name, draw.random()) for name in texts]
    found = []
    for items in (list(texts.items()), list(texts.items())[::-1]):
        base = base_of(values)
        drop_near_duplicates(base, items, 0.6)
        found.append(base.execute("SELECT id, why FROM ranked ORDER BY id").fetchall())
    assert found[0] == found[1]


def test_a_thousand_copies_are_compared_with_one():
    pytest.importorskip("rensa", reason="needs longlode[dedup]")
    text = " ".join(f"w{n}" for n in range(50))
    rows = [(f"d{n:04d}", float(-n)) for n in range(1000)]
    base = base_of(rows)
    assert drop_near_duplicates(base, ((name, text) for name, _ in rows), 0.8) == 999
    assert base.execute("SELECT id FROM ranked WHERE kind IS NULL").fetchall() == [("d0000",)]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
def test_bands_find_the_pairs_at_the_threshold(threshold):
    size = rows_per_band(threshold)
    assert 1 - (1 - threshold**size) ** (NUM_HASHES // size) >= 0.95


def test_thresholds_and_the_missing_package(monkeypatch):
    with pytest.raises(ConfigError, match="near_duplicates is"):
        check_threshold(1.5)
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(BackendError, match=r"longlode\[dedup\]"):
        check_threshold(0.8)


def test_select_keeps_the_best_of_near_duplicates(tmp_path):
    pytest.importorskip("rensa", reason="needs longlode[dedup]")
    draw = random.Random()
    texts = [text for _ in range(4) for text in family(draw, 3, 0.03)]
    write_jsonl(tmp_path / "in.jsonl", [{"id": f"d{n}", "text": text} for n, text in enumerate(texts)])
    score(tmp_path / "in.jsonl", tmp_path / "scores", scorer=make_scorer("gzip"))
    summary = select(tmp_path / "scores", tmp_path / "kept.jsonl", top=1.0, near_duplicates=0.6)
    kept = [row["id"] for row in read_jsonl(tmp_path / "kept.jsonl")]
    assert [int(name[1:]) // 3 for name in kept] == [0, 1, 2, 3], "one of each family"
    assert summary.dropped == {"near-duplicate": 8}
    assert read_selection(tmp_path / "kept.jsonl")["rule"]["near_duplicates"] == 0.6
    shown = select(tmp_path / "scores", tmp_path / "none.jsonl", top=1.0, near_duplicates=0.6, dry_run=True)
    assert shown.num_selected == 4
