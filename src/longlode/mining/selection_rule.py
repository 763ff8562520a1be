"""Rule of a selection: its settings, their checks, and the SQL that ranks all rows by it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from longlode.core.errors import ConfigError
from longlode.core.near_names import did_you_mean
from longlode.mining.engine.parts import SCORE_COLUMNS
from longlode.mining.extras import PREFIX
from longlode.mining.near_duplicates import check_threshold

BY = ("length", "source")
"""Groupings that always exist: `length` is the power of two at or below num_tokens (num_bytes without it).
"""
SURE = "score_low"
"""A column that select computes: a lower bound of the score, two standard errors below it."""
_NUMERIC = (*SCORE_COLUMNS, "num_bytes", "num_tokens", "num_segments", "num_pairs", SURE)
BUCKETS = {
    "length": "pow(2, floor(log2(greatest(coalesce(num_tokens, num_bytes), 1))))::BIGINT::VARCHAR",
    "source": "source",
}
"""SQL for the group that a row falls into, by each of BY."""
ONE_OF_ID = "(PARTITION BY id ORDER BY value IS NULL, part, place)"
"""SQL window: of the rows of one id the first is the candidate, one that has a value before others."""
BELOW, ABOVE, OTHER = "below the cut", "above the band", "not where"
"""Kinds of rows that the rule itself drops: `OTHER` fails its `where`."""


_UNKNOWN = re.compile(r'Referenced column "([^"]*)" (?:was )?not found')


def check_groups(by: Sequence[str], *, also: Sequence[str] = ()) -> None:
    """Raises: ConfigError for a column that documents cannot be grouped by. Args: also, allowed columns besides BY."""
    unknown = [name for name in by if name not in (*BY, *also)]
    if unknown:
        known = (*BY, *also)
        raise ConfigError(
            f"cannot group by {unknown[0]!r}.{did_you_mean(unknown[0], known)} Expected {' or '.join(known)}; a scores "
            "folder keeps no other field of the input."
        )


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The rows to keep, by `column`: of the rows with min_score <= value <= max_score of which `where` holds, the best
    `top` share or `tokens` of each group, or all.
    """

    top: float | None = None
    tokens: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    where: str = ""
    by: tuple[str, ...] = ()
    column: str = "score"
    near_duplicates: float | None = None

    def __post_init__(self) -> None:
        """Raises: ConfigError for an invalid rule."""
        cuts = (self.top, self.tokens, self.min_score, self.max_score)
        if all(cut is None for cut in cuts) and not self.where:
            raise ConfigError(
                "nothing says what to keep. Give one of: top (a share, such as 0.5), tokens (a budget, such as 10B), "
                "min_score, max_score, where."
            )
        if self.top is not None and self.tokens is not None:
            raise ConfigError("give either top, a share of the documents, or tokens, a budget; got both.")
        if self.top is not None and not 0 < self.top <= 1:
            raise ConfigError(
                f"top is {self.top}; expected a share above 0 and up to 1, such as 0.5 for the best half."
            )
        if None not in (self.min_score, self.max_score) and self.min_score > self.max_score:  # type: ignore[operator]
            raise ConfigError(f"min_score is {self.min_score}, above max_score, {self.max_score}.")
        if self.by and self.top is None and self.tokens is None:
            raise ConfigError(
                "groups go with top or tokens, which are taken within each; min_score, max_score and where are the "
                "same for all."
            )
        check_threshold(self.near_duplicates)
        if self.column == "score_se":
            raise ConfigError(
                "score_se says how sure a score is, not how good: the best by it would be the most uncertain. Select "
                f"by {SURE!r}, score - 2 score_se, to keep documents that score high beyond doubt."
            )

    def check_columns(self, record: dict[str, Any]) -> None:
        """Raises: ConfigError for a column that scores with this record do not have, or that holds no numbers."""
        extras = record.get("extras", {})
        check_groups(
            self.by, also=[PREFIX + name for name, extra in extras.items() if extra["dtype"] != "float"]
        )
        known = [*_NUMERIC, *(PREFIX + name for name, extra in extras.items() if extra["dtype"] != "str")]
        if self.column in known:
            return
        if extras.get(self.column.removeprefix(PREFIX), {}).get("dtype") == "str":
            raise ConfigError(
                f"the column {self.column!r} holds names, so there is no best by it; choose one of {', '.join(known)}."
            )
        raise ConfigError(
            f"there is no column {self.column!r} to select by; choose one of {', '.join(known)}."
        )

    def to_json(self) -> dict[str, Any]:
        """The rule as the record has it: what is not given is left out, but for the fields of older records."""
        fields = {"top": self.top, "min_score": self.min_score, "by": list(self.by), "column": self.column}
        more = {"tokens": self.tokens, "max_score": self.max_score, "where": self.where or None}
        more |= {"near_duplicates": self.near_duplicates}
        return fields | {name: value for name, value in more.items() if value is not None}


def make_views(base: duckdb.DuckDBPyConnection) -> list[str]:
    """Make the view `scored`: `parts` with `score_low` and, for expressions, the extra columns as fields of `extras`.

    Returns: the columns of `parts`.
    """
    columns = [row[0] for row in base.execute("DESCRIBE parts").fetchall()]
    extras = [name.removeprefix(PREFIX) for name in columns if name.startswith(PREFIX)]
    fields = ", ".join(f'"{name}" := "{PREFIX}{name}"' for name in extras)
    struct = f", struct_pack({fields}) AS extras" if extras else ""
    base.execute(f"CREATE VIEW scored AS SELECT *, score - 2 * score_se AS {SURE}{struct} FROM parts")
    return columns


def check_where(
    base: duckdb.DuckDBPyConnection, where: str, columns: Sequence[str], *, view: str = "scored"
) -> None:
    """Raises: ConfigError for an expression that DuckDB does not take as a condition on the columns of a view."""
    try:
        base.execute(f"SELECT 1 FROM {view} WHERE (\n{where}\n) LIMIT 0")
    except duckdb.Error as error:
        reason = str(error).strip().splitlines()[0]
        hidden = {"filename", "file_row_number"}
        known = [*(name for name in columns if name not in hidden), SURE]
        if unknown := _UNKNOWN.search(reason):
            reason = f"there is no column {unknown[1]!r}.{did_you_mean(unknown[1], known)}"
        named = ", ".join(known)
        raise ConfigError(
            f"the condition {where!r} cannot be used: {reason} Expected SQL over the columns {named}."
        ) from None


def rank(base: duckdb.DuckDBPyConnection, parts: Sequence[Path], rule: Rule) -> None:
    """Make the table `ranked`: every row of the parts once, `kind` and `why` null where it is selected.

    rank counts the rows within the band in their group, from the best; it is null for all others. Each group
    gets its share of a budget of tokens: rows are taken in the order of their depth in the group, in tokens, so that
    every group is cut at the same depth and at most one document is left over.
    """
    columns = make_views(base)
    if rule.where:
        check_where(base, rule.where, columns)
    base.execute(
        "CREATE TABLE part_numbers AS SELECT unnest(?) AS name, unnest(range(?)) AS part",
        [[str(path) for path in parts], len(parts)],
    )
    groups = ", ".join(BUCKETS.get(name, f"coalesce({_quoted(name)}::VARCHAR, 'none')") for name in rule.by)
    value = _quoted(rule.column)
    base.execute(
        f"""
        CREATE TABLE rows AS
        SELECT part, file_row_number AS place, id, source, file, row, num_bytes, num_tokens, score, status, reason,
               CASE WHEN status = 'ok' AND isfinite({value}) THEN {value} END AS value,
               coalesce((\n{rule.where or "true"}\n), false) AS wanted, [{groups}]::VARCHAR[] AS bucket
        FROM scored JOIN part_numbers ON name = filename
        """
    )
    _judge(base, rule)


def _judge(base: duckdb.DuckDBPyConnection, rule: Rule) -> None:
    """Make `ranked` of the table `rows`. Sorts see only the rows and the columns that they need."""
    _find_doubles(base)
    _place(base, rule)
    base.execute(
        f"""
        CREATE TABLE ranked AS
        WITH judged AS (
          SELECT rows.*, first_place, rank, size, value IS NOT NULL AND wanted AND double_row IS NULL AS candidate,
                 CASE WHEN double_row IS NOT NULL THEN 'duplicate id'
                      WHEN status <> 'ok' THEN status
                      WHEN value IS NULL THEN 'no value'
                      WHEN NOT wanted THEN '{OTHER}'
                      WHEN value > $high THEN '{ABOVE}'
                      WHEN value < $low OR NOT ({_kept(rule)}) THEN '{BELOW}' END AS kind
          FROM rows LEFT JOIN doubles ON rows.rowid = double_row LEFT JOIN ranks ON rows.rowid = inside_row
        )
        SELECT part, place, id, source, file, row, num_bytes, num_tokens, score, value, status, bucket, kind, candidate,
               rank,
               CASE WHEN kind = 'duplicate id' THEN 'duplicate id of ' || first_place
                    WHEN kind = 'no value' THEN 'no value in the column selected by'
                    WHEN kind = '{OTHER}' THEN 'the condition does not hold'
                    WHEN kind = '{ABOVE}' THEN format('{{}} is above {{}}', value, $high)
                    WHEN kind = '{BELOW}' AND rank IS NULL THEN format('{{}} is below {{}}', value, $low)
                    WHEN kind = '{BELOW}' THEN format('rank {{}} of {{}} in its group', rank, size)
                    ELSE reason END AS why
        FROM judged
        """,
        {"low": rule.min_score, "high": rule.max_score},
    )
    for name in ("rows", "doubles", "ranks"):
        base.execute(f"DROP TABLE {name}")


def _find_doubles(base: duckdb.DuckDBPyConnection) -> None:
    """Make the table `doubles`: the rows that are not the first of their id, found among ids of one hash."""
    base.execute(
        f"""
        CREATE TABLE doubles AS
        SELECT double_row, first_place FROM (
          SELECT rowid AS double_row, row_number() OVER once AS nth,
                 first_value(file || '#' || row) OVER once AS first_place
          FROM rows WHERE hash(id) IN (SELECT hash(id) FROM rows GROUP BY hash(id) HAVING count(*) > 1)
          WINDOW once AS {ONE_OF_ID}
        ) WHERE nth > 1
        """
    )


def _place(base: duckdb.DuckDBPyConnection, rule: Rule) -> None:
    """Make the table `ranks` of the rows within the band. Tokens are summed only for a rule with a budget."""
    base.execute(
        """
        CREATE TABLE inside AS
        SELECT rowid AS inside_row, bucket, value, id, num_tokens FROM rows
        WHERE value IS NOT NULL AND wanted AND value >= coalesce($low, value) AND value <= coalesce($high, value)
              AND rowid NOT IN (SELECT double_row FROM doubles)
        """,
        {"low": rule.min_score, "high": rule.max_score},
    )
    spent = (
        "NULL"
        if rule.tokens is None
        else "sum(num_tokens) OVER (ORDER BY depth, value DESC, id ROWS UNBOUNDED PRECEDING)"
    )
    depth = (
        "NULL"
        if rule.tokens is None
        else "sum(num_tokens) OVER best / sum(num_tokens) OVER (PARTITION BY bucket)"
    )
    base.execute(
        f"""
        CREATE TABLE ranks AS
        SELECT inside_row, rank, size, {spent} AS spent FROM (
          SELECT *, row_number() OVER best AS rank, count(*) OVER (PARTITION BY bucket) AS size, {depth} AS depth
          FROM inside WINDOW best AS (PARTITION BY bucket ORDER BY value DESC, id ROWS UNBOUNDED PRECEDING)
        )
        """
    )
    base.execute("DROP TABLE inside")


def _kept(rule: Rule) -> str:
    """SQL for: a row within the band is kept."""
    if rule.top is not None:
        return f"rank <= greatest(1, floor({float(rule.top)!r}::DOUBLE * size + 0.5))"
    return "true" if rule.tokens is None else f"spent <= {rule.tokens:d}"


def _quoted(column: str) -> str:
    """A column as SQL: a dot in a bare name would ask for a field of a struct."""
    return '"' + column.replace('"', '""') + '"'
