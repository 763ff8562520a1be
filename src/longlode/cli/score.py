"""longlode score: measure the long-range dependency of each document."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from longlode.cli import score_options as options
from longlode.cli.console import ConsoleWatch, complain, finish, note, say
from longlode.cli.guard import EXIT_UNEXPECTED
from longlode.cli.habits import Ended, shell
from longlode.cli.options import Encoding, Overwrite, Seed, TextField, Weights
from longlode.cli.score_table import show_estimate, show_race, show_scores
from longlode.cli.streams import STDIN, print_rows, spool_stdin
from longlode.core.defaults import ROWS_PER_UNIT, SCORER, UNITS_PER_PART
from longlode.core.errors import ConfigError
from longlode.core.options import parse_options
from longlode.core.outputs import claim_folder, remote_url
from longlode.core.records import read_record

if TYPE_CHECKING:
    from longlode.mining import RaceRule, Scorer, ScoreSummary

EXPLAIN_SEGMENTS = 48
EXAMPLES = (
    "longlode score books/ -o scores",
    "longlode score 'corpus/*.jsonl.zst' -o scores --text-field text,content --workers 4",
    "longlode score corpus/ --dry-run",
    "longlode score papers.parquet -o scores-opt --model facebook/opt-350m --scorer paper --pairs all --limit 100",
    "longlode score corpus/ -o raced --scorer strength --race 0.5",
    "cat notes.jsonl | longlode score - -o -",
)


def score(
    inputs: options.Inputs,
    out: options.Out = None,
    model: options.Model = "starter",
    scorer: options.ScorerName = SCORER,
    scorer_option: options.ScorerOption = None,
    weights: Weights = None,
    segment: options.Segment = 128,
    pairs: options.PairNumber = None,
    dtype: options.Dtype = "auto",
    text_field: TextField = "text",
    encoding: Encoding = "utf-8",
    stdin_format: options.StdinFormat = "auto",
    limit: options.Limit = None,
    seed: Seed = 0,
    keep_pairs: options.KeepPairs = False,
    race: options.RaceTop = None,
    race_by: options.RaceBy = "",
    workers: options.Workers = 1,
    engine: options.Engine = "processes",
    threads: options.Threads = 1,
    rows_per_unit: options.RowsPerUnit = ROWS_PER_UNIT,
    units_per_part: options.UnitsPerPart = UNITS_PER_PART,
    shard: options.ShardOption = "",
    overwrite: Overwrite = False,
    verify: options.Verify = False,
    explain: options.Explain = True,
    dry_run: options.DryRun = False,
) -> dict[str, Any] | None:
    """Score every document for long-range dependency: how much far text makes later text less surprising.

    Reads .txt, .md, source files, .jsonl (also .gz, .zst), .parquet, .arrow, and JSON lines or one text from standard
    input. Writes OUT/parts/*.parquet with one row per input document: score, the figures behind it, status (ok,
    too_short, skipped, failed) and reason. Text is not copied, except that of standard input. A stopped run goes on
    where it ended. Next: longlode select OUT.
    """
    from longlode.api.readers import check_dtype
    from longlode.api.scoring import parse_shard, run_scoring, with_weights
    from longlode.mining import ScoreSettings, make_scorer

    check_dtype(dtype)
    own = with_weights(parse_options(scorer_option or [], "--scorer-option"), weights)
    chosen = make_scorer(scorer, pairs=_number_of_pairs(pairs), options=own)
    _note_without_effect(chosen, model, pairs)
    rule = _race_rule(race, race_by, chosen)
    cut: dict[str, Any] = {"segment": segment, "seed": seed, "threads": threads, "engine": engine}
    cut |= {"rows_per_unit": rows_per_unit, "units_per_part": units_per_part, "encoding": encoding}
    settings = ScoreSettings(**cut, text_field=text_field, keep_pairs=keep_pairs, verify=verify)
    how: dict[str, Any] = {"model": model, "scorer": chosen, "settings": settings, "dtype": dtype}
    how |= {"limit": limit, "workers": workers, "watch": ConsoleWatch()}
    with _place(inputs, None if dry_run else out, stdin_format, dry_run) as (found, folder):
        if dry_run:
            return show_estimate(found, how)
        how |= {"explain_segments": EXPLAIN_SEGMENTS if explain and str(out) != STDIN else 0, "rule": rule}
        summary = run_scoring(found, folder, overwrite=overwrite, shard=parse_shard(shard), **how)
        if str(out) == STDIN:
            print_rows(folder)
            _stop_if_incomplete(summary, folder, {})
            return None
        return _conclude(summary, folder, model, chosen, None if out is None else remote_url(out))


def _note_without_effect(scorer: "Scorer", model: str, pairs: str | None) -> None:
    """Name the options that have no effect on this scorer."""
    if pairs is not None and "pairs" not in scorer.options():
        note(f"--pairs {pairs} has no effect: the scorer {scorer.name!r} samples no pairs.")
    if model != "starter" and not scorer.reads_tokens:
        note(f"--model {model} has no effect: the scorer {scorer.name!r} reads no model.")


@contextmanager
def _place(
    inputs: list[str], out: Path | None, stdin_format: str, dry_run: bool
) -> Iterator[tuple[list[str], Path]]:
    """Yield the inputs, - among them as a file, and the folder to write to, which is removed where none was asked for.

    Raises: ConfigError when there is no place for the scores.
    """
    from longlode.corpus.mirror import output_folder  # here: --help loads no numpy

    if out is None and not dry_run:
        raise ConfigError("score got no place for the scores; expected -o FOLDER, -o - or --dry-run.")
    if out is not None and str(out) != STDIN:
        with output_folder(out, inputs) as place:
            # A slip in a name should not wait for a model to load, nor leave an empty folder.
            claim_folder(place, "scores", identity={}, make=STDIN in inputs)
            yield _with_stdin(inputs, place, stdin_format), place
        return
    with tempfile.TemporaryDirectory(prefix="longlode-") as folder:
        yield _with_stdin(inputs, Path(folder), stdin_format), Path(folder) / "scores"


def _with_stdin(inputs: list[str], folder: Path, stdin_format: str) -> list[str]:
    if STDIN not in inputs:
        return inputs
    spooled = str(spool_stdin(folder, stdin_format))
    return [spooled if one == STDIN else one for one in inputs]


def _how(model: str, scorer: "Scorer", record: Mapping[str, Any]) -> str:
    """Line on the use of the model."""
    if not scorer.reads_tokens:
        return "No model was read."
    if not scorer.reads_model:
        return f"Model: {model}, its tokens only; the model was not run"
    used = record["model"]
    return f"Model: {model}, {used['dtype']}" + (f" (--dtype auto: {used['why']})" if used["why"] else "")


def _conclude(
    summary: "ScoreSummary", out: Path, model: str, scorer: "Scorer", url: str | None
) -> dict[str, Any]:
    """Show the results, how the texts were read, and what to run next; exit with 1 if something is wrong.

    Args: url, of the store that `out` is copied to, None without one. Returns: what --json prints.
    """
    shown = out if url is None else url
    record = read_record(out, "scores")
    how = _how(model, scorer, record)
    if summary.shards_missing:
        _stop_if_incomplete(summary, out, vars(summary))
        finish(
            f"This shard is done. {out} lacks {len(summary.shards_missing)} of {record['shards']['total']} shards: "
            f"{', '.join(map(str, summary.shards_missing))}.",
            then=[shell("longlode", "status", out)],
        )
        return {**vars(summary), "how": how}
    show_scores(out)
    share = show_race(out)
    say(escape(how))
    told = {**vars(summary), "out": shown, "score_quantiles": record["score_quantiles"], "how": how}
    _stop_if_incomplete(summary, out, told)
    finish(
        f"Scores: {shown}/parts/*.parquet, summary: {shown}/record.json",
        then=[
            shell("longlode", "select", shown, "-o", "kept.jsonl", *share.split()),
            *([shell("longlode", "report", out, "-o", "report.html")] if url is None else []),
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
        if any("not UTF-8" in reason for reason in reasons):
            tell("Text in another encoding is read with --encoding NAME.")
    if not summary.num_documents and "shards" in read_record(out, "scores"):
        note("No document falls into this shard.")  # which job arrays must not take for a failure
    elif not scored:
        raise Ended(EXIT_UNEXPECTED, told)


def _race_rule(top: float | None, by: str, scorer: "Scorer") -> "RaceRule | None":
    """Rule of --race and --race-by, which the scorer can be raced by; None without them."""
    from longlode.mining import RaceRule, check_raceable

    groups = tuple(name.strip() for name in by.split(",") if name.strip())
    if top is None:
        if groups:
            raise ConfigError(f"--race-by {by} says within what to race; expected --race FRACTION with it.")
        return None
    rule = RaceRule(top=top, by=groups)
    check_raceable(scorer, rule)
    return rule


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
    """Message after Ctrl-C: the parts of the finished units are on disk."""
    out = options["out"]
    if out is None or str(out) == STDIN:
        return "Nothing was written."
    if (url := remote_url(out)) is not None:
        return f"The finished units of work were copied to {url}; the same command goes on after them."
    parts = [*out.glob("parts/*.parquet"), *out.glob("rounds/*/parts/*.parquet")]
    num_units = sum(
        int(path.stem.partition("-")[2] or 1) for path in parts
    )  # merged parts tell how many they have
    if not parts:
        return "No unit of work was finished, so nothing is kept; the same command starts anew."
    return f"{num_units:,} finished units of work are kept in {out}; the same command goes on after them."
