"""Claim: a recurrent model answers better when it reads the context twice (JRT-Prompt).

python -m benchmarks.claims.repeat --work DIR [--save]
"""

import argparse
from pathlib import Path

import numpy as np

from benchmarks.claims.frame import FAILS, HOLDS, PARTLY, Claim, Finding, nothing_yet, run
from longlode.core.kinds import RECORD_NAME
from longlode.core.rows import read_rows
from longlode.evaluate.by_name import evaluate_model

CLAIM = Claim(
    "repeat",
    "Read twice: the context repeated before the question",
    "Putting the context twice before the question raises recall of 16 recurrent language models by 11.0 points on "
    "average over six sets of questions (JRT-Prompt, arXiv 2407.05483; 130M to 2.8B parameters).",
    "The packaged starter (DeltaNet with n-gram heads, 5 million parameters) on five recall tasks: contexts of 512 "
    "tokens once, and of the same size twice in 1,024 tokens, 24 examples each. Log-probability of the answer, nats "
    "per token; 95 % bootstrap interval of the difference.",
    "The questions are generated, and a model of this size rarely writes an answer in full. Its n-gram heads keep all "
    "tokens, which a purely recurrent model does not.",
)
TASKS = ("mqar", "joint_recall", "phonebook", "json_recall", "noisy_recall")
_EXAMPLES = 24
_DRAWS = 2000


def smooth(folder: Path, length: int, repeat: int) -> dict[str, np.ndarray]:
    """Task -> log-probability of the answer of each example; an evaluation that was stopped goes on."""
    if not (folder / RECORD_NAME).is_file():
        evaluate_model(
            Path("starter"),
            folder,
            tasks=TASKS,
            lengths=(length,),
            num_examples=_EXAMPLES,
            repeat_context=repeat,
            device="cpu",
        )
    rows = read_rows(folder / "examples.parquet")
    return {task: np.array([row["smooth"] for row in rows if row["task"] == task]) for task in TASKS}


def interval(once: np.ndarray, twice: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the difference of the means of two independent samples."""
    rng = np.random.default_rng(0)
    draws = [rng.choice(one, (_DRAWS, len(one))).mean(1) for one in (once, twice)]
    low, high = np.quantile(draws[1] - draws[0], [0.025, 0.975])
    return float(low), float(high)


def find(options: argparse.Namespace) -> Finding:
    """Once against twice, task by task."""
    folders = (options.work / "repeat-once", options.work / "repeat-twice")
    if options.only_records and not all((folder / RECORD_NAME).is_file() for folder in folders):
        return nothing_yet()
    once, twice = smooth(folders[0], 512, 1), smooth(folders[1], 1024, 2)
    rows, gained, lost, figures = [], [], [], {}
    for task in TASKS:
        low, high = interval(once[task], twice[task])
        difference = float(twice[task].mean() - once[task].mean())
        figures[task] = [float(once[task].mean()), float(twice[task].mean()), low, high]
        gained += [task] if low > 0 else []
        lost += [task] if high < 0 else []
        shown = f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append([f"`{task}`", f"{once[task].mean():.2f}", f"{twice[task].mean():.2f}", shown])
    seen = (
        f"Reading twice helps at {', '.join(gained) or 'no task'}, and hurts at {', '.join(lost) or 'none'}; the "
        "others show no difference."
    )
    verdict = HOLDS if len(gained) == len(TASKS) else PARTLY if len(gained) > len(lost) else FAILS
    return Finding(("task", "once", "twice", "difference"), rows, verdict, seen, 0, figures)


if __name__ == "__main__":
    run(CLAIM, find)
