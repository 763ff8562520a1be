"""What every test here stands on: offline, one thread, seeded."""

import os
from pathlib import Path

import pytest

from peers.processes import SETTINGS

os.environ.update(SETTINGS)  # before transformers, datasets and torch are imported

import torch

from peers import tiny


def pytest_configure() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny DS model and its tokenizer."""
    return tiny.folder(tmp_path_factory.mktemp("tiny"))
