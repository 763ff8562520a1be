"""MAD's two tasks that a trained model cannot be asked (arXiv 2403.17844): compression and memorization."""

import math

import numpy as np
import torch
from torch import Tensor, nn

from longlode.evaluate.bench.row_tasks import NOT_ASKED, RowTask


class Compression(RowTask):
    """All symbols of a row, out of the one vector at its end."""

    name = "compression"
    about = "all 31 symbols of a row, each decoded from the vector at the row's last symbol and its position"
    vocabulary = 16
    chance = 1 / 15
    train_lengths = test_lengths = (32,)
    source = "MAD (arXiv 2403.17844): 12,800 fixed rows and 200 epochs there, fresh rows here; the decoder is the same"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """Random symbols and an end; the label of a place is the symbol that stands there."""
        tokens = rng.integers(self.vocabulary - 1, size=length)
        tokens[-1] = self.vocabulary - 1
        return tokens, np.where(tokens < self.vocabulary - 1, tokens, NOT_ASKED)

    def decoder(self, hidden_size: int) -> nn.Module:
        """See `VectorDecoder`."""
        return VectorDecoder(hidden_size, self.vocabulary)


class VectorDecoder(nn.Module):
    """MAD's decoder: the last hidden state plus a position, through two layers as wide as it, to symbols."""

    def __init__(self, hidden_size: int, vocabulary: int) -> None:
        """Make the layers."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.RMSNorm(hidden_size),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.RMSNorm(hidden_size),
            nn.Linear(hidden_size, hidden_size),
            nn.GELU(),
            nn.RMSNorm(hidden_size),
            nn.Linear(hidden_size, vocabulary),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """Map hidden states `[B, T, D]` to logits `[B, T, vocabulary]`, all from the last of the T."""
        positions = sines(hidden.shape[1], hidden.shape[2]).to(hidden)
        logits: Tensor = self.layers(hidden[:, -1:] + positions)
        return logits


def sines(length: int, width: int) -> Tensor:
    """Sines and cosines of positions `[length, width]`, of wavelengths 2 pi to 20,000 pi."""
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 2) / (width // 2))
    angles = torch.arange(length)[:, None] * rates
    found = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(found, (0, width - found.shape[1]))


class Memorization(RowTask):
    """Values of keys that no row tells: what training put into the weights."""

    name = "memorization"
    about = "the values of 16 of 128 keys, which are the same in all rows and stand in none"
    vocabulary = 256
    chance = 1 / 127
    train_lengths = test_lengths = (32,)
    source = "MAD (arXiv 2403.17844): 256 fixed rows of keys there, fresh rows here"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """Keys, each followed by a mark, where its value is asked for."""
        keys = rng.integers(len(_VALUES), size=length // 2)
        mark = np.full_like(keys, self.vocabulary - 1)
        labels = np.stack([np.full_like(keys, NOT_ASKED), _VALUES[keys]], axis=1)
        return np.stack([keys, mark], axis=1).reshape(-1), labels.reshape(-1)


# The facts: a value of 127 for each of 128 keys.
_VALUES = np.random.default_rng(0).integers(128, 255, size=128)
