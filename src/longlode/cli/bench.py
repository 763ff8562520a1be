"""longlode bench: train small models on a task of symbols, to compare mixers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, note, progress, table
from longlode.cli.options import Overwrite

EXAMPLES = (
    "longlode bench mqar --mixers D,G,L,S,A --seeds 3 -o bench-mqar",
    "longlode bench parity --mixers D --negative-eigenvalues -o bench-parity",
    "longlode bench overwrite --mixers D,L,my_package.mixers:MyMixerConfig --layers 1 -o bench-overwrite",
)
# Named here, since --help loads no torch.
_TASKS = (
    "mqar, mqar_128, mqar_256, overwrite, joint_recall, parity, modular_arithmetic, in_context_language, listops, "
    "compression, memorization"
)

_COLUMNS = (
    "mixer",
    "length",
    "accuracy",
    "low",
    "high",
    "loss",
    "lr",
    "parameters",
    "state_bytes",
    "seconds",
    "n",
)


def bench(
    task: Annotated[str, typer.Argument(help=f"One of: {_TASKS}.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    mixers: Annotated[str, typer.Option(help="Letters, names or addresses, comma-separated.")] = "D,G,L,S,A",
    seeds: Annotated[int, typer.Option(min=1, help="Models per mixer.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps per model.")] = 600,
    layers: Annotated[int, typer.Option(min=1, help="Layers of each model, all with the same mixer.")] = 2,
    width: Annotated[int, typer.Option(min=1, help="Width of the models.")] = 64,
    heads: Annotated[int, typer.Option(min=1, help="Heads of a mixer.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows per step, drawn anew for each.")] = 64,
    lr: Annotated[
        str, typer.Option(help="Highest learning rate; of several with commas each mixer gets its best.")
    ] = "0.01,0.003",
    negative_eigenvalues: Annotated[
        bool, typer.Option("--negative-eigenvalues", help="Let beta of the delta rule reach 2.")
    ] = False,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Train small models from scratch on a task of symbols, one per mixer and seed, and print what each learnt.

    The accuracy is of test rows that no model was trained on, the same for all; the interval is over seeds. All
    models of a seed see the same batches. A run that was stopped goes on after the last finished model.
    """
    from longlode.evaluate.bench import BenchSettings
    from longlode.evaluate.bench import bench as run_bench

    rates = _numbers(lr)
    settings = BenchSettings(
        layers=layers,
        hidden_size=width,
        num_heads=heads,
        steps=steps,
        batch_size=batch_size,
        lr=rates[0],
        allow_neg_eigval=negative_eigenvalues,
    )
    names = [one.strip() for one in mixers.split(",") if one.strip()]
    with progress("training") as update:
        found = run_bench(
            task,
            out,
            mixers=names,
            seeds=seeds,
            settings=settings,
            rates=rates,
            overwrite=overwrite,
            progress=update,
        )
    note(f"{task}: {found['about']}. Chance: {found['chance']:.3g}. Settings: {found['source']}.")
    table(f"{task}, {steps} steps", _COLUMNS, [[row[name] for name in _COLUMNS] for row in found["summary"]])
    finish(f"Results: {out}")
    return {"out": out, **found}


def _numbers(text: str) -> list[float]:
    """Read numbers with commas between them. Raises: BadParameter."""
    try:
        return [float(one) for one in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--lr is {text!r}; expected one number, or several with commas.") from None


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: finished models are kept."""
    return f"Finished models are kept in {options['out']}; the same command goes on."
