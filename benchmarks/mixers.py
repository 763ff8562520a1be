"""Every mixer in one table: what it learns, what it costs, how its cost grows with the length.

    python -m benchmarks.mixers --work DIR [--mixers NAME,...] [--tasks mqar,mqar_128,overwrite,joint_recall,parity,
        in_context_language,text] [--seeds 3] [--steps 600] [--lengths 2048,16384] [--rounds 3] [--texts FOLDER]
        [--save]

Learning: models of two layers (one for `overwrite`) with about equal parameters, trained by `longlode.bench`, an
interval over seeds; `text` is bits per byte of held-out files, at equal bytes read. Cost: a training step (forward and
backward) and a decoded token of one layer of width 128, float32, the best of some rounds in which all mixers take
turns; `slope` is the exponent by which the time of a step grows between the two lengths (1: linear, 2: quadratic).
Finished models and timings in DIR are not made again, so that a run can be stopped and be extended.
"""

import argparse
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.saved import about, save
from longlode.core.records import read_json, write_json
from longlode.evaluate.bench import ROW_TASKS, BenchSettings, RowTask, bench
from longlode.mixers import LETTERS, MIXERS
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeModel

TASKS = ("mqar", "mqar_128", "overwrite", "joint_recall", "parity", "in_context_language", "text")
_LAYERS = {"overwrite": 1}
_WIDTH = 128
_NEW_TOKENS = 16
_HELDOUT = 5  # every fifth file


class TextRows(RowTask):
    """Bytes of text files, every next one predicted; every fifth file is held out for the test."""

    name = "text"
    about = "the next byte of text"
    vocabulary = 256
    chance = 1 / 256
    train_lengths = test_lengths = (512,)
    source = "files of the user's own"
    files: list[bytes]

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """A window of a file; test rows, which no other generator draws from, are of held-out files."""
        heldout = rng is self._tested
        files = [one for k, one in enumerate(self.files) if (k % _HELDOUT == 0) == heldout]
        text = files[rng.integers(len(files))]
        start = int(rng.integers(len(text) - length - 1))
        window = np.frombuffer(text[start : start + length + 1], dtype=np.uint8).astype(np.int64)
        return window[:-1], window[1:]

    def rows(self, rng: np.random.Generator, num: int, length: int) -> Any:
        """A batch; the first generator of a model is that of the training."""
        self._trained = getattr(self, "_trained", rng)
        self._tested = None if rng is self._trained else rng
        return super().rows(rng, num, length)


def text_rows(folder: Path) -> type[RowTask]:
    """The text task over the files of a folder that are long enough, in a fixed order."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".txt", ".md", ".py", ".rst"))
    random.Random(0).shuffle(paths)
    contents = [path.read_bytes() for path in paths[:200]]
    long_enough = [one for one in contents if len(one) > 4096]
    if len(long_enough) < 2 * _HELDOUT:
        raise SystemExit(
            f"{folder} holds {len(long_enough)} text files above 4096 bytes; expected ten or more."
        )
    return type("TextRowsOfFiles", (TextRows,), {"files": long_enough})


def learnt(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Mixer -> task -> the summary of its longest test length."""
    found: dict[str, dict[str, Any]] = {name: {} for name in options.mixers}
    for task in options.tasks:
        settings = BenchSettings(
            layers=_LAYERS.get(task, 2), steps=options.steps, parameters=options.parameters[task]
        )
        result = bench(
            task,
            options.work / f"{task}-{options.steps}",
            mixers=options.mixers,
            seeds=options.seeds,
            settings=settings,
            overwrite=True,
            progress=lambda done, total, what, task=task: print(
                f"{task}: {done} of {total} {what}", flush=True
            ),
        )
        for row in result["summary"]:
            found[row["mixer"]][task] = row  # the last length, the longest, stays
    return found


def model_of(mixer: str) -> LonglodeModel:
    """One layer of width 128, no MLP, random weights."""
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=256,
        hidden_size=_WIDTH,
        num_heads=2,
        layers=[{"mixer": mixer, "block": "mixer"}],
        window=512,
    )
    return LonglodeModel(config)


def step_seconds(model: LonglodeModel, length: int) -> float:
    """Seconds of a forward and a backward of one row."""
    tokens = torch.randint(256, (1, length), generator=torch.Generator().manual_seed(1))
    model.train()
    started = time.perf_counter()
    model(input_ids=tokens, use_cache=False).last_hidden_state.square().mean().backward()
    spent = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return spent


def decode_seconds(model: LonglodeModel, length: int) -> tuple[float, int]:
    """Seconds per decoded token after `length` tokens, and the bytes of the state then."""
    tokens = torch.randint(256, (1, length + _NEW_TOKENS), generator=torch.Generator().manual_seed(2))
    model.eval()
    cache = LonglodeCache(1)
    with torch.inference_mode():
        model(input_ids=tokens[:, :length], cache=cache, use_cache=True)
        started = time.perf_counter()
        for t in range(length, length + _NEW_TOKENS):
            model(input_ids=tokens[:, t : t + 1], cache=cache, use_cache=True)
    return (time.perf_counter() - started) / _NEW_TOKENS, cache.num_bytes


def costs(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Mixer -> its timings; the mixers take turns, a figure is the best round."""
    path = options.work / "costs.json"
    known: dict[str, dict[str, Any]] = read_json(path) if path.is_file() else {}
    missing = [name for name in options.mixers if name not in known]
    models = {name: model_of(name) for name in missing}
    best: dict[str, dict[str, float]] = {name: {} for name in missing}
    for _ in range(options.rounds):
        for name, model in models.items():
            for length in options.lengths:
                decode, state = decode_seconds(model, length)
                measured = {f"step_{length}": step_seconds(model, length), f"decode_{length}": decode}
                for key, value in measured.items():
                    best[name][key] = min(value, best[name].get(key, math.inf))
                best[name][f"state_{length}"] = state
            print(f"timed {name}", flush=True)
    for figures in best.values():
        first, last = options.lengths[0], options.lengths[-1]
        ratio = figures[f"step_{last}"] / figures[f"step_{first}"]
        figures["slope"] = math.log(ratio) / math.log(last / first) if last > first else math.nan
    known |= best
    write_json(path, known)
    return {name: known[name] for name in options.mixers}


def table(options: argparse.Namespace, what: dict[str, Any], cost: dict[str, Any]) -> str:
    """The result as Markdown."""
    first, last = options.lengths[0], options.lengths[-1]
    heads = [f"{task} ({'bits per byte' if task == 'text' else 'share right'})" for task in options.tasks]
    heads += [f"step of {first:,}, tokens/ms", f"step of {last:,}, tokens/ms", "slope"]
    heads += [f"decode after {last:,}, ms per token", f"state after {last:,}, kB"]
    lines = ["| mixer | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 1)]
    for name in options.mixers:
        cells = []
        for task in options.tasks:
            row = what[name][task]
            scale = 1 / math.log(2) if task == "text" else 1.0
            value = row["loss"] * scale if task == "text" else row["accuracy"]
            around = "" if task == "text" or row["low"] is None else f" ({row['low']:.2f}-{row['high']:.2f})"
            cells.append(f"{value:.2f}{around}")
        one = cost[name]
        cells += [f"{length / one[f'step_{length}'] / 1000:.0f}" for length in (first, last)]
        cells += [
            f"{one['slope']:.2f}",
            f"{1000 * one[f'decode_{last}']:.1f}",
            f"{one[f'state_{last}'] / 1000:.0f}",
        ]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mixers", default=",".join(MIXERS.names()))
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--lengths", default="2048,16384")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    options.mixers = [LETTERS.get(one, one) for one in options.mixers.split(",")]
    options.tasks = options.tasks.split(",")
    options.lengths = [int(one) for one in options.lengths.split(",")]
    options.work.mkdir(parents=True, exist_ok=True)
    if "text" in options.tasks:
        if options.texts is None:
            parser.error("the task text needs --texts FOLDER; or name other --tasks")
        ROW_TASKS["text"] = text_rows(options.texts)
    # Room for the widest mixer beside the embeddings: 60,000 parameters in each layer.
    options.parameters = {
        task: 2 * 64 * ROW_TASKS[task].vocabulary + 60_000 * _LAYERS.get(task, 2) for task in options.tasks
    }
    what, cost = learnt(options), costs(options)
    text = table(options, what, cost)
    print(text)
    if options.save:
        result = {
            **about("mixers"),
            "learnt": what,
            "costs": cost,
            "steps": options.steps,
            "seeds": options.seeds,
        }
        head = f"# Mixers: {options.seeds} seeds, {options.steps} steps\n\n"
        head += f"`{result['command']}`, {result['machine']}.\n\n"
        save("mixers", result, head + text)


if __name__ == "__main__":
    main()
