"""Select: from scores to a smaller corpus, fair across lengths and sources, with a reason for all that is
dropped.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from longlode.core.errors import ConfigError, InputError
from longlode.core.kinds import RECORD_NAME
from longlode.core.outputs import claim_file, full_path
from longlode.core.records import atomic_path, read_json, read_record, versions, write_json
from longlode.corpus import Document, Unit, check_output_path, read_unit, write_documents
from longlode.mining.part_queries import query_parts
from longlode.mining.parts import PARTS_FOLDER, SCORE_COLUMNS

BY = ("length", "source")
"""What documents can be grouped by: `length` is the power of two at or below num_tokens (num_bytes without
it).
"""

SURE = "score_low"
"""A column of select's own: what the score is at least, two standard errors below it."""
_NUMERIC = (*SCORE_COLUMNS, "num_bytes", "num_tokens", "num_segments", "num_pairs", SURE)
_EXPRESSIONS = {SURE: "score - 2 * score_se"}
BUCKETS = {
    "length": "floor(log2(greatest(coalesce(num_tokens, num_bytes), 1)))::VARCHAR",
    "source": "source",
}
"""SQL for the group that a row falls into, by each of BY."""
ONE_OF_ID = "(PARTITION BY id ORDER BY value IS NULL, part, place)"
"""SQL window: of the rows of one id the first is the candidate, one that has a value before others."""


@dataclass(frozen=True, kw_only=True)
class SelectSummary:
    """What was kept. dropped: first words of the reason -> rows. num_selected + the dropped =
    num_documents. remark: what the reader should know of the selection, "" if nothing.
    """

    out: Path
    dropped_path: Path
    num_documents: int
    num_selected: int
    num_groups: int
    dropped: dict[str, int]
    lowest_selected: float
    remark: str = ""


def check_groups(by: Sequence[str]) -> None:
    """Raises: ConfigError for what documents cannot be grouped by."""
    unknown = [name for name in by if name not in BY]
    if unknown:
        raise ConfigError(f"cannot group by {unknown[0]!r}; expected {' or '.join(BY)}.")


@dataclass(frozen=True)
class _Rule:
    """What is kept: the best `top` share of each group, or all of at least `min_score`, by `column`."""

    top: float | None
    min_score: float | None
    by: tuple[str, ...]
    column: str

    def __post_init__(self) -> None:
        if (self.top is None) == (self.min_score is None):
            raise ConfigError("give either top (a share, such as 0.5) or min_score; got both or neither.")
        if self.top is not None and not 0 < self.top <= 1:
            raise ConfigError(
                f"top is {self.top}; expected a share above 0 and up to 1, such as 0.5 for the best half."
            )
        check_groups(self.by)
        if self.by and self.top is None:
            raise ConfigError(
                "grouping by length or source goes with top; min_score is one threshold for all."
            )
        if self.column == "score_se":
            raise ConfigError(
                "score_se says how sure a score is, not how good: the best by it would be the most uncertain. Select "
                f"by {SURE!r}, score - 2 score_se, to keep what surely scores high."
            )
        if self.column not in _NUMERIC:
            raise ConfigError(
                f"there is no column {self.column!r} to select by; choose one of {', '.join(_NUMERIC)}."
            )

    def to_json(self) -> dict[str, Any]:
        """The rule as the record has it."""
        return {"top": self.top, "min_score": self.min_score, "by": list(self.by), "column": self.column}


def select(
    scores: str | Path,
    out: str | Path,
    *,
    top: float | None = None,
    min_score: float | None = None,
    by: Sequence[str] = (),
    column: str = "score",
    overwrite: bool = False,
) -> SelectSummary:
    """Write the best documents of a finished scoring run to `out`.

    In each group (all documents, or one for each length bucket and source as `by` says) the best
    max(1, floor(top * n + 0.5)) of its n scored documents are kept (so a group of one keeps it), higher
    `column` first and ties by id. Of rows
    with one id only the first is a candidate: scored ones before others, then in input order.

    Writes: `out` (.jsonl, .jsonl.gz, .jsonl.zst, .parquet): the records in input order with all their fields
      and `score`; `out.dropped.parquet`: every row left out, with its place, value, status and why;
      `out.record.json`: kind "selection", the rule and the counts.
    Args: scores, the output folder of `score`; out; top or min_score; by, of "length", "source"; column, a
      numeric column of the parts, or "score_low", score - 2 score_se; overwrite, replace a file that is there, unless
      it is this selection made before, which may always be made again.
    Raises: InputError when the run is not finished, nothing is selected, an input has changed since, `out` is there
      already, or it lies over or inside what it comes from; ConfigError for a rule that makes no sense.
    """
    rule = _Rule(top, min_score, tuple(by), column)
    scores, out = full_path(scores), full_path(out)
    record = read_record(scores, "scores")
    check_output_path(out)
    _check_finished(record, scores)
    _check_place(record, scores, out)
    claim_file(out, "a selection", replaceable=lambda path: _is_this(path, scores, rule), overwrite=overwrite)
    parts = [scores / PARTS_FOLDER / part["part"] for part in record["parts"]]
    with query_parts(parts) as base:
        _rank(base, parts, rule)
        counts = _count_kinds(base)
        num_selected = counts.pop("", 0)
        if num_selected == 0:
            raise InputError(_nothing(base, rule, counts))
        summary = _summarize(base, out, counts, num_selected, _coarse(record, rule))
        # The record first, so that a run that is killed from here on may be repeated; it says that it is not complete.
        _write_selection_record(summary, scores, record, rule, complete=False)
        num_written = write_documents(out, _selected_rows(base, record))
        assert num_written == num_selected, "every selected row is written once"
        _write_dropped(base, summary.dropped_path)
    _write_selection_record(summary, scores, record, rule, complete=True)
    return summary


def _summarize(
    base: duckdb.DuckDBPyConnection, out: Path, dropped: dict[str, int], num_selected: int, remark: str
) -> SelectSummary:
    lowest, num_groups = base.execute(
        "SELECT min(value) FILTER (kind IS NULL), count(DISTINCT bucket) FILTER (rank IS NOT NULL) FROM ranked"
    ).fetchall()[0]
    return SelectSummary(
        out=out,
        dropped_path=out.with_name(out.name + ".dropped.parquet"),
        num_documents=num_selected + sum(dropped.values()),
        num_selected=num_selected,
        num_groups=num_groups,
        dropped=dropped,
        lowest_selected=lowest,
        remark=remark,
    )


def _coarse(record: dict[str, Any], rule: _Rule) -> str:
    """What to say of scores that were raced for another cut than this one."""
    race = record.get("race")
    if race is None or (rule.top, {*rule.by}, rule.column) == (race["top"], {*race["by"]}, "score"):
        return ""
    within = f" by {', '.join(race['by'])}" if race["by"] else ""
    return (
        f"these scores were raced for top {race['top']:g}{within}: elsewhere they are coarse, as documents were read "
        "only until they were sure to lie above or below that cut. Select that, or score without a race."
    )


def _check_finished(record: dict[str, Any], scores: Path) -> None:
    if not record.get("complete"):
        failed = len(record.get("failed_units", []))
        raise InputError(
            f"the scoring run in {scores} is not complete: {failed} of {record.get('num_units')} units "
            "failed. Run the same score command again; it does only what is missing."
        )
    missing = [
        part["part"] for part in record["parts"] if not (scores / PARTS_FOLDER / part["part"]).is_file()
    ]
    if missing:
        raise InputError(
            f"{scores} lacks {len(missing)} of its parts, first {missing[0]}. Run the score command again."
        )


def _check_place(record: dict[str, Any], scores: Path, out: Path) -> None:
    """Refuse an `out` that would overwrite an input, or that a later run would read as input."""
    place = out.resolve()
    if place.is_relative_to(scores.resolve()):
        raise InputError(f"{out} lies inside the scores folder {scores}; write the selection outside it.")
    for item in record["inputs"]:
        folder = full_path(item)
        if folder.is_dir() and place.is_relative_to(folder.resolve()):
            raise InputError(f"{out} lies inside the input folder {item}; write the selection outside it.")
    files = {file["path"] for part in record["parts"] for file in part["unit"]["files"]}
    if (
        str(out) in files
        or str(place) in files
        or any(place == Path(file).resolve() for file in files if "://" not in file)
    ):
        raise InputError(f"{out} is one of the inputs that were scored; choose another name.")


def _is_this(path: Path, scores: Path, rule: _Rule) -> bool:
    """Whether the file was selected from these scores by this rule."""
    record_path = path.with_name(f"{path.name}.{RECORD_NAME}")
    if not record_path.is_file():
        return False
    record = read_json(record_path)
    return isinstance(record, dict) and (
        record.get("kind"),
        record.get("scores"),
        record.get("rule"),
    ) == ("selection", str(scores), rule.to_json())


def _rank(base: duckdb.DuckDBPyConnection, parts: Sequence[Path], rule: _Rule) -> None:
    """Make the table `ranked`: every row once, `kind` and `why` null where it is selected."""
    groups = ", ".join(BUCKETS[name] for name in rule.by)
    value = _EXPRESSIONS.get(rule.column, rule.column)
    base.execute(
        "CREATE TABLE part_numbers AS SELECT unnest(?) AS name, unnest(range(?)) AS part",
        [[str(path) for path in parts], len(parts)],
    )
    base.execute(
        f"""
        CREATE TABLE rows AS
        SELECT part, file_row_number AS place, id, source, file, row, num_bytes, score, status, reason,
               CASE WHEN status = 'ok' AND isfinite({value}) THEN {value} END AS value,
               [{groups}]::VARCHAR[] AS bucket
        FROM parts JOIN part_numbers ON name = filename
        """
    )
    keep = "rank <= greatest(1, floor(? * size + 0.5))" if rule.top is not None else "value >= ?"
    limit = rule.top if rule.top is not None else rule.min_score
    base.execute(
        f"""
        CREATE TABLE ranked AS
        WITH named AS (
          SELECT *, row_number() OVER once AS nth, first_value(file || '#' || row) OVER once AS first_place
          FROM rows WINDOW once AS {ONE_OF_ID}
        ), candidates AS (
          SELECT *, nth = 1 AND value IS NOT NULL AS candidate FROM named
        ), placed AS (
          SELECT *, row_number() OVER (PARTITION BY bucket, candidate ORDER BY value DESC, id) AS rank,
                 count(*) OVER (PARTITION BY bucket, candidate) AS size
          FROM candidates
        ), judged AS (
          SELECT *, CASE WHEN nth > 1 THEN 'duplicate id'
                         WHEN status <> 'ok' THEN status
                         WHEN value IS NULL THEN 'no value'
                         WHEN NOT {keep} THEN 'below the cut' END AS kind
          FROM placed
        )
        SELECT part, place, id, source, file, row, num_bytes, score, value, status, bucket, kind,
               CASE WHEN candidate THEN rank END AS rank,
               CASE kind WHEN 'duplicate id' THEN 'duplicate id of ' || first_place
                         WHEN 'no value' THEN 'no value in the column selected by'
                         WHEN 'below the cut' THEN format('rank {{}} of {{}} in its group', rank, size)
                         ELSE reason END AS why
        FROM judged
        """,
        [limit],
    )


def _count_kinds(base: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows by the kind of their reason, "" for what is selected."""
    query = "SELECT coalesce(kind, ''), count(*) FROM ranked GROUP BY kind ORDER BY kind"
    return dict(base.execute(query).fetchall())


def _nothing(base: duckdb.DuckDBPyConnection, rule: _Rule, dropped: dict[str, int]) -> str:
    """Why nothing is selected, with what would be."""
    counted = ", ".join(f"{count} {kind}" for kind, count in dropped.items()) or "there are no rows"
    best = base.execute("SELECT max(value) FROM ranked").fetchall()[0][0]
    if best is None:
        return f"nothing is selected: no document has a value in column {rule.column!r} ({counted})."
    return f"nothing is selected: min_score is {rule.min_score}, the best document has {best:g} ({counted})."


def _selected_rows(base: duckdb.DuckDBPyConnection, record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Read the selected documents again, unit by unit, and yield their records with the score."""
    units = [Unit.from_json(part["unit"]) for part in record["parts"]]
    text_field = record["settings"]["text_field"]
    parts = base.execute("SELECT DISTINCT part FROM ranked WHERE kind IS NULL ORDER BY part").fetchall()
    for (part,) in parts:
        found = base.execute(
            "SELECT file, row, id, num_bytes, score FROM ranked WHERE kind IS NULL AND part = ?", [part]
        ).fetchall()
        wanted = {(file, row): (name, num_bytes, score) for file, row, name, num_bytes, score in found}
        for item in read_unit(units[part], text_field=text_field):
            expected = wanted.pop((item.file, item.row), None)
            if expected is None:
                continue
            if not isinstance(item, Document) or (item.id, item.num_bytes) != expected[:2]:
                raise InputError(_changed(units[part], f"row {item.row} of {item.file}"))
            yield item.metadata | {
                "id": item.id,
                "source": item.source,
                text_field: item.text,
                "score": expected[2],
            }
        if wanted:
            raise InputError(_changed(units[part], f"{len(wanted)} selected rows of {next(iter(wanted))[0]}"))


def _changed(unit: Unit, what: str) -> str:
    return (
        f"{what} ({unit.files[0].path}) is not what was scored any more: the input was moved or changed. "
        "Score it again, or put it back."
    )


def _write_dropped(base: duckdb.DuckDBPyConnection, path: Path) -> None:
    with atomic_path(path) as temporary:
        quoted = str(temporary).replace("'", "''")
        base.execute(
            f"""COPY (SELECT id, source, file, row, num_bytes, score, value, status, kind, why FROM ranked
                      WHERE kind IS NOT NULL ORDER BY part, place)
                TO '{quoted}' (FORMAT parquet, COMPRESSION zstd)"""
        )


def _write_selection_record(
    summary: SelectSummary, scores: Path, record: dict[str, Any], rule: _Rule, *, complete: bool
) -> None:
    write_json(
        summary.out.with_name(summary.out.name + ".record.json"),
        {
            "kind": "selection",
            "complete": complete,
            "made_with": versions(),
            "scores": str(scores),
            "out": str(summary.out),
            "dropped_path": str(summary.dropped_path),
            "rule": rule.to_json(),
            "estimator": record["estimator"],
            "scorer": record["scorer"],
            "num_documents": summary.num_documents,
            "num_selected": summary.num_selected,
            "num_groups": summary.num_groups,
            "dropped": summary.dropped,
            "lowest_selected": summary.lowest_selected,
            **({"remark": summary.remark} if summary.remark else {}),
        },
    )
