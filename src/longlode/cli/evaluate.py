"""longlode evaluate: does a model use its context?"""

from pathlib import Path
from typing import Annotated

import typer

from longlode.cli.console import finish, note, output_folder, progress, table
from longlode.cli.sources import model_source
from longlode.core.errors import ConfigError, InputError

EXAMPLES = (
    "longlode evaluate runs/small -o eval-small",
    "longlode evaluate runs/small --tasks loss_by_position --texts heldout/ --lengths 1024,4096 -o eval",
    "longlode evaluate facebook/opt-125m --tasks passkey,repeated_list --lengths 512,1024 -o eval-opt",
)


def evaluate(
    model: Annotated[str, typer.Argument(help="A run folder, a model folder, a hub id, or: starter.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    tasks: Annotated[
        str, typer.Option(help="Of: loss_by_position, passkey, repeated_list (comma-separated); or: all.")
    ] = "all",
    lengths: Annotated[
        str, typer.Option(help="Context lengths in tokens, comma-separated.")
    ] = "512,1024,2048",
    texts: Annotated[
        list[str] | None, typer.Option(help="Held-out documents for loss_by_position: file, folder or glob.")
    ] = None,
    text_field: Annotated[str, typer.Option(help="The field that holds the text of a record.")] = "text",
    num_examples: Annotated[int, typer.Option(min=1, help="Examples a task and length.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")] = "auto",
) -> None:
    """Ask a model questions whose answers lie far back, and measure its loss by position.

    Every example is one row of OUT/examples.jsonl with a hard score and a smooth one; OUT/record.json holds
    the means with 95 % intervals. Two models evaluated with one tokenizer, seed and lengths get the same
    questions. Next: longlode report OUT.
    """
    from longlode.evaluate import TASKS
    from longlode.evaluate import evaluate as run_evaluation
    from longlode.models import load
    from longlode.train.build import pick_device

    chosen = _names(tasks, list(TASKS))
    documents = _read(texts or [], text_field)
    if not documents and tasks == "all":
        chosen = [name for name in chosen if not TASKS[name].needs_texts]
        note("No --texts given: loss_by_position is left out.")
    sizes = _integers(lengths)
    source = model_source(model)
    output_folder(out)
    network, tokenizer = load(source, device=str(pick_device(device)))
    with progress("evaluating") as update:
        summary = run_evaluation(
            network,
            tokenizer,
            tasks=chosen,
            lengths=sizes,
            out=out,
            num_examples=num_examples,
            seed=seed,
            texts=documents,
            name=model,
            progress=update,
        )
    rows = [
        (
            row["task"],
            row["length"],
            row["metric"],
            row["mean"],
            row["low"],
            row["high"],
            row["n"],
            row["unit"],
        )
        for row in summary["summary"]
    ]
    table(f"Evaluation of {model}", ("task", "length", "metric", "mean", "low", "high", "n", "unit"), rows)
    finish(f"Results: {out}", then=[f"longlode report {out} -o report.html"])


def _names(given: str, known: list[str]) -> list[str]:
    if given == "all":
        return known
    names = [name.strip() for name in given.split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ConfigError(
            f"--tasks got {given!r}; expected all, or some of {', '.join(known)} (comma-separated)."
        )
    return names


def _integers(given: str) -> list[int]:
    try:
        return [int(part) for part in given.split(",") if part.strip()]
    except ValueError:
        raise ConfigError(f"--lengths got {given!r}; expected numbers of tokens such as 512,1024.") from None


def _read(inputs: list[str], text_field: str) -> list[str]:
    """The texts of the readable documents; says how many rows were not readable."""
    if not inputs:
        return []
    from longlode.corpus import Document, read

    rows = list(read(inputs, text_field=text_field))
    texts = [row.text for row in rows if isinstance(row, Document)]
    if not texts:
        raise InputError(f"--texts {' '.join(inputs)} holds no readable document.")
    if len(texts) < len(rows):
        note(f"{len(rows) - len(texts)} of {len(rows)} rows of --texts are no documents and are left out.")
    return texts
