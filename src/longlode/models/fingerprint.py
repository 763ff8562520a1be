"""The name of a model's content: what it computes, wherever it lies and however it was saved."""

import hashlib
from typing import Any

import torch

from longlode.core.fingerprints import fingerprint

# These say where a config came from and how it is stored, not what the model computes.
_CONFIG_NOISE = {
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "use_cache",
    "architectures",
}


def model_identity(model: Any) -> dict[str, str]:
    """What decides the numbers of a transformers model: its weights, its config, the dtype it runs in."""
    config = {k: v for k, v in model.config.to_diff_dict().items() if k not in _CONFIG_NOISE}
    return {
        "weights": weights_sha256(model),
        "config": repr(sorted(config.items())),
        "dtype": str(model.dtype),
    }


def model_fingerprint(model: Any) -> str:
    """The fingerprint of `model_identity`; reads every weight once."""
    return fingerprint(model_identity(model))


def weights_sha256(model: torch.nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all weights, tied ones once, however sharded."""
    digest = hashlib.sha256()
    seen: set[tuple[int, int]] = set()
    for name, tensor in sorted(model.state_dict().items()):
        place = (tensor.data_ptr(), tensor.nbytes)
        if tensor.nbytes and place in seen:
            continue
        seen.add(place)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
