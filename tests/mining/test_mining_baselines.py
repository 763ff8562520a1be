"""Baselines that read in another way: far overlap without a model, and a long context against a short one."""

import numpy as np
import pytest
from mining_fakes import VOCAB, CacheReader, ReadingOnReader, SmallMemoryReader, random_text, records

from longlode.core.errors import ConfigError, ModelError
from longlode.core.records import read_record, write_jsonl
from longlode.mining import ScoreSettings, make_scorer, score
from longlode.mining.baselines import far_overlap
from longlode.mining.requests import BatchSize, Chains, Pairs, Segments, Windows
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
        found = [(pair["i"], pair["j"]) for pair in row["pairs"]]
        assert found == [(i, i - 1) for i in range(STRIDE, row["num_segments"])]


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
    (row,) = run(tmp_path / "in.jsonl", tmp_path / "out", "context_gain", options={"max_segments": 20})
    places = sorted({pair["i"] for pair in row["pairs"]} | {pair["j"] for pair in row["pairs"]})
    assert places == list(range(places[0], places[0] + 20 - STRIDE + 1))
    assert places[0] > 0


def test_text_that_keeps_its_words_gains_from_a_long_context(tmp_path):
    rng = np.random.default_rng(0)
    own = [" ".join(map(str, rng.choice(20, 400) + start)) for start in (0, 20, 40)]
    drift = [" ".join(map(str, rng.choice(8, 8) + 8 * (n // 2 % 7))) for n in range(50)]
    write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in [*own, " ".join(drift)]])
    rows = run(tmp_path / "in.jsonl", tmp_path / "out", "context_gain")
    assert min(row["score"] for row in rows[:3]) > 0.005 > rows[3]["score"]


def test_a_reader_that_cannot_read_on_is_refused_before_the_first_document(corpus, tmp_path):
    reader = CacheReader()
    with pytest.raises(ModelError, match=r"'context_gain'.*CacheReader cannot: it has no `continued`"):
        run(corpus, tmp_path / "out", "context_gain", reader=reader)
    assert reader.alone_sizes == []


def test_requests_of_segments_that_are_not_there_are_refused():
    segments, pair = np.zeros((4, LENGTH), dtype=int), (np.array([1]), np.array([0]))
    Pairs(segments, *pair)
    Chains(segments, (np.array([0, 3]),))
    Windows(segments, np.array([[0, 4]]))
    for wrong in (
        lambda: Pairs(segments, np.array([4]), np.array([0])),
        lambda: Pairs(segments, np.array([1]), np.array([-1])),
        lambda: Pairs(segments, np.array([1, 2]), np.array([0])),
        lambda: Chains(segments, (np.array([0, 4]),)),
        lambda: Chains(segments, (np.array([2]),)),
        lambda: Windows(segments, np.array([[0, 5]])),
        lambda: Windows(segments, np.array([[2, 2]])),
    ):
        with pytest.raises(ConfigError, match="expected"):
            wrong()


@pytest.mark.parametrize("size", [(4, 2), (1, 1), (256, 1024)])
def test_chains_pairs_and_segments_of_several_documents_together(size):
    rng = np.random.default_rng(1)
    documents = [rng.integers(0, VOCAB, (number, LENGTH)) for number in (6, 2, 5)]
    chains = [([0, 1, 2], [2, 3, 4, 5]), (), ([4, 0],)]
    pairs = [([5, 3], [0, 3]), ([1], [0]), ([], [])]
    reader = ReadingOnReader()

    def expected(segments, rows, number):
        tokens = np.concatenate([segments[row] for row in rows[: number + 1]])
        return nll_after(tokens, 0, number * LENGTH, len(tokens))

    asked = [Chains(d, tuple(map(np.array, c))) for d, c in zip(documents, chains, strict=True)]
    for request, read in zip(asked, Chains.read(reader, asked, BatchSize(*size)), strict=True):
        for rows, given in zip(request.chains, read.given, strict=True):
            for number in range(1, len(rows)):
                np.testing.assert_allclose(
                    given[number - 1], expected(request.segments, rows, number), rtol=1e-5
                )
        assert read.tokens_alone == LENGTH * len(request.chains)
        assert read.tokens_given == LENGTH * sum(len(rows) - 1 for rows in request.chains)

    asked = [
        Pairs(d, *(np.array(p, dtype=int) for p in pair)) for d, pair in zip(documents, pairs, strict=True)
    ]
    for request, read in zip(asked, Pairs.read(reader, asked, BatchSize(*size)), strict=True):
        for pair, rows in enumerate(zip(request.sources, request.targets, strict=True)):
            np.testing.assert_allclose(read.given[pair], expected(request.segments, rows, 1), rtol=1e-5)
        in_pair = sorted({*request.targets.tolist(), *request.sources.tolist()})
        assert np.flatnonzero(~np.isnan(read.alone).all(axis=1)).tolist() == in_pair
        for row in in_pair:
            np.testing.assert_allclose(read.alone[row], expected(request.segments, [row], 0), rtol=1e-5)

    asked = [Segments(d) for d in documents]
    for request, read in zip(asked, Segments.read(reader, asked, BatchSize(*size)), strict=True):
        assert read.tokens_alone == request.segments.size
        for row in range(len(request.segments)):
            np.testing.assert_allclose(read.alone[row], expected(request.segments, [row], 0), rtol=1e-5)


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
