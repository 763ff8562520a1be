"""The packer `related`: every document once, similar ones adjacent, repeats dropped, the same at every call."""

import itertools
import logging
import sys

import numpy as np
import pytest

from longlode.core.errors import BackendError, ConfigError, InputError
from longlode.corpus import Document
from longlode.packing import Mixture, batches, make_packer, open_shards, pack, plan
from longlode.packing.document_walk import degree_ordered_walk, near_duplicates
from longlode.packing.embeddings import embed, rounded
from longlode.packing.neighbours import neighbours

NUM_SUBJECTS, PER_SUBJECT, COPIES = 12, 10, 7


class WordTokenizer:
    """Each word is a token: a number, kept as it is."""

    eos_id, fingerprint, vocab_size = 0, "words", 1 << 12

    def tokens(self, texts):
        return [[int(word) for word in text.split()] for text in texts]

    def save(self, folder):
        folder.mkdir()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Documents of twelve subjects in random order, with exact and near copies of seven of them at the end."""
    rng = np.random.default_rng(7)
    subjects = [rng.integers(1, 4000, size=25) for _ in range(NUM_SUBJECTS)]
    texts = []
    for number in rng.permutation(NUM_SUBJECTS * PER_SUBJECT):
        own, common = rng.choice(subjects[number % NUM_SUBJECTS], 60), rng.integers(1, 4000, size=60)
        texts.append((number % NUM_SUBJECTS, np.where(rng.random(60) < 0.75, own, common)))
    for subject, words in texts[:COPIES]:
        texts += [(subject, words), (subject, np.append(words[:-1], 1 + words[-1] % 4000))]
    documents = [
        Document(f"d{i}", " ".join(map(str, words)), f"subject{subject}", "f", i)
        for i, (subject, words) in enumerate(texts)
    ]
    out = tmp_path_factory.mktemp("related") / "shards"
    pack(documents, WordTokenizer(), out, length=64)
    return open_shards(out)


def rows_of(shards, packer="related", **options):
    schedule = plan(shards, make_packer(packer, options), length=64, batch_size=4, seed=0)
    rows = [row for step in range(-(-schedule.num_rows // 4)) for row in schedule.step(step).rows]
    return rows[: schedule.num_rows], schedule


def test_every_document_once_and_repeats_dropped(shards):
    rows, schedule = rows_of(shards)
    tokens = [(piece.document, t) for row in rows for piece in row for t in range(piece.start, piece.stop)]
    assert len(tokens) == len(set(tokens))
    held = {document for document, _ in tokens}
    # The last row is incomplete and left out: of less than two documents.
    assert held <= set(range(NUM_SUBJECTS * PER_SUBJECT))
    assert len(held) >= NUM_SUBJECTS * PER_SUBJECT - 2
    report = schedule.report()
    assert report.num_documents == shards.num_documents
    assert report.cut_tokens == shards.num_tokens - len(tokens)


def test_neighbours_in_rows_are_more_similar_than_in_random_order(shards):
    subjects = shards.column("source").to_pylist()

    def share(rows):
        pairs = [(a.document, b.document) for row in rows for a, b in itertools.pairwise(row)]
        return np.mean([subjects[a] == subjects[b] for a, b in pairs])

    related, random = share(rows_of(shards)[0]), share(rows_of(shards, "concat")[0])
    assert related > 0.7
    assert random < 0.35  # with the copies, which are adjacent in the input


def test_the_order_is_kept_and_the_same_without_it(shards, caplog):
    first, _ = rows_of(shards)
    (path,) = (shards.folders[0] / "orders").glob("related-*.npy")
    sound = path.read_bytes()
    with caplog.at_level(logging.INFO):
        assert rows_of(shards)[0] == first
        assert "Ordering" not in caplog.text
        for damage in (sound[:-8], sound[:-16] + bytes(8) + sound[-8:]):
            path.write_bytes(damage)
            assert rows_of(shards)[0] == first
        assert caplog.text.count("Ordering") == 2
    assert path.read_bytes() == sound
    rows_of(shards, num_neighbours=3)
    assert len(list(path.parent.glob("related-*.npy"))) == 2


def test_documents_see_each_other_or_it_is_refused(shards):
    options = {"length": 64, "batch_size": 2, "seed": 0, "packer": "related"}
    with pytest.raises(ConfigError, match="packed to false"):
        next(batches(shards, **options, packed=True))
    assert next(batches(shards, **options)).tokens.shape == (2, 64)
    with pytest.raises(ConfigError, match="at least 1"):
        rows_of(shards, dimensions=0)


def test_in_a_mixture_every_group_has_its_own_walk(shards):
    subjects = shards.column("source").to_pylist()
    schedule = plan(
        shards,
        "related",
        length=64,
        batch_size=4,
        seed=0,
        mix=Mixture({"subject1": 1, "subject2": 1, "rest": 2}),
    )
    for step in range(12):
        names = [{subjects[piece.document] for piece in row} for row in schedule.step(step).rows]
        assert sorted(len(found & {"subject1", "subject2"}) for found in names) == [0, 0, 1, 1]


def test_vectors_of_a_model_are_taken(shards, tmp_path):
    path = tmp_path / "vectors.npy"
    # On a circle, in an order of its own: the walk has no choice.
    place = np.random.default_rng(3).permutation(shards.num_documents)
    angle = 2 * np.pi * place / shards.num_documents
    np.save(path, np.stack([np.cos(angle), np.sin(angle)], axis=1))
    rows, _ = rows_of(shards, vectors=str(path), num_neighbours=4, duplicate_similarity=2.0)
    gaps = [
        abs(int(place[a.document]) - int(place[b.document]))
        for row in rows
        for a, b in itertools.pairwise(row)
    ]
    assert np.mean([min(gap, shards.num_documents - gap) <= 4 for gap in gaps]) > 0.8
    np.save(path, np.zeros((3, 2)))
    with pytest.raises(InputError, match=r"\(3, 2\)"):
        rows_of(shards, vectors=str(path))


def test_exact_neighbours_are_those_of_plain_loops():
    vectors = rounded(np.random.default_rng(5).standard_normal((70, 6)).astype(np.float32))
    vectors[40:50] = vectors[0]  # equal ones: the first index wins
    found, products = neighbours(vectors, 5, exact=True)
    for i in range(70):
        dots = [
            (-sum(float(a) * float(b) for a, b in zip(vectors[i], vectors[j], strict=True)), j)
            for j in range(70)
            if j != i
        ]
        assert [j for _, j in sorted(dots)[:5]] == found[i].tolist()
        assert [-dot for dot, _ in sorted(dots)[:5]] == products[i].tolist()
    assert neighbours(vectors[:1], 5, exact=True)[0].shape == (1, 0)


def test_approximate_neighbours_are_nearly_the_exact_ones():
    pytest.importorskip("faiss", reason="pip install 'longlode[related]'")
    rng = np.random.default_rng(6)
    centres = rng.standard_normal((40, 32))
    vectors = rounded(
        (centres[rng.integers(40, size=3000)] + 0.7 * rng.standard_normal((3000, 32))).astype(np.float32)
    )
    exact, near = neighbours(vectors, 5, exact=True)
    found, products = neighbours(vectors, 5, exact=False)
    assert np.array_equal(found, neighbours(vectors, 5, exact=False)[0])
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact, found, strict=True)]) > 0.9
    assert (found != np.arange(3000)[:, None]).all()
    assert (products <= near).all()


def test_without_faiss_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(BackendError, match=r"longlode\[related\]"):
        neighbours(np.ones((30, 2), dtype=np.float32), 3, exact=False)


def test_duplicates_and_walk_by_hand():
    #         0 - 1 - 2   3 - 4   5        (similarity 0-1: 9, 1-2: 8, 3-4: 5)
    found = np.array([[1], [0], [1], [4], [3], [-1]])
    products = np.array([[9.0], [9.0], [8.0], [5.0], [5.0], [-np.inf]])
    everything = np.ones(6, dtype=bool)
    # 5 has no neighbour; then 0, one of those with a single one, on to 1 and 2; then 3 and 4.
    assert degree_ordered_walk(found, products, everything).tolist() == [5, 0, 1, 2, 3, 4]
    # 1 repeats 0; 2 repeats 1, which is dropped, so 2 stays.
    dropped = near_duplicates(found, products, 8.0)
    assert dropped.tolist() == [False, True, False, False, False, False]
    assert degree_ordered_walk(found, products, ~dropped).tolist() == [0, 2, 5, 3, 4]


def test_vectors_do_not_depend_on_other_documents_but_by_frequency():
    rng = np.random.default_rng(8)
    texts = [rng.integers(0, 50, size=rng.integers(0, 40)) for _ in range(20)]
    found = embed(lambda i: texts[i], 20, dimensions=16, max_tokens=30)
    assert np.array_equal(found, np.rint(found))
    assert np.array_equal(found, embed(lambda i: texts[i].astype(np.int32), 20, dimensions=16, max_tokens=30))
    lengths = np.linalg.norm(found, axis=1)
    assert all((length == 0) == (len(text) == 0) for length, text in zip(lengths, texts, strict=True))
    assert np.abs(lengths[lengths > 0] - 127).max() < 3
