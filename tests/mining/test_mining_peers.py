"""The peers that read in another way: far overlap without a model, and a long context against a short one."""

import numpy as np
import pytest
from mining_fakes import VOCAB, CacheReader, ReadingOnReader, SmallMemoryReader, random_text, records

from longlode.core.errors import ConfigError
from longlode.core.records import read_record, write_jsonl
from longlode.mining import PairPlan, ScoreSettings, make_scorer, score
from longlode.mining.baselines import far_overlap
from longlode.mining.engine.reading import BatchSize, Job, read_jobs
from longlode.mining.scorers.context_gain import STRIDE, WINDOW

LENGTH = 8
SETTINGS = ScoreSettings(segment=LENGTH, rows_per_unit=4, batch_segments=16, batch_pairs=32, keep_pairs=True)


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "corpus.jsonl"
    write_jsonl(path, records(6, num_tokens=200))
    return path


def run(inputs, out, name, reader=None, settings=SETTINGS, **options):
    import pyarrow.parquet as pq

    reader = reader or ReadingOnReader()
    score(
        inputs,
        out,
        scorer=make_scorer(name, **options),
        make_reader=lambda: reader,
        reader_fingerprint="cache-model",
        settings=settings,
    )
    parts = [part["part"] for part in read_record(out, "scores")["parts"]]
    return [row for part in parts for row in pq.read_table(out / "parts" / part).to_pylist()]


def nll_after(tokens, first, start, stop):
    """Nats of tokens start + 1 .. stop - 1 for a model that counts what stood from `first` on."""
    counts = np.bincount(tokens[first:start], minlength=VOCAB).astype(float)
    found = []
    for place in range(start, stop):
        if place > start:
            found.append(-np.log((counts[tokens[place]] + 0.5) / (counts.sum() + 0.5 * VOCAB)))
        counts[tokens[place]] += 1
    return np.array(found)


def test_context_gain_equals_its_formula(corpus, tmp_path):
    rows = run(corpus, tmp_path / "out", "context_gain")
    assert [row["status"] for row in rows] == ["ok"] * 6
    for row, record in zip(rows, records(6, num_tokens=200), strict=True):
        tokens = np.array(record["text"].split(), dtype=int)
        terms, gains = [], []
        for number in range(STRIDE, len(tokens) // LENGTH):
            window = (number // STRIDE - 1) * STRIDE
            assert STRIDE <= number - window < WINDOW
            span = (number * LENGTH, (number + 1) * LENGTH)
            long = nll_after(tokens, window * LENGTH, *span)
            short = nll_after(tokens, (number - 1) * LENGTH, *span)
            terms.append(np.exp(-long) * (short - long))
            gains.append(short - long)
        assert row["score"] == pytest.approx(np.mean(terms), rel=1e-5)
        assert row["gain_nats"] == pytest.approx(np.mean(gains), rel=1e-5)


def test_context_gain_says_what_it_read(corpus, tmp_path):
    rows = run(corpus, tmp_path / "out", "context_gain")
    cost = read_record(tmp_path / "out", "scores")["cost"]
    counts = [row["num_segments"] for row in rows]
    windows = [[min(s + WINDOW, n) - s for s in range(0, n - STRIDE, STRIDE)] for n in counts]
    assert cost["tokens_alone"] == LENGTH * (sum(counts) + sum(map(len, windows)))
    assert cost["tokens_given"] == LENGTH * sum(
        n - STRIDE + sum(size - 1 for size in sizes) for n, sizes in zip(counts, windows, strict=True)
    )
    for row in rows:  # only what was read after one segment alone can be told as a pair
        assert {(pair["i"], pair["j"]) for pair in row["pairs"]} == {
            *((i, i - 1) for i in range(STRIDE, row["num_segments"])),
            *((s + 1, s) for s in range(0, row["num_segments"] - STRIDE, STRIDE)),
        }


def test_batches_and_a_small_memory_change_nothing(corpus, tmp_path):
    def scores(out, **options):
        return [row["score"] for row in run(corpus, tmp_path / out, "context_gain", **options)]

    usual = scores("usual")
    assert scores("small", reader=SmallMemoryReader(3)) == usual
    alone = ScoreSettings(segment=LENGTH, rows_per_unit=1, batch_segments=2, batch_pairs=3)
    assert scores("alone", settings=alone) == usual


def test_chains_hold_no_more_than_a_block_of_segments(corpus, tmp_path):
    class Watched(ReadingOnReader):
        largest = 0

        def continued(self, states, sources, segments):
            # its state counts tokens, so this is what all rows together have read before
            Watched.largest = max(Watched.largest, int(states[sources].sum()))
            return super().continued(states, sources, segments)

    run(corpus, tmp_path / "out", "context_gain", reader=Watched())
    assert 0 < Watched.largest <= SETTINGS.batch_segments * LENGTH


def test_a_long_document_gives_one_contiguous_stretch(tmp_path):
    write_jsonl(tmp_path / "in.jsonl", [{"id": "long", "text": random_text("long", 100 * LENGTH)}])
    (row,) = run(tmp_path / "in.jsonl", tmp_path / "out", "context_gain", max_segments=20)
    places = sorted({pair["i"] for pair in row["pairs"]} | {pair["j"] for pair in row["pairs"]})
    assert places[-1] - places[0] == 19
    assert places[0] > 0


def test_text_that_keeps_its_words_gains_from_a_long_context(tmp_path):
    rng = np.random.default_rng(0)
    own = [" ".join(map(str, rng.choice(20, 400) + start)) for start in (0, 20, 40)]
    drift = [" ".join(map(str, rng.choice(8, 8) + 8 * (n // 2 % 7))) for n in range(50)]
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in [*own, " ".join(drift)]])
    rows = run(tmp_path / "in.jsonl", tmp_path / "out", "context_gain")
    assert min(row["score"] for row in rows[:3]) > 0.005 > rows[3]["score"]


def test_a_reader_that_cannot_read_on_is_named(corpus, tmp_path):
    run(corpus, tmp_path / "out", "context_gain", reader=CacheReader())
    record = read_record(tmp_path / "out", "scores")
    assert not record["complete"]
    assert "CacheReader has no `continued`" in record["failed_units"][0]["error"]


def test_a_chain_that_does_not_hang_together_is_refused():
    targets, sources = np.array([1, 2, 3]), np.array([0, 1, 2])
    broken = PairPlan(targets, np.array([0, 0, 2]), np.array([False, True, True]))
    doc = type("Document", (), {"tokens": np.zeros((4, 8)), "foreign": np.zeros((0, 8))})()
    PairPlan(targets, sources, np.array([False, True, True])).check(doc)
    for plan in (broken, PairPlan(targets, sources, np.array([True, True, True]))):
        with pytest.raises(ConfigError, match="continues a pair from something else"):
            plan.check(doc)
    with pytest.raises(ConfigError, match="vectors of one length"):
        PairPlan(targets, sources, np.array([False, True]))


def test_chains_and_pairs_in_one_job():
    rng = np.random.default_rng(1)
    segments = rng.integers(0, VOCAB, (6, LENGTH))
    targets, sources = np.array([1, 2, 5, 3, 4, 5]), np.array([0, 1, 0, 2, 3, 4])
    job = Job(segments, targets, sources, np.array([False, True, False, False, True, True]))
    assert [chain.tolist() for chain in job.chains()] == [[0, 1], [3, 4, 5]]
    reader = ReadingOnReader()
    (readings,) = read_jobs(reader, [job], BatchSize(4, 2))
    for pair, before in enumerate(([0], [0, 1], [0], [2], [2, 3], [2, 3, 4])):
        tokens = np.concatenate([*segments[before], segments[targets[pair]]])
        expected = nll_after(tokens, 0, len(before) * LENGTH, len(tokens))
        np.testing.assert_allclose(readings.given[pair], expected, rtol=1e-5)
    assert readings.num_reread == 2


def test_overlap_equals_its_definition_and_runs_no_model(corpus, tmp_path):
    reader = ReadingOnReader()
    rows = run(corpus, tmp_path / "out", "overlap", reader=reader)
    assert reader.alone_sizes == reader.given_sizes == []
    assert read_record(tmp_path / "out", "scores")["cost"]["tokens_read_per_token"] == 0
    record = records(6, num_tokens=200)[5]
    tokens = np.array(record["text"].split(), dtype=int)
    segments = tokens[: len(tokens) // LENGTH * LENGTH].reshape(-1, LENGTH)
    windows = [[tuple(row[k : k + 2]) for k in range(LENGTH - 1)] for row in segments]
    rare, far = 0, 0
    for number, row in enumerate(windows[2:], 2):
        for window in row:
            places = [n for n, other in enumerate(windows) if window in other]
            if len(places) <= max(2, 0.1 * len(windows)):
                rare, far = rare + 1, far + (places[0] <= number - 2)
    assert rows[5]["score"] == pytest.approx(far / rare)


def test_overlap_counts_what_is_rare_and_far():
    body = np.random.default_rng(2).integers(0, 10_000, (40, 16))
    assert far_overlap(body, 2, 3) == 0
    body[30, :6] = body[5, :6]
    found = far_overlap(body, 2, 3, max_segments=4)
    assert found == pytest.approx(4 / (38 * 14))
    body[31, :6] = body[30, :6]  # now its neighbour has them too: still far from segment 5
    assert far_overlap(body, 2, 3, max_segments=4) == pytest.approx(8 / (38 * 14))
    template = body.copy()
    template[:, :6] = template[0, :6]
    assert far_overlap(template, 2, 3) > 0.2
    assert far_overlap(template, 2, 3, max_segments=4) == 0
