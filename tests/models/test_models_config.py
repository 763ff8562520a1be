"""The configuration: what follows from the stack, closed forms against built models, refusals."""

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.keywords import CACHE_KEYWORD
from longlode.models.presets import PRESETS, preset

CONFIGS = {
    "paper, small": {"mixers": "D*3"},
    "all mixers, tied": {"mixers": "DGSALCM", "num_kv_heads": 2, "window": 6, "tie_word_embeddings": True},
    "other heads in attention": {
        "mixers": "DSA",
        "attn_num_heads": 2,
        "attn_head_dim": 10,
        "num_kv_heads": 1,
        "qkv_bias": True,
    },
    "attention without positions": {"mixers": "MA", "rope": False},
    "grouped values": {"mixers": "DGSA", "num_v_heads": 12, "expand_v": 0.5, "use_output_gate": True},
    "gates and widths": {
        "mixers": "GD",
        "use_output_gate": True,
        "head_dim": 12,
        "intermediate_size": 40,
        "conv_size": 3,
    },
}


def make(**fields):
    return LonglodeConfig(**{"vocab_size": 50, "hidden_size": 32, "num_heads": 4, **fields})


@pytest.mark.parametrize("name", CONFIGS)
def test_numbers_are_those_of_the_built_model(name):
    config = make(**CONFIGS[name])
    model = LonglodeForCausalLM(config).eval()
    assert config.num_params == model.num_parameters()
    for tokens in (1, 9):
        out = model(torch.zeros(2, tokens, dtype=torch.long))
        assert out[CACHE_KEYWORD].num_bytes == 2 * config.state_bytes(tokens)
        assert config.flops_per_token(tokens) == model.flops_per_token(tokens)
        mlp_and_head = sum(
            2 * module.weight.numel()
            for path, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and ".attn." not in path
        )
        mixers = sum(block.attn.flops_per_token(tokens) for block in model.model.layers)
        assert config.flops_per_token(tokens) == pytest.approx(mlp_and_head + mixers)


MILLIONS = {
    "delta_net-340m": 374.4,
    "delta_net-1.3b": 1365.7,
    "delta_net-swa-340m": 374.1,
    "delta_net-swa-1.3b": 1365.0,
    "delta_net-global-340m": 374.3,
    "delta_net-global-1.3b": 1365.6,
    "transformer-340m": 373.9,
    "transformer-1.3b": 1364.3,
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_the_size_they_claim(name):
    config = preset(name)
    assert (config.num_hidden_layers, config.head_dim, config.vocab_size) == (24, 128, 32000)
    assert not config.tie_word_embeddings
    with torch.device("meta"):
        model = LonglodeForCausalLM(config)
    assert config.num_params == sum(p.numel() for p in model.parameters())
    assert round(config.num_params / 1e6, 1) == MILLIONS[name]
    if set(config.stack) == {"D"}:
        # 24 layers of one 128 x 128 float32 matrix a head, and three tokens of three convolutions.
        assert config.state_bytes(1_000_000) == 24 * config.num_heads * (128 * 128 + 3 * 3 * 128) * 4


def test_the_stacks_of_the_paper():
    assert {preset(name).stack for name in PRESETS} == {
        "D" * 24,
        "DS" * 12,
        "DADDDDDDDDDADDDDDDDDDDDD",
        "A" * 24,
    }
    assert preset("delta_net-global-340m").stack == "DADDDDDDDDDADDDDDDDDDDDD"
    assert preset("delta_net-swa-1.3b").stack == "DS" * 12
    with pytest.raises(ConfigError, match="expected one of delta_net-340m"):
        preset("huge")


def test_what_follows_from_the_stack():
    config = make(mixers="DS*2 A", hidden_size=96)
    assert config.stack == "DSDSA"
    assert config.num_hidden_layers == 5
    assert config.layer_types == ["linear_attention", "sliding_attention"] * 2 + ["full_attention"]
    assert (config.head_dim, config.num_kv_heads, config.intermediate_size) == (24, 4, 256)
    (layer,) = make(mixers="A", attn_num_heads=2, hidden_size=96).layer_configs
    assert (layer.mixer.num_heads, layer.mixer.head_dim, layer.mixer.key_heads) == (2, 48, 2)
    assert (config.num_attention_heads, config.num_key_value_heads, config.sliding_window) == (4, 4, 2048)


@pytest.mark.parametrize(("hidden_size", "width"), [(96, 256), (97, 512), (1024, 2816), (2048, 5632)])
def test_default_mlp_width_is_rounded_up(hidden_size, width):
    assert make(hidden_size=hidden_size, head_dim=8).intermediate_size == width


def test_survives_json(tmp_path):
    config = make(mixers="DS*2", window=7, eos_token_id=3, rope_theta=5e5, allow_neg_eigval=True)
    config.save_pretrained(tmp_path)
    again = LonglodeConfig.from_pretrained(tmp_path)
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"mixers": "DQ"}, "'Q' is no mixer"),
        ({"mixers": ["D"]}, "expected text"),
        ({"num_hidden_layers": 5}, "the stack 'D\\*24' has 24 layers"),
        ({"num_heads": 5}, "not a multiple of num_heads 5"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"mixers": "A", "num_kv_heads": 3}, "num_kv_heads 3"),
        ({"mixers": "S", "head_dim": 7}, "have 7 numbers; .* even"),
        ({"mixers": "S", "attn_num_heads": 3}, "not a multiple of attn_num_heads 3"),
        ({"mixers": "A", "attn_num_heads": 8, "num_kv_heads": 3}, "8 heads of attention .* num_kv_heads 3"),
        ({"conv_size": 1}, "conv_size is 1"),
        ({"window": "wide"}, "window is 'wide'"),
        ({"hidden_size": None}, "hidden_size is None"),
        ({"head_dim": 0}, "head_dim is 0"),
        ({"norm_eps": float("nan")}, "norm_eps is nan; expected a finite number"),
        ({"norm_eps": "nan"}, "norm_eps is 'nan'"),
        ({"norm_eps": None}, "norm_eps is None"),
        ({"norm_eps": -1e-6}, "norm_eps is -1e-06"),
        ({"initializer_range": float("inf")}, "initializer_range is inf"),
    ],
)
def test_refuses(fields, said):
    with pytest.raises(ConfigError, match=said):
        make(**fields)
