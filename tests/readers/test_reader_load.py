"""Loading a reader: what is wrong with a folder is said in words; a reader is named by its content."""

import pickle
import shutil

import pytest
import torch
from reader_stand_ins import LENGTH, build, make_tokenizer
from safetensors.torch import load_file, save_file

from longlode.core.errors import BackendError, ConfigError, InputError, ModelError
from longlode.mining.reader import READS_SEGMENTS
from longlode.readers import dtype as reader_dtype
from longlode.readers.dtype import fastest_dtype, products_per_second
from longlode.readers.lm import LMReader, ReaderSpec
from longlode.readers.tokens import TokenReaderSpec


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A tiny llama and its tokenizer in a folder, which tests copy before they break it."""
    folder = tmp_path_factory.mktemp("reader") / "tiny"
    build("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


@pytest.mark.parametrize("name", ["opt", "gpt2", "DS"])
def test_load_scores_and_names_as_the_model_in_memory(name, tmp_path):
    model, tokenizer = build(name), make_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours, loaded = LMReader(model, tokenizer, segment=LENGTH), LMReader.load(tmp_path, segment=LENGTH)
    segments = torch.randint(0, 300, (3, LENGTH)).numpy()
    assert (ours.alone(segments)[0] == loaded.alone(segments)[0]).all()
    assert ours.fingerprint == loaded.fingerprint


def test_fingerprint_follows_content(folder):
    first = LMReader.load(folder, segment=LENGTH).fingerprint
    assert LMReader.load(folder, segment=8).fingerprint == first
    assert LMReader.load(folder, segment=LENGTH, dtype="bfloat16").fingerprint != first
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + 1e-3
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert LMReader.load(folder, segment=LENGTH).fingerprint != first


def test_fingerprint_ignores_what_the_tokenizer_last_did(folder):
    first = LMReader.load(folder, segment=LENGTH).fingerprint
    reader = LMReader.load(folder, segment=LENGTH)
    reader.tokenizer(["a cat"], max_length=5, truncation=True)
    assert reader.fingerprint == first
    assert len(reader.encode(["the cat sat on the mat " * 9])[0]) > 5


def test_spec_pickles_and_loads(folder, monkeypatch):
    kept = []
    monkeypatch.setattr("longlode.readers.lm.keep_freed_memory", kept.append)
    spec = pickle.loads(pickle.dumps(ReaderSpec(str(folder), segment=LENGTH, batch_tokens=99)))
    reader = spec()
    assert (reader.segment, reader.batch_tokens, torch.get_num_threads()) == (LENGTH, 99, 1)
    assert kept == ([256 << 20] if reader.device.type == "cpu" else [])


def test_missing_and_wrong_paths(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        LMReader.load(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("no model")
    with pytest.raises(ModelError, match=r"no config\.json"):
        LMReader.load(tmp_path)
    with pytest.raises(ModelError, match="is a file"):
        LMReader.load(tmp_path / "notes.txt")
    with pytest.raises(InputError, match="no/such-model"):
        LMReader.load("no/such-model")


def test_broken_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        LMReader.load(folder)


def test_pickled_weights_are_refused(folder):
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle.*use_safetensors=False"):
        LMReader.load(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"no weights; expected model\.safetensors"):
        LMReader.load(folder)


def test_torn_weights(folder):
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        LMReader.load(folder)


def test_no_tokenizer(folder):
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(ModelError, match="tokenizer"):
        LMReader.load(folder)


def test_a_backbone_without_head_is_no_reader(tmp_path):
    build("llama").model.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lack 1 of the model's parameters, among them lm_head\.weight"):
        LMReader.load(tmp_path)


def test_settings(folder):
    with pytest.raises(ConfigError, match="dtype is 'float12'; expected one of float32"):
        LMReader.load(folder, dtype="float12")
    with pytest.raises(BackendError, match="abacus"):
        LMReader.load(folder, device="abacus")
    with pytest.raises(BackendError, match="cuda:99"):
        LMReader.load(folder, device="cuda:99")


def test_tokens_without_the_model(folder):
    whole = LMReader.load(folder, segment=LENGTH)
    (folder / "model.safetensors").unlink()
    spec = pickle.loads(pickle.dumps(TokenReaderSpec(str(folder))))
    tokens = spec()
    texts = ["the cat sat on the mat, then the other cat sat there too", "", "x" * 200]
    for ours, theirs in zip(tokens.encode(texts), whole.encode(texts), strict=True):
        assert ours.tolist() == theirs.tolist()
    assert tokens.fingerprint == spec().fingerprint != whole.fingerprint
    assert READS_SEGMENTS.why_not(tokens) == "it has no `alone`"
    assert READS_SEGMENTS.why_not(whole) == ""
    with pytest.raises(ModelError, match="does not exist"):
        TokenReaderSpec(str(folder / "absent"))()


def test_the_fastest_dtype_is_the_one_that_was_measured(monkeypatch):
    rates = {torch.bfloat16: 5.0, torch.float32: 1.0}
    monkeypatch.setattr(reader_dtype, "products_per_second", rates.get)
    assert fastest_dtype("cpu")[0] == "bfloat16"
    rates[torch.bfloat16] = 1.1
    assert fastest_dtype("cpu") == ("float32", "bfloat16 has 1.1 times the speed of float32 on this CPU")


def test_products_are_counted():
    assert products_per_second(torch.float32) > 1
