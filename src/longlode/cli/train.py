"""longlode train: a run from a recipe."""

from pathlib import Path
from typing import Annotated

import typer

from longlode.cli.console import finish, progress, table

EXAMPLES = (
    "longlode train recipes/small.toml -o runs/small --set data.shards=shards",
    "longlode train recipes/small.toml -o runs/wide --set model.hidden_size=512 --set optim.lr=5e-4",
    "longlode train recipes/small.toml -o runs/small --set data.shards=shards --resume",
)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML): model, data, optim, run.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The run's folder; must be new, or used with --resume.")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: section.key=value.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest sound checkpoint.")] = False,
) -> None:
    """Train a model on packed shards, with checkpoints that survive a kill.

    OUT/metrics.jsonl has a row a step, OUT/checkpoints what a resume needs, OUT/model the finished model as a
    Hugging Face folder. Ctrl-C finishes the step and saves. Next: longlode evaluate OUT.
    """
