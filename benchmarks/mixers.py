"""Every mixer in one table: what it learns, what it costs, how its cost grows with the length.

    python -m benchmarks.mixers --work DIR --texts FOLDER [--only accuracy|speed|page] [--mixers NAME,...]
        [--tasks mqar,mqar_128,overwrite,joint_recall,parity,in_context_language,text] [--seeds 3]
        [--lengths 2048,16384] [--rounds 3] [--save]

Learning: models with about equal parameters, trained as `longlode bench` does, an interval over seeds. Tasks of recall
have one layer of the mixer (joint recall two), behind a convolution over four tokens where it has none of its own, as
Zoology's models have (arXiv 2312.04927); the others have two layers of it alone. Each mixer gets the better of two
learning rates, by rows that are not reported: one for recall, chosen on `mqar`, and one for the others, chosen on
`text`; `text` is bits per byte of held-out files, at equal bytes read. Cost, of one layer of width 128, float32, one
row: a training step (forward and backward) and a decoded token, the best of some rounds in which all mixers take turns;
the peak of memory of a step, and of decoding with the state, above what stood before; `slope` is the exponent by which
the time of a step grows between the two lengths (1: linear, 2: quadratic).

Each model and measurement is kept in DIR at once: a run can be stopped at any time, goes on with the same command, and
can be extended by mixers, tasks and seeds. `--only page` makes the page of what is there.
"""

import argparse
import math
from pathlib import Path
from typing import Any

import torch

from benchmarks import mixers_accuracy as accuracy
from benchmarks import mixers_cost as cost
from benchmarks.saved import about, save
from longlode.evaluate.bench import ROW_TASKS
from longlode.mixers import LETTERS, MIXERS

_NOTHING = "–"


def learnt_cell(task: str, found: dict[str, Any] | None) -> str:
    """Bits per byte of text, otherwise the share right; with the least and the greatest of several seeds."""
    if found is None:
        return _NOTHING
    value, least, greatest = (found[key] for key in ("accuracy", "least", "greatest"))
    if task == "text":
        value, least, greatest = (
            nats / math.log(2) for nats in (found["loss"], min(found["losses"]), max(found["losses"]))
        )
    around = "" if found["n"] == 1 else f" ({least:.2f}-{greatest:.2f})"
    return f"{value:.2f}{around}"


def learnt_table(options: argparse.Namespace, what: dict[str, Any]) -> str:
    """What the mixers learnt, as Markdown."""
    heads = [f"{task} ({'bits per byte' if task == 'text' else 'share right'})" for task in options.tasks]
    lines = ["| mixer | seeds | rates | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 3)]
    for name in options.mixers:
        found = what[name]
        rates = " and ".join(
            dict.fromkeys(f"{found[task]['lr']:g}" for task in options.tasks if task in found)
        )
        seeds = sorted({one["n"] for one in found.values()})
        counted = (
            _NOTHING if not seeds else "-".join(str(one) for one in dict.fromkeys((seeds[0], seeds[-1])))
        )
        cells = [learnt_cell(task, found.get(task)) for task in options.tasks]
        share = accuracy.SHARE_OF_STEPS.get(name)
        budget = "" if share is None else f", {share:g} of the steps"
        lines.append(f"| `{name}`{budget} | {counted} | {rates or _NOTHING} | " + " | ".join(cells) + " |")
    chances = [
        _NOTHING if task == "text" else f"{accuracy.task_of(task).chance:.2f}" for task in options.tasks
    ]
    lines.append("| chance | | | " + " | ".join(chances) + " |")
    return "\n".join(lines)


def cost_table(options: argparse.Namespace, known: dict[str, Any]) -> str:
    """What the mixers cost, as Markdown."""
    heads = [f"{what} {length:,}" for what in _COSTS for length in options.lengths]
    lines = ["| mixer | slope | " + " | ".join(heads) + " |", "|" + "---|" * (len(heads) + 2)]
    for name in options.mixers:
        one = known.get(name, {"rounds": {}})
        cells = []
        for key, scale in _COSTS.values():
            for length in options.lengths:
                timed = key in ("step", "decode_token")
                value = cost.best(one, key, length) if timed else one.get(f"{key}_{length}")
                cells.append(_NOTHING if value is None else scale(value, length))
        grown = cost.slope(one, options.lengths)
        lines.append(
            f"| `{name}` | {_NOTHING if grown is None else f'{grown:.2f}'} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines)


def _tokens_per_second(seconds: float, length: int) -> str:
    return f"{length / seconds:,.0f}"


def _one_per_second(seconds: float, length: int) -> str:
    return f"{1 / seconds:,.0f}"


def _megabytes(count: float, length: int) -> str:
    return f"{count / 1e6:,.0f}"


def _kilobytes(count: float, length: int) -> str:
    return f"{count / 1e3:,.1f}"


_COSTS = {
    "training, tokens/s at": ("step", _tokens_per_second),
    "training, peak MB at": ("train", _megabytes),
    "decoding, tokens/s after": ("decode_token", _one_per_second),
    "decoding, peak MB after": ("decode", _megabytes),
    "state, kB after": ("state", _kilobytes),
}
"""Heading -> key of the measurement and how its number is written."""


def page(options: argparse.Namespace, what: dict[str, Any], known: dict[str, Any], head: str) -> str:
    """The result page."""
    budgets = []
    missing = [f"`{name}`" for name in options.mixers if name in accuracy.SHARE_OF_STEPS and not what[name]]
    left_out = f" Not trained, as it takes minutes per model: {', '.join(missing)}." if missing else ""
    rates = " and ".join(f"{rate:g}" for rate in accuracy.RATES)
    for task in options.tasks:
        one = accuracy.settings_of(task)
        layers = "one layer" if one.layers == 1 else f"{one.layers} layers"
        stack = f"{layers}, {'convolved' if one.front else 'alone'}"
        budgets.append(f"{task} {one.steps} steps of {one.batch_size} rows, {stack}")
    return "\n\n".join(
        [
            "# Every mixer: what it learns, what it costs",
            head,
            f"Budgets: {'; '.join(budgets)}. Convolved: a mixer without a convolution of its own stands behind one "
            "over four tokens. In joint_recall keys without their groups give a half. Weights begin with a "
            f"deviation of 1 / sqrt(width) = 1/8. Of the learning rates {rates} each mixer has the better one by the "
            "loss of rows that are not reported: one for recall, chosen on mqar, and one for text, parity and "
            f"languages, chosen on text. In brackets the least and the greatest seed. A dash: not run.{left_out}",
            learnt_table(options, what),
            cost_table(options, known),
        ]
    )


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line, and make the text task of its files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=("accuracy", "speed", "page"), help="unset: everything")
    parser.add_argument("--mixers", help="names or letters; unset: all, of which the slowest are not trained")
    parser.add_argument("--tasks", default=",".join(accuracy.TASKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lengths", default="2048,16384")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=Path, help="folder of text files, for the task text")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write a dated page to benchmarks/results/")
    options = parser.parse_args(arguments)
    options.named = options.mixers is not None
    given = [LETTERS.get(one, one) for one in (options.mixers or ",".join(MIXERS.names())).split(",")]
    options.mixers = [name for name in accuracy.PAPER if name in given]
    options.mixers += sorted(
        set(given) - set(options.mixers), key=lambda name: (name in accuracy.SHARE_OF_STEPS, name)
    )
    options.tasks = options.tasks.split(",")
    options.lengths = [int(one) for one in options.lengths.split(",")]
    if "text" in options.tasks and options.texts is None and options.only not in ("speed", "page"):
        parser.error("the task text needs --texts FOLDER; or name other --tasks")
    if options.texts is not None:
        ROW_TASKS["text"] = accuracy.text_rows(options.texts)
    return options


def main() -> None:
    """Train and measure what is asked for and missing, then print the page."""
    options = parsed()
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    if options.only in (None, "accuracy"):
        accuracy.train(options)
    if options.only in (None, "speed"):
        cost.measure(options)
    what, known = accuracy.learnt(options), cost.costs(options)
    result = about("mixers")
    result["command"] = f"python -m benchmarks.mixers --work DIR --texts FOLDER --seeds {options.seeds}"
    text = page(options, what, known, f"`{result['command']}`, {result['machine']}.")
    print(text)
    if options.save:
        save("mixers", result | {"learnt": what, "costs": known, "seeds": options.seeds}, text)


if __name__ == "__main__":
    main()
