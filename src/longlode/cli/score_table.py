"""Tables on the terminal of a scores folder's contents."""

from pathlib import Path
from typing import Any

from longlode.cli.console import duration, finish, note, say, table
from longlode.core.amounts import short_amount
from longlode.core.records import read_record

NUM_SHOWN = 5
NUM_SOURCES = 15
HEADINGS = {"num_tokens": "tokens", "rival": "most like"}
MOST_OF_SOURCE = 24
"""Characters of a source that a table of documents shows."""


def show_scores(out: Path) -> None:
    """Print the contents of a scores folder: counts that add up, quantiles, the best and the worst documents."""
    from longlode.api.scores import score_rows, table_columns

    record = read_record(out, "scores")
    rows = [*sorted(record["counts"].items()), ("all input documents", record["num_documents"])]
    table("Documents by status", ("status", "documents"), rows)
    if record["score_quantiles"]:
        levels = [f"{float(level):.0%}" for level in record["score_quantiles"]]
        table("Score: this share lies below", levels, [list(record["score_quantiles"].values())])
    extras = table_columns(out)
    best = score_rows(out, order="best", limit=NUM_SHOWN, extras=extras)
    worst = [row for row in score_rows(out, order="worst", limit=NUM_SHOWN, extras=extras) if row not in best]
    for title, documents in (("Best documents", best), ("Worst documents", worst)):
        if documents:
            # What else it could be says something only about documents that did not pass.
            own = [name for name in extras if name != "rival" or documents[0]["score"] < 0]
            names = ("score", "num_tokens", *own, "id", "source")
            shown = [tuple(_value(document, name) for name in names) for document in documents]
            headings = [HEADINGS.get(name, name.replace("_", " ")) for name in names]
            table(title, headings, shown)
    if "rival" in extras and best:
        _show_gate(out)
    duplicates = record["duplicates"]["num_ids"]
    if duplicates:
        note(f"{duplicates:,} ids occur more than once; select keeps the first of each.")


def _value(row: dict[str, Any], name: str) -> Any:
    """A value as the table shows it."""
    if name == "rival" and row["score"] >= 0:
        return None  # what else it could be says nothing about a document that passed
    return shortened(row[name]) if name == "source" else row[name]


def shortened(source: str) -> str:
    """The end of a long source: of a path or an address it says most."""
    return source if len(source) <= MOST_OF_SOURCE else f"\u2026{source[1 - MOST_OF_SOURCE :]}"


def _show_gate(out: Path) -> None:
    """Print how many documents are one text in their order, and what kinds of text the others resemble most."""
    from longlode.api.scores import rivals

    passed, families = rivals(out)
    total = passed + sum(families.values())
    line = f"{passed:,} of {total:,} scored documents are one text in its order (score above 0)."
    if families:
        first = [f"{name} ({number:,})" for name, number in list(families.items())[:NUM_SHOWN]]
        more = "; ..." if len(families) > NUM_SHOWN else ""
        line += f" The others are most like: {'; '.join(first)}{more}."
    say(line)


def show_estimate(inputs: list[str], how: dict[str, Any]) -> dict[str, Any]:
    """Print the documents that scoring would find and the time it would take.

    Args: how, as of `api.estimate.estimate_scoring`.

    Returns: what --json prints.
    """
    from longlode.api.estimate import estimate_scoring

    found = estimate_scoring(inputs, **how)
    about = "" if found["exact"] else "about "
    rows = [
        ("input documents", f"{about}{found['documents']:,}"),
        ("with a text", f"{about}{found['readable']:,}"),
        ("bytes of text", f"{about}{short_amount(found['bytes'])}"),
        ("tokens", "-" if found["tokens"] is None else f"about {short_amount(found['tokens'])}"),
        ("units of work", f"{found['units']:,}"),
        ("time", f"about {duration(found['seconds'])}, {found['workers']} worker(s)"),
    ]
    table("What will be scored", ("what", "how much"), rows)
    sources = found["sources"][:NUM_SOURCES]
    columns = ("source", "documents", "tokens", "bytes")
    table("By source", columns, [[one[column] for column in columns] for one in sources])
    if len(found["sources"]) > len(sources):
        note(f"{len(found['sources']) - len(sources):,} more sources are not shown; --json lists them.")
    statuses = ", ".join(f"{count:,} {name}" for name, count in found["statuses"].items())
    sample = found["sample"]
    say(
        f"Judged by {sample['documents']:,} documents that were scored in {sample['seconds']:.1f} s: "
        f"about {statuses or 'none'}."
    )
    finish("Nothing was written: the same command with -o FOLDER instead of --dry-run scores.")
    return found


def show_race(out: Path) -> str:
    """Print the outcome of a raced scores folder; nothing for other scores.

    Returns: options of `longlode select` that fit the race.
    """
    record = read_record(out, "scores")
    race = record.get("race")
    if race is None:
        return "--top 0.5"
    by = ",".join(race["by"])
    tokens = record["cost"]["document_tokens"]
    rows = [
        (
            number,
            one["pairs"],
            *(one[name] for name in ("documents", "num_decided", "num_spent", "num_open")),
            (one["tokens_alone"] + one["tokens_given"]) / tokens if tokens else 0.0,
        )
        for number, one in enumerate(race.get("rounds", []), 1)
    ]
    if rows:
        table(
            f"Race for the best {race['top']:.0%}" + (f" by {by}" if by else ""),
            ("round", "pairs", "read", "decided", "at the most", "open", "tokens read a token"),
            rows,
        )
        read = record["cost"]["tokens_read_per_token"]
        say(
            f"{race['num_decided_early']:,} documents were decided before the most pairs; the model read {read:.2f} "
            "tokens for each token of the documents."
        )
    return f"--top {race['top']:g}" + (f" --by {by}" if by else "")
