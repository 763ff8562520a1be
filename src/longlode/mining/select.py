"""Select: from scores to a smaller corpus, fair across lengths and sources, with a reason for all that is
dropped.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb

from longlode.core.errors import ConfigError, InputError
from longlode.core.locks import write_lock
from longlode.core.outputs import claim_file, full_path
from longlode.core.records import atomic_path, read_record, remove_leftovers
from longlode.corpus import Document, Unit, Unreadable, check_output_path, read_unit, write_documents
from longlode.mining.engine.part_queries import query_parts
from longlode.mining.engine.parts import PARTS_FOLDER, SCORE_COLUMNS, read_info
from longlode.mining.extras import PREFIX
from longlode.mining.selection_files import dropped_path, read_selection, selection_folder, write_selection

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


FEW_DOCUMENTS = 10
"""A group of fewer documents cannot be cut at a share with any precision."""
_SHARE_TOLERANCE = 0.25
"""How far the kept share may be from the one asked for, as a part of it, before select says so."""


@dataclass(frozen=True, kw_only=True)
class SelectSummary:
    """What was kept.

    dropped: first words of the reason -> rows; num_selected and the dropped add up to num_documents. num_candidates:
    documents that have a value and were compared. num_groups: groups that they fell into, num_small_groups: those of
    fewer than 10. kept_tokens, cut_tokens: of the kept documents, and of the candidates that were not. remark: what
    the reader should know of the selection, "" if nothing.
    """

    out: Path
    dropped_path: Path
    num_documents: int
    num_selected: int
    num_candidates: int
    num_groups: int
    num_small_groups: int
    kept_tokens: int
    cut_tokens: int
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

    def check_column(self, record: dict[str, Any]) -> None:
        """Raises: ConfigError for a column that scores with this record do not have, or that holds no numbers."""
        extras = record.get("extras", {})
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

    def value_sql(self) -> str:
        """What a row is ranked by, as SQL."""
        quoted = self.column.replace('"', '""')  # a dot in a bare name would ask for a field of a struct
        return _EXPRESSIONS.get(self.column, f'"{quoted}"')

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
    max(1, floor(top * n + 0.5)) of its n scored documents are kept, higher `column` first and ties by id. So a group
    of one keeps its document, and many small groups keep more than the share: the summary says so. Of rows with one
    id only the first is a candidate: scored ones before others, then in input order.

    Writes: `out` (.jsonl, .jsonl.gz, .jsonl.zst, .parquet): the records in input order with all their fields
      and `score`; what lies beside it, every row left out with its reason among it, is said in `selection_files`.
    Args: scores, the output folder of `score`; out; top or min_score; by, of "length", "source"; column, a
      numeric column of the parts, extras.NAME among them, or "score_low", score - 2 score_se; overwrite, replace a
      file that is there, unless it is this selection made before, which may always be made again.
    Raises: InputError when the run is not finished, nothing is selected, an input has changed since, `out` is there
      already, or it lies over or inside what it comes from; ConfigError for a rule that makes no sense.
    """
    rule = _Rule(top, min_score, tuple(by), column)
    scores, out = full_path(scores), full_path(out)
    record = read_record(scores, "scores")
    rule.check_column(record)
    check_output_path(out)
    _check_sound(record, scores)
    _check_finished(record, scores)
    _check_place(record, scores, out)
    claim_file(out, "a selection", replaceable=lambda path: _is_this(path, scores, rule), overwrite=overwrite)
    parts = [scores / PARTS_FOLDER / part["part"] for part in record["parts"]]
    facts = {
        "scores": str(scores),
        "out": str(out),
        "rule": rule.to_json(),
        "scorer": record["scorer"],
        "reader": record["reader"],
    }
    with query_parts(parts) as base:
        _rank(base, parts, rule)
        _check_any(base, rule)
        with _sole_writer(out):
            # A killed run may be repeated from here on; its record says that it is not complete.
            write_selection(out, complete=False, **facts)
            _write_documents(base, out, record)
            _write_dropped(base, dropped_path(out))
            summary = _summarize(base, out, record, rule)
            write_selection(out, complete=True, **facts, **_counts(summary))
    return summary


@contextmanager
def _sole_writer(out: Path) -> Iterator[None]:
    """Be the only one who writes this selection, with what killed ones left out of the way."""
    folder = selection_folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with write_lock(folder / ".lock", str(out)):
            remove_leftovers(out.parent, out.name, sole_writer=True)
            remove_leftovers(folder, sole_writer=True)
            yield
    except (OSError, duckdb.IOException) as error:
        raise InputError(
            f"{out} cannot be written: {getattr(error, 'strerror', None) or error}. Make room or choose another place, "
            "then run the same command again."
        ) from None


def _check_any(base: duckdb.DuckDBPyConnection, rule: _Rule) -> None:
    counts = _count_kinds(base)
    if not counts.pop("", 0):
        raise InputError(_nothing(base, rule, counts))


def _write_documents(base: duckdb.DuckDBPyConnection, out: Path, record: dict[str, Any]) -> None:
    """Write the selected documents; one that the format cannot hold counts as dropped from here on."""
    refused: list[tuple[str, str]] = []
    rows = _selected_rows(base, record)
    num_written = write_documents(out, rows, refused=lambda row, reason: refused.append((reason, row["id"])))
    if refused and not num_written:
        raise InputError(
            f"none of the {len(refused):,} selected documents can be written to {out}: {refused[0][0]}."
        )
    for reason, name in refused:
        base.execute(
            "UPDATE ranked SET kind = 'failed', why = ? WHERE kind IS NULL AND id = ?", [reason, name]
        )
    assert num_written == _count_kinds(base).get("", 0), "every selected row is written once"


def _summarize(
    base: duckdb.DuckDBPyConnection, out: Path, record: dict[str, Any], rule: _Rule
) -> SelectSummary:
    counts = _count_kinds(base)
    num_selected = counts.pop("", 0)
    lowest, candidates, kept_tokens, cut_tokens = base.execute(
        """SELECT min(value) FILTER (kind IS NULL), count(rank),
                  coalesce(sum(num_tokens) FILTER (kind IS NULL), 0)::BIGINT,
                  coalesce(sum(num_tokens) FILTER (kind = 'below the cut'), 0)::BIGINT FROM ranked"""
    ).fetchall()[0]
    num_groups, num_small = base.execute(
        """SELECT count(*), count(*) FILTER (size < ?)
           FROM (SELECT count(*) AS size FROM ranked WHERE rank IS NOT NULL GROUP BY bucket)""",
        [FEW_DOCUMENTS],
    ).fetchall()[0]
    remarks = [_coarse(record, rule), _refused_by_gate(base, record, rule)]
    if rule.top is not None:
        remarks.append(_off_share(rule.top, num_selected, candidates, num_groups, num_small))
    return SelectSummary(
        out=out,
        dropped_path=dropped_path(out),
        num_documents=num_selected + sum(counts.values()),
        num_selected=num_selected,
        num_candidates=candidates,
        num_groups=num_groups,
        num_small_groups=num_small,
        kept_tokens=kept_tokens,
        cut_tokens=cut_tokens,
        dropped=counts,
        lowest_selected=lowest,
        remark=" ".join(remark for remark in remarks if remark),
    )


def _counts(summary: SelectSummary) -> dict[str, Any]:
    """What the record says of a selection besides where it comes from."""
    fields = asdict(summary)
    del fields["out"]
    fields["dropped_path"] = str(summary.dropped_path)
    if not summary.remark:
        del fields["remark"]
    return fields


def _off_share(top: float, kept: int, candidates: int, num_groups: int, num_small: int) -> str:
    """What to say when groups of few documents made the kept share another than the one asked for."""
    share = kept / max(1, candidates)
    if abs(share - top) <= _SHARE_TOLERANCE * top or num_groups < 2:
        return ""
    return (
        f"kept {kept:,} of {candidates:,} scored documents ({share:.0%}), asked for {top:.0%}: {num_small:,} of "
        f"{num_groups:,} groups have fewer than {FEW_DOCUMENTS} documents, and every group keeps at least one. Group "
        "by less, or not at all."
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


def _refused_by_gate(base: duckdb.DuckDBPyConnection, record: dict[str, Any], rule: _Rule) -> str:
    """What to say where the share reaches down to documents that the profile does not take for one text."""
    if "gate" not in record.get("extras", {}) or rule.column != "score":
        return ""
    (number,) = base.execute("SELECT count(*) FROM ranked WHERE kind IS NULL AND value < 0").fetchall()[0]
    if not number:
        return ""
    return (
        f"{number:,} of the kept documents score below 0: they are not one text in its order. A smaller share, or "
        "min_score 0 in its place, leaves them out."
    )


def _check_sound(record: dict[str, Any], scores: Path) -> None:
    """Refuse a record that lacks what a selection needs, before any of it is used."""
    try:
        for part in record["parts"]:
            Unit.from_json(part["unit"])
            scores / PARTS_FOLDER / part["part"]
        for item in record["inputs"]:
            full_path(item)
        _ = record["scorer"], record["reader"], record["settings"]["text_field"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the record of {scores} is damaged ({type(error).__name__}: {error}). Run the same score command again; "
            "it writes the record anew and keeps the parts that are whole."
        ) from None


def _check_finished(record: dict[str, Any], scores: Path) -> None:
    if not record.get("complete"):
        failed = len(record.get("failed_units", []))
        raise InputError(
            f"the scoring run in {scores} is not complete: {failed} of {record.get('num_units')} units "
            "failed. Run the same score command again; it does only what is missing."
        )
    names = [part["part"] for part in record["parts"]]
    unusable = [name for name in names if read_info(scores / PARTS_FOLDER / name) is None]
    if unusable:
        raise InputError(
            f"{scores} lacks {len(unusable)} of its parts, or they are damaged, first {unusable[0]}. Run the same "
            "score command again; it makes just those anew."
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
    record = read_selection(path)
    return record is not None and (record.get("scores"), record.get("rule")) == (str(scores), rule.to_json())


def _rank(base: duckdb.DuckDBPyConnection, parts: Sequence[Path], rule: _Rule) -> None:
    """Make the table `ranked`: every row once, `kind` and `why` null where it is selected."""
    groups = ", ".join(BUCKETS[name] for name in rule.by)
    value = rule.value_sql()
    base.execute(
        "CREATE TABLE part_numbers AS SELECT unnest(?) AS name, unnest(range(?)) AS part",
        [[str(path) for path in parts], len(parts)],
    )
    base.execute(
        f"""
        CREATE TABLE rows AS
        SELECT part, file_row_number AS place, id, source, file, row, num_bytes, num_tokens, score, status, reason,
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
        SELECT part, place, id, source, file, row, num_bytes, num_tokens, score, value, status, bucket, kind,
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
            if isinstance(item, Unreadable) and item.transient:
                raise InputError(_changed(units[part], item.reason))
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
