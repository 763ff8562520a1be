"""fla `delta_net` and `gated_deltanet` checkpoints, read and written: configurations, names, refusals."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from longlode.core.errors import ConfigError, ModelError
from longlode.models import LonglodeConfig, LonglodeForCausalLM, load
from longlode.models.convert import config_from_fla, config_to_fla, save_for_fla

# The fields of the config.json of fla-hub/delta_net-1.3B-100B, which is older than some of fla's present fields.
RELEASED = {
    "architectures": ["DeltaNetForCausalLM"],
    "attn": None,
    "attn_mode": "chunk",
    "bos_token_id": 1,
    "conv_size": 4,
    "eos_token_id": 2,
    "expand_k": 1,
    "expand_v": 1,
    "fuse_cross_entropy": True,
    "fuse_norm": True,
    "hidden_act": "swish",
    "hidden_ratio": 4,
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": None,
    "max_position_embeddings": 2048,
    "model_type": "delta_net",
    "norm_eps": 1e-06,
    "norm_first": False,
    "num_heads": 16,
    "num_hidden_layers": 24,
    "pad_token_id": 2,
    "qk_activation": "silu",
    "qk_norm": "l2",
    "share_conv_kernel": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.48.2",
    "use_beta": True,
    "use_cache": True,
    "use_gate": False,
    "use_output_norm": True,
    "use_short_conv": True,
    "vocab_size": 32000,
}
SMALL = RELEASED | {
    "hidden_size": 24,
    "num_heads": 4,
    "num_hidden_layers": 3,
    "vocab_size": 40,
    "torch_dtype": "float32",
}


# Sizes of fla's own default in small: keys narrower than the model, values twice as wide as keys.
GATED = {
    "model_type": "gated_deltanet",
    "hidden_size": 24,
    "num_heads": 3,
    "head_dim": 6,
    "num_hidden_layers": 2,
    "vocab_size": 40,
}


def gated_tensors(fields):
    """Tensors as fla's GatedDeltaNet names and shapes them (fla/layers/gated_deltanet.py), drawn at random."""
    D, heads, K = fields["hidden_size"], fields["num_heads"], fields["head_dim"]
    V, HV = int(K * fields.get("expand_v", 2.0)), fields.get("num_v_heads", heads)
    wide = {"q_proj": heads * K, "k_proj": heads * K, "v_proj": HV * V, "a_proj": HV, "b_proj": HV}
    if fields.get("use_gate", True):
        wide["g_proj"] = HV * V
    shapes = {"model.embeddings.weight": (40, D), "model.norm.weight": (D,), "lm_head.weight": (40, D)}
    for n in range(fields["num_hidden_layers"]):
        layer, attn = f"model.layers.{n}", f"model.layers.{n}.attn"
        shapes |= {f"{layer}.{norm}.weight": (D,) for norm in ("attn_norm", "mlp_norm")}
        shapes |= {f"{layer}.mlp.{x}_proj.weight": (256, D) for x in ("gate", "up")}
        shapes |= {f"{layer}.mlp.down_proj.weight": (D, 256), f"{attn}.o_proj.weight": (D, HV * V)}
        shapes |= {f"{attn}.{name}.weight": (width, D) for name, width in wide.items()}
        shapes |= {f"{attn}.{x}_conv1d.weight": (HV * V if x == "v" else heads * K, 1, 4) for x in "qkv"}
        shapes |= {f"{attn}.A_log": (HV,), f"{attn}.dt_bias": (HV,), f"{attn}.o_norm.weight": (V,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def fla_tensors(fields, attention_layers=()):
    """Tensors as fla's modules name and shape them, drawn at random."""
    D, heads, width = fields["hidden_size"], fields["num_heads"], 256
    shapes = {"model.embeddings": (40, D), "model.norm": (D,), "lm_head": (40, D)}
    for n in range(fields["num_hidden_layers"]):
        layer = f"model.layers.{n}"
        shapes |= {f"{layer}.attn_norm": (D,), f"{layer}.mlp_norm": (D,)}
        shapes |= {f"{layer}.mlp.{x}_proj": (width, D) for x in ("gate", "up")} | {
            f"{layer}.mlp.down_proj": (D, width)
        }
        shapes |= {f"{layer}.attn.{x}_proj": (D, D) for x in "qkvo"}
        if n in attention_layers:
            shapes |= {f"{layer}.attn.{x}_proj": (D // 2, D) for x in "kv"}
        else:
            shapes |= {f"{layer}.attn.{x}_conv1d": (D, 1, 4) for x in "qkv"}
            shapes |= {f"{layer}.attn.b_proj": (heads, D), f"{layer}.attn.o_norm": (D // heads,)}
    generator = torch.Generator().manual_seed(0)
    return {f"{name}.weight": torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write_fla(folder, fields, tensors):
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(fields))
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    ).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("hybrid", [False, True])
def test_read_and_written_back_bit_for_bit(tmp_path, hybrid):
    spec = {
        "layers": [1],
        "num_heads": 4,
        "num_kv_heads": 2,
        "window_size": 7,
        "qkv_bias": False,
        "rope_theta": 500.0,
    }
    fields = SMALL | ({"attn": spec} if hybrid else {})
    tensors = fla_tensors(fields, attention_layers=[1] if hybrid else ())
    model, _ = load(write_fla(tmp_path / "fla", fields, tensors))
    assert type(model) is LonglodeForCausalLM
    assert model.config.stack == ("DSD" if hybrid else "DDD")
    if hybrid:
        attention = model.config.layer_configs[1].mixer
        assert (attention.window, attention.num_kv_heads, attention.rope_theta) == (7, 2, 500.0)
    for name, value in model.state_dict().items():
        assert torch.equal(value, tensors[name]), name
    save_for_fla(model, tmp_path / "back")
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(written[name], value), name
    again = config_from_fla(json.loads((tmp_path / "back" / "config.json").read_text()))
    where_from = {"architectures", "_name_or_path", "transformers_version"}
    want, got = model.config.to_dict(), again.to_dict()
    assert {k: v for k, v in got.items() if k not in where_from} == {
        k: want[k] for k in got.keys() - where_from
    }


@pytest.mark.parametrize("changes", [{}, {"use_gate": False, "expand_v": 1.0}, {"num_v_heads": 6}])
def test_gated_read_and_written_back_bit_for_bit(tmp_path, changes):
    fields = GATED | changes
    tensors = gated_tensors(fields)
    model, _ = load(write_fla(tmp_path / "fla", fields, tensors))
    assert (model.config.stack, model.config.head_dim) == ("GG", 6)
    assert (model.config.use_output_gate, model.config.expand_v) == (
        fields.get("use_gate", True),
        fields.get("expand_v", 2.0),
    )
    save_for_fla(model, tmp_path / "back")
    written = load_file(tmp_path / "back" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, value in tensors.items():
        assert torch.equal(written[name], value), name
    again = json.loads((tmp_path / "back" / "config.json").read_text())
    assert again["model_type"] == "gated_deltanet"
    for name, value in fields.items():
        assert again[name] == value, name
    assert config_from_fla(again).num_params == sum(value.numel() for value in tensors.values())


def test_the_default_gated_config_of_fla_has_the_size_it_states():
    """Its docstring: about 6 D^2 parameters a layer in the mixer."""
    config = config_from_fla({"model_type": "gated_deltanet"})
    assert (config.stack, config.num_heads, config.head_dim, config.expand_v) == ("G" * 21, 6, 256, 2.0)
    mixer = (config.num_params - 2 * 32000 * 2048) / 21 - 3 * 2048 * config.intermediate_size
    assert mixer / 2048**2 == pytest.approx(6, rel=0.01)


def test_parameters_that_we_lack_are_not_dropped(tmp_path):
    tensors = gated_tensors(GATED) | {"model.layers.0.attn.D": torch.zeros(3)}
    with pytest.raises(ModelError, match=r"attn\.D"):
        load(write_fla(tmp_path / "fla", GATED, tensors))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_v_heads": 4}, "num_v_heads = 4; expected a multiple of num_heads, 3"),
        ({"num_v_heads": 1}, "num_v_heads = 1"),
        ({"num_v_heads": 0}, "num_v_heads = 0"),
        ({"attn": {"layers": [1], "num_heads": 24}}, "have 1 numbers; rotary"),
        ({"use_short_conv": False}, "use_short_conv = False"),
    ],
)
def test_gated_checkpoints_that_cannot_be_read_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        config_from_fla(GATED | changes)


def test_released_config():
    config = config_from_fla(RELEASED)
    assert config.num_params == 1_365_677_056
    assert (config.stack, config.head_dim, config.intermediate_size) == ("D" * 24, 128, 5632)
    assert (config.pad_token_id, config.dtype) == (2, torch.bfloat16)
    again = config_to_fla(config)
    for name in RELEASED.keys() & again.keys() - {"intermediate_size"}:
        assert again[name] == RELEASED[name], name


def test_what_fla_leaves_out_is_flas_default():
    config = config_from_fla({"model_type": "delta_net"})
    assert (config.hidden_size, config.num_heads, config.vocab_size) == (2048, 16, 32000)
    assert (config.bos_token_id, config.eos_token_id) == (1, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"use_short_conv": False}, "use_short_conv = False"),
        ({"expand_k": 2.0}, r"expand_k = 2.0; a longlode model has 1.0"),
        ({"model_type": "gla"}, "model_type is 'gla'; expected fla's delta_net or gated_deltanet"),
        ({"qk_norm": "sum"}, "qk_norm = 'sum'"),
        ({"num_v_heads": 8}, "num_v_heads = 8; expected num_heads, 4, in a delta_net"),
        ({"attn": {"layers": [1], "num_heads": 4, "qk_norm": True}}, "attn has qk_norm = True"),
        (
            {"attn": [{"layers": [i], "num_heads": n} for i, n in ((0, 4), (1, 2))]},
            "differ in window_size, num_heads",
        ),
        (
            {"attn": [{"layers": [i], "num_heads": 4, "window_size": w} for i, w in ((0, 5), (1, 6))]},
            "differ in window_size",
        ),
    ],
)
def test_what_cannot_be_read_is_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        config_from_fla(SMALL | changes)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mixers": "DG"}, "this model is 'DG'"),
        ({"mixers": "A"}, "this model is 'A'"),
        ({"mixers": "DM"}, "this model is 'DM'"),
        ({"head_dim": 4}, "4 heads of 4"),
        ({"mixers": "GA", "head_dim": 4}, "4 heads of 4"),
        ({"mixers": "DA", "attn_num_heads": 2, "attn_head_dim": 8}, "2 heads of 8"),
        ({"mixers": "GAS"}, "one kind of attention"),
        ({"num_v_heads": 8}, "num_v_heads 8 and num_heads 4"),
    ],
)
def test_what_fla_has_no_place_for_is_refused(fields, said):
    config = LonglodeConfig(**{"hidden_size": 24, "num_heads": 4, "mixers": "D", "vocab_size": 9} | fields)
    with pytest.raises(ConfigError, match=said):
        config_to_fla(config)
