"""What context is worth to a model: loss of the same tokens after 16, 64, 256, 1,024 and 4,096 tokens of context.

    python -m benchmarks.context_curve [--model starter] [--windows 32] [--targets 128] [--save]

Windows stand at random places of dev works (`benchmarks/works.py`) of prose and of code that the starter was not
trained on. In each the last `targets` tokens are predicted, five times, with more and more text before them. A model
that reads far has a lower loss with each step; one whose curve is flat reads nothing there. Differences are paired,
their errors are over works. Without `--save` nothing is written.
"""

import argparse
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.labelled import HELDOUT_FRACTION
from benchmarks.saved import about, save
from benchmarks.works import Work, works_of
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer, in_heldout
from longlode.evaluate.statistics import context_used
from longlode.evaluate.surprisal import SurprisalMeter, losses_after
from longlode.models import load, starter_folder

CONTEXTS = (16, 64, 256, 1024, 4096)
KINDS = {"prose": ("book",), "code": ("code", "package", "module")}
STEPS = ((64, 256), (256, 1024), (1024, 4096), (256, 4096))
_BATCH_TOKENS = 1 << 14


@dataclass(frozen=True, eq=False)
class Windows:
    """Rows of `CONTEXTS[-1] + targets` tokens, int64, and the work of each."""

    rows: np.ndarray
    works: np.ndarray
    targets: int


def unseen(work: Work) -> bool:
    """Whether the starter's recipe leaves a work out; the standard library is not in its corpus at all."""
    if work.domain in ("package", "module"):
        return True
    return in_heldout(
        f"{work.id.removeprefix('book/')}.txt" if work.domain == "book" else work.id, HELDOUT_FRACTION
    )


def make_windows(
    works: Sequence[Work], tokenizer: Tokenizer, *, windows: int, targets: int, seed: int = 0
) -> dict[str, Windows]:
    """So many windows of each kind, from its works in turn; works that are too short are left out."""
    rng, found = random.Random(seed), {}
    length = CONTEXTS[-1] + targets
    for kind, domains in KINDS.items():
        texts = {
            w.id: tokenizer.encode_long(w.text) for w in works if w.language == "en" and w.domain in domains
        }
        usable = sorted(name for name, tokens in texts.items() if len(tokens) >= length)
        if not usable:
            raise InputError(f"No work of {kind} has {length:,} tokens.")
        rows, names = [], []
        for place in range(windows):
            name = usable[place % len(usable)]
            start = rng.randrange(len(texts[name]) - length + 1)
            rows.append(texts[name][start : start + length])
            names.append(name)
        found[kind] = Windows(np.stack(rows).astype(np.int64), np.array(names), targets)
    return found


def losses(model: Any, windows: Windows, *, dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Mean loss of each window's targets after each context, nats per token, `[windows, len(CONTEXTS)]`.

    Args: model: a causal language model of transformers; dtype: of matrix products.
    """
    meter = SurprisalMeter(model, batch_tokens=_BATCH_TOKENS)
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return losses_after(meter, windows.rows.tolist(), CONTEXTS, windows.targets)


def mean_and_error(values: np.ndarray, works: np.ndarray) -> tuple[float, float]:
    """The mean over works of their means, and its standard error."""
    means = np.array([values[works == work].mean() for work in np.unique(works)])
    return float(means.mean()), float(means.std(ddof=1) / len(means) ** 0.5) if len(means) > 1 else float(
        "nan"
    )


def summary(found: Mapping[str, np.ndarray], windows: Mapping[str, Windows]) -> dict[str, Any]:
    """Per kind the loss by context, and what each of `STEPS` saves with its standard error over works."""
    result: dict[str, Any] = {}
    for kind, values in found.items():
        works = windows[kind].works
        gains = {}
        for near, far in STEPS:
            saved = values[:, CONTEXTS.index(near)] - values[:, CONTEXTS.index(far)]
            gains[f"{near}-{far}"] = mean_and_error(saved, works)
        loss = [mean_and_error(values[:, column], works)[0] for column in range(len(CONTEXTS))]
        result[kind] = {
            "loss": loss,
            "gain": gains,
            "used": context_used(values, CONTEXTS, works.tolist()),
            "works": len(np.unique(works)),
            "windows": len(values),
        }
    return result


def show(result: Mapping[str, Any], console: Console) -> None:
    """Print the table."""
    table = Table(
        title="nats per token of the same targets, by tokens of context; and what far context saves"
    )
    table.add_column("text")
    for context in CONTEXTS:
        table.add_column(f"{context:,}", justify="right")
    for near, far in STEPS:
        table.add_column(f"{near:,} to {far:,}", justify="right")
    table.add_column("context used", justify="right")
    for kind, row in result.items():
        gains = [f"{mean:+.3f} ±{error:.3f}" for mean, error in row["gain"].values()]
        used = "" if row["used"] is None else f"{row['used']:,}"
        table.add_row(kind, *(f"{loss:.3f}" for loss in row["loss"]), *gains, used)
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one model on the dev works."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="starter", help="starter, a folder, or a hub id")
    parser.add_argument("--windows", type=int, default=32, help="of each kind")
    parser.add_argument("--targets", type=int, default=128, help="tokens predicted in each window")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="matrix products")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    folder = str(starter_folder()) if options.model == "starter" else options.model
    model, _ = load(folder)
    model.float()
    windows = make_windows(
        [work for work in works_of("dev") if unseen(work)],
        Tokenizer.load(folder),
        windows=options.windows,
        targets=options.targets,
        seed=options.seed,
    )
    found = {kind: losses(model, part, dtype=getattr(torch, options.dtype)) for kind, part in windows.items()}
    result = summary(found, windows)
    show(result, Console(width=150))
    if options.save:
        save("context-curve", about("context_curve") | {"model": options.model, "curve": result}, "")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, InputError) as error:
        sys.exit(f"error: {error}")
