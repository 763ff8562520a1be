"""Loading of causal language models and tokenizers, of longlode or transformers, from folders or the hub."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import CONFIG_NAME, SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from longlode.core.errors import ConfigError, InputError, LonglodeError, ModelError
from longlode.core.model_names import is_hub_id, model_source
from longlode.core.outputs import full_path
from longlode.core.records import read_json
from longlode.mixers import Mixer, RMSNorm
from longlode.models.convert import FLA_MODEL_TYPES, config_from_fla
from longlode.models.lm import LonglodeForCausalLM, register

_DTYPES = {"float64", "float32", "bfloat16", "float16"}


def load(
    path_or_hub_id: str | Path, *, dtype: torch.dtype | str | None = None, device: str | torch.device = "cpu"
) -> tuple[Any, Any]:
    """Load a model in evaluation mode, and its tokenizer. Code that comes with a model is never run.

    fla's `delta_net` and `gated_deltanet` checkpoints become longlode models and need neither fla nor Triton.

    Args:
      path_or_hub_id: "starter"; a folder with config.json, safetensors and tokenizer; a training run, for its
        RUN/model; or a hub id ("org/name").
      dtype: of the weights ("float32", torch.bfloat16, ...), except that longlode's decays stay float32; None:
        the dtype of the checkpoint, for norms and decays of longlode and fla each as saved.
      device: device of the model.
    Returns: (model, tokenizer).
    Raises: InputError when there is no such folder or it holds no model; ModelError when the model or its
      tokenizer cannot be loaded; ConfigError on an unknown dtype.
    """
    model = load_model(path_or_hub_id, dtype=dtype)
    return model.to(device), load_tokenizer(path_or_hub_id)


def load_model(path_or_hub_id: str | Path, *, dtype: torch.dtype | str | None = None) -> Any:
    """Load only the model, onto the CPU; no tokenizer is needed. Raises: as `load`."""
    where = _source(path_or_hub_id)
    chosen = _dtype(dtype)
    register()
    try:
        return _model(where, chosen).eval()
    except LonglodeError:
        raise
    # transformers raises many kinds here (OSError, ValueError, KeyError, SafetensorError, RuntimeError on
    # shapes); all are reported as one kind, with their text.
    except Exception as error:
        raise ModelError(_advice(where, "model", error)) from error


def load_tokenizer(path_or_hub_id: str | Path) -> Any:
    """Load only the tokenizer. Raises: as `load`."""
    where = _source(path_or_hub_id)
    try:
        return AutoTokenizer.from_pretrained(where, trust_remote_code=False)
    except Exception as error:
        raise ModelError(_advice(where, "tokenizer", error)) from error


def check_token_ids(model: Any, tokens: torch.Tensor) -> None:
    """Check that the model has an embedding for every token, whose lack raises IndexError on a CPU and aborts a GPU.

    Args: tokens, ids of any shape, best on the CPU.
    Raises: InputError that names the largest id.
    """
    embeddings = getattr(
        model, "get_input_embeddings", None
    )  # a model without an embedding table has no such limit
    rows = getattr(embeddings(), "num_embeddings", None) if embeddings else None
    if rows is None or not tokens.numel():
        return
    largest = int(tokens.max())
    if largest >= rows:
        raise InputError(
            f"The tokenizer gave the token id {largest:,}; expected ids below {rows:,}, the model's vocabulary. Use "
            "the tokenizer that the model was trained with."
        )


def _model(where: str, dtype: torch.dtype | str) -> Any:
    options: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    fields = read_json(Path(str(cached_file(where, CONFIG_NAME))))
    kind: Any = AutoModelForCausalLM
    from_fla = fields.get("model_type") in FLA_MODEL_TYPES
    if from_fla:
        kind, options["config"] = LonglodeForCausalLM, config_from_fla(fields)
    model, info = kind.from_pretrained(where, trust_remote_code=False, **options)
    # transformers initialises missing weights at random and continues.
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"The weights of {where!r} lack {len(missing)} of the model's parameters, among them {missing[0]}; "
            "expected all. Is it the backbone without its head, or another architecture than config.json says?"
        )
    if from_fla and (unused := sorted(info["unexpected_keys"])):
        # A part that a longlode model lacks: without it the model would compute something else.
        raise ModelError(
            f"The weights of {where!r} have {len(unused)} parameters that a longlode model lacks, among them "
            f"{unused[0]}. This checkpoint cannot be read."
        )
    if dtype == "auto" and isinstance(model, LonglodeForCausalLM):
        _restore_stored_dtypes(model, where)
    return model


def _restore_stored_dtypes(model: LonglodeForCausalLM, where: str) -> None:
    """Give norms and decays the dtype they have in the file, so that they can be written back bit for bit.

    transformers gives them the dtype of the other weights, and the decays float32. Results do not depend on it: the
    mixers widen decays, and RMSNorm converts its weight to the dtype of its input.
    """
    parameters, kept = dict(model.named_parameters()), _computed_in_any_dtype(model)
    index = cached_file(where, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
    names = {SAFE_WEIGHTS_NAME} if index is None else set(read_json(Path(index))["weight_map"].values())
    for name in sorted(names):
        with safe_open(str(cached_file(where, name)), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping
                if key in kept:
                    parameters[key].data = file.get_tensor(key)


def _computed_in_any_dtype(model: LonglodeForCausalLM) -> set[str]:
    """Return the names of parameters that may have another dtype: those of norms, and those named by the mixers."""
    names: set[str] = set()
    for path, module in model.named_modules():
        own: tuple[str, ...] = ("weight",) if isinstance(module, RMSNorm) else ()
        if isinstance(module, Mixer):
            own = (*module.float32_parameters, *module.kept_parameters)
        names |= {f"{path}.{name}" for name in own}
    return names


def _source(path_or_hub_id: str | Path) -> str:
    """Return the folder as text if it looks like a model, or the hub id. Raises: InputError otherwise."""
    text = model_source(path_or_hub_id)
    path = full_path(text)
    if path.is_dir():
        if not (path / CONFIG_NAME).is_file():
            raise InputError(
                f"{path} is not a model: it has no config.json. Expected a folder as `save_pretrained` "
                "writes it (of a training run of longlode: RUN/model), or a hub id."
            )
        return str(path)
    if path.exists():
        raise InputError(f"{path} is a file; expected the folder of a model (with config.json), or a hub id.")
    if isinstance(path_or_hub_id, Path) or not is_hub_id(text):
        raise InputError(
            f"{text} does not exist; expected the folder of a model, or a hub id such as facebook/opt-350m."
        )
    return text


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | str:
    if dtype is None:
        return "auto"
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(
            f"dtype is {dtype!r}; expected one of {', '.join(sorted(_DTYPES))}, or none for the checkpoint's."
        )
    return getattr(torch, name)


def _advice(where: str, what: str, error: Exception) -> str:
    reason = str(error).strip().split("\n")[0]
    kind = (
        "folder"
        if Path(where).is_dir()
        else "hub id (no such local folder; is the name right, and is the hub reachable?)"
    )
    return f"The {what} of {where!r} ({kind}) cannot be loaded: {type(error).__name__}: {reason}"
