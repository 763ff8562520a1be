"""The arithmetic of benchmarks/sharding.py: its rows of documents, its check of losses, its slopes."""

import numpy as np
import pytest

pytest.importorskip("scipy")
from benchmarks import sharding


def rows_of(lengths, ranks, loss=1.0):
    return [
        {
            **case._asdict(),
            "documents": case.documents,
            "ranks": ranks,
            "loss": loss * case.length,
            "seconds": 1.0,
            "processor_seconds": 2.0 * case.length,
            "peak_bytes": 3.0 * case.length**2,
            "received_bytes": 5.0 if case.scheme == "fold" else 0.0,
        }
        for case in sharding.cases(lengths, ranks)
    ]


def test_documents_fill_a_row_and_have_a_long_tail():
    for length in np.random.default_rng().integers(300, 20_000, 5).tolist():
        found = sharding.long_tailed(length)
        assert sum(found) == length
        assert max(found) >= length // 2
        assert np.median(found) < length / 8


def test_slopes_are_exponents_and_ratios_are_to_the_base():
    rows = sharding.with_slopes(rows_of([100, 700], 1) + rows_of([100, 700], 4))
    for row in rows:
        assert row["processor_ratio"] == 1
        assert ("slopes" in row) == (row["length"] == 700)
        if row["length"] == 700:
            want = {"peak_bytes": 2.0, "processor_seconds": 1.0}
            want |= {"received_bytes": 0.0} if row["scheme"] == "fold" else {}
            assert row["slopes"] == pytest.approx(want)
    assert {row["scheme"] for row in rows if row["ranks"] == 1} == {"gather", "fold"}


def test_a_loss_that_differs_stops_the_run():
    same = rows_of([100], 1) + rows_of([100], 2)
    assert sharding.check(same) == 0
    with pytest.raises(SystemExit, match="losses differ"):
        sharding.check(same + rows_of([100], 4, loss=1.0001))
