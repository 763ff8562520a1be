"""longlode compare: paired comparison of two evaluated models, example by example."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import finish, say_wrapped, table

EXAMPLES = (
    "longlode compare eval-random eval-selected",
    "longlode compare eval-a eval-b --json",
)


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="A folder written by longlode evaluate.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one, of the same examples.")],
) -> dict[str, Any]:
    """Compare two evaluated models on the examples that both answered.

    Differences are B minus A, taken per example before they are averaged, with 95 % intervals; what makes an
    example hard for both cancels. "favours" names the better model where the difference is beyond chance: p below
    .05 after correction for the number of tests (sign flips, Holm). Both must have been evaluated with one
    tokenizer and the same tasks, lengths, seed, number of examples and texts.
    """
    from longlode.evaluate import compare as run_comparison

    found = run_comparison(first, second)
    names = {"a": found["a"], "b": found["b"], "": "-"}
    columns = ("task", "length", "metric", "a", "b", "difference", "low", "high", "p_adjusted", "n")
    rows = [[*(row[column] for column in columns), names[row["favours"]]] for row in found["rows"]]
    table(f"B ({found['b']}) minus A ({found['a']})", (*columns, "favours"), rows)
    for sentence in found["sentences"]:
        say_wrapped(sentence, first="- ", rest="  ")
    finish(
        f"{len(rows)} differences, {sum(bool(row['favours']) for row in found['rows'])} of them beyond chance."
    )
    return found


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: nothing was written."""
    return "Nothing was written."
