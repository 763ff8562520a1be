"""Fingerprints of models: hashes of weights, config and dtype, independent of path and file format."""

import hashlib
from typing import Any

import torch

from longlode.core.fingerprints import fingerprint

# These fields describe a config's origin and storage, not the model's computation.
_CONFIG_NOISE = {
    "transformers_version",
    "_name_or_path",
    "dtype",
    "torch_dtype",
    "use_cache",
    "architectures",
}


def model_identity(model: Any) -> dict[str, str]:
    """Return all that determines the outputs of a transformers model: weights, config, dtype."""
    config = {k: v for k, v in model.config.to_diff_dict().items() if k not in _CONFIG_NOISE}
    return {
        "weights": weights_sha256(model),
        "config": repr(sorted(config.items())),
        "dtype": str(model.dtype),
    }


def model_fingerprint(model: Any) -> str:
    """Return the fingerprint of `model_identity`; reads every weight once."""
    return fingerprint(model_identity(model))


def weights_sha256(model: torch.nn.Module) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bytes of all weights, tied ones once, in any sharding."""
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
