"""What every test stands on: offline, one thread, seeded, and uninitialised memory that shows as NaN."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

# Read when transformers is first imported, and by the worker processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_ROOT = Path(__file__).resolve().parent.parent


_NO_DATA = "no development corpus: set LONGLODE_DATA to its folder"


def _data_folder() -> Path:
    """The development corpus: LONGLODE_DATA, else ../shared/data beside the checkout."""
    return Path(os.environ.get("LONGLODE_DATA") or _ROOT.parent / "shared" / "data")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    # With deterministic algorithms on, torch fills `torch.empty` with NaN (integers: their largest value), so
    # that no test passes on memory that happened to be zero.
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    no_data = None if _data_folder().is_dir() else _NO_DATA
    no_gpu = None if torch.cuda.is_available() else "no CUDA device"
    for item in items:
        for marker, reason in (("data", no_data), ("gpu", no_gpu)):
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The development corpus; tests that use it carry the `data` marker."""
    folder = _data_folder()
    if not folder.is_dir():
        pytest.skip(_NO_DATA)
    return folder
