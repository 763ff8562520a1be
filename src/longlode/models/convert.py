"""Move DeltaNet checkpoints from and to flash-linear-attention ("fla", model_type `delta_net`).

The parameter names are the same, so the weights pass as they are, bit for bit; this file translates configurations and
refuses what a longlode model cannot be. Hybrids with fla's `attn` become S or A layers.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from longlode.core.errors import ConfigError
from longlode.core.records import write_json
from longlode.models.config import LonglodeConfig
from longlode.models.lm import LonglodeForCausalLM

FLA_MODEL_TYPE = "delta_net"

_REQUIRED = {
    "use_beta": True,
    "use_short_conv": True,
    "conv_bias": False,
    "qk_norm": "l2",
    "qk_activation": "silu",
    "hidden_act": "swish",
    "expand_k": 1.0,
    "expand_v": 1.0,
    "attnres_block_size": None,
}
_ATTENTION_REQUIRED = {"qkv_bias": False, "qk_norm": False}
_SAME_NAME = (
    "vocab_size",
    "hidden_size",
    "num_heads",
    "conv_size",
    "allow_neg_eigval",
    "norm_eps",
    "initializer_range",
    "tie_word_embeddings",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
# What fla assumes where its config.json is silent.
_FLA_DEFAULTS: dict[str, Any] = {"hidden_size": 2048, "num_heads": 16, "bos_token_id": 1, "eos_token_id": 2}


def config_from_fla(fields: dict[str, Any]) -> LonglodeConfig:
    """The longlode configuration of an fla `delta_net` config.json.

    Args: fields: the parsed JSON.
    Raises: ConfigError naming the field, what it is and what a longlode model has there.
    """
    _require(fields, _REQUIRED, "config")
    fields = _FLA_DEFAULTS | fields
    stack = ["D"] * fields.get("num_hidden_layers", 24)
    attention = fields.get("attn") or []
    specs = [attention] if isinstance(attention, dict) else list(attention)
    windows, grouped, bases = set(), set(), set()
    for spec in specs:
        _require(spec, _ATTENTION_REQUIRED, "attn")
        if spec["num_heads"] != fields["num_heads"]:
            raise ConfigError(
                f"The fla config has {fields['num_heads']} heads in DeltaNet and {spec['num_heads']} in attention "
                "layers; a longlode model has one number of heads."
            )
        window = spec.get("window_size")
        for layer in spec["layers"]:
            stack[layer] = "A" if window is None else "S"
        windows |= {window} - {None}
        grouped.add(spec.get("num_kv_heads") or spec["num_heads"])
        bases.add(float(spec.get("rope_theta") or 10000.0))
    if max(len(windows), len(grouped), len(bases)) > 1:
        raise ConfigError(
            "The fla config has attention layers that differ in window_size, num_kv_heads or rope_theta; "
            "a longlode model has one of each."
        )
    given: dict[str, Any] = {name: fields[name] for name in _SAME_NAME if name in fields}
    if specs:
        given |= {"num_kv_heads": grouped.pop(), "rope_theta": bases.pop()}
    if windows:
        given["window"] = windows.pop()
    return LonglodeConfig(
        **given,
        mixers="".join(stack),
        use_output_gate=bool(fields.get("use_gate", False)),
        intermediate_size=fields.get("intermediate_size") or _fla_width(fields),
        dtype=fields.get("dtype") or fields.get("torch_dtype"),
    )


def config_to_fla(config: LonglodeConfig) -> dict[str, Any]:
    """The fla `delta_net` config.json of a longlode configuration of D layers, with S and A layers among them.

    Raises: ConfigError when the stack or the head size has no place in fla's `delta_net`.
    """
    stack = config.stack
    if "D" not in stack or "G" in stack:
        raise ConfigError(
            f"fla's delta_net has D layers, and S and A among them; this model is {config.mixers!r}."
        )
    if config.num_heads * config.mixer_settings().head_dim != config.hidden_size:
        raise ConfigError(
            f"fla's delta_net has heads of hidden_size / num_heads; this model has {config.num_heads} heads of "
            f"{config.head_dim} for a hidden size of {config.hidden_size}."
        )
    attention = [
        {
            "layers": [index for index, layer in enumerate(stack) if layer == letter],
            "num_heads": config.num_heads,
            "num_kv_heads": config.num_kv_heads,
            "window_size": config.window if letter == "S" else None,
            "rope_theta": config.rope_theta,
            **_ATTENTION_REQUIRED,
        }
        for letter in ("S", "A")
        if letter in stack
    ]
    return {
        "model_type": FLA_MODEL_TYPE,
        "architectures": ["DeltaNetForCausalLM"],
        **{name: getattr(config, name) for name in _SAME_NAME},
        **_REQUIRED,
        "use_gate": config.use_output_gate,
        "num_hidden_layers": len(stack),
        "intermediate_size": config.intermediate_size,
        "attn": attention[0] if len(attention) == 1 else attention or None,
        "dtype": str(config.dtype or "float32").removeprefix("torch."),
    }


def save_for_fla(model: LonglodeForCausalLM, folder: Path) -> None:
    """Write `model` as an fla `delta_net` checkpoint: config.json and model.safetensors, the weights as they are.

    Raises: ConfigError as `config_to_fla`.
    """
    fields = config_to_fla(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().contiguous() for name, value in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", fields)


def _require(fields: dict[str, Any], required: dict[str, Any], where: str) -> None:
    for name, value in required.items():
        if fields.get(name, value) != value:
            raise ConfigError(
                f"The fla {where} has {name} = {fields[name]!r}; a longlode model has {value!r}. "
                "This checkpoint cannot be read."
            )


def _fla_width(fields: dict[str, Any]) -> int:
    """Width of fla's SwiGLU: 2/3 of hidden_ratio times hidden_size, rounded down, then up to a multiple of 256."""
    width = int(fields["hidden_size"] * (fields.get("hidden_ratio") or 4) * 2 / 3)
    return -(-width // 256) * 256
