"""Construction of the model of a recipe, new or from a checkpoint."""

from typing import Any

import torch
from torch import nn

from longlode.core.errors import ConfigError
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.load import load_model
from longlode.parallel.world import device_of_rank
from longlode.train.recipe import Recipe


def build_model(recipe: Recipe, vocab_size: int, *, eos_token_id: int | None = None) -> Any:
    """Make the model of a recipe on `run.device`, in float32: that of `run.start`, or new weights by `run.seed`.

    Args: vocab_size: entries of the tokenizer; eos_token_id: its end-of-text id, also used for padding.
    Raises: ConfigError if the model section is invalid, or the model to start from has fewer embeddings; BackendError
      if the device is not available; InputError and ModelError as `models.load_model`.
    """
    device = device_of_rank(recipe.run.device)
    torch.manual_seed(recipe.run.seed)
    if recipe.run.start is not None:
        return _start(recipe.run.start, vocab_size).to(device)
    assert recipe.model is not None, "a recipe has a model section or a model to start from"
    settings = recipe.model.model_dump(exclude_none=True)
    settings |= {"vocab_size": vocab_size, "eos_token_id": eos_token_id, "pad_token_id": eos_token_id}
    model = LonglodeForCausalLM(LonglodeConfig(**settings))
    nn.Module.to(model, device)
    return model


def _start(name: str, vocab_size: int) -> Any:
    model = load_model(name, dtype="float32").train()
    rows = model.get_input_embeddings().num_embeddings
    if rows < vocab_size:
        raise ConfigError(
            f"run.start {name!r} has {rows:,} embeddings and the shards' tokenizer {vocab_size:,} tokens; expected the "
            f"model's own tokenizer. Pack the documents again with --tokenizer {name}."
        )
    return model
