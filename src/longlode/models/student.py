"""A student for distillation: a trained model whose attention layers are other mixers, with the teacher's weights."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from longlode.core.errors import ConfigError
from longlode.mixers.short_conv import ShortConv
from longlode.models.layers import LayerConfig
from longlode.models.lm import LonglodeForCausalLM

_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def student_of(teacher: LonglodeForCausalLM, mixer: str = "conv_gla") -> LonglodeForCausalLM:
    """Make a copy of `teacher` with a mixer called `mixer` in place of each softmax attention.

    All other weights are the teacher's, and so are the projections of queries, keys, values and outputs, where key and
    value heads that several query heads share are repeated. Convolutions begin as the identity. Train it with the
    objective `distill` (`recipes/linearise.toml`).
    Raises: ConfigError if the teacher has no attention, or the mixer has not its projections.
    """
    replaced = [number for number, block in enumerate(_blocks(teacher)) if block.attn.traits.has_weights]
    if not replaced:
        raise ConfigError(
            f"The teacher's stack {teacher.config.stack!r} has no softmax attention to replace."
        )
    config = copy.deepcopy(teacher.config)
    config.layers = [
        _entry(layer, mixer if number in replaced else None)
        for number, layer in enumerate(teacher.config.layer_configs)
    ]
    student = LonglodeForCausalLM(config)
    weights = teacher.state_dict()
    for number in replaced:
        _take_attention(weights, teacher, student, number)
    student.load_state_dict(weights, strict=False)
    return nn.Module.to(student, teacher.dtype)


def _blocks(model: LonglodeForCausalLM) -> Any:
    return model.model.layers


def _entry(layer: LayerConfig, mixer: str | None) -> dict[str, Any]:
    """Return the entry of a layer in the student's list; mixer: in place of the teacher's, None: none."""
    settings = layer.mixer.to_dict()
    if mixer is None:
        return {"mixer": layer.name, "block": layer.block, **settings}
    return {
        "mixer": mixer,
        "block": layer.block,
        "num_heads": settings["num_heads"],
        "head_dim": settings["head_dim"],
    }


def _take_attention(
    weights: dict[str, Tensor], teacher: LonglodeForCausalLM, student: LonglodeForCausalLM, number: int
) -> None:
    """Change the teacher's weights of one attention layer to those of the student's mixer there."""
    old, new, prefix = (
        _blocks(teacher)[number].attn,
        _blocks(student)[number].attn,
        f"model.layers.{number}.attn.",
    )
    given = {name.removeprefix(prefix) for name in weights if name.startswith(prefix)}
    taken = {f"{name}.weight" for name in _PROJECTIONS}
    own = dict(new.named_parameters())
    if given != taken or not taken <= set(own):
        raise ConfigError(
            f"Layer {number} of the teacher has {', '.join(sorted(given))}, and {type(new).__name__} "
            f"{', '.join(sorted(own))}; expected both to have {', '.join(sorted(taken))}, the teacher's without biases."
        )
    for name in ("k_proj", "v_proj"):
        heads = weights[f"{prefix}{name}.weight"].unflatten(0, (old.config.key_heads, -1))
        repeats = old.config.num_heads // old.config.key_heads
        weights[f"{prefix}{name}.weight"] = heads.repeat_interleave(repeats, dim=0).flatten(0, 1)
    with torch.no_grad():
        for module in new.modules():
            if isinstance(module, ShortConv):
                module.weight.zero_()
                module.weight[..., -1] = 1.0
