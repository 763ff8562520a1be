"""longlode demo: all steps from scoring to the report, on text that every machine has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, say
from longlode.cli.habits import shell
from longlode.cli.options import Overwrite, Seed
from longlode.core.defaults import SCORER
from longlode.core.errors import ConfigError

EXAMPLES = ("longlode demo", "longlode demo -o demo-out --minutes 10", "longlode demo --seed 1 -o demo-2")
_LEAST_MINUTES = 0.1


def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write; the same demo made before is replaced.")
    ] = Path("demo-out"),
    minutes: Annotated[
        float, typer.Option(help="Target time: sets the number of documents and steps.")
    ] = 4.0,
    model: Annotated[str, typer.Option(help="starter, a model or run folder, or a hub id.")] = "starter",
    scorer: Annotated[str, typer.Option(help="As for longlode score.")] = SCORER,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Score, select, pack, train, evaluate and report on the sources of Python's own library.

    Half of the documents are source files as they are, half are spliced of pieces of other files, so that you
    see whether the score tells them apart. Two small DeltaNets are then trained for equal steps on equal
    tokens, one on the best half and one on a random half, and compared on files that neither has read. Needs
    no network. What it finds is what it says, also when mining did not help. Next: open OUT/report.html.
    """
    if minutes < _LEAST_MINUTES:
        raise ConfigError(f"--minutes got {minutes:g}; expected at least {_LEAST_MINUTES:g}.")
    from longlode.demo.run import DemoSettings, run_demo

    settings = DemoSettings(out=out, minutes=minutes, model=model, scorer=scorer, seed=seed)
    found = run_demo(settings, overwrite=overwrite)
    say("")
    say("[bold]What it found[/]")
    for sentence in found:
        say(f"- {sentence}")
    say("")
    finish(
        f"The report: {out}/report.html (open it in a browser). Everything else: {out}",
        then=[
            "longlode score YOUR_TEXT -o scores",
            shell("longlode", "generate", f"{out}/runs/selected", "--prompt", "import "),
            "longlode --help",
        ],
    )
    return {"out": out, "report": out / "report.html", "findings": found}


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: the finished stages are on disk; the next run replaces them."""
    return f"What the finished stages wrote is in {options['out']}; the same command starts anew."
