"""A tiny random model with a tokenizer of its own, documents to read, and a way to run a command."""

import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers  # noqa: F401 - its logger keeps the stderr of its first import, which must not be a test's own
from typer.testing import CliRunner

from longlode.cli import app
from longlode.corpus import train_bpe

_VOCAB_SIZE = 384


@pytest.fixture(scope="session")
def sources() -> list[Path]:
    """Some source files of the running Python, long enough to have segments."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return [
        folder / name
        for name in ("argparse.py", "ast.py", "tarfile.py", "zipfile.py", "inspect.py")
        if (folder / name).is_file()
    ]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, sources: list[Path]) -> Path:
    """An untrained DeltaNet of two layers, saved as users save models."""
    from longlode.models import LonglodeConfig, LonglodeForCausalLM

    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = train_bpe([path.read_text(encoding="utf-8")[:20_000] for path in sources], _VOCAB_SIZE)
    tokenizer.save(folder)
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, mixers="D*2", num_heads=2, initializer_range=0.2
    )
    LonglodeForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory, sources: list[Path]) -> Path:
    """A folder of short whole-file documents."""
    folder = tmp_path_factory.mktemp("corpus")
    for path in sources:
        (folder / path.name).write_text(path.read_text(encoding="utf-8")[:1200], encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def run() -> Callable[..., str]:
    """Run `longlode ARGS` and check its exit status; no traceback may ever show. Gives its output."""

    def _run(*arguments: object, status: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        shown = result.output
        assert "Traceback" not in shown
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        assert result.exit_code == status, shown
        return " ".join(shown.replace("│", " ").split())

    return _run
