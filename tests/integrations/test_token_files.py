"""Shards as token files of other trainers: what they hold is what was packed."""

import json
import random
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import longlode
from longlode.cli.commands import app
from longlode.core.errors import BackendError, ConfigError
from longlode.integrations.token_files import write_token_files
from longlode.packing import open_shards


@pytest.fixture
def shards(tmp_path):
    draw = random.Random()
    rows = [
        {"id": str(n), "text": " ".join(draw.choices(["tree", "sea", "of"], k=n % 7 + 1))} for n in range(40)
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    longlode.pack(tmp_path / "in.jsonl", tmp_path / "shards", length=16)
    return open_shards(tmp_path / "shards")


def documents(shards):
    return [shards.tokens(number).tolist() for number in range(shards.num_documents)]


def by_ends(tokens, ends):
    return [part.tolist() for part in np.split(tokens, ends[:-1].astype(np.int64))]


def test_datatrove(tmp_path, shards):
    pytest.importorskip("datatrove", reason="needs longlode[datatrove]")
    done = CliRunner().invoke(
        app, ["convert", str(shards.folders[0]), str(tmp_path / "out"), "--to", "datatrove"]
    )
    assert done.exit_code == 0, done.output
    tokens = np.fromfile(tmp_path / "out/tokens-00000.ds", "<u2")
    assert by_ends(tokens, np.fromfile(tmp_path / "out/tokens-00000.ds.index", "<u8")) == documents(shards)


@pytest.fixture
def chats(tmp_path):
    """Shards of one chat, half of whose tokens have a loss."""
    chat = [{"role": "user", "content": "how deep"}, {"role": "assistant", "content": "very deep"}]
    (tmp_path / "in.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    (tmp_path / "template.jinja").write_text(
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    how = {"chat": "messages", "chat_template": tmp_path / "template.jinja"}
    longlode.pack(tmp_path / "in.jsonl", tmp_path / "shards", length=8, **how)
    return open_shards(tmp_path / "shards")


def test_datatrove_keeps_which_tokens_of_chats_have_a_loss(tmp_path, chats):
    pytest.importorskip("datatrove", reason="needs longlode[datatrove]")
    write_token_files(chats, tmp_path / "out", "datatrove")
    wanted = chats.has_loss(0)
    assert 0 < wanted.sum() < len(wanted)
    assert np.fromfile(tmp_path / "out/tokens-00000.ds.loss", np.bool_).tolist() == wanted.tolist()
    with pytest.raises(ConfigError, match="loss"):
        write_token_files(chats, tmp_path / "other", "megatron")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_megatron(tmp_path, shards):
    pytest.importorskip("megatron.core", reason="needs longlode[megatron]")
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    (path,) = write_token_files(shards, tmp_path / "out", "megatron")
    read = IndexedDataset(str(path.with_suffix("")))
    assert [read[number].tolist() for number in range(len(read))] == documents(shards)
    assert read.document_indices.tolist() == list(range(shards.num_documents + 1))


@pytest.fixture
def streaming():
    return pytest.importorskip("streaming", reason="needs mosaicml-streaming, as docs/guides/scale.md says")


def test_mds(tmp_path, shards, streaming):
    done = CliRunner().invoke(app, ["convert", str(shards.folders[0]), str(tmp_path / "out"), "--to", "mds"])
    assert done.exit_code == 0, done.output
    read = streaming.StreamingDataset(local=str(tmp_path / "out"), shuffle=False, batch_size=1)
    rows = [read[number] for number in range(read.num_samples)]
    assert [row["tokens"].tolist() for row in rows] == documents(shards)
    assert [row["id"] for row in rows] == shards.column("id").to_pylist()
    assert {row["tokens"].dtype for row in rows} == {np.dtype(np.int32)}


def test_mds_keeps_which_tokens_of_chats_have_a_loss(tmp_path, chats, streaming):
    write_token_files(chats, tmp_path / "out", "mds")
    read = streaming.StreamingDataset(local=str(tmp_path / "out"), shuffle=False, batch_size=1)
    assert read[0]["has_loss"].tolist() == chats.has_loss(0).tolist()
    assert read[0]["tokens"].tolist() == chats.tokens(0).tolist()


@pytest.mark.parametrize(
    ("layout", "module"), [("datatrove", "datatrove"), ("megatron", "megatron"), ("mds", "streaming")]
)
def test_a_library_that_is_missing_is_named_with_its_extra(tmp_path, monkeypatch, shards, layout, module):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError, match=rf"longlode\[{layout}\]"):
        write_token_files(shards, tmp_path / "out", layout)
