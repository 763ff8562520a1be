"""Files of cached states: safetensors with tensors `layers.N.name`, a padding `mask` if needed, and a header."""

from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from longlode.core.errors import InputError
from longlode.core.records import atomic_path

_HEADER = "longlode_state"
_VERSION = 1
_MASK = "mask"
_MOST = (1 << 62, 1 << 16)
"""Largest numbers of tokens and layers accepted in a header, as memory for them is allocated before other checks."""

LayerStates = list[dict[str, torch.Tensor] | None]


def write_state(
    path: Path, states: LayerStates, *, num_tokens: int, mask: torch.Tensor | None, model: str
) -> None:
    """Write the states of all layers, atomically.

    Args: num_tokens: positions read. mask: False at those that were padding, or None.
      model: fingerprint of the model that read them.
    Raises: InputError when `path` cannot be written.
    """
    # Copies: a state may be a view of a larger tensor, or two names of one tensor.
    tensors = {
        f"layers.{layer}.{name}": value.detach().clone(memory_format=torch.contiguous_format)
        for layer, state in enumerate(states)
        for name, value in (state or {}).items()
    }
    if mask is not None:
        tensors[_MASK] = mask
    about = {"version": _VERSION, "model": model, "num_tokens": num_tokens, "num_layers": len(states)}
    try:
        # In memory first: save_file would make its own temporary file in that folder, which a kill would leave there.
        data = save(tensors, metadata={_HEADER: orjson.dumps(about).decode()})
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)
    except (OSError, SafetensorError) as error:
        raise InputError(f"The state file {path} cannot be written: {error}.") from None


def read_state(
    path: Path, *, model: str, device: torch.device
) -> tuple[LayerStates, int, torch.Tensor | None]:
    """Read what `write_state` wrote: the states of all layers on `device`, the positions read, the mask or None.

    Raises: InputError when the file is missing, is not a state, is of a later version, or of another model.
    """
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            about = _about(path, file.metadata() or {}, model)
            states: LayerStates = [None] * about["num_layers"]
            mask = None
            for key in file.keys():  # noqa: SIM118 - no mapping
                if key == _MASK:
                    mask = file.get_tensor(key)
                    continue
                _, layer, name = key.split(".")
                state = states[int(layer)] or {}
                states[int(layer)] = {**state, name: file.get_tensor(key)}
    # The last three: a header that wrongly claims to be a longlode state.
    except (OSError, SafetensorError, LookupError, TypeError, ValueError) as error:
        raise InputError(f"The state file {path} cannot be read: {type(error).__name__}: {error}.") from None
    return states, about["num_tokens"], mask


def _about(path: Path, metadata: dict[str, str], model: str) -> dict[str, Any]:
    """Check the header before any tensor is read."""
    if _HEADER not in metadata:
        raise InputError(
            f"{path} is a safetensors file without the state of a longlode model; expected what "
            "LonglodeCache.save or `longlode generate --save-state` wrote."
        )
    about: dict[str, Any] = orjson.loads(metadata[_HEADER])
    if about["version"] != _VERSION:
        raise InputError(
            f"{path} has version {about['version']} of the state format; this longlode reads version "
            f"{_VERSION}. Read the text again, or use the longlode that wrote it."
        )
    counts = (about["num_tokens"], about["num_layers"])
    if not all(type(count) is int and 0 <= count <= most for count, most in zip(counts, _MOST, strict=True)):
        raise InputError(
            f"{path} is damaged: its header says {counts[0]!r} tokens and {counts[1]!r} layers. Read the text again."
        )
    if about["model"] != model:
        raise InputError(
            f"{path} is the state of another model (fingerprint {about['model']}); this one is {model}. "
            "Use the model, in the dtype, that read the text, or read the text again."
        )
    return about
