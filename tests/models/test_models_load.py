"""Loading by path or name: transformers knows us in any import order; what is no model is refused."""

import subprocess
import sys

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

from longlode.core import model_names
from longlode.core.errors import ConfigError, InputError, ModelError
from longlode.models import LonglodeConfig, LonglodeForCausalLM, hook, load, starter_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = LonglodeConfig(vocab_size=4, hidden_size=16, num_heads=2, mixers="DS", intermediate_size=16)
    LonglodeForCausalLM(config).save_pretrained(path)
    words = Tokenizer(models.WordLevel({"?": 0, "a": 1, "b": 2, "c": 3}, unk_token="?"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?").save_pretrained(path)
    return path


def test_loads_model_and_tokenizer(folder):
    model, tokenizer = load(folder)
    assert type(model) is LonglodeForCausalLM
    assert not model.training
    assert model.dtype == torch.float32
    assert tokenizer("a c b").input_ids == [1, 3, 2]
    assert load(str(folder), dtype="bfloat16")[0].dtype == torch.bfloat16
    assert load(folder, dtype=torch.float64)[0].dtype == torch.float64


def run(code, *arguments):
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


LONGLODE_FIRST = """
import sys
import longlode, longlode.models
assert not {"torch", "transformers"} & set(sys.modules), "import longlode is to stay light"
from transformers.models.llama.modeling_llama import LlamaForCausalLM
from transformers import AutoModelForCausalLM
from longlode.models.load import load
print(type(AutoModelForCausalLM.from_pretrained(sys.argv[1])).__name__, callable(longlode.models.load))
longlode.register()
"""


def test_transformers_knows_us_when_imported_later(folder):
    assert run(LONGLODE_FIRST, folder) == ["LonglodeForCausalLM", "True"]


def test_transformers_knows_us_when_imported_before(folder, monkeypatch):
    table = sys.modules[hook.AUTO_MODULE].CONFIG_MAPPING
    monkeypatch.delitem(table._extra_content, "longlode")
    with pytest.raises(ValueError, match="model type `longlode`"):
        AutoConfig.from_pretrained(folder)
    hook.install()
    assert type(AutoConfig.from_pretrained(folder)) is LonglodeConfig


def test_hook_stands_at_most_once(monkeypatch):
    monkeypatch.delitem(sys.modules, hook.AUTO_MODULE)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    before = len(sys.meta_path)
    hook.install()
    hook.install()
    assert len(sys.meta_path) == before + 1
    assert sys.meta_path[0].find_spec("json", None) is None


def test_what_is_no_model_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match=r"has no config\.json"):
        load(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        load(folder / "config.json")
    with pytest.raises(ConfigError, match="dtype is 'int8'"):
        load(folder, dtype="int8")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(ModelError, match=r"The model of .* cannot be loaded: ValueError"):
        load(tmp_path)


def test_weights_missing_torn_or_without_tokenizer(tmp_path, folder):
    config = (folder / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(ModelError, match="cannot be loaded: OSError"):
        load(tmp_path)
    weights = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(weights[:-50])
    with pytest.raises(ModelError, match=r"The model of .* cannot be loaded"):
        load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(ModelError, match=r"The tokenizer of .* cannot be loaded"):
        load(tmp_path)


def test_weights_without_a_head_are_refused(tmp_path, folder):
    model, tokenizer = load(folder)
    model.model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        load(tmp_path)


def test_pickled_weights_are_refused(tmp_path, folder):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    model, _ = load(folder)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path)


def test_absent_starter_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(model_names, "_ASSETS", tmp_path / "src" / "assets")
    with pytest.raises(InputError, match="Reinstall longlode"):
        starter_folder()
    assets = tmp_path / "src" / "assets" / "starter"
    assets.mkdir(parents=True)
    (assets / "model.safetensors").touch()
    assert starter_folder() == assets
