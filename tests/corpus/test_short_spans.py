"""Numbers of short stretches against a dictionary."""

import random

import numpy as np
import pytest

from longlode.corpus.short_spans import MOST_BYTES, ShortSpanTable


@pytest.mark.parametrize("hashes_collide", [False, True])
def test_equal_stretches_have_equal_numbers_in_order_of_first_occurrence(hashes_collide, monkeypatch):
    if hashes_collide:
        monkeypatch.setattr(ShortSpanTable, "_hash", lambda self, words: words[:, 0] & np.uint64(1))
    draw = random.Random()
    table, known = ShortSpanTable(), {}
    for _ in range(3 if hashes_collide else 12):  # the table grows in between
        data = bytes(draw.choices(b"ab\0", k=600))  # a stretch may end in zeros
        lengths = np.array(draw.choices(range(1, MOST_BYTES + 1), k=20 if hashes_collide else 500))
        starts = np.array([draw.randrange(len(data) - n + 1) for n in lengths.tolist()])
        stretches = [data[a : a + n] for a, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        before = len(known)
        numbers, new = table.numbers(data, starts, lengths)
        if hashes_collide:  # then the order within a block is another
            known |= {stretches[row]: before + place for place, row in enumerate(new.tolist())}
        expected = [known.setdefault(stretch, len(known)) for stretch in stretches]
        assert numbers.tolist() == expected
        assert [known[stretches[row]] for row in new.tolist()] == list(range(before, len(known)))
        assert len(table) == len(known)
