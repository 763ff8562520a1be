"""The base of rotary positions, changed in a model that exists.

A larger base turns positions more slowly, so that a model trained on short rows can be continued on longer ones
("adjusted base frequency", arXiv 2309.16039).
"""

import copy
from dataclasses import fields, is_dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from longlode.core.errors import ConfigError
from longlode.mixers import Mixer
from longlode.models import LonglodeForCausalLM

_THETA = "rope_theta"


def set_rope_theta(model: PreTrainedModel, theta: float) -> bool:
    """Set the base of all rotary positions of a model, and in its config; return False if it has none.

    Raises: ConfigError for a model of transformers whose rotary positions cannot be computed anew.
    """
    if isinstance(model, LonglodeForCausalLM):
        return _set_in_ours(model, theta)
    return _set_in_others(model, theta)


def _set_in_ours(model: LonglodeForCausalLM, theta: float) -> bool:
    found = False
    for module in model.modules():
        config = getattr(module, "config", None)
        if (
            isinstance(module, Mixer)
            and is_dataclass(config)
            and _THETA in {field.name for field in fields(config)}
        ):
            module.config = replace(config, rope_theta=theta)  # type: ignore[type-var, assignment]
            found = True
    model.config.rope_theta = theta
    if model.config.layers is not None:
        layers = copy.deepcopy(model.config.layers)
        for layer in layers:
            if isinstance(layer, dict) and _THETA in layer:
                layer[_THETA] = theta
        model.config.layers = layers
    return found


def _set_in_others(model: PreTrainedModel, theta: float) -> bool:
    """Set the base in the config, and make the modules that hold the frequencies anew from it."""
    rotary = [
        (parent, name, module)
        for parent in model.modules()
        for name, module in parent.named_children()
        if "inv_freq" in dict(module.named_buffers(recurse=False))
    ]
    if not rotary:
        return False
    config: Any = model.config.get_text_config()
    parameters = getattr(config, "rope_parameters", None)
    if not isinstance(parameters, dict):
        raise ConfigError(
            f"The RoPE base of {type(model).__name__} cannot be changed: its config has no rope_parameters."
        )
    tables = [parameters, *(table for table in parameters.values() if isinstance(table, dict))]
    for table in tables:
        if _THETA in table:
            table[_THETA] = theta
    for parent, name, module in rotary:
        anew: Any = type(module)
        setattr(parent, name, anew(config=module.config).to(module.inv_freq.device))
    return True
