"""Tables of `longlode bench`: what small models of each mixer learnt, a table and a chart per task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from longlode.report.charts import Bar, bars
from longlode.report.read import Found
from longlode.report.results import rows_in
from longlode.report.text import as_number, clipped, number

_MAX_MIXERS = 60
_NEEDED = ("accuracy", "length")


@dataclass(frozen=True)
class BenchRow:
    """A mixer at a test length. low, high: 95 % interval over seeds, None for one seed."""

    mixer: str
    length: int
    accuracy: float
    low: float | None
    high: float | None
    loss: float | None
    parameters: int | None
    state_bytes: int | None
    num_seeds: int | None


@dataclass(frozen=True)
class BenchTable:
    """A record of kind bench.

    name: its folder.   about, source: of the task.   settings: a line on the models.   chart: of the longest length.
    """

    name: str
    task: str
    about: str
    source: str
    settings: str
    chance: float | None
    chart: Markup
    rows: list[BenchRow]


def bench_tables(found: Sequence[Found]) -> list[BenchTable]:
    """Lay out records of kind bench; those without a figure are left out."""
    made = (_table(number_, one) for number_, one in enumerate(found))
    return [one for one in made if one is not None]


def bench_sentences(tables: Sequence[BenchTable]) -> list[str]:
    """Sentences on the mixer that was right most often at the longest length of each task."""
    return [_sentence(one) for one in tables]


def _table(place: int, found: Found) -> BenchTable | None:
    record = found.record
    rows = [_row(row) for row in rows_in(record.get("summary"), *_NEEDED)]
    if not rows:
        return None
    task, chance = clipped(record.get("task") or "", 60), as_number(record.get("chance"))
    longest = _longest(rows)[:_MAX_MIXERS]
    chart = bars(
        [(row.mixer, [Bar("share right", row.accuracy, row.low, row.high, 0)]) for row in longest],
        key=f"bench{place}",
        title=f"{task}: share of answers that are right",
        x_label=f"share right at {longest[0].length:,} tokens",
        domain=(0.0, 1.0),
        reference=chance,
    )
    return BenchTable(
        name=found.name,
        task=task,
        about=clipped(record.get("about") or "", 200),
        source=clipped(record.get("source") or "", 300),
        settings=_settings(record),
        chance=chance,
        chart=chart,
        rows=rows,
    )


def _row(row: Mapping[str, Any]) -> BenchRow:
    counts = {name: as_number(row.get(name)) for name in ("parameters", "state_bytes", "n")}
    parameters, state_bytes, seeds = (None if one is None else int(one) for one in counts.values())
    return BenchRow(
        mixer=clipped(row.get("mixer") or "", 60),
        length=int(row["length"]),
        accuracy=float(row["accuracy"]),
        low=as_number(row.get("low")),
        high=as_number(row.get("high")),
        loss=as_number(row.get("loss")),
        parameters=parameters,
        state_bytes=state_bytes,
        num_seeds=seeds,
    )


def _longest(rows: Sequence[BenchRow]) -> list[BenchRow]:
    """The rows of the greatest length, the best mixer first."""
    greatest = max(row.length for row in rows)
    return sorted((row for row in rows if row.length == greatest), key=lambda row: -row.accuracy)


def _settings(record: Mapping[str, Any]) -> str:
    """Size and budget of the models."""
    given = record.get("settings")
    settings = given if isinstance(given, Mapping) else {}
    named = (
        ("layers", "layers"),
        ("hidden_size", "wide"),
        ("steps", "steps"),
        ("batch_size", "rows per step"),
    )
    return ", ".join(
        f"{value:,.0f} {words}"
        for name, words in named
        if (value := as_number(settings.get(name))) is not None
    )


def _sentence(table: BenchTable) -> str:
    best, *others = _longest(table.rows)
    chance = "" if table.chance is None else f"; chance is {number(table.chance)}"
    among = f", the most of {len(others) + 1} mixers" if others else ""
    tied = [row.mixer for row in others if row.accuracy == best.accuracy]
    also = f", as {', '.join(tied[:3])}" if tied else ""
    return (
        f"Trained on {table.task}, {best.mixer} is right in {number(best.accuracy)} of answers at {best.length:,} "
        f"tokens{among}{also}{chance}."
    )
