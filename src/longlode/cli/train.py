"""longlode train: a run from a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, note, table
from longlode.core.outputs import claim_folder

EXAMPLES = (
    "longlode train recipes/cpu_small.toml -o runs/small --set data.shards=shards",
    "longlode train recipes/cpu_small.toml -o runs/wide --set data.shards=shards --set model.hidden_size=512",
    "longlode train recipes/cpu_small.toml -o runs/small --set data.shards=shards --resume",
)


def train(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML): model, data, optim, run.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="The run's folder: new, or its own with --resume.")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: section.key=value.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest sound checkpoint.")] = False,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            help="Compare the shards with their checksums, or never. Without either: before the first step of a run.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train a model on packed shards, with checkpoints that survive a kill.

    OUT/metrics.jsonl has a row a step, OUT/checkpoints what a resume needs, OUT/model the finished model as a
    Hugging Face folder. Ctrl-C and SIGTERM finish the step and save; --resume goes on bit for bit. Next:
    longlode evaluate OUT.
    """
    from longlode.cli.training import run_training
    from longlode.train import Recipe

    loaded = Recipe.load(recipe, set_ or [])
    if not resume:
        claim_folder(out, "run", advice="go on with its run by --resume", make=False)
    summary = run_training(loaded, out, resume=resume, verify=verify)
    if summary.resumed_from is not None:
        note(f"Resumed from step {summary.resumed_from:,}.")
    rows = [
        ("steps", summary.step),
        ("tokens", summary.tokens),
        ("seconds", summary.seconds),
        ("training loss (nats a token)", summary.loss),
        ("held-out loss (nats a token)", summary.eval_loss),
        ("steps left out (not finite)", summary.skips),
    ]
    table(f"Run: {summary.status.replace('_', ' ')}", ("what", "figure"), rows)
    if summary.model_folder is None:
        note(f"Stopped and saved. Go on with: longlode train {recipe} -o {out} --resume (and the same --set)")
        return
    finish(
        f"Model: {summary.model_folder}. Metrics: {out}/metrics.jsonl",
        then=[f"longlode evaluate {out} -o eval", f'longlode generate {out} --prompt "Once"'],
    )


def interrupted(options: Mapping[str, Any]) -> str:
    """What a second Ctrl-C leaves: the newest checkpoint."""
    out = options["out"]
    steps = sorted(path.name for path in out.glob("checkpoints/step-*"))
    if not steps:
        return f"No checkpoint was saved in {out} yet; the same command with --resume starts at step 0."
    return f"The newest checkpoint is {out}/checkpoints/{steps[-1]}; the same command with --resume goes on from there."
