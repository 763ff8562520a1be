"""Conversion of checkpoints from and to flash-linear-attention ("fla": model types `delta_net` and `gated_deltanet`).

The parameter names are the same, so the weights are unchanged, bit for bit; this file translates configurations
and refuses those that no longlode model can have. Hybrids with fla's `attn` become S or A layers.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from longlode.core.errors import ConfigError
from longlode.core.records import write_json
from longlode.models.config import LonglodeConfig
from longlode.models.layers import LayerConfig
from longlode.models.lm import LonglodeForCausalLM


@dataclass(frozen=True)
class _Layout:
    """One of fla's architectures.

    letter: longlode's mixer in a stack, mixer: its name. required: fields that must have these values. defaults: fla's
    values of fields missing from its config.json. own_head_dim: True if the head size is a field of its own, False if
    it is hidden_size / num_heads.
    """

    model_type: str
    architecture: str
    letter: str
    mixer: str
    required: dict[str, Any]
    defaults: dict[str, Any]
    own_head_dim: bool


_BOTH_REQUIRED = {"use_short_conv": True, "conv_bias": False, "hidden_act": "swish"}
_LAYOUTS = (
    _Layout(
        model_type="delta_net",
        architecture="DeltaNetForCausalLM",
        letter="D",
        mixer="delta_net",
        required={
            **_BOTH_REQUIRED,
            "use_beta": True,
            "qk_norm": "l2",
            "qk_activation": "silu",
            "expand_k": 1.0,
            "attnres_block_size": None,
        },
        defaults={
            "hidden_size": 2048,
            "num_heads": 16,
            "num_hidden_layers": 24,
            "expand_v": 1.0,
            "use_gate": False,
        },
        own_head_dim=False,
    ),
    _Layout(
        model_type="gated_deltanet",
        architecture="GatedDeltaNetForCausalLM",
        letter="G",
        mixer="gated_delta_net",
        required=_BOTH_REQUIRED,
        defaults={
            "hidden_size": 2048,
            "num_heads": 6,
            "head_dim": 256,
            "num_hidden_layers": 21,
            "expand_v": 2.0,
            "use_gate": True,
        },
        own_head_dim=True,
    ),
)
_BOTH_DEFAULTS = {"bos_token_id": 1, "eos_token_id": 2}

FLA_MODEL_TYPES: tuple[str, ...] = tuple(layout.model_type for layout in _LAYOUTS)
"""The model types of fla that can be read and written."""

_ATTENTION = ("sliding_window_attention", "attention")
_ATTENTION_REQUIRED = {"qk_norm": False}
_SAME_NAME = (
    "vocab_size",
    "hidden_size",
    "num_heads",
    "expand_v",
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


def config_from_fla(fields: dict[str, Any]) -> LonglodeConfig:
    """Make the longlode configuration of an fla `delta_net` or `gated_deltanet` config.json.

    Args: fields: the parsed JSON.
    Raises: ConfigError that names the field, its value and the value of a longlode model.
    """
    layout = next((one for one in _LAYOUTS if one.model_type == fields.get("model_type")), None)
    if layout is None:
        raise ConfigError(
            f"The model_type is {fields.get('model_type')!r}; expected fla's {' or '.join(FLA_MODEL_TYPES)}."
        )
    _require(fields, layout.required, "config")
    fields = _BOTH_DEFAULTS | layout.defaults | fields
    head_dim = fields["head_dim"] if layout.own_head_dim else None
    value_heads = _value_heads_from_fla(fields, layout)
    stack, attention = _attention_from_fla(fields, layout.letter, head_dim)
    given: dict[str, Any] = {name: fields[name] for name in _SAME_NAME if name in fields}
    return LonglodeConfig(
        **given,
        **attention,
        mixers=stack,
        head_dim=head_dim,
        num_v_heads=value_heads,
        use_output_gate=bool(fields["use_gate"]),
        intermediate_size=fields.get("intermediate_size") or _fla_width(fields),
        dtype=fields.get("dtype") or fields.get("torch_dtype"),
    )


def _value_heads_from_fla(fields: dict[str, Any], layout: _Layout) -> int | None:
    """Return the number of value heads, None if equal to that of key heads."""
    value_heads, num_heads = fields.get("num_v_heads"), fields["num_heads"]
    if value_heads in (None, num_heads):
        return None
    if (
        not layout.own_head_dim
        or not isinstance(value_heads, int)
        or value_heads < 1
        or value_heads % num_heads
    ):
        allowed = (
            f"a multiple of num_heads, {num_heads}" if layout.own_head_dim else f"num_heads, {num_heads}"
        )
        raise ConfigError(
            f"The fla config has num_v_heads = {value_heads!r}; expected {allowed}, in a {layout.model_type}. "
            "This checkpoint cannot be read."
        )
    return value_heads


def _attention_from_fla(
    fields: dict[str, Any], letter: str, head_dim: int | None
) -> tuple[str, dict[str, Any]]:
    """Return the stack of an fla config, and the settings of its attention layers."""
    stack = [letter] * fields["num_hidden_layers"]
    attention = fields.get("attn") or []
    specs = [attention] if isinstance(attention, dict) else list(attention)
    found: dict[str, set[Any]] = {
        name: set() for name in ("window", "attn_num_heads", "num_kv_heads", "rope_theta", "qkv_bias")
    }
    for spec in specs:
        _require(spec, _ATTENTION_REQUIRED, "attn")
        window, heads = spec.get("window_size"), spec["num_heads"]
        for layer in spec["layers"]:
            stack[layer] = "A" if window is None else "S"
        found["window"] |= {window} - {None}
        found["attn_num_heads"].add(heads)
        found["num_kv_heads"].add(spec.get("num_kv_heads") or heads)
        found["rope_theta"].add(float(spec.get("rope_theta") or 10000.0))
        found["qkv_bias"].add(bool(spec.get("qkv_bias", False)))
    if max(len(values) for values in found.values()) > 1:
        raise ConfigError(
            "The fla config has attention layers that differ in window_size, num_heads, num_kv_heads, rope_theta or "
            "qkv_bias; a longlode model has one of each. This checkpoint cannot be read."
        )
    settings = {name: values.pop() for name, values in found.items() if values}
    if specs:
        dim, heads = fields["hidden_size"] // settings["attn_num_heads"], settings.pop("attn_num_heads")
        if (heads, dim) != (fields["num_heads"], head_dim or fields["hidden_size"] // fields["num_heads"]):
            settings |= {"attn_num_heads": heads, "attn_head_dim": dim}
    return "".join(stack), settings


def config_to_fla(config: LonglodeConfig) -> dict[str, Any]:
    """Make the fla config.json of a longlode configuration of D or of G layers, with S and A layers among them.

    Raises: ConfigError when fla's `delta_net` and `gated_deltanet` cannot have the stack or the heads.
    """
    layers = config.layer_configs
    layout = next((one for one in _LAYOUTS if any(layer.name == one.mixer for layer in layers)), None)
    if layout is None or {layer.name for layer in layers} - {layout.mixer, *_ATTENTION}:
        raise ConfigError(
            "fla's delta_net has D layers, its gated_deltanet G layers, and S and A among them; this model is "
            f"{config.stack!r}."
        )
    settings = [layer.mixer.to_dict() for layer in layers if layer.name == layout.mixer]
    if any(layer.block != "mixer_mlp" for layer in layers) or any(one != settings[0] for one in settings):
        raise ConfigError(
            f"fla's {layout.model_type} layers all have the same settings, and an MLP each; this model's do not."
        )
    attention = _attention_to_fla(layers)
    delta = settings[0]
    value_heads = delta["num_v_heads"] or delta["num_heads"]
    if not layout.own_head_dim and value_heads != delta["num_heads"]:
        raise ConfigError(
            f"fla's {layout.model_type} has as many heads of values as of keys; this model has num_v_heads "
            f"{value_heads} and num_heads {delta['num_heads']}."
        )
    sized = [] if layout.own_head_dim else [(delta["num_heads"], delta["head_dim"])]
    sized += [(layer.mixer.num_heads, layer.mixer.head_dim) for layer in layers if layer.name in _ATTENTION]  # type: ignore[attr-defined]
    for heads, dim in sized:
        if heads * dim != config.hidden_size:
            raise ConfigError(
                f"fla's heads have hidden_size / num_heads numbers here; this model has {heads} heads of {dim} for "
                f"a hidden size of {config.hidden_size}."
            )
    if len(attention) > 1 and layout.own_head_dim:
        raise ConfigError(
            f"fla's {layout.model_type} has one kind of attention layers; this model is {config.stack!r}."
        )
    return {
        "model_type": layout.model_type,
        "architectures": [layout.architecture],
        **{name: getattr(config, name) for name in _SAME_NAME},
        **{name: delta[name] for name in _SAME_NAME if name in delta},
        **layout.required,
        **({"head_dim": delta["head_dim"], "num_v_heads": value_heads} if layout.own_head_dim else {}),
        "use_gate": delta["use_output_gate"],
        "num_hidden_layers": len(layers),
        "intermediate_size": config.intermediate_size,
        "attn": attention[0] if len(attention) == 1 else attention or None,
        "dtype": str(config.dtype or "float32").removeprefix("torch."),
    }


def _attention_to_fla(layers: tuple[LayerConfig, ...]) -> list[dict[str, Any]]:
    """Make fla's `attn` entries, one for each kind of attention layer, windowed ones first."""
    found: dict[Any, list[int]] = {}
    for index, layer in enumerate(layers):
        if layer.name in _ATTENTION:
            found.setdefault(layer.mixer, []).append(index)
    if not all(mixer.rope for mixer in found):
        raise ConfigError(
            "fla's attention layers rotate queries and keys by position; this model's do not (rope)."
        )
    kinds = sorted(found, key=lambda mixer: mixer.visible is None)
    return [
        {
            "layers": found[mixer],
            "num_heads": mixer.num_heads,
            "num_kv_heads": mixer.key_heads,
            "qkv_bias": mixer.qkv_bias,
            "window_size": mixer.visible,
            "rope_theta": mixer.rope_theta,
            **_ATTENTION_REQUIRED,
        }
        for mixer in kinds
    ]


def save_for_fla(model: LonglodeForCausalLM, folder: Path) -> None:
    """Write `model` as an fla checkpoint: config.json and model.safetensors, weights unchanged.

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
    """Compute fla's SwiGLU width: 2/3 of hidden_ratio times hidden_size, rounded down, then up to a multiple of 256."""
    width = int(fields["hidden_size"] * (fields.get("hidden_ratio") or 4) * 2 / 3)
    return -(-width // 256) * 256
