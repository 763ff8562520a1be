"""The sums over all parts, against numpy and plain counting."""

import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longlode.mining.engine import summary
from longlode.mining.engine.summary import QUANTILES, summarize_parts


def write(path, scores, ids):
    rows = [
        {"id": name, "status": "failed" if score is None else "ok", "score": score, "file": "f", "row": row}
        for row, (score, name) in enumerate(zip(scores, ids, strict=True))
    ]
    schema = pa.schema(
        {
            "id": pa.string(),
            "status": pa.string(),
            "score": pa.float64(),
            "file": pa.string(),
            "row": pa.int64(),
        }
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return path


SHAPES = {
    "spread": lambda draw: draw.gauss(0, 1),
    "equal": lambda draw: 0.25,
    "two values next to each other": lambda draw: draw.choice([1.0, np.nextafter(1.0, 2.0)]),
    "the smallest there are": lambda draw: draw.choice([0.0, 5e-324, 1e-323]),
    "of all sizes": lambda draw: draw.choice([-1, 1]) * 10.0 ** draw.uniform(-300, 308),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_quantiles_that_are_counted_are_those_of_the_database(tmp_path, monkeypatch, shape):
    draw = random.Random()
    scores = [SHAPES[shape](draw) for _ in range(draw.randint(60, 90))] + [None] * 5
    draw.shuffle(scores)
    paths = [
        write(tmp_path / f"{n}.parquet", scores[n::2], map(str, range(len(scores[n::2])))) for n in range(2)
    ]
    expected = summarize_parts(paths)["score_quantiles"]
    monkeypatch.setattr(summary, "_MOST_SCORES", 10)
    monkeypatch.setattr(summary, "_FEW_SCORES", 7)
    monkeypatch.setattr(summary, "_SPANS", draw.choice([5, 4096]))
    found = summarize_parts(paths)["score_quantiles"]
    assert list(found) == [f"{level:g}" for level in QUANTILES]
    assert found == pytest.approx(expected, rel=1e-14, abs=0)
    known = np.sort([score for score in scores if score is not None])
    assert (found["0"], found["1"]) == (known[0], known[-1])


def test_ids_are_counted_in_any_number_of_passes(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "_ROWS_PER_PASS", 20)
    draw = random.Random()
    ids = [str(draw.randint(0, 60)) for _ in range(100)]
    found = summarize_parts([write(tmp_path / "0.parquet", [1.0] * 100, ids)])["duplicates"]
    repeated = {name: count for name, count in Counter(ids).items() if count > 1}
    assert (found["num_ids"], found["num_rows"]) == (len(repeated), sum(repeated.values()) - len(repeated))
    assert [one["id"] for one in found["first"]] == sorted(repeated)[:20]
