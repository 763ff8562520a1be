"""longlode demo: all steps from scoring to the report, on text that every machine has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, say, say_wrapped
from longlode.cli.habits import shell
from longlode.cli.options import Overwrite, Seed
from longlode.core.errors import ConfigError

EXAMPLES = (
    "longlode demo",
    "longlode demo -o demo-out --minutes 10",
    "longlode demo --seed 1 -o demo-2",
    "longlode demo --full -o demo-full",
)
_LEAST_MINUTES = 0.1


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write; the same demo made before is replaced.")
    ] = Path("demo-out"),
    minutes: Annotated[
        float, typer.Option(help="Target time: sets how long ProLong reads and the model trains.")
    ] = 3.5,
    model: Annotated[
        str,
        typer.Option(
            help="Reads for ProLong's formulas, and lends its tokenizer: starter, a folder, a hub id."
        ),
    ] = "starter",
    full: Annotated[
        bool,
        typer.Option(
            "--full", help="Also compare training on three choices of text; says how long it takes."
        ),
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Score, select, pack, train, evaluate and report on the sources of Python's own library.

    Seven kinds of fake long text are made of the same files, so that you see which of them the score tells from
    real files, beside gzip, overlap and ProLong. A small model is then trained on what scores best, for about a minute,
    and you see how far back it reads. Needs no network. Next: open OUT/report.html.
    """
    if minutes < _LEAST_MINUTES:
        raise ConfigError(f"--minutes got {minutes:g}; expected at least {_LEAST_MINUTES:g}.")
    from longlode.demo.run import run_demo
    from longlode.demo.steps import DemoSettings

    settings = DemoSettings(out=out, minutes=minutes, model=model, seed=seed, full=full)
    found = run_demo(settings, overwrite=overwrite)
    say("")
    say("[bold]What it found[/]")
    for sentence in found:
        say_wrapped(sentence, first="- ", rest="  ")
    say("")
    finish(
        f"The report: {out}/report.html (open it in a browser). Everything else: {out}",
        then=[
            "longlode score YOUR_TEXT -o scores",
            shell("longlode", "generate", f"{out}/run", "--prompt", "import "),
            "longlode --help",
        ],
    )
    return {"out": out, "report": out / "report.html", "findings": found}


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: the finished stages are on disk; the next run replaces them."""
    return f"What the finished stages wrote is in {options['out']}; the same command starts anew."
