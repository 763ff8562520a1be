"""The laws of packers: what each does with documents, the same on every machine, and counted right."""

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longlode.core.errors import ConfigError
from longlode.packing import PACKERS, Packer, make_packer
from longlode.packing.packers.base import Order, Piece
from longlode.packing.packers.best_fit import best_fit_rows
from longlode.packing.packers.concat import ConcatPacker
from longlode.packing.packers.decompose import _ODDS
from longlode.packing.packers.truncate import TruncatePacker

NAMES = ["best_fit", "concat", "decompose", "masked", "truncate"]
LENGTH, BATCH = 16, 4
OPTIONS = {"decompose": {"min_length": 2, "cycles": 2}}
LENGTHS = np.array([1, 2, 3, 70, 30, 1, 1, 15, 16, 17, 33, 5, 8, 2] * 5)


def planned(name, lengths=LENGTHS, *, length=LENGTH, batch_size=BATCH, seed=0, fingerprint="data", **options):
    packer = make_packer(name, OPTIONS.get(name, {}) | options)
    return packer.plan(
        np.asarray(lengths), length=length, batch_size=batch_size, order=Order(seed, fingerprint)
    )


def epoch_rows(schedule):
    """All rows of an epoch, and of as many more as fill the last step."""
    rows, steps = [], itertools.count()
    while len(rows) < schedule.num_rows:
        rows += schedule.step(next(steps)).rows
    return rows


def positions(rows):
    return [(piece.document, t) for row in rows for piece in row for t in range(piece.start, piece.stop)]


def test_the_built_in_ones_are_found_by_name():
    assert [name for name in PACKERS.names() if PACKERS.provider(name) == "longlode"] == sorted(
        [*NAMES, "landmark", "related"]
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lengths", [LENGTHS, [5], [2, 2], [300], list(range(1, 60))])
def test_pieces_lie_in_their_documents_and_rows_are_not_overfull(name, lengths):
    schedule = planned(name, lengths)
    if not schedule.num_rows:
        assert name in ("concat", "decompose")
        return
    for index in range(30):
        step = schedule.step(index)
        assert len(step.rows) * step.length == LENGTH * BATCH
        for row in step.rows:
            assert 0 < sum(piece.stop - piece.start for piece in row) <= step.length
            for piece in row:
                assert 0 <= piece.start < piece.stop <= lengths[piece.document]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "decompose"])
def test_every_row_once_an_epoch_and_no_token_twice(name):
    schedule = planned(name)
    rows = epoch_rows(schedule)[: schedule.num_rows]
    held = positions(rows)
    assert len(held) == len(set(held))
    found = schedule.report()
    assert found.cut_tokens == LENGTHS.sum() - len(held)
    assert found.padding_tokens == schedule.num_rows * LENGTH - len(held)


@pytest.mark.parametrize("name", NAMES)
def test_the_report_counts_what_rows_hold(name):
    schedule = planned(name)
    if name == "decompose":
        rows = [
            [Piece(int(document), int(start), int(start) + bucket.length)]
            for bucket in schedule._buckets
            for document, start in zip(bucket.documents, bucket.starts, strict=True)
        ]
    else:
        rows = epoch_rows(schedule)[: schedule.num_rows]
    found, held = schedule.report(), positions(rows)
    in_rows = Counter(piece.document for row in rows for piece in row)
    contexts = [t - piece.start for row in rows for piece in row for t in range(piece.start, piece.stop)]
    assert (found.num_documents, found.num_tokens, found.num_rows) == (len(LENGTHS), LENGTHS.sum(), len(rows))
    assert found.cut_tokens == LENGTHS.sum() - len(held)
    assert found.num_split_documents == sum(count > 1 for count in in_rows.values())
    assert found.mean_context_tokens == pytest.approx(np.mean(contexts))
    assert f"{found.mean_context_tokens:,.0f} tokens" in found.in_words()


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_a_pure_function(name):
    schedule, again = planned(name), planned(name)
    steps = [schedule.step(index) for index in range(60)]
    for index in (59, 3, 31, 4, 17):
        assert again.step(index) == steps[index]
    for other in (planned(name, seed=1), planned(name, fingerprint="other")):
        assert [other.step(index) for index in range(60)] != steps
    assert planned(name).step(10**9).length in (2, 4, 8, 16)


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), length=st.integers(2, 20))
def test_best_fit_is_best_fit_decreasing(lengths, length):
    rows = best_fit_rows(np.array(lengths), length)
    found = [rows.row(index) for index in range(rows.num_rows)]
    assert sorted(positions(found)) == [(d, t) for d, size in enumerate(lengths) for t in range(size)]
    whole = {d for d, size in enumerate(lengths) if size <= length}
    in_rows = Counter(piece.document for row in found for piece in row)
    assert all(in_rows[document] == 1 for document in whole)
    # The oracle: the same rule, looking through all rows for the least room that fits.
    sizes = sorted(
        (min(length, size - start) for size in lengths for start in range(0, size, length)), reverse=True
    )
    room: list[int] = []
    for size in sizes:
        fitting = [index for index, left in enumerate(room) if left >= size]
        if not fitting:
            room.append(length)
            fitting = [len(room) - 1]
        room[min(fitting, key=lambda index: room[index])] -= size
    assert sorted(length - sum(p.stop - p.start for p in row) for row in found) == sorted(room)


def test_best_fit_cuts_less_and_pads_less():
    best, concat, truncate = (planned(name).report() for name in ("best_fit", "concat", "truncate"))
    assert best.cut_tokens == 0
    assert best.num_split_documents == (LENGTHS > LENGTH).sum() < concat.num_split_documents
    assert concat.padding_tokens == 0 < best.padding_tokens < truncate.padding_tokens / 4
    assert best.mean_context_tokens > concat.mean_context_tokens


def test_truncate_has_the_beginning_of_one_document_per_row():
    rows = epoch_rows(planned("truncate"))
    assert all(len(row) == 1 for row in rows)
    assert {(row[0].document, row[0].start, row[0].stop) for row in rows} == {
        (document, 0, min(size, LENGTH)) for document, size in enumerate(LENGTHS) if size >= 2
    }


def test_decompose_has_powers_of_two_that_make_up_the_documents():
    schedule = planned("decompose")
    held = Counter()
    for bucket in schedule._buckets:
        for document, start in zip(bucket.documents.tolist(), bucket.starts.tolist(), strict=True):
            assert start + bucket.length <= LENGTHS[document]
            held.update((document, t) for t in range(start, start + bucket.length))
    # All of a document but the last token of an odd one: shorter than min_length, 2.
    assert held == {(d, t): 1 for d, size in enumerate(LENGTHS) for t in range(size - size % 2)}
    for index in range(100):
        step = schedule.step(index)
        assert all(len(row) == 1 and row[0].stop - row[0].start == step.length for row in step.rows)


def test_decompose_reads_every_sequence_equally_often():
    schedule = planned("decompose")
    per_step = [LENGTH * BATCH // bucket.length for bucket in schedule._buckets]
    # After as many epochs as rows per step every bucket has had whole epochs.
    num_epochs = int(np.lcm.reduce(per_step))
    num_steps = sum(schedule._done(num_epochs))
    counts = Counter(
        (row[0].document, row[0].start, row[0].stop)
        for index in range(num_steps)
        for row in schedule.step(index).rows
    )
    assert set(counts.values()) == {num_epochs}
    assert len(counts) == schedule.num_rows


def test_decompose_goes_from_short_to_long_in_every_cycle():
    lengths = np.full(4000, 16 + 8 + 4 + 2)

    def mean_length(part, **options):
        schedule = planned("decompose", lengths, cycles=1, **options)
        num_steps = sum(schedule._done(1))
        where = range(num_steps // 3) if part == "first" else range(2 * num_steps // 3, num_steps)
        return np.mean([schedule.step(index).length for index in where])

    growing = mean_length("last", curriculum="grow_p2") / mean_length("first", curriculum="grow_p2")
    linear = mean_length("last", curriculum="grow_linear") / mean_length("first", curriculum="grow_linear")
    assert growing > linear > 1.1
    assert growing > 2
    sharp = mean_length("last", curriculum="grow_p100") / mean_length("first", curriculum="grow_p100")
    assert sharp > growing
    assert mean_length("last", curriculum="shrink_p100") < mean_length("first", curriculum="shrink_p100")


def test_decompose_has_the_published_numbers_of_a_step():
    # The settings that the authors publish: 64 sequences of 8,192 tokens a step, buckets from 256 tokens on, with
    # batches 32, 16, 8, 4, 2 and 1 times as large; odds 32, 16, 8, 4, 2, 1.
    lengths = np.full(300, 16383)
    schedule = planned("decompose", lengths, length=8192, batch_size=4, min_length=256, cycles=8)
    found = {
        (step.length, len(step.rows)) for step in (schedule.step(index) for index in range(schedule.num_rows))
    }
    assert found == {(size, 4 * 8192 // size) for size in (256, 512, 1024, 2048, 4096, 8192)}
    odds = [_ODDS["grow_p2"](number, 6) for number in range(6)]
    assert odds == [32, 16, 8, 4, 2, 1]


@pytest.mark.parametrize("options", [{"min_length": 3}, {"min_length": 32}, {"cycles": 0}])
def test_decompose_refuses_what_is_no_power_of_two(options):
    with pytest.raises(ConfigError, match="decompose"):
        planned("decompose", **options)
    with pytest.raises(ConfigError, match="length is 24"):
        planned("decompose", length=24)


def test_masked_gives_every_piece_the_same_say():
    schedule = planned("masked")
    plain = planned("best_fit")
    for index in range(20):
        weighed, rows = schedule.step(index).rows, plain.step(index).rows
        assert [[replace(piece, weight=1.0) for piece in row] for row in weighed] == rows
        for piece in itertools.chain(*weighed):
            num_labels = piece.stop - piece.start - (piece.stop == LENGTHS[piece.document])
            assert piece.weight * max(1, num_labels) == pytest.approx(1)


@dataclass(frozen=True, kw_only=True)
class BackwardsPacker(Packer):
    """One from outside: concat of the documents in another order."""

    name: ClassVar[str] = "backwards"
    sure: bool = True

    def plan(self, lengths, *, length, batch_size, order):
        return ConcatPacker().plan(lengths[::-1], length=length, batch_size=batch_size, order=order)


def test_packers_from_elsewhere_and_options_that_are_checked():
    packer = make_packer(f"{__name__}:BackwardsPacker", {"sure": False})
    assert packer == BackwardsPacker(sure=False)
    assert isinstance(make_packer("truncate"), TruncatePacker)
    for name, options, fact in (
        ("concatt", {}, "concat"),
        ("concat", {"cycles": 2}, "no option 'cycles'"),
        ("decompose", {"cycels": 2}, "cycles"),
        ("decompose", {"cycles": "many"}, "cycles is 'many'"),
        ("decompose", {"curriculum": "fast"}, "curriculum"),
    ):
        with pytest.raises(ConfigError, match=fact):
            make_packer(name, options)
