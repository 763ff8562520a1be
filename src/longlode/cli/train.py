"""longlode train: a run from a recipe."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longlode.cli.console import duration, finish, note, progress, table
from longlode.cli.habits import shell
from longlode.core.errors import ConfigError

if TYPE_CHECKING:
    from longlode.api.training import RunStart
    from longlode.train import TrainSummary

EXAMPLES = (
    "longlode train recipes/cpu_small.toml -o runs/small --set data.shards=shards",
    "longlode train recipes/cpu_small.toml -o runs/wide --set data.shards=shards --set model.hidden_size=512",
    "longlode train -o runs/small --resume",
    "longlode train -o runs/small --replay 1200",
    "longlode train --list-keys",
)


RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="The run's folder: new, or its own with --resume. Always needed to train."
    ),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        help="Compare the shards with their checksums, or never do so. Default: before the first step of a run.",
        show_default=False,
    ),
]

ReplayStep = Annotated[
    int | None,
    typer.Option(
        "--replay",
        min=1,
        metavar="STEP",
        help="Run this step of the run again, from the newest checkpoint before it: its loss, its gradients and "
        "its documents. Nothing is written.",
    ),
]


def _show_keys() -> dict[str, Any]:
    from longlode.train.recipe_keys import list_keys

    keys = list_keys()
    rows = [(key.name, key.type, key.default, key.description) for key in keys]
    table("Keys of a recipe", ("key", "type", "default", "what it is"), rows)
    return {"keys": keys}


class Speed:
    """Mean speed of the steps of a session, without its first, which is slow."""

    def __init__(self) -> None:
        """Begin without a step."""
        self._tokens = self._seconds = self._used = 0.0
        self._steps = 0
        self.has_mfu = False

    def add(self, row: Mapping[str, Any], tokens: int) -> None:
        """Count a step. Args: row, as of metrics.jsonl; tokens, of the step."""
        self._steps += 1
        self.has_mfu = "mfu" in row
        if self._steps > 1 and tokens:
            seconds = tokens / row["tokens_per_second"]
            self._tokens, self._seconds = self._tokens + tokens, self._seconds + seconds
            self._used += row.get("mfu", 0.0) * seconds

    def rows(self) -> list[tuple[str, object]]:
        """Rows of the final table; none for a session of a step or less."""
        if not self._seconds:
            return []
        found: list[tuple[str, object]] = [("tokens per second", round(self._tokens / self._seconds))]
        return [*found, ("MFU (%)", round(100 * self._used / self._seconds, 1))] if self.has_mfu else found


@contextmanager
def watched(
    label: str, speed: Speed | None = None
) -> "Iterator[tuple[Callable[[RunStart], None], Callable[[dict[str, Any]], None]]]":
    """Show a run: its facts at the start, then a progress bar; yields the two callbacks that do so.

    Args: speed, that counts the steps as well.
    """
    from longlode.api.training import Estimate

    with progress(label) as update:
        estimate = Estimate(None, None)
        num_steps: int | None = None
        before: int | None = None

        def started(run: "RunStart") -> None:
            nonlocal estimate, num_steps
            num_steps = run.num_steps
            estimate = Estimate(run.num_steps, run.max_seconds)
            for line in run.in_words().splitlines():
                note(line)
            for warning in run.warnings:
                note(f"Warning: {warning}")

        def tell(row: dict[str, Any]) -> None:
            nonlocal before
            if speed is not None:
                speed.add(row, 0 if before is None else row["tokens"] - before)
            before = row["tokens"]
            left = estimate.seconds_left(row)
            ends = "" if left is None else f", ends in about {duration(left)}"
            used = f", MFU {row['mfu']:.0%}" if "mfu" in row else ""
            shown = f"loss {row['loss']:.3f}, {row['tokens_per_second']:,.0f} tokens/s{used}{ends}"
            update(int(row["step"]), num_steps or 0, f"steps: {shown}")

        yield started, tell


def train(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            help="A recipe (TOML): model, data, optim, run. With --resume the run's own is taken."
        ),
    ] = None,
    *,
    out: RunFolder = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override a key: section.key=value.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest sound checkpoint.")] = False,
    verify: Verify = None,
    replay: ReplayStep = None,
    list_keys: Annotated[
        bool, typer.Option("--list-keys", help="Print all keys of a recipe, and train nothing.")
    ] = False,
) -> dict[str, Any]:
    """Train a model on packed shards, with checkpoints that survive a kill.

    OUT/metrics.jsonl has one row per step, OUT/checkpoints what a resume needs, OUT/model the finished model as a
    Hugging Face folder. Ctrl-C and SIGTERM finish the step and save; --resume continues bit for bit. Next:
    longlode evaluate OUT.
    """
    if list_keys:
        return _show_keys()
    if out is None:
        raise ConfigError("train got no folder for the run; expected -o RUN, for example -o runs/first.")
    if replay is not None:
        return _replay(out, replay, set_ or [])
    from longlode.api.training import train_run

    speed = Speed()
    with watched("training", speed) as (started, tell):
        summary = train_run(
            recipe,
            out,
            set_=set_ or [],
            resume=resume,
            verify=verify,
            say=note,
            on_start=started,
            on_step=tell,
        )
    if summary.resumed_from is not None:
        note(f"Resumed from step {summary.resumed_from:,}.")
    _show(summary, speed)
    _show_next(out, summary)
    return {"out": out, **vars(summary)}


def _show_next(out: Path, summary: "TrainSummary") -> None:
    """The commands that a user would run after this session."""
    if summary.model_folder is None:
        note(f"Stopped and saved. Go on with: {shell('longlode', 'train', '-o', out, '--resume')}")
        return
    finish(
        f"Model: {summary.model_folder}. Metrics: {out}/metrics.jsonl",
        then=[
            shell("longlode", "evaluate", out, "-o", "eval"),
            shell("longlode", "generate", out, "--prompt", "Once"),
        ],
    )


def _replay(out: Path, step: int, overrides: list[str]) -> dict[str, Any]:
    from longlode.api.training import replay_run

    with progress("replaying") as update:
        found = replay_run(
            out, step, set_=overrides, say=note, on_step=lambda done: update(done, step, f"step {done:,}")
        )
    logged = {None: "not logged", True: "the same as logged", False: f"logged: {found.logged_loss}"}[
        found.is_same
    ]
    rows = [
        ("began at the checkpoint of step", found.from_step),
        ("loss (nats per token)", f"{found.loss:.6g} ({logged})"),
        ("gradient norm", f"{found.grad_norm:.6g}"),
        ("step", "taken" if found.taken else f"left out: {found.why}"),
        ("gradients that are not finite", ", ".join(found.not_finite[:8]) or "none"),
    ]
    table(f"Step {step:,}, run again", ("what", "figure"), rows)
    table(
        "Largest gradients", ("parameter", "L2 norm"), [(name, f"{norm:.4g}") for name, norm in found.largest]
    )
    documents = [
        (row["id"], row["source"], row["file"], row["row"], f"{row['tokens'][0]:,} to {row['tokens'][1]:,}")
        for row in found.documents
    ]
    table("Documents of the batch", ("id", "source", "file", "row", "tokens"), documents)
    return vars(found)


def _show(summary: "TrainSummary", speed: Speed) -> None:
    """Print the figures that a session ended with."""
    rows = [
        ("steps", summary.step),
        ("tokens", summary.tokens),
        ("seconds", summary.seconds),
        *speed.rows(),
        ("training loss (nats per token)", summary.loss),
        ("held-out loss (nats per token)", summary.eval_loss),
        ("steps left out (not finite, spikes)", summary.skips),
    ]
    table(f"Run: {summary.status.replace('_', ' ')}", ("what", "figure"), rows)


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after a second Ctrl-C: the newest checkpoint is on disk."""
    out = options["out"]
    steps = sorted(path.name for path in out.glob("checkpoints/step-*"))
    if not steps:
        return f"No checkpoint was saved in {out} yet; the same command with --resume starts at step 0."
    return f"The newest checkpoint is {out}/checkpoints/{steps[-1]}; the same command with --resume goes on from there."
