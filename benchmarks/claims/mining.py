"""Does training on mined text help a model to use far context? Small models, arm against arm.

    python -m benchmarks.claims.mining --work FOLDER [--pool spliced|mixed] [--settings scratch,starter]
        [--arms oracle,random,...] [--seeds 3] [--tokens N] [--count] [--save]

The pool is of known make (`benchmarks/claims/mining_pool.py`): a quarter of its rows is text as it stands. With
`--pool spliced` the others are the same works cut into short pieces and shuffled; with `--pool mixed` they are junk of
ten kinds made of the same works, three of which the gate was never fitted on. Every arm
(`benchmarks/claims/mining_arms.py`) takes a quarter of the rows of each work: `oracle` those in order, `random` any,
`spliced` junk, the others what a scorer ranks highest there. So all arms train once on equally many tokens of the same
works in the same shares, a seed fixes the first weights and the order of the works, and losses compare. `everything`
trains on the whole pool, four times as long.

Two settings: a small stack from scratch, and the starter trained on. Works of the pool and held-out ones are such that
the starter was not trained on: in the pool `spliced` works of the fit side, measured on works of dev; in `mixed`, since
the default score's gate was fitted on works of the fit side, the other way about. Measured are the loss of the same
targets after 256, 1,024 and 4,096 tokens of context, and two tasks of memory; all paired by seed and work, or question.

The oracle arm tells whether any way of mining could show anything at this size: where it does not differ from `random`,
no scorer can. With `--count` nothing is trained: the rows that each arm takes are counted by kind. A run that was
stopped goes on with the same command; finished ones are not repeated, and every run leaves its record in FOLDER.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.claims.mining_arms import ARMS, EVERYTHING, KNOWING, SCORED, PoolScores, choose
from benchmarks.claims.mining_counts import Taken, taken_of
from benchmarks.claims.mining_counts import as_markdown as counts_as_markdown
from benchmarks.claims.mining_measures import TASK_NAMES, Held, make_questions
from benchmarks.claims.mining_pool import MAKES, SHARE, Pool, make_pool
from benchmarks.claims.mining_table import Runs, as_markdown, show, table
from benchmarks.claims.mining_training import SETTINGS, Setting, run
from benchmarks.context_curve import make_windows, unseen
from benchmarks.saved import about, save
from benchmarks.works import works_of
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer
from longlode.evaluate.surprisal import make_encode
from longlode.models import load, starter_folder

SIDES_OF = {"spliced": ("fit", "dev"), "mixed": ("dev", "fit")}
"""By pool: the side of its works, and of those that are measured."""
DEFAULT_ARMS = ("oracle", "random", "profile x gate")
"""Those of the README's table."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, then print the tables."""
    options = parse(arguments)
    torch.set_num_threads(1)
    tokenizer = Tokenizer.load(starter_folder())
    side, held_side = SIDES_OF[options.pool]
    works = [work for work in works_of(side) if unseen(work)]
    held = None if options.count else held_out(tokenizer, options, held_side)
    tables, titles, counts = {}, {}, {}
    for setting in settings_of(options):
        pool = make_pool(
            works, tokenizer, length=options.length, tokens=setting.tokens, seed=0, make=options.pool
        )
        scores = PoolScores(pool, tokenizer, options.work, options.attention_reader)
        titles[setting.name] = title_of(setting, pool)
        chosen = {
            arm: [choose(arm, pool, scores, seed) for seed in range(options.seeds)]
            for arm in options.arms.split(",")
        }
        counts[setting.name] = taken_of(chosen, pool)
        print(counts_as_markdown(counts[setting.name]), flush=True)
        if held is not None:
            tables[setting.name] = train_all(setting, pool, chosen, held, options.work, titles[setting.name])
    if options.save:
        layers = options.layers and json.loads(options.layers.read_text(encoding="utf-8"))
        sizes = vars(options) | {"work": None, "layers": layers, "attention_reader": None}
        facts = about("claims.mining") | {"sizes": sizes}
        for path in filter(None, (options.work, options.attention_reader, options.layers)):
            facts["command"] = facts["command"].replace(
                str(path), "FILE" if path == options.layers else "FOLDER"
            )
        text = page(facts["command"], tables, titles, counts)
        if layers:
            text += f"\nFILE holds the layers from scratch: `{json.dumps(layers)}`.\n"
        save(options.name, facts | {"tables": tables, "taken": counts}, text)


def train_all(
    setting: Setting,
    pool: Pool,
    chosen: Mapping[str, Sequence[np.ndarray]],
    held: Held,
    folder: Path,
    title: str,
) -> dict[str, Any]:
    """Train what is not trained yet, one seed per array of `chosen`; print the table after each arm, and return it."""
    runs: Runs = {}
    found: dict[str, Any] = {}
    for arm, draws in chosen.items():
        for seed, rows in enumerate(draws):
            times = SHARE if arm == EVERYTHING else 1
            runs[arm, seed] = (rows, run(setting, seed, pool, rows, held, folder, times))
        found = table(runs, held, pool)
        show(found, title, Console(width=170))
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line. Raises: ConfigError for an arm that there is not."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder of runs and their records")
    parser.add_argument("--pool", choices=MAKES, default="spliced", help="what its junk is")
    parser.add_argument("--settings", default="scratch", help="of scratch, starter; with commas between")
    parser.add_argument("--arms", default=",".join(DEFAULT_ARMS), help=f"of {', '.join(ARMS)}")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=None, help="of an arm, instead of the setting's own")
    parser.add_argument("--length", type=int, default=4096, help="tokens of a row")
    parser.add_argument("--windows", type=int, default=24, help="held-out windows of prose and of code")
    parser.add_argument("--questions", type=int, default=24, help="of each task")
    parser.add_argument(
        "--width", type=int, default=128, help="hidden size from scratch, heads of 64 numbers"
    )
    parser.add_argument(
        "--count", action="store_true", help="count the rows of each arm by kind, train nothing"
    )
    parser.add_argument(
        "--attention-reader", default="", help="folder of a model with attention layers, for attention_mass"
    )
    parser.add_argument("--lr", type=float, default=None, help="instead of the setting's own")
    parser.add_argument("--layers", type=Path, default=None, help="JSON file with the layers from scratch")
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    parser.add_argument("--name", default="claims-mining", help="of that file")
    options = parser.parse_args(arguments)
    for given, known in ((options.arms, ARMS), (options.settings, tuple(SETTINGS))):
        if unknown := sorted(set(given.split(",")) - set(known)):
            raise ConfigError(f"There is no {unknown[0]!r}; expected some of: {', '.join(known)}.")
    return options


def settings_of(options: argparse.Namespace) -> list[Setting]:
    """The settings asked for, with the command line's sizes."""
    given = {"lr": options.lr, "tokens": options.tokens}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    scratch: dict[str, Any] = {"width": options.width}
    if options.layers is not None:
        scratch["layers"] = json.loads(options.layers.read_text(encoding="utf-8"))
    return [
        dataclasses.replace(SETTINGS[name], **changes, **(scratch if name == "scratch" else {}))
        for name in options.settings.split(",")
    ]


def held_out(tokenizer: Tokenizer, options: argparse.Namespace, side: str) -> Held:
    """Windows of works of a side that the starter was not trained on, and questions."""
    works = [work for work in works_of(side) if unseen(work)]
    windows = make_windows(works, tokenizer, windows=options.windows, targets=256)
    encode = make_encode(load(str(starter_folder()))[1])
    return Held(windows, make_questions(TASK_NAMES, encode, count=options.questions))


def title_of(setting: Setting, pool: Pool) -> str:
    """One line above a table."""
    begun = "from scratch" if setting.name == "scratch" else "the starter trained on"
    rows = f"{len(pool.rows)} rows of {pool.rows.shape[1] - 1:,} tokens of {len(pool.of_work)} works"
    return f"{begun}, {setting.tokens:,} tokens; pool of {rows}"


def page(
    command: str, tables: Mapping[str, Any], titles: Mapping[str, str], counts: Mapping[str, Taken]
) -> str:
    """The tables for people."""
    lines = ["# Does training on mined text help?", "", f"`{command}`", ""]
    meanings = KNOWING | {name: arm.about for name, arm in SCORED.items()}
    shown = {arm for found in counts.values() for arm in found}
    lines += [f"- {name}: {what}." for name, what in meanings.items() if name in shown]
    for name, found in tables.items():
        lines += ["", f"## {titles[name]}", ""]
        lines += [
            "Nats per token; of random its values, of other arms what differs from them.",
            "",
            as_markdown(found),
        ]
    for name, taken in counts.items():
        lines += ["", f"## Rows taken: {titles[name]}", ""]
        lines += ["Of each kind of junk, the share of its rows in the pool; chance is 0.25.", ""]
        lines.append(counts_as_markdown(taken))
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, InputError) as error:
        sys.exit(f"error: {error}")
