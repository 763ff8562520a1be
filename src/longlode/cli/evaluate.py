"""longlode evaluate: does a model use its context?"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longlode.cli.console import finish, note, progress, table
from longlode.cli.options import Device, Model, Overwrite, Seed, TextField
from longlode.core.errors import ConfigError, InputError
from longlode.core.model_names import model_source
from longlode.core.outputs import claim_folder

if TYPE_CHECKING:
    from longlode.evaluate import Task

EXAMPLES = (
    "longlode evaluate runs/small -o eval-small",
    "longlode evaluate runs/small --tasks loss_by_position --texts heldout/ --lengths 1024,4096 -o eval",
    "longlode evaluate facebook/opt-125m --tasks passkey,repeated_list --lengths 512,1024 -o eval-opt",
    "longlode evaluate runs/small --lm-eval lambada_openai,piqa -o eval-harness",
)
NumExamples = Annotated[
    int | None, typer.Option(min=1, help="Examples per task and length: 50; with --lm-eval all.")
]


def evaluate(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    tasks: Annotated[
        str,
        typer.Option(
            help="Names or package.module:Class, comma-separated, or: all. Built in: loss_by_position, passkey, "
            "repeated_list, recall."
        ),
    ] = "all",
    lengths: Annotated[
        str, typer.Option(help="Context lengths in tokens, comma-separated.")
    ] = "512,1024,2048",
    texts: Annotated[
        list[str] | None, typer.Option(help="Held-out documents for loss_by_position: file, folder or glob.")
    ] = None,
    text_field: TextField = "text",
    num_examples: NumExamples = None,
    seed: Seed = 0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    lm_eval: Annotated[
        str | None, typer.Option(help="Instead: tasks of lm-evaluation-harness, comma-separated.")
    ] = None,
    include_path: Annotated[
        Path | None, typer.Option(help="With --lm-eval: a folder of YAML tasks of your own.")
    ] = None,
) -> None:
    """Ask a model questions whose answers lie far back, and measure its loss by position.

    Every example is one row of OUT/examples.jsonl with a hard score and a smooth one; OUT/record.json holds
    the means with 95 % intervals. Two models evaluated with one tokenizer, seed and lengths get the same
    questions. Next: longlode report OUT.

    With --lm-eval the tasks are those of lm-evaluation-harness (pip install lm-eval), the context is the
    largest of --lengths, and the results are OUT/lm_eval.json.
    """
    if lm_eval is not None or include_path is not None:
        _harness(
            model, out, lm_eval, include_path, max(_integers(lengths)), num_examples, seed, device, overwrite
        )
        return
    from longlode.evaluate import evaluate as run_evaluation

    documents = _read(texts or [], text_field)
    chosen, sizes = _tasks(tasks, has_texts=bool(documents)), _integers(lengths)
    network, tokenizer = _open(model, out, device, "evaluation")
    with progress("evaluating") as update:
        summary = run_evaluation(
            network,
            tokenizer,
            tasks=chosen,
            lengths=sizes,
            out=out,
            num_examples=50 if num_examples is None else num_examples,
            seed=seed,
            texts=documents,
            name=model,
            overwrite=overwrite,
            progress=update,
        )
    _show(f"Evaluation of {model}", ("task", "length", "metric", "mean", "low", "high", "n", "unit"), summary)
    finish(f"Results: {out}", then=[f"longlode report {out} -o report.html"])


def _show(title: str, columns: Sequence[str], fields: dict[str, Any]) -> None:
    table(title, columns, [[row[column] for column in columns] for row in fields["summary"]])


def _open(model: str, out: Path, device: str, kind: str) -> tuple[Any, Any]:
    """The model and its tokenizer, once it is sure that there is somewhere to write."""
    from longlode.models import load
    from longlode.ops.devices import pick_device

    source = model_source(model)
    claim_folder(out, kind, identity={})
    return load(source, device=str(pick_device(device)))


def _harness(
    model: str,
    out: Path,
    tasks: str | None,
    include_path: Path | None,
    max_length: int,
    limit: int | None,
    seed: int,
    device: str,
    overwrite: bool,
) -> None:
    if tasks is None:
        raise ConfigError("--include-path came without --lm-eval; it names a folder of lm-eval's tasks.")
    from longlode.evaluate import run_harness

    network, tokenizer = _open(model, out, device, "lm_eval")
    fields = run_harness(
        network,
        tokenizer,
        tasks=[name.strip() for name in tasks.split(",") if name.strip()],
        out=out,
        include_path=include_path,
        max_length=max_length,
        limit=limit,
        seed=seed,
        name=model,
        overwrite=overwrite,
    )
    _show(f"lm-eval of {model}", ("task", "metric", "filter", "value", "stderr", "n"), fields)
    finish(f"Results: {out}")


def _tasks(given: str, *, has_texts: bool) -> "list[Task]":
    """The tasks asked for; "all" leaves out, and says so, those that need texts when there are none."""
    from longlode.evaluate import TASKS
    from longlode.evaluate.run import find_tasks

    if given == "all":
        left_out = [name for name in TASKS.names() if TASKS.get(name).needs_texts and not has_texts]
        if left_out:
            note(f"No --texts given: {', '.join(left_out)} is left out.")
        return find_tasks(None, has_texts=has_texts)
    return find_tasks([name.strip() for name in given.split(",") if name.strip()], has_texts=has_texts)


def _integers(given: str) -> list[int]:
    try:
        sizes = [int(part) for part in given.split(",") if part.strip()]
    except ValueError:
        sizes = []
    if not sizes:
        raise ConfigError(f"--lengths got {given!r}; expected numbers of tokens such as 512,1024.")
    return sizes


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


def interrupted(options: Mapping[str, Any]) -> str:
    """What Ctrl-C leaves: nothing new, as results are written at the end."""
    return f"No results were written to {options['out']}; the same command starts anew."
