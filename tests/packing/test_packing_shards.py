"""Shards hold what the documents say, whole or not at all, and count every row."""

import errno
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from longlode.core.errors import ConfigError, InputError
from longlode.core.fingerprints import text_fingerprint
from longlode.core.records import read_record
from longlode.corpus import Document, Tokenizer, Unreadable, id_hash, in_heldout, read, tokens, train_bpe
from longlode.packing import heldout_documents, open_shards, pack, writer
from longlode.packing.by_name import pack as pack_by_name

SENTENCE = "the quick brown fox jumps over the lazy dog and runs away from 12 hounds"
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe([" ".join(WORDS)] * 20, 300)


def documents(num=40, prefix=""):
    for i in range(num):
        yield Document(f"{prefix}{i}", " ".join(WORDS[: 1 + i % len(WORDS)]) + f" {i}", "s", "f.jsonl", i)


def test_tokens_documents_and_record(tmp_path, tokenizer):
    given = list(documents())
    summary = pack(iter(given), tokenizer, tmp_path / "out", length=32, shard_tokens=200)
    shards = open_shards(tmp_path / "out", verify=True)
    encoded = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode([document.text for document in given])]
    assert [shards.tokens(i).tolist() for i in range(shards.num_documents)] == encoded
    assert shards.tokens(5, 1, 3).tolist() == encoded[5][1:3]
    assert shards.tokens(5, 1, 10**6).tolist() == encoded[5][1:]
    assert shards.lengths.tolist() == [len(ids) for ids in encoded]
    assert shards.num_tokens == summary["num_tokens"] == sum(map(len, encoded))
    assert summary["num_documents"] == len(given)
    assert summary["num_rows"] == shards.num_tokens // 32
    assert summary["num_files"] == len(shards.files) == 3
    assert all(file.num_tokens >= 200 for file in shards.files[:-1])
    record = read_record(tmp_path / "out", "shards")
    assert record["tokenizer_fingerprint"] == tokenizer.fingerprint == shards.tokenizer_fingerprint
    assert (record["vocab_size"], record["eos_id"], record["length"]) == (tokenizer.vocab_size, 0, 32)
    assert Tokenizer.load(shards.tokenizer_folder).fingerprint == tokenizer.fingerprint
    table = pa.concat_tables(pq.ParquetFile(file.documents).read() for file in shards.files).to_pylist()
    assert [row["id"] for row in table] == [document.id for document in given]
    assert [row["content_hash"] for row in table] == [text_fingerprint(document.text) for document in given]
    assert [row["id_hash"] for row in table] == [id_hash(document.id) for document in given]


def test_files_on_disk_are_plain_little_endian(tmp_path, tokenizer):
    pack(documents(), tokenizer, tmp_path / "out", length=8)
    found = np.fromfile(tmp_path / "out" / "tokens-00000.bin", dtype="<i4")
    first = tokenizer.encode([next(documents()).text])[0]
    assert found[: len(first) + 1].tolist() == [*first, tokenizer.eos_id]


class WideTokenizer:
    """Stands in for a tokenizer with many ids: one id a character, shifted to the top of the vocabulary."""

    eos_id = 0
    fingerprint = "wide"

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def tokens(self, texts):
        if any("poison" in text for text in texts):
            raise TypeError("cannot take this")
        return [[self.vocab_size - 1 - ord(character) % 64 for character in text] for text in texts]

    def save(self, folder):
        folder.mkdir()


def test_tokens_are_int32(tmp_path):
    wide = WideTokenizer((1 << 16) + 1)
    summary = pack([Document("a", "@A@", "s", "f", 0)], wide, tmp_path / "out", length=2)
    shards = open_shards(tmp_path / "out")
    assert summary["dtype"] == shards.tokens(0).dtype.name == "int32"
    assert shards.tokens(0).tolist() == [1 << 16, (1 << 16) - 1, 1 << 16, 0]


def test_shards_of_the_format_before_are_read(tmp_path, tokenizer):
    pack(documents(), tokenizer, tmp_path / "out", length=8)
    before = [open_shards(tmp_path / "out").tokens(i).tolist() for i in range(40)]
    path, record = tmp_path / "out" / "tokens-00000.bin", tmp_path / "out" / "record.json"
    path.write_bytes(np.fromfile(path, dtype="<i4").astype("<u2").tobytes())
    record.write_text(record.read_text().replace('"format": 3', '"format": 2').replace('"<i4"', '"<u2"'))
    assert [open_shards(tmp_path / "out").tokens(i).tolist() for i in range(40)] == before
    record.write_text(record.read_text().replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match="format 1"):
        open_shards(tmp_path / "out")


def test_every_row_counts_once_and_poison_stays_alone(tmp_path):
    rows = [
        Document("a", "good", "s", "f", 0),
        Unreadable("b", "s", "f", 1, "failed", "not UTF-8 at byte 3"),
        Document("c", "poison here", "s", "f", 2),
        Document("d", "", "s", "f", 3),
        Unreadable("e", "s", "f", 4, "skipped", "binary"),
        Document("g", "also good", "s", "f", 5),
    ]
    summary = pack(rows, WideTokenizer(300), tmp_path / "out", length=4)
    assert [summary[f"num_{name}"] for name in ("documents", "too_short", "skipped", "failed")] == [
        2,
        1,
        1,
        2,
    ]
    assert open_shards(tmp_path / "out").lengths.tolist() == [5, 10]
    lines = [json.loads(line) for line in (tmp_path / "out" / "unreadable.jsonl").read_text().splitlines()]
    assert [(row["id"], row["row"], row["status"]) for row in lines] == [
        ("b", 1, "failed"),
        ("c", 2, "failed"),
        ("d", 3, "too_short"),
        ("e", 4, "skipped"),
    ]
    assert lines[1]["reason"] == "the tokenizer cannot take the text: TypeError: cannot take this"


def test_from_files_with_a_bad_line(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text('{"text": "the quick brown fox"}\n{broken\n{"text": "jumps over"}\n')
    summary = pack(read(tmp_path / "a.jsonl"), tokenizer, tmp_path / "out", length=4)
    assert (summary["num_documents"], summary["num_failed"]) == (2, 1)


def test_fingerprint_names_content(tmp_path, tokenizer):
    def name(folder, items, **options):
        return pack(items, tokenizer, tmp_path / folder, length=8, **options)["fingerprint"]

    first = name("a", documents())
    assert name("b", documents(), shard_tokens=50) == first
    assert open_shards(tmp_path / "b").fingerprint == first
    assert name("c", documents(39)) != first
    assert name("d", documents(prefix="x")) != first
    other = train_bpe([" ".join(WORDS)] * 20, 280)
    assert pack(documents(), other, tmp_path / "e", length=8)["fingerprint"] != first


def test_several_folders_are_one(tmp_path, tokenizer):
    pack(documents(10), tokenizer, tmp_path / "a", length=8, shard_tokens=30)
    pack(documents(7, "y"), tokenizer, tmp_path / "b", length=8)
    one, two, both = (
        open_shards(folders)
        for folders in (tmp_path / "a", [tmp_path / "b"], [tmp_path / "a", tmp_path / "b"])
    )
    assert (one.num_documents, two.num_documents, both.num_documents) == (10, 7, 17)
    expected = [one.tokens(i).tolist() for i in range(10)] + [two.tokens(i).tolist() for i in range(7)]
    assert [both.tokens(i).tolist() for i in range(17)] == expected
    assert len({one.fingerprint, two.fingerprint, both.fingerprint}) == 3
    other = train_bpe([" ".join(WORDS)] * 20, 280)
    pack(documents(), other, tmp_path / "c", length=8)
    with pytest.raises(InputError, match="different tokenizers"):
        open_shards([tmp_path / "a", tmp_path / "c"])


def test_held_out_documents(tmp_path, tokenizer):
    pack(documents(60), tokenizer, tmp_path / "out", length=8, shard_tokens=100)
    shards = open_shards(tmp_path / "out")
    held = list(heldout_documents(shards, 0.3))
    expected = [document for document in documents(60) if in_heldout(document.id, 0.3)]
    assert 5 < len(expected) < 55
    assert [document.id for document in held] == [document.id for document in expected]
    for document, given in zip(held, expected, strict=True):
        assert document.tokens.dtype == np.int64
        assert tokenizer.decode(document.tokens[:-1]) == given.text
    train, heldout = (set(shards.split(name, 0.3).tolist()) for name in ("train", "heldout"))
    assert not train & heldout
    assert train | heldout == set(range(60))
    for arguments in (("test", 0.1), ("train", 1.0), ("heldout", 0.0), ("train", -0.1)):
        with pytest.raises(ConfigError):
            shards.split(*arguments)


def test_too_little_text(tmp_path, tokenizer):
    rows = [Document("a", "the quick", "s", "f", 0), Unreadable("b", "s", "f", 1, "failed", "no text")]
    with pytest.raises(
        InputError, match=r"1 documents have \d tokens; one row needs 1,000\. .*1 failed.*b: no text"
    ):
        pack(rows, tokenizer, tmp_path / "out", length=1000)
    with pytest.raises(InputError, match="0 documents have 0 tokens"):
        pack([], tokenizer, tmp_path / "out", length=2)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_nothing(tmp_path, tokenizer):
    def failing():
        yield from documents()
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        pack(failing(), tokenizer, tmp_path / "out", length=8)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_touched(tmp_path, tokenizer):
    out = tmp_path / "out"
    out.mkdir()
    first = pack(documents(), tokenizer, out, length=8)
    with pytest.raises(InputError, match="--overwrite"):
        pack(documents(20), tokenizer, out, length=8)
    assert open_shards(out).fingerprint == first["fingerprint"]
    second = pack(documents(20), tokenizer, out, length=8, overwrite=True)
    assert open_shards(out, verify=True).fingerprint == second["fingerprint"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.txt"):
        with pytest.raises(InputError, match=r"thesis\.txt"):
            pack(documents(), tokenizer, target, length=8, overwrite=True)
    with pytest.raises(InputError, match="cannot be written"):
        pack(documents(), tokenizer, tmp_path / "mine" / "thesis.txt" / "out", length=8)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "dear"


def test_broken_folders_are_named(tmp_path, tokenizer):
    with pytest.raises(InputError, match=r"it has no record\.json"):
        open_shards(tmp_path)
    pack(documents(), tokenizer, tmp_path / "out", length=8)
    path = tmp_path / "out" / "tokens-00000.bin"
    data = path.read_bytes()
    path.write_bytes(data[:2] + bytes([data[2] ^ 1]) + data[3:])
    open_shards(tmp_path / "out")
    with pytest.raises(InputError, match="is not what was packed"):
        open_shards(tmp_path / "out", verify=True)
    path.write_bytes(data[:-2])
    with pytest.raises(InputError, match=r"has [\d,]+ bytes, expected"):
        open_shards(tmp_path / "out")
    path.unlink()
    with pytest.raises(InputError, match=r"lacks tokens-00000\.bin"):
        open_shards(tmp_path / "out")


def test_a_token_beyond_the_vocabulary_is_named(tmp_path, tokenizer):
    pack(documents(), tokenizer, tmp_path / "out", length=8)
    path = tmp_path / "out" / "tokens-00000.bin"
    data = path.read_bytes()
    for wrong, shown in ((65_535, "65,535"), (-7, "-7")):
        path.write_bytes(data[:4] + wrong.to_bytes(4, "little", signed=True) + data[8:])
        shards = open_shards(tmp_path / "out")  # not verified
        with pytest.raises(InputError, match=rf"tokens-00000\.bin .*{shown};"):
            shards.tokens(0)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, which cannot be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_tokenizer_is_named_by_its_hub_id(tmp_path, tokenizer, hub):
    model = hub / "models--maker--small"
    tokenizer.save(model / "snapshots" / "abc")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("abc")
    (tmp_path / "text.txt").write_text(SENTENCE * 20)
    summary = pack_by_name(tmp_path / "text.txt", tmp_path / "out", tokenizer="maker/small", length=8)
    assert summary["num_documents"] == 1
    shards = open_shards(tmp_path / "out")
    assert (shards.tokenizer_fingerprint, shards.eos_id) == (tokenizer.fingerprint, tokenizer.eos_id)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("maker/small", "'maker/small' on this machine, and HF_HUB_OFFLINE"),
        ("startr", "Did you mean starter"),
        ("some/where/else", "some/where/else does not exist; expected a folder with tokenizer.json"),
    ],
)
def test_a_tokenizer_that_is_nowhere(tmp_path, hub, name, said):
    (tmp_path / "text.txt").write_text(SENTENCE)
    with pytest.raises(InputError, match=said):
        pack_by_name(tmp_path / "text.txt", tmp_path / "out", tokenizer=name)


KILLED_AT_RENAME = """
import os, sys
from pathlib import Path
from longlode.corpus import Document, Tokenizer
from longlode.packing import pack

folder, fatal = Path(sys.argv[1]), int(sys.argv[2])
real, calls = Path.replace, 0

def replace(self, target):
    global calls
    if "shards" in Path(target).name:
        calls += 1
        if calls == fatal:
            os._exit(9)
    return real(self, target)

Path.replace = replace
texts = [Document(f"new{i}", f"the quick brown fox {i}", "s", "f", i) for i in range(30)]
pack(texts, Tokenizer.load(folder / "tokenizer"), folder / "shards", length=8, overwrite=True)
"""


@pytest.mark.parametrize("fatal", [1, 2])
def test_an_overwrite_that_is_killed_between_its_renames_loses_nothing(tmp_path, tokenizer, fatal):
    tokenizer.save(tmp_path / "tokenizer")
    out = tmp_path / "shards"
    old = pack(documents(), tokenizer, out, length=8)["fingerprint"]
    done = subprocess.run([sys.executable, "-c", KILLED_AT_RENAME, tmp_path, str(fatal)], check=False)
    assert done.returncode == 9
    assert out.exists() == (fatal == 1)
    assert len(list(tmp_path.iterdir())) > 2  # what a killed writer leaves: as much as the shards
    with pytest.raises(InputError, match="already holds"):
        pack(documents(20), tokenizer, out, length=8)
    assert open_shards(out, verify=True).fingerprint == old
    assert {path.name for path in tmp_path.iterdir()} == {"shards", "tokenizer"}
    new = pack(documents(20), tokenizer, out, length=8, overwrite=True)["fingerprint"]
    assert open_shards(out, verify=True).fingerprint == new != old


def test_a_second_pack_of_one_folder_is_refused_while_the_first_runs(tmp_path, tokenizer):
    def meanwhile():
        yield from documents(20)
        with pytest.raises(InputError, match=f"process {os.getpid()} "):
            pack(documents(), tokenizer, tmp_path / "out", length=8)
        yield from documents(10, "y")

    pack(meanwhile(), tokenizer, tmp_path / "out", length=8)
    assert open_shards(tmp_path / "out", verify=True).num_documents == 30
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_text_that_makes_the_tokenizer_panic_fails_alone(tmp_path, tokenizer):
    rows = [
        Document("good", SENTENCE, "s", "f", 0),
        Document("blanks", "x" + " " * 11_000_000 + "y", "s", "f", 1),
        Document("better", SENTENCE, "s", "f", 2),
    ]
    summary = pack(rows, tokenizer, tmp_path / "out", length=4)
    assert (summary["num_documents"], summary["num_failed"]) == (2, 1)
    (row,) = (json.loads(line) for line in (tmp_path / "out/unreadable.jsonl").read_text().splitlines())
    assert (row["id"], row["status"]) == ("blanks", "failed")
    assert "gave up on the text" in row["reason"]


def test_an_interrupt_is_no_fault_of_a_text(tmp_path):
    class Interrupted(WideTokenizer):
        def tokens(self, texts):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(documents(), Interrupted(300), tmp_path / "out", length=4)
    assert list(tmp_path.iterdir()) == []


MEASURED = """
import resource, sys
from pathlib import Path
from longlode.corpus import Document, Tokenizer
from longlode.packing import pack

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

folder = Path(sys.argv[1])
tokenizer = Tokenizer.load(folder / "tokenizer")
pack([Document("a", "the quick brown fox " * 40_000, "s", "f", 0)], tokenizer, folder / "warm", length=8)
before = peak()
text = "".join(f"the quick brown fox {number} jumps over; " for number in range(300_000))
pack([Document("long", text, "s", "f", 0)], tokenizer, folder / "out", length=8)
print((peak() - before) / len(text))
"""


def test_memory_is_a_few_times_the_text(tmp_path, tokenizer):
    tokenizer.save(tmp_path / "tokenizer")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, tmp_path], check=True, capture_output=True, text=True
    )
    assert float(done.stdout) < 10


def test_long_texts_give_the_tokens_of_the_whole(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(tokens, "_CACHED_CHARACTERS", 100)
    monkeypatch.setattr(tokens, "_PIECE_CHARACTERS", 30)
    monkeypatch.setattr(tokens, "_PIECES_AT_ONCE", 3)
    texts = [f"{SENTENCE}\n" * repeats for repeats in (1, 7, 1, 40)]
    pack(
        [Document(str(i), text, "s", "f", i) for i, text in enumerate(texts)],
        tokenizer,
        tmp_path / "out",
        length=8,
    )
    shards = open_shards(tmp_path / "out")
    expected = [[*ids, tokenizer.eos_id] for ids in tokenizer.encode(texts)]
    assert [shards.tokens(i).tolist() for i in range(4)] == expected


def test_a_full_disk_is_said(tmp_path, tokenizer, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer, "_sync", full)
    with pytest.raises(InputError, match="no space left"):
        pack(documents(), tokenizer, tmp_path / "out", length=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "tokens-00000.bin",
        "documents-00000.parquet",
        "tokenizer/tokenizer.json",
        "tokenizer/tokenizer_config.json",
    ],
)
def test_every_file_has_a_checksum(tmp_path, tokenizer, name):
    pack(documents(), tokenizer, tmp_path / "out", length=8)
    path = tmp_path / "out" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"{name} is not what was packed"):
        open_shards(tmp_path / "out", verify=True)


def test_damage_to_tables_and_records_never_passes_for_another_error(tmp_path, tokenizer):
    pack(documents(), tokenizer, tmp_path / "out", length=8)
    rng = np.random.default_rng(0)
    found = 0
    for name in ("documents-00000.parquet", "record.json"):
        path = tmp_path / "out" / name
        sound = path.read_bytes()
        for _ in range(150):
            damaged = bytearray(sound)
            for place in rng.integers(len(sound), size=3):
                damaged[place] = rng.integers(256)
            path.write_bytes(damaged[: rng.integers(len(sound))] if rng.random() < 0.2 else damaged)
            try:
                shards = open_shards(tmp_path / "out")
                lengths = shards.lengths
                shards.split("heldout", 0.5)
                list(heldout_documents(shards, 0.5))
            except InputError:
                found += 1
            else:
                assert lengths.sum() == shards.num_tokens
        path.write_bytes(sound)
    assert found > 150


def test_a_tokenizer_without_eos_is_refused(tmp_path):
    wide = WideTokenizer(300)
    wide.eos_id = None
    with pytest.raises(InputError, match="names no eos_token"):
        pack(documents(), wide, tmp_path / "out", length=8)


def test_long_tables_are_written_in_parts(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(writer, "_TABLE_ROWS", 7)
    calls = []
    pack(documents(), tokenizer, tmp_path / "out", length=8, progress=lambda *counts: calls.append(counts))
    assert open_shards(tmp_path / "out").num_documents == 40
    assert calls[-1] == (40, open_shards(tmp_path / "out").num_tokens)
