"""The cost model of a run: what its steps take on groups of different sizes (`parallel.groups = "fitted"`)."""

from dataclasses import asdict
from typing import Any

from transformers import PreTrainedModel

from longlode.models import LonglodeConfig
from longlode.parallel.cost_file import MeasuredCost
from longlode.parallel.planner import CostModel
from longlode.train.recipe import Recipe


def cost_of_run(recipe: Recipe, model: PreTrainedModel) -> CostModel:
    """Return the cost model that a recipe gives, or names the file of.

    Raises: InputError if the file cannot be read; ConfigError if it was measured with another model, other exchanges,
      another dtype or kind of device.
    """
    given = recipe.parallel.cost
    assert given is not None, "checked by the section"
    if not isinstance(given, str):
        return CostModel(**given)
    found = MeasuredCost.read(given)
    found.check(step_facts(recipe, model), given)
    return found.cost


def step_facts(recipe: Recipe, model: PreTrainedModel) -> dict[str, Any]:
    """Return what the seconds of a step depend on, besides its documents, the ranks and the machine; plain values."""
    config = model.config
    facts: dict[str, Any] = {"model_type": config.model_type, "vocab_size": config.vocab_size}
    if isinstance(config, LonglodeConfig):
        layers = [
            {"mixer": layer.name, "block": layer.block, **asdict(layer.mixer)}
            for layer in config.layer_configs
        ]
        facts |= {"hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size}
        facts["layers"] = layers
    return facts | {
        "attention": recipe.parallel.attention,
        "states": recipe.parallel.states,
        "dtype": recipe.run.dtype,
        "gradient_checkpointing": recipe.run.gradient_checkpointing,
        "device": model.device.type,
    }
