"""From a recipe to a fresh model."""

import torch
from torch import nn

from longlode.core.errors import BackendError
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.train.recipe import Recipe


def build_model(recipe: Recipe, vocab_size: int, *, eos_token_id: int | None = None) -> LonglodeForCausalLM:
    """A model with weights drawn from `run.seed`, on `run.device`, in float32.

    Args: vocab_size: entries of the tokenizer; eos_token_id: its end of text, also used for padding.
    Raises: ConfigError if the model section makes no sense; BackendError if the device is not there.
    """
    device = pick_device(recipe.run.device)
    torch.manual_seed(recipe.run.seed)
    settings = recipe.model.model_dump(exclude_none=True)
    settings |= {"vocab_size": vocab_size, "eos_token_id": eos_token_id, "pad_token_id": eos_token_id}
    model = LonglodeForCausalLM(LonglodeConfig(**settings))
    nn.Module.to(model, device)
    return model


def pick_device(name: str) -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU. Raises BackendError."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BackendError(
            f"run.device is {name!r}, which cannot be used ({reason}); expected cpu, cuda or auto."
        ) from None
    return device
