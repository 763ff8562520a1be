"""The loader's laws: a pure order, free resume, every token once an epoch, labels inside documents alone."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Document, in_heldout
from longlode.packing import Mixture, batches, make_packer, open_shards, pack
from longlode.packing.packers.concat import ConcatRows
from longlode.packing.packers.rows import row_order

EOS = 0
NUM_DOCUMENTS = 50
IGNORED = -100


class CountingTokenizer:
    """Text "n" is n tokens, each with an id of its own, so that a token tells where it comes from."""

    eos_id = EOS
    fingerprint = "counting"
    vocab_size = 1 << 17

    def __init__(self):
        self.next = itertools.count(1)

    def tokens(self, texts):
        return [[next(self.next) for _ in range(int(text))] for text in texts]

    def save(self, folder):
        folder.mkdir()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("packing") / "out"
    sizes = [1, 2, 3, 70, 30, 1, 1, 15, 16, 17]
    documents = [Document(f"d{i}", str(sizes[i % 10]), "s", "f", i) for i in range(NUM_DOCUMENTS)]
    pack(documents, CountingTokenizer(), out, length=16, shard_tokens=150)
    return open_shards(out)


def successors(shards):
    """token -> the token after it in its document, for every token but eos."""
    found = {}
    for i in range(shards.num_documents):
        ids = shards.tokens(i).tolist()
        found |= dict(itertools.pairwise(ids))
    return found


def check_labels(batch, after):
    """Every label is the next token of the same document, and -100 at eos and nowhere else."""
    for token, label in zip(batch.tokens.ravel().tolist(), batch.labels.ravel().tolist(), strict=True):
        assert label == (IGNORED if token == EOS else after[token])


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def equal(first, second):
    return all(
        np.array_equal(a.tokens, b.tokens)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.cu_seqlens, b.cu_seqlens)
        for a, b in zip(first, second, strict=True)
    )


SETTINGS = {"length": 16, "batch_size": 4}


PACKERS = ["concat", "truncate", "best_fit", "masked", make_packer("decompose", {"min_length": 2})]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("packer", PACKERS)
def test_labels(shards, packed, packer):
    if packer == "masked" and not packed:
        with pytest.raises(ConfigError, match="set packed to true"):
            batches(shards, **SETTINGS, seed=0, packer=packer)
        return
    after = successors(shards)
    for batch in take(batches(shards, **SETTINGS, seed=0, packed=packed, packer=packer), 30):
        check_labels(batch, after)  # padding looks like an eos, and asks for nothing either
        assert batch.tokens.dtype == batch.labels.dtype == np.int64
        assert batch.num_tokens == (batch.tokens != EOS).sum()


def test_the_label_check_rejects_labels_across_documents_and_rows(shards):
    after = successors(shards)
    (batch,) = take(batches(shards, **SETTINGS, seed=0), 1)
    flat = batch.tokens.ravel()
    across = np.append(flat[1:], EOS).reshape(batch.tokens.shape)  # a naive shift of what the batch holds
    within = np.where(
        batch.tokens == EOS, IGNORED, across
    )  # better, but the row's end looks into another row
    shifted_twice = batch.labels.copy()
    shifted_twice[:, :-1] = batch.labels[:, 1:]
    for wrong in (across, within, shifted_twice):
        broken = type(batch)(batch.tokens, wrong)
        with pytest.raises((AssertionError, KeyError)):
            check_labels(broken, after)


def test_packed_is_the_same_rows_with_edges_at_documents_and_rows(shards):
    rows = take(batches(shards, **SETTINGS, seed=3), 40)
    packed = take(batches(shards, **SETTINGS, seed=3, packed=True), 40)
    for one, two in zip(rows, packed, strict=True):
        assert one.tokens.shape == (4, 16)
        assert one.cu_seqlens is None
        assert two.tokens.shape == (1, 64)
        assert np.array_equal(one.tokens.ravel(), two.tokens[0])
        assert np.array_equal(one.labels.ravel(), two.labels[0])
        ends = np.flatnonzero(two.tokens[0] == EOS) + 1
        expected = sorted({0, 16, 32, 48, 64} | set(ends.tolist()))
        assert two.cu_seqlens.tolist() == expected
        assert two.cu_seqlens.dtype == np.int32


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("start", [1, 7, 12, 13, 100])
def test_resume_is_skipping(shards, start, packed, packer):
    options = {**SETTINGS, "seed": 5, "packed": packed or packer == "masked", "packer": packer}
    whole = take(batches(shards, **options), start + 8)
    assert equal(take(batches(shards, **options, start_step=start), 8), whole[start:])
    assert not equal(take(batches(shards, **options, start_step=start + 1), 8), whole[start:])


def test_a_far_step_costs_no_more_than_a_near_one(shards, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "longlode.packing.packers.rows.row_order", lambda *given: calls.append(given) or row_order(*given)
    )
    take(batches(shards, **SETTINGS, seed=5, start_step=10**12), 1)
    assert len(calls) <= 2


def test_every_row_once_an_epoch(shards):
    num_rows = shards.num_tokens // 16
    stream = (row for batch in batches(shards, **SETTINGS, seed=0) for row in batch.tokens.tolist())
    epochs = [list(map(tuple, take(stream, num_rows))) for _ in range(3)]
    assert len(set(epochs[0])) == num_rows
    assert set(epochs[0]) == set(epochs[1]) == set(epochs[2])
    assert epochs[0] != epochs[1] != epochs[2]
    kept = [token for row in epochs[0] for token in row if token != EOS]
    assert len(kept) == len(set(kept))
    assert shards.num_tokens - num_rows * 16 < 16


def test_seeds_differ(shards):
    first, second = (take(batches(shards, **SETTINGS, seed=seed), 3) for seed in (0, 1))
    assert not equal(first, second)


def test_the_order_is_a_fixed_permutation():
    order = row_order(1000, 3, 2, "name")
    assert sorted(order.tolist()) == list(range(1000))
    for other in (
        row_order(1000, 4, 2, "name"),
        row_order(1000, 3, 3, "name"),
        row_order(1000, 3, 2, "other"),
    ):
        assert other.tolist() != order.tolist()
    assert row_order(8, 0, 0, "a").tolist() == [5, 0, 6, 4, 3, 2, 1, 7], (
        "the order of a seed must never change between versions"
    )


def test_another_process_has_the_same_order(shards):
    code = (
        "from longlode.packing import *; import sys; "
        "b = next(batches(open_shards(sys.argv[1]), length=16, batch_size=4, seed=9, start_step=11)); "
        "print(b.tokens.tolist())"
    )
    command = [sys.executable, "-c", code, str(shards.folders[0])]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert found.strip() == str(next(batches(shards, **SETTINGS, seed=9, start_step=11)).tokens.tolist())


def test_splits_share_no_document(shards):
    owner = {
        token: i for i in range(shards.num_documents) for token in shards.tokens(i).tolist() if token != EOS
    }
    seen = {}
    for split in ("train", "heldout"):
        stream = batches(shards, **SETTINGS, seed=0, split=split, heldout_fraction=0.3)
        found = {token for batch in take(stream, 60) for token in batch.tokens.ravel().tolist()} - {EOS}
        seen[split] = {owner[token] for token in found}
    assert seen["train"]
    assert seen["heldout"]
    assert not any(in_heldout(f"d{i}", 0.3) for i in seen["train"])
    assert all(in_heldout(f"d{i}", 0.3) for i in seen["heldout"])


@settings(max_examples=100, deadline=None)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30), length=st.integers(2, 50))
def test_rows_hold_every_token_once(lengths, length):
    packer = ConcatRows(np.array(lengths), length)
    rows = [packer.row(index) for index in range(packer.num_rows)]
    held = [(piece.document, t) for row in rows for piece in row for t in range(piece.start, piece.stop)]
    every = [(document, t) for document, size in enumerate(lengths) for t in range(size)]
    assert held == every[: packer.num_rows * length]
    assert len(every) - len(held) < length
    assert all(sum(piece.stop - piece.start for piece in row) == length for row in rows)
    assert all(piece.stop > piece.start for row in rows for piece in row)


@pytest.mark.parametrize("packer", [one for one in PACKERS if one != "masked"])
def test_padding_stands_in_rows_only_and_asks_for_nothing(shards, packer):
    options = {**SETTINGS, "seed": 3, "packer": packer}
    for one, two in zip(
        take(batches(shards, **options), 20), take(batches(shards, **options, packed=True), 20), strict=True
    ):
        assert one.tokens.size == SETTINGS["length"] * SETTINGS["batch_size"]
        # Without the padding they are the same tokens in the same order.
        for name in ("tokens", "labels"):
            rows = getattr(one, name)[one.labels != IGNORED]
            assert np.array_equal(rows, getattr(two, name)[two.labels != IGNORED])
        assert two.tokens.size <= one.tokens.size
        assert two.cu_seqlens[-1] == two.tokens.size
        assert one.weights is two.weights is None
        assert one.total_weight == one.num_tokens == two.num_tokens


def test_weights_of_masked_packing_make_every_document_count_the_same(shards):
    for batch in take(batches(shards, **SETTINGS, seed=3, packer="masked", packed=True), 20):
        assert batch.weights.dtype == np.float32
        assert not batch.weights[batch.labels == IGNORED].any()
        sums = np.add.reduceat(batch.weights[0], batch.cu_seqlens[:-1])
        has_labels = np.add.reduceat(batch.labels[0] != IGNORED, batch.cu_seqlens[:-1]) > 0
        assert np.allclose(sums[has_labels], 1)
        assert batch.total_weight == pytest.approx(has_labels.sum())


@pytest.mark.parametrize("rows", ["concat", "best_fit", "masked"])
@pytest.mark.parametrize("block_size", [2, 5, 16])
def test_landmarks_stand_at_the_ends_of_blocks_and_are_never_asked_for(shards, rows, block_size):
    """Without them the rows are those of the other packer, at the length that leaves room for them."""
    mark, after = (1 << 17) - 1, successors(shards)
    packer = make_packer("landmark", {"token": mark, "block_size": block_size, "rows": rows})
    room = max(n for n in range(17) if n + n // (block_size - 1) <= 16)
    settings = {"batch_size": 3, "seed": 4, "packed": True}
    plain = take(batches(shards, length=room, packer=rows, **settings), 4)
    for batch, other in zip(
        take(batches(shards, length=16, packer=packer, **settings), 4), plain, strict=True
    ):
        tokens, labels = batch.tokens[0], batch.labels[0]
        is_mark = tokens == mark
        assert is_mark.any() == bool((np.diff(other.cu_seqlens) >= block_size - 1).any())
        np.testing.assert_array_equal(tokens[~is_mark], other.tokens[0])
        assert (labels != mark).all()
        for start, stop in itertools.pairwise(batch.cu_seqlens.tolist()):
            places = np.flatnonzero(is_mark[start:stop])
            np.testing.assert_array_equal(places, np.arange(block_size - 1, stop - start, block_size))
            text = tokens[start:stop][~is_mark[start:stop]]
            # The same labels in the same order, each at the last place before the token it asks for.
            asked = labels[start:stop][labels[start:stop] != IGNORED].tolist()
            assert asked == [after[token] for token in text.tolist() if token != EOS]
            assert (labels[start:stop][places - 1] == IGNORED).all()
            for place in places[:-1].tolist():
                assert labels[start + place] == tokens[start + place + 1]
        np.testing.assert_allclose(batch.total_weight, other.total_weight, rtol=1e-6)


def test_landmarks_in_held_out_rows_and_mixtures(shards):
    packer = make_packer("landmark", {"token": 1 << 16, "block_size": 4, "rows": "best_fit"})
    kept = packer.for_heldout()
    assert (kept.rows, kept.token, kept.block_size) == ("concat", 1 << 16, 4)
    assert make_packer("best_fit").for_heldout() == "concat"
    mixed = batches(
        shards, length=16, batch_size=2, seed=1, packer=packer, packed=True, mix=Mixture({"s": 1.0})
    )
    assert (next(mixed).tokens == 1 << 16).any()
    for wrong in ({"rows": "decompose"}, {"block_size": 1}):
        with pytest.raises(ConfigError, match="landmark"):
            make_packer("landmark", {"token": 1, **wrong})


def test_small_corpus_fills_a_batch_from_later_epochs(shards):
    batch = next(batches(shards, length=400, batch_size=8, seed=0))
    assert batch.tokens.shape == (8, 400)


def test_errors(shards):
    with pytest.raises(
        InputError, match=r"the 50 train documents have [\d,]+ tokens; one row needs 100,000\."
    ):
        batches(shards, length=100_000, batch_size=1, seed=0)
    with pytest.raises(InputError, match=r"heldout documents have"):
        batches(shards, length=16, batch_size=1, seed=0, split="heldout", heldout_fraction=1e-9)
    for wrong in ({"length": 1}, {"batch_size": 0}, {"start_step": -1}, {"split": "test"}):
        with pytest.raises(ConfigError):
            batches(shards, **{**SETTINGS, "seed": 0, **wrong})
