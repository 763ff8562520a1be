"""Storage of the keys and values of all tokens so far, for mixers that read few of them at a time."""

from pathlib import Path

import torch
from torch import Tensor

from longlode.core.errors import ConfigError
from longlode.mixers.document_rows import append_entries


class TokenStore:
    """Entries of all tokens in memory: each piece makes a new tensor, as every state does."""

    def append(self, name: str, old: Tensor, num_old: Tensor, new: Tensor, num_new: Tensor) -> Tensor:
        """Return the first `num_old` `[N]` entries of old `[N, J, H, K]`, then the first `num_new` of new, by row."""
        return append_entries(old, num_old, new, num_new)


IN_MEMORY = TokenStore()
"""The usual store."""


class DiskTokens(TokenStore):
    """Entries of all tokens in memory-mapped files, one per name: a piece writes its own tokens, a read loads its own.

    What is returned is a view of a file, which grows behind it. So a state is read again as it was; only what goes on
    from the newest state is appended, and a state that branches off (beams, copies) begins a new file.
    """

    def __init__(self, folder: Path) -> None:
        """Keep files in `folder`, which is made."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._files: dict[str, _File] = {}
        self.paths: list[Path] = []
        """All files so far."""

    def append(self, name: str, old: Tensor, num_old: Tensor, new: Tensor, num_new: Tensor) -> Tensor:
        """See `TokenStore.append`. Raises: ConfigError with gradients, and for tensors that are not on the CPU."""
        if new.device.type != "cpu" or (new.requires_grad and torch.is_grad_enabled()):
            raise ConfigError(
                f"Blocks on disk got a tensor on {new.device}, with gradients: {new.requires_grad}; expected "
                "generation on the CPU, under torch.inference_mode()."
            )
        file = self._files.get(name)
        if file is None or file.newest is not old:
            path = self._folder / f"{name}_{len(self.paths)}.bin"
            self.paths.append(path)
            file = self._files[name] = _File(path, new)
            file.write(torch.zeros_like(num_old), old, num_old)
        file.write(num_old, new, num_new)
        file.newest = file.entries[: int((num_old + num_new).max())].transpose(0, 1)
        return file.newest


class _File:
    """A memory-mapped file of entries `[capacity, N, H, K]`: tokens first, so that it grows at its end."""

    def __init__(self, path: Path, like: Tensor) -> None:
        self._path, self._shape, self._dtype = path, (like.shape[0], *like.shape[2:]), like.dtype
        self.entries = like.new_empty(0, *self._shape)
        self.newest: Tensor | None = None

    def write(self, start: Tensor, new: Tensor, count: Tensor) -> None:
        """Write the first `count` `[N]` entries of each row of new `[N, T, H, K]` at positions from `start` `[N]`."""
        if not new.shape[1]:
            return
        self._grow(int((start + count).max()))
        place = torch.arange(new.shape[1])
        row, token = (place < count[:, None]).nonzero(as_tuple=True)
        self.entries[start[row] + token, row] = new[row, token]

    def _grow(self, needed: int) -> None:
        capacity = self.entries.shape[0]
        if needed <= capacity:
            return
        capacity = max(needed, 2 * capacity)
        size = capacity * self._shape[0] * self._shape[1] * self._shape[2]
        # An ordinary tensor, also when it is made while generating: it is written to again and again.
        with torch.inference_mode(False):
            flat = torch.from_file(str(self._path), shared=True, size=size, dtype=self._dtype)
            self.entries = flat.view(capacity, *self._shape)
