"""What the long-context recipes do at machine size: against plain text and long from scratch, at equal compute.

    python -m benchmarks.recipes --work FOLDER [--seeds 0,1,2] [--arms plain,...] [--most-seconds 300] [--save]

A base model (1.3M parameters: an n-gram head, two DeltaNet layers and one of attention) is trained on rows of 256
tokens. Every recipe of `recipes/` continues it with all lengths divided (`recipes/scaled_down.py`), until as many
operations are spent as by `plain`: rows of 256 tokens as before. `long from scratch` has never read short rows: rows of
4,096 tokens from the first step, as many operations as base and continuation together. Operations are counted by the
models' own formulas, each document by its length.

Measured on works of the dev side: loss of the same targets after 256, 1,024 and 4,096 tokens of context, and questions
of memory, before and after a stage of supervised fine-tuning on short chats alone (questions of 256 tokens; a loss on
the answers). A run that was stopped goes on with the same command, and finished ones are not repeated;
`--most-seconds` stops before the first run that would begin later than that. Needs the development corpus.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.mining_measures import Held, make_questions
from benchmarks.context_curve import make_windows, unseen
from benchmarks.recipes_corpus import write_chats, write_texts
from benchmarks.recipes_runs import BASE, PLAIN, SCRATCH, Bench, Sizes
from benchmarks.recipes_table import as_markdown, table
from benchmarks.saved import about, save
from benchmarks.works import works_of
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer
from longlode.evaluate.surprisal import make_encode
from longlode.models import load, starter_folder
from recipes.scaled_down import LONG_RECIPES

ARMS = (BASE, PLAIN, *LONG_RECIPES, SCRATCH)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, as far as the time reaches; then print the table."""
    options = parse(arguments)
    torch.set_num_threads(1)
    started = time.monotonic()
    bench, facts = prepare(options)
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for seed in options.seeds:
        for arm in options.arms:
            if options.most_seconds is not None and time.monotonic() - started > options.most_seconds:
                print("the time is over; the same command goes on", flush=True)
                return
            found[arm, seed] = bench.run(arm, seed)
            print(f"{arm}, seed {seed}: done after {time.monotonic() - started:.0f} s", flush=True)
    rows = table(found, bench.held)
    text = as_markdown(rows)
    print(text)
    if options.save:
        result = about("recipes") | {"sizes": vars(bench.sizes), "corpus": facts, "table": rows}
        result["command"] = result["command"].replace(str(options.work), "FOLDER")
        save("recipes", result, page(result["command"], facts, text))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises: ConfigError for an arm that there is not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and their records")
    parser.add_argument("--arms", default=",".join(ARMS), help=f"of {', '.join(ARMS)}; with commas between")
    parser.add_argument(
        "--seeds", default="0,1,2", help="numbers with commas between; a process for each may run"
    )
    parser.add_argument("--windows", type=int, default=16, help="held-out windows of prose and of code")
    parser.add_argument("--questions", type=int, default=24, help="of each task")
    parser.add_argument("--most-seconds", type=float, default=None, help="begin no run after so long")
    for name, value in vars(Sizes()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    options = parser.parse_args(arguments)
    options.arms, options.seeds = options.arms.split(","), [int(one) for one in options.seeds.split(",")]
    if unknown := sorted(set(options.arms) - set(ARMS)):
        raise ConfigError(f"There is no arm {unknown[0]!r}; expected some of: {', '.join(ARMS)}.")
    return options


def prepare(options: argparse.Namespace) -> tuple[Bench, dict[str, Any]]:
    """Make the corpus and the held-out material; return also the facts of the corpus."""
    tokenizer = Tokenizer.load(starter_folder())
    encode = make_encode(load(str(starter_folder()))[1])
    fit, dev = ([work for work in works_of(side) if unseen(work)] for side in ("fit", "dev"))
    facts = write_texts([work for work in fit if work.language == "en"], tokenizer, options.work)
    chats = write_chats(options.work, encode)
    questions = {
        f"{task.replace('_', ' ')} of {length:,}": make_questions(
            (task,), encode, count=options.questions, num_tokens=length
        )[task]
        for task, length in (("verbatim_memory", 1024), ("recall", 1024), ("recall", 4096))
    }
    held = Held(make_windows(dev, tokenizer, windows=options.windows, targets=256), questions)
    sizes = Sizes(**{name: getattr(options, name) for name in vars(Sizes())})
    return Bench(options.work, options.work / "texts", chats, held, sizes), facts


def page(command: str, facts: dict[str, Any], text: str) -> str:
    """The tables for people."""
    corpus = ", ".join(
        f"{source} {number:,} ({facts['documents'][source]:,} documents)"
        for source, number in facts["tokens"].items()
    )
    return "\n".join(
        (
            "# The long-context recipes at machine size",
            "",
            f"`{command}`",
            "",
            f"Tokens trained on, by source: {corpus}.",
            "Losses and gains in nats per token, log-probabilities in nats per token of the answers, `right` as the "
            "share of tokens of the answers that greedy decoding writes. Of `plain` its values, of the others the "
            "difference from it (95 % over seeds and works or questions), bold where clear of 0.",
            "",
            text,
        )
    )


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, InputError) as error:
        sys.exit(f"error: {error}")
