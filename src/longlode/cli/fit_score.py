"""longlode fit-score: weights of the profile for a corpus of one's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode.cli.console import ConsoleWatch, finish, note, say, table
from longlode.cli.habits import shell
from longlode.cli.options import Overwrite, Seed, TextField
from longlode.core.errors import ConfigError

EXAMPLES = (
    "longlode fit-score corpus/ -o weights",
    "longlode fit-score 'papers/*.jsonl.zst' -o weights --text-field content",
)


def fit_score(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, globs in quotes, or URLs.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    text_field: TextField = "text",
    seed: Seed = 0,
    max_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens used in all; documents are cut to their share.")
    ] = 8_000_000,
    folds: Annotated[int, typer.Option(min=1, help="Fits that the gate is the mean of.")] = 3,
    heavier: Annotated[
        list[str] | None,
        typer.Option(help="FAMILY=FACTOR: it weighs more in the fit; repeat it. Replaces all packaged ones."),
    ] = None,
    overwrite: Overwrite = False,
) -> dict[str, Any]:
    """Fit the profile score to a corpus of yours: words of your languages, kinds of text of your domain.

    Give whole documents, each one text in its order: at least 24 of 4,600 tokens (18 KB), better hundreds. This
    counts how common words are and what two documents share by chance. The gate is fitted to tell stretches of your
    documents from 40 families of artificial text made of them. On held-out documents it is compared with the packaged
    gate, which stays in use if it does better. Next: longlode score DOCS -o scores --weights OUT.
    """
    from longlode.api.score_fitting import fit_score as fit

    found = fit(
        inputs,
        out,
        text_field=text_field,
        seed=seed,
        max_tokens=max_tokens,
        folds=folds,
        heavier=_factors(heavier),
        overwrite=overwrite,
        watch=ConsoleWatch(),
    )
    _show(found)
    finish(
        f"Weights: {out}, described in {out}/README.md",
        then=[shell("longlode", "score", *inputs, "-o", "scores", "--weights", out)],
    )
    return found


def interrupted(options: Mapping[str, Any]) -> str:
    """Message after Ctrl-C: the folder is not usable as weights."""
    return f"{options['out']} is not finished; the same command makes it anew."


def _show(found: dict[str, Any]) -> None:
    """Print the tables of words, and how both gates do on documents that were held out."""
    rows = [(name, one["documents"], one["words"], one["windows"]) for name, one in found["tables"].items()]
    if rows:
        table("Tables of words", ("table", "documents", "words", "windows of 1,000"), rows)
    else:
        note("No language has 8 documents, so no table was counted; the packaged ones stay in use.")
    gates = [
        (
            int(length),
            which,
            one[which]["auc_mean"],
            one[which]["auc_worst"],
            one[which]["worst"],
            one[which]["calibration_error"],
        )
        for length, one in found["held_out"].items()
        for which in ("fitted", "packaged")
    ]
    columns = ("tokens", "gate", "AUC, mean", "worst", "family", "calibration error")
    table("Gate, on documents that were held out", columns, gates)
    for length, one in found["held_out"].items():
        groups = ", ".join(f"{name} {auc:.2f}" for name, auc in one["unseen"].items())
        say(f"Groups of families that a fit did not know, AUC at {int(length):,} tokens: {groups}.")
    say(f"In use: the {found['gate']} gate.")


def _factors(heavier: list[str] | None) -> dict[str, float] | None:
    """FAMILY=FACTOR as numbers by family. Raises: ConfigError for what is no such pair."""
    found = {}
    for one in heavier or ():
        family, _, factor = one.partition("=")
        try:
            found[family] = float(factor)
        except ValueError:
            raise ConfigError(f"--heavier is {one!r}; expected FAMILY=FACTOR, such as renamed=4.") from None
    return found or None
