"""Loading of models for reading, checks on them, and their fingerprints."""

from pathlib import Path
from typing import Any

import torch

from longlode.core.errors import InputError, ModelError
from longlode.core.fingerprints import fingerprint
from longlode.core.model_names import model_source
from longlode.core.outputs import full_path
from longlode.corpus.encoding import TextEncoder
from longlode.models import load
from longlode.models.fingerprint import model_identity
from longlode.models.load import load_tokenizer
from longlode.ops.devices import pick_device


def load_parts(path_or_id: str | Path, dtype: torch.dtype, device: str) -> tuple[Any, Any]:
    """Load (model, tokenizer) for scoring from a folder or the hub: safetensors only, no remote code.

    Args: device: "auto" (a GPU if there is one) or a torch device.
    Raises: ModelError that says what is missing and what to do; BackendError for a device that is not available.
    """
    where = pick_device(device)
    folder = full_path(model_source(path_or_id))
    if (folder / "config.json").is_file():
        _check_weights(folder)
    try:
        return load(path_or_id, dtype=dtype, device=where)
    except InputError as error:
        raise ModelError(f"No model: {error}") from None


def load_reader_tokenizer(path_or_id: str | Path) -> Any:
    """Load the tokenizer of `load_parts`, without the model. Raises: as `load_parts`."""
    try:
        return load_tokenizer(path_or_id)
    except InputError as error:
        raise ModelError(f"No model: {error}") from None


def reader_fingerprint(model: Any, encoder: TextEncoder) -> str:
    """Hash all that determines a score: weights, config, tokenizer, dtype."""
    return fingerprint({**model_identity(model), "tokenizer": encoder.to_str()})


def context_tokens(model: Any) -> int | None:
    """Return the model's longest context in tokens; None for one without a limit."""
    context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return context


def check_fit(model: Any, head: Any, encoder: TextEncoder, segment: int) -> None:
    """Refuse a model without LM head, with too short a context, or with another model's tokenizer."""
    if head is None or getattr(model.config.get_text_config(), "is_encoder_decoder", False):
        raise ModelError(f"{type(model).__name__} has no causal LM head. Use a decoder-only language model.")
    context = context_tokens(model)
    if context is not None and context < 2 * segment:
        raise ModelError(
            f"The model reads at most {context} tokens; two segments of {segment} need {2 * segment}. Use "
            f"segments of at most {context // 2} tokens or a model with a longer context."
        )
    if encoder.vocab_size > head.weight.shape[0]:
        raise ModelError(
            f"The tokenizer has {encoder.vocab_size} tokens, the model {head.weight.shape[0]}: they "
            "do not belong together."
        )


def _check_weights(folder: Path) -> None:
    """Check that a folder with a config has weights in safetensors, not in a pickle, which can run code when opened."""
    names = sorted(entry.name for entry in folder.iterdir())
    if any(name.endswith(".safetensors") for name in names):
        return
    pickled = [name for name in names if name.endswith((".bin", ".pt", ".pth"))]
    if not pickled:
        raise ModelError(f"{folder} has a config.json but no weights; expected model.safetensors.")
    raise ModelError(
        f"{folder} keeps its weights in {pickled[0]}, a pickle, which can run code when opened; expected "
        'model.safetensors. If you trust it, convert it once: python -c "from transformers import '
        f"AutoModelForCausalLM as M; M.from_pretrained('{folder}', use_safetensors=False)"
        f".save_pretrained('{folder}')\""
    )
