"""Numbers of stretches against a dictionary of the stretches themselves."""

import os
import random

import numpy as np
import pytest

from longlode.core.spans import ForkGuard, SpanTable


def by_dictionary(known, codes, starts, stops):
    """Numbers, and the first stretch with each new one."""
    numbers, new = [], []
    for i, (a, b) in enumerate(zip(starts, stops, strict=True)):
        stretch = bytes(codes[a:b])
        if stretch not in known:
            known[stretch] = len(known)
            new.append(i)
        numbers.append(known[stretch])
    return numbers, new


@pytest.mark.parametrize("num_letters", [2, 5, 200])
def test_equal_stretches_and_only_they_have_equal_numbers(num_letters):
    rng = np.random.default_rng(num_letters)
    table, known = SpanTable(), {}
    for size in (0, 1, 50, 3000, 20_000, 400):
        codes = rng.integers(0, num_letters, size).astype(np.uint8)
        starts = rng.integers(0, size + 1, size)
        stops = np.minimum(starts + rng.integers(0, 12, size), size)
        numbers, new = table.numbers(codes, starts, stops)
        expected = by_dictionary(known, codes, starts, stops)
        assert (numbers.tolist(), new.tolist()) == expected
        assert len(table) == len(known)
    assert len(known) > 2000 or num_letters == 2


def test_code_points_and_bytes_of_the_same_characters_have_one_number():
    table = SpanTable()
    text = "over and over"
    first, _ = table.numbers(
        np.frombuffer(text.encode(), dtype=np.uint8), np.array([0, 9]), np.array([4, 13])
    )
    wide = np.frombuffer(("漢" + text).encode("utf-32-le"), dtype="<u4")
    again, new = table.numbers(wide, np.array([1, 10, 0]), np.array([5, 14, 1]))
    assert first.tolist() == [0, 0]
    assert again.tolist() == [0, 0, 1]
    assert new.tolist() == [2]


def test_zeros_count():
    codes = np.zeros(6, dtype=np.uint8)
    numbers, _ = SpanTable().numbers(codes, np.array([0, 0, 1, 2]), np.array([1, 2, 3, 2]))
    assert numbers.tolist() == [0, 1, 1, 2]


def test_a_crowded_table_finds_the_next_free_slot():
    table = SpanTable()
    rng = random.Random(0)
    stretches = [rng.randbytes(6) for _ in range(30_000)]
    for at in range(0, len(stretches), 700):
        some = stretches[at : at + 700]
        numbers, _ = table.numbers(
            np.frombuffer(b"".join(some), dtype=np.uint8),
            np.arange(0, 6 * len(some), 6),
            np.arange(6, 6 * len(some) + 1, 6),
        )
        assert numbers.tolist() == list(range(at, at + len(some)))
    assert len(table) == len(set(stretches))


def thue_morse(length):
    return "".join("ab"[bin(place).count("1") % 2] for place in range(length))


COLLIDING = [
    ("mnlmnkklnnmnmnmmmkomol", "mlnmlnnnkklklklmmnkmkn"),
    (" the", " llmmnrpkomknoomnlilkllllnnn"),
    (thue_morse(1024), thue_morse(1024).translate(str.maketrans("ab", "ba"))),
]


@pytest.mark.parametrize("pair", COLLIDING, ids=["words", "preimage", "thue-morse"])
def test_stretches_that_share_a_hash_are_distinguished(pair):
    table = SpanTable()
    for text in ("".join(pair) * 2, pair[1] + pair[0], pair[0] + pair[1]):
        codes = np.frombuffer(text.encode(), dtype=np.uint8)
        ends = np.cumsum(
            [len(pair[0] if text.startswith(pair[0]) == (k % 2 == 0) else pair[1]) for k in range(2)]
        )
        starts = np.append(0, ends[:-1])
        hashes = table._hash(codes, starts, ends)
        numbers, new = table.numbers(codes, starts, ends)
        assert numbers.tolist() == ([0, 1] if text.startswith(pair[0]) else [1, 0])
        assert len(table) == 2
    assert hashes[0] == hashes[1], "these would have been one"
    assert len(new) == 0


def test_a_cache_is_dropped_when_a_step_raises_and_in_a_forked_child():
    kept = [1]
    guard = ForkGuard(kept.clear)
    with pytest.raises(MemoryError), guard:
        raise MemoryError
    assert kept == []
    kept.append(2)
    with guard:
        child = os.fork()
        if not child:  # the child has a lock that a thread of its parent holds
            with guard:
                os._exit(int(kept != []))
        assert os.waitpid(child, 0)[1] == 0
    assert kept == [2]
