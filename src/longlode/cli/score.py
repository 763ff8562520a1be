"""longlode score: how much long-range dependency is in each document?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from longlode.cli.console import ConsoleWatch, complain, finish, note, say
from longlode.cli.guard import EXIT_UNEXPECTED
from longlode.cli.habits import Ended, shell
from longlode.cli.options import Overwrite, Seed, TextField, Weights
from longlode.core.defaults import ROWS_PER_UNIT, SCORER
from longlode.core.errors import ConfigError
from longlode.core.options import parse_options
from longlode.core.outputs import claim_folder

if TYPE_CHECKING:
    from longlode.mining import RaceRule, Scorer, ScoreSummary

EXPLAIN_SEGMENTS = 48
EXAMPLES = (
    "longlode score books/ -o scores",
    "longlode score 'corpus/*.jsonl.zst' -o scores --text-field content --workers 4",
    "longlode score papers.parquet -o scores-opt --model facebook/opt-350m --scorer paper --pairs all",
    "longlode score corpus/ -o raced --scorer strength --race 0.5",
)

ScorerName = Annotated[
    str,
    typer.Option(
        help="profile: what context beyond 1k tokens is worth, where the text is one text in its order. To compare "
        "with: coherence, order, paper, release, strength, context_gain, attention_mass, overlap, gzip."
    ),
]
ScorerOption = Annotated[
    list[str] | None,
    typer.Option(help="An option of the scorer: KEY=VALUE, as often as needed. A wrong key lists them all."),
]
PairNumber = Annotated[
    str | None,
    typer.Option(
        help="Pairs of segments that a model reads in a document, or: all. Default: 0, no model, for scores that need "
        "none (profile, coherence, order, overlap, gzip), else 500."
    ),
]
Threads = Annotated[
    int,
    typer.Option(min=1, help="Threads of a process that reads the model; another number rounds otherwise."),
]
RowsPerUnit = Annotated[int, typer.Option(min=1, help="Documents of one piece of work.")]
Dtype = Annotated[str, typer.Option(help="Of the model: float32, bfloat16, or auto (the faster one here).")]
KeepPairs = Annotated[bool, typer.Option("--keep-pairs", help="Also store every pair that was read.")]
Explain = Annotated[bool, typer.Option(help="Also map the 2 best and 2 worst documents, for the report.")]
RaceTop = Annotated[
    float | None,
    typer.Option(
        help="Read only as many pairs of a document as it takes to tell whether it is in the best fraction, "
        "for example 0.5; for --scorer strength. --pairs is the most."
    ),
]
RaceBy = Annotated[
    str, typer.Option(help="With --race: the best fraction of each of: length, source (comma-separated).")
]


def score(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, globs in quotes, or URLs.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write; the same command goes on there.")
    ],
    model: Annotated[
        str, typer.Option(help="For scorers that read one: starter, a folder, or a hub id.")
    ] = "starter",
    scorer: ScorerName = SCORER,
    scorer_option: ScorerOption = None,
    weights: Weights = None,
    segment: Annotated[int, typer.Option(min=2, help="Tokens of a segment.")] = 128,
    pairs: PairNumber = None,
    dtype: Dtype = "float32",
    text_field: TextField = "text",
    seed: Seed = 0,
    keep_pairs: KeepPairs = False,
    race: RaceTop = None,
    race_by: RaceBy = "",
    workers: Annotated[int, typer.Option(min=1, help="Processes; the result does not depend on it.")] = 1,
    threads: Threads = 1,
    rows_per_unit: RowsPerUnit = ROWS_PER_UNIT,
    overwrite: Overwrite = False,
    explain: Explain = True,
) -> dict[str, Any]:
    """Score every document for long-range dependency: does far text make later text less surprising?

    Reads .txt, .md, source files, .jsonl (also .gz, .zst), .parquet, .arrow. Writes OUT/parts/*.parquet with one
    row an input document: score, the figures behind it, status (ok, too_short, skipped, failed) and reason.
    Text is not copied. A run that was stopped goes on where it was. Next: longlode select OUT.
    """
    from longlode.api.scoring import pick_dtype, run_scoring, with_weights
    from longlode.mining import ScoreSettings, check_raceable, make_scorer

    own = with_weights(parse_options(scorer_option or [], "--scorer-option"), weights)
    chosen = make_scorer(scorer, pairs=_number_of_pairs(pairs), options=own)
    _note_without_effect(chosen, model, pairs)
    rule = _race_rule(race, race_by)
    if rule is not None:
        check_raceable(chosen, rule)
    settings = ScoreSettings(
        segment=segment, seed=seed, text_field=text_field, keep_pairs=keep_pairs, rows_per_unit=rows_per_unit
    )
    precision, why = pick_dtype(dtype)
    claim_folder(out, "scores", identity={})  # a slip in a name should not wait for a model to load
    summary = run_scoring(
        inputs,
        out,
        model=model,
        scorer=chosen,
        settings=settings,
        dtype=precision if chosen.reads_model else "float32",
        workers=workers,
        explain_segments=EXPLAIN_SEGMENTS if explain else 0,
        rule=rule,
        overwrite=overwrite,
        watch=ConsoleWatch(),
    )
    return _conclude(summary, out, _how(model, chosen, precision, why))


def _note_without_effect(scorer: "Scorer", model: str, pairs: str | None) -> None:
    """Name the options that this scorer has no use for."""
    if pairs is not None and "pairs" not in scorer.options():
        note(f"--pairs {pairs} has no effect: the scorer {scorer.name!r} samples no pairs.")
    if model != "starter" and not scorer.reads_tokens:
        note(f"--model {model} has no effect: the scorer {scorer.name!r} reads no model.")


def _how(model: str, scorer: "Scorer", dtype: str, why: str) -> str:
    """How the model was used, in a line."""
    if not scorer.reads_tokens:
        return "Model: none"
    if not scorer.reads_model:
        return f"Model: {model}, its tokens only; the model was not run"
    return f"Model: {model}, {dtype}" + (f" (--dtype auto: {why})" if why else "")


def _conclude(summary: "ScoreSummary", out: Path, how: str) -> dict[str, Any]:
    """Show what was found, how it was read, and what to run next; exit with 1 when there is something wrong.

    Returns: what --json prints.
    """
    from longlode.cli.score_table import show_race, show_scores
    from longlode.core.records import read_record

    show_scores(out)
    share = show_race(out)
    say(escape(how))
    told = {**vars(summary), "score_quantiles": read_record(out, "scores")["score_quantiles"], "how": how}
    _stop_if_incomplete(summary, out, told)
    finish(
        f"Scores: {out}/parts/*.parquet, summary: {out}/record.json",
        then=[
            shell("longlode", "select", out, "-o", "kept.jsonl", *share.split()),
            shell("longlode", "report", out, "-o", "report.html"),
        ],
    )
    return told


def _stop_if_incomplete(summary: "ScoreSummary", out: Path, told: dict[str, Any]) -> None:
    """Exit with 1 when work failed as a whole, or when there is no score at all; say why."""
    from longlode.api.scores import first_reasons

    for unit in summary.failed_units:
        complain(
            f"A piece of work failed as a whole: {unit['error']} ({unit['unit']['files'][0]['name']} ...)"
        )
    if summary.failed_units:
        complain("Run the same command again: it tries only what failed.")
        raise Ended(EXIT_UNEXPECTED, told)
    reasons = first_reasons(out)
    scored = summary.counts.get("ok", 0)
    if reasons:
        tell = note if scored else complain
        what = "Some rows have no score" if scored else "No document could be scored"
        tell(f"{what}. The commonest reasons (all: column 'reason' of {out}/parts/*.parquet):")
        for reason in reasons:
            tell(f"  {reason}")
    if not scored:
        raise Ended(EXIT_UNEXPECTED, told)


def _race_rule(top: float | None, by: str) -> "RaceRule | None":
    """What --race and --race-by ask for."""
    from longlode.mining import RaceRule

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    if top is None:
        if groups:
            raise ConfigError(f"--race-by {by} says within what to race; expected --race FRACTION with it.")
        return None
    return RaceRule(top=top, by=groups)


def _number_of_pairs(given: str | None) -> int | Literal["default"] | None:
    if given is None:
        return "default"
    if given == "all":
        return None
    if not (given.isascii() and given.isdigit()):
        raise ConfigError(
            f"--pairs got {given!r}; expected a number, or: all. 0 reads none, where the score needs none."
        )
    return int(given)


def interrupted(options: Mapping[str, Any]) -> str:
    """What Ctrl-C leaves: the parts of the units that were finished."""
    out = options["out"]
    parts = [*out.glob("parts/*.parquet"), *out.glob("rounds/*/parts/*.parquet")]
    if not parts:
        return "No unit of work was finished, so nothing is kept; the same command starts anew."
    return f"{len(parts):,} finished units of work are kept in {out}; the same command goes on after them."
