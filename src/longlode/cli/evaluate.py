"""longlode evaluate: measure how well a model uses its context."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, note, progress, table
from longlode.cli.habits import shell
from longlode.cli.options import Device, Encoding, Model, Overwrite, Seed, TextField
from longlode.core.errors import ConfigError
from longlode.core.model_names import model_source

EXAMPLES = (
    "longlode evaluate runs/small -o eval-small",
    "longlode evaluate runs/small --tasks context_curve,passkey --texts heldout/ --lengths 1024,4096 -o eval",
    "longlode evaluate runs/small --suite recall --lengths 1k,4k,16k -o eval-recall",
    "longlode evaluate facebook/opt-125m --tasks passkey,repeated_list --lengths 512,1024 -o eval-opt",
    "longlode evaluate runs/small --lm-eval lambada_openai,piqa -o eval-harness",
)
NumExamples = Annotated[
    int | None,
    typer.Option(
        min=1, help="Examples per task and length: 50, of a suite of many tasks 16; with --lm-eval all."
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Option(help="Held-out documents for context_curve and loss_by_position: file, folder or glob."),
]
Records = Annotated[
    list[str] | None,
    typer.Option(
        help="FORMAT:FILE: records of longbench, leval, loogle, helmet, babilong, booksort or lra_*, beside --tasks.",
    ),
]
LmEval = Annotated[str | None, typer.Option(help="Run these tasks of lm-evaluation-harness instead.")]
IncludePath = Annotated[Path | None, typer.Option(help="With --lm-eval: a folder of YAML tasks of your own.")]

RepeatContext = Annotated[
    int, typer.Option(min=1, help="How often generated tasks write their context before the question.")
]
Write = Annotated[bool, typer.Option(help="Let the model also write its answers to generated tasks.")]
Samples = Annotated[int, typer.Option(min=1, help="Answers that it writes per question.")]
Temperature = Annotated[float, typer.Option(min=0.0, help="Of written answers; 0: the most probable token.")]
AsLmEval = Annotated[
    bool,
    typer.Option("--as-lm-eval", help="Write the tasks to OUT as YAML for lm_eval --include_path instead."),
]

Suite = Annotated[
    str, typer.Option(help="Tasks of: basic, recall, reasoning, biographies, procedures, text, or all.")
]
Tasks = Annotated[
    str | None,
    typer.Option(help="Instead of a suite: names or package.module:Class, comma-separated, or: all."),
]
Lengths = Annotated[str, typer.Option(help="Context lengths in tokens, comma-separated; 4k is 4,096.")]


def evaluate(
    model: Model,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    suite: Suite = "basic",
    tasks: Tasks = None,
    lengths: Lengths = "512,1024,2048",
    texts: Texts = None,
    text_field: TextField = "text",
    encoding: Encoding = "utf-8",
    records: Records = None,
    num_examples: NumExamples = None,
    seed: Seed = 0,
    repeat_context: RepeatContext = 1,
    write: Write = False,
    samples: Samples = 1,
    temperature: Temperature = 0.0,
    device: Device = "auto",
    overwrite: Overwrite = False,
    lm_eval: LmEval = None,
    include_path: IncludePath = None,
    as_lm_eval: AsLmEval = False,
) -> dict[str, Any]:
    """Ask a model questions whose answers lie far back, and measure what its context is worth to it.

    Every example is one row of OUT/examples.parquet with a hard score and a smooth one; OUT/record.json holds
    the means with 95 % intervals. Two models evaluated with one tokenizer, seed and lengths get the same
    questions. Next: longlode report OUT.

    With --lm-eval the tasks are those of lm-evaluation-harness (pip install lm-eval), the context is the
    largest of --lengths, and the results are OUT/lm_eval.json.
    """
    model_source(model)  # a slip in a name should not wait for torch
    from longlode.evaluate import by_name

    sizes = _integers(lengths)
    common: dict[str, Any] = {"seed": seed, "device": device, "overwrite": overwrite}
    if lm_eval is None and include_path is not None:
        raise ConfigError("--include-path came without --lm-eval; it names a folder of lm-eval's tasks.")
    if lm_eval is not None:
        limits = {"max_length": max(sizes), "limit": num_examples}
        return _harness(model, out, lm_eval, include_path=include_path, **limits, **common)
    suite, chosen = ("all", None) if tasks == "all" else (suite, _names(tasks) if tasks else None)
    if chosen is None and not texts and not records:
        _tell_left_out(suite)
    options = {"tasks": chosen, "suite": suite, "lengths": sizes, "records": records or (), **common}
    options |= {"texts": texts or (), "text_field": text_field, "encoding": encoding}
    options |= {
        "repeat_context": repeat_context,
        "write": write,
        "samples": samples,
        "temperature": temperature,
    }
    options["num_examples"] = num_examples
    if as_lm_eval:
        return _yaml(model, out, options)
    with progress("evaluating") as update:
        fields = by_name.evaluate_model(model, out, progress=update, **options)
    _show(f"Evaluation of {model}", ("task", "length", "metric", "mean", "low", "high", "n", "unit"), fields)
    finish(f"Results: {out}", then=[shell("longlode", "report", out, "-o", "report.html")])
    return {"out": out, **fields}


def _harness(model: str, out: Path, tasks: str, **options: Any) -> dict[str, Any]:
    """Run tasks of lm-eval and show their results."""
    from longlode.evaluate import by_name

    fields = by_name.evaluate_harness(model, out, tasks=_names(tasks), **options)
    _show(f"lm-eval of {model}", ("task", "metric", "filter", "value", "stderr", "n"), fields)
    finish(f"Results: {out}")
    return {"out": out, **fields}


def _yaml(model: str, out: Path, options: dict[str, Any]) -> dict[str, Any]:
    """Write the tasks for lm-eval and say how to run them."""
    from longlode.evaluate import by_name

    if options["records"] or options["write"]:
        raise ConfigError("--as-lm-eval writes tasks that are read; leave out --records and --write.")
    for name in ("records", "write", "samples", "temperature", "device"):
        del options[name]
    names = by_name.write_tasks(model, out, **options)
    command = ("lm_eval", "--model", "hf", "--model_args", f"pretrained={model}", "--include_path", out)
    finish(f"{len(names)} tasks for lm-eval: {out}", then=[shell(*command, "--tasks", "longlode")])
    return {"out": out, "names": names}


def _show(title: str, columns: Sequence[str], fields: dict[str, Any]) -> None:
    table(title, columns, [[row[column] for column in columns] for row in fields["summary"]])


def _names(given: str) -> list[str]:
    return [name.strip() for name in given.split(",") if name.strip()]


def _tell_left_out(suite: str) -> None:
    """Note which tasks a suite leaves out because no texts were given."""
    from longlode.evaluate import TASKS
    from longlode.evaluate.run import suite_tasks

    left_out = [name for name in suite_tasks(suite) if TASKS.get(name).needs_texts]
    if left_out:
        note(f"No --texts given, so these are left out: {', '.join(left_out)}.")


def _integers(given: str) -> list[int]:
    try:
        sizes = [
            int(part[:-1]) * 1024 if part[-1] in "kK" else int(part)
            for part in (part.strip() for part in given.split(","))
            if part
        ]
    except ValueError:
        sizes = []
    if not sizes:
        raise ConfigError(f"--lengths got {given!r}; expected numbers of tokens such as 512,1k,4k.")
    return sizes


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: finished cells are kept."""
    return f"What was measured is kept in {options['out']}; the same command goes on."
