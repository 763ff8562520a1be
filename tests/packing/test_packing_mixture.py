"""The laws of mixtures: shares of tokens hold at every step, the order is a pure function, the end is defined."""

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longlode.core.errors import ConfigError, InputError
from longlode.core.mixes import parse_mix
from longlode.corpus import Document
from longlode.packing import Mixture, batches, make_packer, open_shards, pack, plan
from longlode.packing.mixed_schedule import _quotas, _round, plan_mixture
from longlode.packing.packers import Order

SIZES = {"books": [70, 40, 33], "code": [5, 9, 16, 2], "web": [30, 3]}
LENGTH, BATCH = 16, 8


class WordTokenizer:
    """Each word is a token: a number, kept as it is."""

    eos_id, fingerprint, vocab_size = 0, "words", 1 << 17

    def tokens(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def save(self, folder):
        folder.mkdir()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    out = tmp_path_factory.mktemp("mixture") / "out"
    token, documents = itertools.count(1), []
    for place in range(90):
        source = list(SIZES)[place % 3]
        size = SIZES[source][place // 3 % len(SIZES[source])] - 1
        text = " ".join(str(next(token)) for _ in range(max(1, size)))
        documents.append(Document(f"d{place}", text, source, "f", place))
    pack(documents, WordTokenizer(), out, length=LENGTH, shard_tokens=300)
    return open_shards(out)


def take(shards, mix, num, packer="concat", seed=3, start=0):
    options = {"length": LENGTH, "batch_size": BATCH, "packed": True}
    stream = batches(shards, **options, seed=seed, packer=packer, mix=mix, start_step=start)
    return list(itertools.islice(stream, num))


@pytest.mark.parametrize(
    "packer", ["concat", "truncate", "best_fit", "masked", make_packer("decompose", {"min_length": 2})]
)
def test_shares_of_tokens_are_those_asked_for(shards, packer):
    sources = shards.column("source").to_pylist()
    shape = {"length": LENGTH, "batch_size": BATCH, "seed": 3}
    schedule = plan(shards, packer, **shape, mix=Mixture.parse("books=0.5,code=0.3,web=0.2"))
    found = Counter()
    for row in itertools.chain(*(schedule.step(index).rows for index in range(240))):
        for piece in row:
            found[sources[piece.document]] += piece.stop - piece.start
    asked = {"books": 0.5, "code": 0.3, "web": 0.2}
    for report in schedule.sources(240):
        assert found[report.name] / found.total() == pytest.approx(asked[report.name], abs=0.02)
        assert report.share == pytest.approx(asked[report.name], abs=0.02)
        if packer != "truncate":  # which cuts most of the tokens
            assert report.epochs == pytest.approx(found[report.name] / report.num_tokens, rel=0.25)


def test_every_step_has_the_shares_within_a_row(shards):
    schedule = plan(
        shards,
        "concat",
        length=LENGTH,
        batch_size=BATCH,
        seed=0,
        mix=Mixture.parse("books=0.6,code=0.25,web=0.15"),
    )
    sources = shards.column("source").to_pylist()
    running = Counter()
    for index in range(50):
        rows = [{sources[piece.document] for piece in row} for row in schedule.step(index).rows]
        assert len(rows) == BATCH
        assert all(len(names) == 1 for names in rows)  # a row has documents of one source
        running.update(name for (name,) in rows)
        for name, share in (("books", 0.6), ("code", 0.25), ("web", 0.15)):
            assert abs(running[name] - share * BATCH * (index + 1)) <= 1.1


@settings(max_examples=100, deadline=None)
@given(weights=st.lists(st.floats(1e-6, 1), min_size=1, max_size=12))
def test_units_are_dealt_evenly_and_never_taken_back(weights):
    quotas = _quotas(weights)
    counts = _round(quotas)
    assert (np.diff(counts, axis=0) >= 0).all()
    assert counts.sum(axis=1).tolist() == list(range(len(counts)))
    assert counts[-1].tolist() == list(quotas)
    assert min(quotas) >= 1
    shares = np.arange(len(counts))[:, None] * np.array(quotas) / (len(counts) - 1)
    assert np.abs(counts - shares).max() < 1 + len(weights) / 2
    assert (
        np.abs(np.array(quotas) / sum(quotas) - np.array(weights) / sum(weights)).max()
        < 2 * len(weights) / 4096
    )


def test_the_order_is_a_pure_function_and_resume_is_skipping(shards):
    mix = Mixture({"books": 2, "code": 1}, changes=((20, {"books": 1, "code": 3}),))
    whole = take(shards, mix, 40)
    for start in (0, 1, 19, 20, 33):
        again = take(shards, mix, 3, start=start)
        assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(again, whole[start:], strict=False))
    other = take(shards, mix, 40, seed=4)
    assert any(not np.array_equal(a.tokens, b.tokens) for a, b in zip(other, whole, strict=True))
    take(shards, mix, 1, start=10**12)


def test_a_source_is_read_whole_before_it_is_read_again(shards):
    schedule = plan(
        shards, "best_fit", length=LENGTH, batch_size=BATCH, seed=0, mix=Mixture.parse("books=1,code=3")
    )
    report = next(source for source in schedule.sources(1) if source.name == "code")
    sources = shards.column("source").to_pylist()
    pieces = [
        (piece.document, piece.start)
        for index in range(30)
        for row in schedule.step(index).rows
        for piece in row
        if sources[piece.document] == "code"
    ]
    counts = Counter(pieces)
    assert len(counts) == report.num_documents
    assert max(counts.values()) - min(counts.values()) <= 1


@settings(max_examples=40, deadline=None)
@given(
    weights=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    epochs=st.sampled_from([1.0, 1.5, 3.0]),
    batch=st.integers(1, 5),
    change=st.one_of(st.none(), st.integers(1, 12)),
)
def test_a_source_that_has_been_read_often_enough_gives_its_share_to_the_others(
    weights, epochs, batch, change
):
    lengths = np.array([8] * 6 + [8] * 15 + [8] * 30)
    groups = {"a": np.arange(6), "b": np.arange(6, 21), "c": np.arange(21, 51)}
    changes = () if change is None else ((change, dict(zip("abc", reversed(weights), strict=True))),)
    mixture = Mixture(dict(zip("abc", weights, strict=True)), epochs, changes)
    packed = {name: (make_packer("truncate"), documents) for name, documents in groups.items()}
    schedule = plan_mixture(lengths, packed, mixture, length=8, batch_size=batch, order=Order(0, "x"))
    seen, name_of = (
        Counter(),
        dict.fromkeys(range(6), "a") | dict.fromkeys(range(6, 21), "b") | dict.fromkeys(range(21, 51), "c"),
    )
    limits = {name: int(epochs * len(group)) for name, group in groups.items()}
    assert schedule.num_steps is not None
    for index in range(schedule.num_steps):
        rows = schedule.step(index).rows
        assert len(rows) == batch
        seen.update(name_of[row[0].document] for row in rows)
    assert all(seen[name] <= limits[name] for name in limits)
    # What a source keeps is less than what one step may ask of it.
    assert all(seen[name] > limits[name] - batch - 1 for name in limits)
    with pytest.raises(InputError, match="no data for step"):
        schedule.step(schedule.num_steps)


def test_shares_that_change_later_leave_what_was_before(shards):
    first = plan(
        shards, "concat", length=LENGTH, batch_size=BATCH, seed=0, mix=Mixture.parse("books=1,code=1,web=0")
    )
    second = first.with_shares(7, {"web": 1}).with_shares(9, {"books": 1, "web": 1})
    assert [first.step(index) for index in range(7)] == [second.step(index) for index in range(7)]
    sources = shards.column("source").to_pylist()
    assert {sources[row[0].document] for index in (7, 8) for row in second.step(index).rows} == {"web"}
    # Taken back, nothing remains of the change: a resumed run repeats its choices.
    third = second.with_shares(7, {"web": 1})
    assert [third.step(index) for index in (6, 8)] == [second.step(index) for index in (6, 8)]


def test_groups_by_any_column_bands_and_the_rest(shards):
    sizes, sources = shards.lengths, np.array(shards.column("source").to_pylist())

    def documents(mix, name):
        schedule = plan(shards, "truncate", length=LENGTH, batch_size=1, seed=0, mix=Mixture.parse(mix))
        (found,) = [source for source in schedule._sources if source.name == name]
        return set(found.documents.tolist())

    long = "num_tokens:30..=1,source:code=1,rest=2"
    assert documents(long, "num_tokens:30..") == set(np.flatnonzero(sizes >= 30).tolist())
    assert documents(long, "source:code") == set(np.flatnonzero((sizes < 30) & (sources == "code")).tolist())
    assert documents(long, "rest") == set(np.flatnonzero((sizes < 30) & (sources != "code")).tolist())
    assert documents("num_tokens:9..33=1", "num_tokens:9..33") == set(
        np.flatnonzero((sizes >= 9) & (sizes < 33)).tolist()
    )
    assert documents("num_tokens:..9=1", "num_tokens:..9") == set(np.flatnonzero(sizes < 9).tolist())
    assert documents("id:d7=1", "id:d7") == {7}


@pytest.mark.parametrize(
    ("mix", "error", "fact"),
    [
        ("boks=1", InputError, "books, code, web"),
        ("colour:red=1", ConfigError, "no column 'colour'"),
        ("num_tokens:900..=1", InputError, "numbers from"),
        ("books", ConfigError, "NAME=WEIGHT"),
        ("books=-1", ConfigError, "books"),
        ("books=0,code=0", ConfigError, "no weight above 0"),
        ("books=1,books=2", ConfigError, "twice"),
        ("books=nan", ConfigError, "books"),
    ],
)
def test_mixtures_that_cannot_be(shards, mix, error, fact):
    with pytest.raises(error, match=fact):
        plan(shards, "concat", length=LENGTH, batch_size=2, seed=0, mix=Mixture.parse(mix))


def test_a_group_too_small_for_a_row_is_named(shards):
    with pytest.raises(InputError, match="'id:d7' of the mixture"):
        plan(shards, "concat", length=64, batch_size=2, seed=0, mix=Mixture.parse("books=1,id:d7=1"))
    with pytest.raises(ConfigError, match="'web'"):
        Mixture({"books": 1}, changes=((3, {"web": 1}),))


def test_mixtures_in_words():
    assert parse_mix("books=0.4, code=0.6") == {"books": 0.4, "code": 0.6}
    assert parse_mix({"a": 1, "b": 3}) == {"a": 0.25, "b": 0.75}
    assert list(parse_mix("x=y=2,z=2")) == ["x=y", "z"]
