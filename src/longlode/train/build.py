"""Construction of a new model from a recipe."""

import os

import torch
from torch import nn

from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.ops.devices import pick_device
from longlode.train.recipe import Recipe


def build_model(recipe: Recipe, vocab_size: int, *, eos_token_id: int | None = None) -> LonglodeForCausalLM:
    """Make a model with weights drawn from `run.seed`, on `run.device`, in float32.

    Args: vocab_size: entries of the tokenizer; eos_token_id: its end-of-text id, also used for padding.
    Raises: ConfigError if the model section is invalid; BackendError if the device is not available.
    """
    device = device_of_rank(recipe.run.device)
    torch.manual_seed(recipe.run.seed)
    settings = recipe.model.model_dump(exclude_none=True)
    settings |= {"vocab_size": vocab_size, "eos_token_id": eos_token_id, "pad_token_id": eos_token_id}
    model = LonglodeForCausalLM(LonglodeConfig(**settings))
    nn.Module.to(model, device)
    return model


def device_of_rank(name: str) -> torch.device:
    """Return the device called `name`; under torchrun "auto" and "cuda" are the CUDA device of this rank.

    Raises: as `pick_device`.
    """
    local = os.environ.get("LOCAL_RANK")
    if name in ("auto", "cuda") and local is not None and torch.cuda.is_available():
        name = f"cuda:{int(local) % torch.cuda.device_count()}"
    return pick_device(name)
