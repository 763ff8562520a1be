"""`attention_mass`: the formula by hand, its windows, and what it costs."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from mining_fakes import CacheReader, records

from longlode.core.errors import ModelError
from longlode.core.records import write_jsonl
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.scorers.attention_mass import FAR, SINK, WINDOW


class AttendingFake(CacheReader):
    """Attends to a segment the more, the more tokens it shares; never reads segments alone."""

    def __init__(self, length):
        super().__init__()
        self.length, self.read = length, 0

    def alone(self, segments):
        raise AssertionError("only windows are read")

    def attention(self, texts):
        self.read += texts.size
        segments = texts.reshape(len(texts), -1, self.length)
        counts = np.stack([self._counts(text) for text in segments])
        shares = np.tril(1.0 + counts @ counts.transpose(0, 2, 1))
        return (shares / shares.sum(axis=2, keepdims=True)).astype(np.float32)


def scored(tmp_path, reader, num_tokens, name="out", **options):
    write_jsonl(tmp_path / "in.jsonl", records(2, num_tokens=num_tokens))
    summary = score(
        tmp_path / "in.jsonl",
        tmp_path / name,
        scorer=make_scorer("attention_mass", **options),
        make_reader=lambda: reader,
        reader_fingerprint=reader.fingerprint,
        settings=ScoreSettings(segment=8, keep_pairs=True),
    )
    return summary, pq.read_table(next((tmp_path / name / "parts").iterdir())).to_pylist()


def test_the_score_is_the_share_of_far_attention(tmp_path):
    num_segments = 2 * WINDOW + 5
    reader = AttendingFake(8)
    summary, rows = scored(tmp_path, reader, 8 * num_segments)
    assert summary.counts == {"ok": 2}
    for record, row in zip(records(2, num_tokens=8 * num_segments), rows, strict=True):
        tokens = np.array(reader.encode([record["text"]])[0])
        segments = tokens[: len(tokens) // 8 * 8].reshape(-1, 8)
        far = []
        for start in (0, WINDOW, len(segments) - WINDOW):
            attention = reader.attention(segments[start : start + WINDOW].reshape(1, -1))[0]
            for i in range(WINDOW):
                sources = [j for j in range(WINDOW) if SINK <= j <= i - FAR]
                if sources:
                    far.append(sum(attention[i, j] for j in sources) / (1 - attention[i, 0]))
        assert row["score"] == pytest.approx(np.mean(far), rel=1e-5)
        assert 0 < row["score_se"] < row["score"]
        assert 0 < row["specificity_mean"] < 1
        assert row["num_pairs"] is None
        assert not row["pairs"]
    assert summary.cost["tokens_alone"] == 2 * 3 * WINDOW * 8
    assert summary.cost["tokens_given"] == 0


def test_short_and_very_long_documents(tmp_path):
    reader = AttendingFake(8)
    summary, _ = scored(tmp_path, reader, 8 * 7, "short")
    assert summary.counts == {"too_short": 2}
    reader.read = 0
    summary, _ = scored(tmp_path, reader, 8 * 100, "long", options={"max_segments": 32})
    assert summary.counts == {"ok": 2}
    assert reader.read == 2 * 32 * 8


def test_a_reader_without_attention_is_refused_before_the_first_document(tmp_path):
    reader = CacheReader()
    with pytest.raises(
        ModelError, match=r"'attention_mass'.*CacheReader cannot: it has no `attention`.*opt-350m"
    ):
        scored(tmp_path, reader, 160)
    assert list((tmp_path / "out" / "parts").iterdir()) == reader.alone_sizes == []
