"""The tasks of `longlode bench` for five mixers at small budgets, in one table.

    python -m benchmarks.bench_tasks --work DIR [--mixers D,G,L,S,A] [--tasks NAME,...] [--seeds 3] [--save]

Each task is what `longlode bench TASK --mixers ... --lr 0.01 --steps ... --batch-size ...` trains and tests, two layers
of the mixer and nothing else: unlike in `benchmarks.mixers` no convolution stands in front, and parameters are not
made equal. A run that was stopped goes on after the last finished model.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from benchmarks.saved import about, save
from longlode.evaluate.bench import BenchSettings, bench

_LR = 0.01  # the better one of two for these mixers on most tasks of benchmarks.mixers
_BUDGETS = {  # task -> (steps, rows per step)
    "mqar": (300, 16),
    "joint_recall": (600, 16),
    "compression": (300, 16),
    "memorization": (300, 16),
    "parity": (300, 16),
    "in_context_language": (300, 8),
    "listops": (300, 8),
}


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Per task {task, steps, batch_size, about, chance, summary of the greatest test length per mixer}."""
    found = []
    for task in options.tasks:
        steps, batch_size = _BUDGETS[task]
        settings = BenchSettings(steps=steps, batch_size=batch_size, lr=_LR)
        result = bench(
            task,
            options.work / task,
            mixers=options.mixers,
            seeds=options.seeds,
            settings=settings,
            progress=lambda done, total, what, task=task: print(
                f"{task}: {done} of {total}, {what}", flush=True
            ),
        )
        longest = max(row["length"] for row in result["summary"])
        kept = {row["mixer"]: row for row in result["summary"] if row["length"] == longest}
        budget = {"task": task, "steps": steps, "batch_size": batch_size, "length": longest}
        found.append(budget | {"about": result["about"], "chance": result["chance"], "mixers": kept})
    return found


def table(found: list[dict[str, Any]]) -> str:
    """The result as Markdown: mean share right, and the least and greatest of the seeds."""
    names = list(found[0]["mixers"])
    lines = ["| task | steps x rows | chance | " + " | ".join(f"`{name}`" for name in names) + " |"]
    lines.append("|" + "---|" * (len(names) + 3))
    for one in found:
        cells = [
            f"{row['accuracy']:.2f} ({row['least']:.2f}-{row['greatest']:.2f})"
            for row in one["mixers"].values()
        ]
        budget = f"{one['steps']} x {one['batch_size']}"
        lines.append(f"| {one['task']} | {budget} | {one['chance']:.2f} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"- {one['task']}: {one['about']}" for one in found)])


def main() -> None:
    """Train what is missing, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mixers", default="D,G,L,S,A")
    parser.add_argument("--tasks", default=",".join(_BUDGETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    options.mixers, options.tasks = options.mixers.split(","), options.tasks.split(",")
    if unknown := set(options.tasks) - set(_BUDGETS):
        parser.error(f"--tasks has {', '.join(sorted(unknown))}; expected of {', '.join(_BUDGETS)}")
    torch.set_num_threads(1)
    found = measured(options)
    text = table(found)
    print(text)
    if options.save:
        command = f"python -m benchmarks.bench_tasks --work DIR --tasks {','.join(options.tasks)} --save"
        result = about("bench_tasks") | {"command": command}
        head = (
            f"# Tasks of `longlode bench`: share right at the greatest test length, {options.seeds} seeds\n\n"
            f"Two layers of the mixer, width 64, learning rate {_LR}; in brackets the worst and the best seed.\n\n"
            f"`{result['command']}`; one task: `longlode bench TASK --lr {_LR} --steps STEPS --batch-size ROWS "
            f"-o FOLDER`, {result['machine']}.\n\n"
        )
        save("bench-tasks", result | {"tasks": found, "lr": _LR}, head + text)


if __name__ == "__main__":
    main()
