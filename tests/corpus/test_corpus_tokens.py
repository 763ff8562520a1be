"""The tokenizer loses nothing, makes nothing special of a text, and is one that others can load."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer, tokens, train_bpe
from longlode.corpus.encoding import TextEncoder

CODE = """def f(x, y_z):
\tif x:
        return {"a": x ** 2, 'b': 12345}  # na\u00efve \u65e5\u672c\u8a9e \U0001f600
\r\n\r\n    \n\n# end  """
PROSE = "It was the best of times; it was the worst of times, don't you think? Caf\u00e9 No. 1984.\n\n"
TEXTS = [CODE * 3, PROSE * 5, "for i in range(10):\n        total += i\n" * 20]


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(TEXTS, 500)


@settings(max_examples=100, deadline=None)
@given(text=st.one_of(st.text(), st.text(alphabet=" \t\n\r\u00a0aZ9_.(\u00e9\u0301\u65e5\u0e01")))
def test_any_text_comes_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode([text])[0]) == text


def test_code_and_prose_come_back_and_compress(tokenizer):
    for text in TEXTS:
        (ids,) = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text
        assert len(ids) < len(text) / 2
        assert max(ids) < tokenizer.vocab_size


def test_digits_alone_and_runs_of_spaces_together(tokenizer):
    def pieces(text):
        return [tokenizer.decode([token]) for token in tokenizer.encode([text])[0]]

    assert pieces("12345") == list("12345")
    assert pieces("\n        return") == ["\n", " " * 7, " return"]
    assert tokenizer.encode([" 7"]) == [tokenizer.encode([" "])[0] + tokenizer.encode(["7"])[0]]


def test_texts_cannot_spell_special_tokens(tokenizer):
    text = "before <|endoftext|> after"
    for one in (tokenizer, pickle.loads(pickle.dumps(tokenizer))):
        (ids,) = one.encode([text])
        assert one.eos_id not in ids
        assert one.decode(ids) == text
    assert tokenizer.decode([tokenizer.eos_id]) == "<|endoftext|>"


def test_empty_texts_and_batches(tokenizer):
    assert tokenizer.encode([]) == []
    assert tokenizer.encode(["", "a"])[0] == []
    together = tokenizer.encode(TEXTS)
    assert together == [tokenizer.encode([text])[0] for text in TEXTS]


def test_save_load_and_fingerprint(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "t")
    for source in (tmp_path / "t", str(tmp_path / "t" / "tokenizer.json")):
        again = Tokenizer.load(source)
        assert again.fingerprint == tokenizer.fingerprint
        assert again.encode(TEXTS) == tokenizer.encode(TEXTS)
        assert (again.eos_id, again.vocab_size) == (tokenizer.eos_id, tokenizer.vocab_size)
    assert train_bpe(iter(TEXTS), 500).fingerprint == tokenizer.fingerprint
    assert train_bpe(TEXTS, 280).fingerprint != tokenizer.fingerprint


def test_transformers_loads_it(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    assert other.eos_token_id == other.bos_token_id == other.pad_token_id == tokenizer.eos_id
    assert set(other("a text")) == {"input_ids", "attention_mask"}
    for text in TEXTS:
        (ids,) = tokenizer.encode([text])
        assert other(text)["input_ids"] == ids
        assert other.decode(ids, clean_up_tokenization_spaces=False) == text
    other.save_pretrained(tmp_path / "theirs")
    back = Tokenizer.load(tmp_path / "theirs")
    assert back.encode(TEXTS) == tokenizer.encode(TEXTS)
    assert back.eos_id == tokenizer.eos_id


def test_tokenizers_of_others(tmp_path):
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    inner = tokenizers.Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "?": 3}, unk_token="?"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    inner.enable_truncation(2)
    inner.enable_padding(length=8)
    inner.save(str(tmp_path / "tokenizer.json"))
    loaded = Tokenizer.load(tmp_path)
    assert loaded.encode(["a a a", "a b"]) == [[2, 2, 2], [2, 3]]
    assert (loaded.eos_id, loaded.vocab_size) == (1, 4)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": {"content": "a"}}')
    assert Tokenizer.load(tmp_path).eos_id == 2
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "none such"}')
    assert Tokenizer.load(tmp_path).eos_id is None


def test_an_id_that_no_model_has_a_row_for_is_refused(tokenizer, tmp_path):
    import tokenizers

    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    fields = json.loads(path.read_text())
    token = max(fields["model"]["vocab"], key=fields["model"]["vocab"].get)
    fields["model"]["vocab"][token] = 2**32 - 1
    path.write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"tokenizer\.json: .* 4,294,967,295"):
        Tokenizer.load(tmp_path)
    with pytest.raises(InputError, match="the id 4,294,967,295"):
        TextEncoder(tokenizers.Tokenizer.from_file(str(path)))


def test_errors(tmp_path):
    with pytest.raises(InputError, match="nowhere does not exist"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no tokenizer: expected"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match="is not a tokenizer file"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ConfigError, match="vocab_size is 256"):
        train_bpe(TEXTS, 256)
    with pytest.raises(InputError, match="no text to train"):
        train_bpe(["", ""], 300)


@pytest.mark.parametrize("package", ["corpus", "packing"])
def test_the_package_loads_no_torch(package):
    heavy = "{'torch', 'transformers', 'fsspec'}"
    code = f"import sys, longlode.{package}; print(*sorted({heavy} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.split() == []


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.sampled_from(
            [
                "the quick",
                " fox",
                "12",
                "\n\n",
                "    ",
                "\t",
                "é",
                "日本",
                "<|endoftext|>",
                "x'll ",
                "!?",
                ".",
            ]
        ),
        max_size=60,
    ),
    cached=st.integers(1, 40),
)
def test_tokens_are_those_of_encode(tokenizer, parts, cached):
    texts = ["".join(parts), "x ", "", "".join(reversed(parts)), "! ", " a"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tokens, "_CACHED_CHARACTERS", cached)
        for _ in range(2):  # the second time from the cache
            found = tokenizer.tokens(texts)
            assert all(ids.dtype == np.int32 for ids in found)
            assert [ids.tolist() for ids in found] == tokenizer.encode(texts)
