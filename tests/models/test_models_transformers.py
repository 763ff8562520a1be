"""Habits of a transformers user that need no numbers of their own: devices, dtypes, pipeline, export, compile."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, pipeline

from longlode.core.errors import ConfigError
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeForCausalLM, starter_folder

OPTIONS = {"max_new_tokens": 4, "do_sample": False}


def tiny(mixers="DGSALCM", **fields):
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "num_kv_heads": 2, "window": 5}
    config = LonglodeConfig(**sizes, mixers=mixers, intermediate_size=48, initializer_range=0.3, **fields)
    return LonglodeForCausalLM(config).eval()


def tokens(rows=2, length=11):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    tiny().double().save_pretrained(path, max_shard_size="20KB")
    return path


def test_auto_config_makes_the_model(folder):
    config = AutoConfig.from_pretrained(folder)
    assert type(config) is LonglodeConfig
    model = AutoModelForCausalLM.from_config(config)
    assert (type(model), model.num_parameters()) == (LonglodeForCausalLM, config.num_params)


@pytest.mark.parametrize("where", ["cpu", "auto", "partly on disk"])
def test_device_map(folder, where, tmp_path):
    device_map = where
    if where == "partly on disk":
        names = ["model.embeddings", "model.norm", "lm_head", *(f"model.layers.{n}" for n in range(7))]
        device_map = {
            name: "disk" if name in ("model.layers.1", "model.layers.6") else "cpu" for name in names
        }
    model = AutoModelForCausalLM.from_pretrained(folder, device_map=device_map, offload_folder=tmp_path)
    want = tiny().double()
    torch.testing.assert_close(model(tokens()).logits, want(tokens()).logits, rtol=0, atol=1e-11)
    assert torch.equal(model.generate(tokens(), **OPTIONS), want.generate(tokens(), **OPTIONS))
    on_meta = {name for name, p in model.named_parameters() if p.is_meta}
    assert bool(on_meta) == (where == "partly on disk")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(folder, dtype):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    wide = {name.split(".")[-1] for name, p in model.named_parameters() if p.dtype != dtype}
    assert wide == {"A_log", "dt_bias"}
    cache = LonglodeCache(7)
    exact = tiny().double()(tokens()).logits
    logits = model(tokens(), past_key_values=cache).logits
    assert logits.dtype == dtype
    assert (logits - exact).abs().mean() < 0.03 * exact.abs().max()
    memories = {name: state.dtype for layer in cache.layers for name, state in layer.state.items()}
    assert (memories["memory"], memories["k"]) == (torch.float32, dtype)
    assert cache.num_bytes == 2 * model.config.state_bytes(11, dtype)
    assert model.generate(tokens(), **OPTIONS).shape == (2, 15)


def test_pipeline_writes_text():
    write = pipeline("text-generation", model=str(starter_folder()), device="cpu")
    (found,) = write("def main(", max_new_tokens=8, do_sample=False)
    assert found["generated_text"].startswith("def main(")
    assert len(found["generated_text"]) > len("def main(")


@torch.no_grad()
@pytest.mark.parametrize("letter", "DGSALCM")
def test_export_for_one_length(letter):
    model, x = tiny(letter), tokens()
    mask = torch.ones_like(x)
    plain = torch.export.export(model, (x,), {"use_cache": False}, strict=False).module()
    options = {"attention_mask": mask, "use_cache": False}
    padded = torch.export.export(model, (x,), options, strict=False).module()
    torch.testing.assert_close(plain(x, use_cache=False).logits, model(x).logits)
    mask[0, :4], mask[1, 6:] = 0, 0
    got, want = padded(x, attention_mask=mask, use_cache=False).logits, model(x, attention_mask=mask).logits
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()])
    assert not torch.allclose(got[0, 4:], model(x).logits[0, 4:])
    mask[0], mask[0, 2:5] = 1, 0  # in the middle, where a graph that does not sort would read it as text
    got, want = padded(x, attention_mask=mask, use_cache=False).logits, model(x, attention_mask=mask).logits
    torch.testing.assert_close(got[mask.bool()], want[mask.bool()])


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own tracing
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.filterwarnings(
    "ignore:While compiling, we found certain side effects"
)  # a block names its sides
def test_strict_export_traces_the_whole_model():
    model, x = tiny("DA"), tokens()
    program = torch.export.export(model, (x,), {"use_cache": False}, strict=True).module()
    torch.testing.assert_close(program(x, use_cache=False).logits, model(x).logits)


def test_export_with_a_dynamic_length_is_refused():
    length = torch.export.Dim("length", min=2, max=512)
    shapes = {"input_ids": {1: length}, "use_cache": None}
    with pytest.raises(ConfigError, match="dynamic length"), torch.no_grad():
        torch.export.export(
            tiny("DA"), (tokens(),), {"use_cache": False}, strict=False, dynamic_shapes=shapes
        )


@torch.no_grad()
# Of torch's own tracing.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_compile_changes_nothing():
    torch._dynamo.reset()
    model, x = tiny("DS"), tokens()
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(compiled(x).logits, model(x).logits)
    mask = torch.ones_like(x)
    mask[0, :4] = 0
    torch.testing.assert_close(compiled(x, attention_mask=mask).logits, model(x, attention_mask=mask).logits)
    assert torch.equal(compiled.generate(x, **OPTIONS), model.generate(x, **OPTIONS))
