"""Selection of the best documents of a scored corpus, fair across lengths and sources, with reasons for drops."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import duckdb

from longlode.core.amounts import parse_amount
from longlode.core.errors import ConfigError, InputError
from longlode.core.kinds import RECORD_NAME
from longlode.core.locks import write_lock
from longlode.core.outputs import claim_file, full_path, remote_url
from longlode.core.records import atomic_path, read_record, remove_leftovers
from longlode.corpus import Document, Unit, Unreadable, check_output_path, read_unit, write_documents
from longlode.corpus.charsets import UTF8
from longlode.corpus.mirror import input_folder, sent_files
from longlode.corpus.records import main_field
from longlode.mining.engine.part_queries import query_parts
from longlode.mining.engine.parts import PARTS_FOLDER, read_info
from longlode.mining.engine.scored import scored_part, scored_parts
from longlode.mining.near_duplicates import drop_near_duplicates
from longlode.mining.selection_files import (
    DROPPED_NAME,
    dropped_path,
    read_selection,
    selection_folder,
    write_selection,
)
from longlode.mining.selection_rule import Rule, rank

FEW_DOCUMENTS = 10
"""A group of fewer documents cannot be cut at a share with any precision."""
_GROUPS_LISTED = 50
_SHARE_TOLERANCE = 0.25
"""Relative difference between the kept share and the one asked for above which select warns."""


@dataclass(frozen=True, kw_only=True)
class SelectSummary:
    """Outcome of a selection.

    dropped: first words of the reason -> rows; with num_selected they add up to num_documents. num_candidates:
    documents that have a value and satisfy `where`. num_groups: groups that those in the band fell into,
    num_small_groups: those of fewer than 10. groups: the 50 largest, {group (names), documents, kept, tokens,
    kept_tokens, cut (the lowest kept value, null if none is kept)}, by size. kept_tokens, cut_tokens: of the kept
    documents, and of the candidates that were not. remark: warnings for the user, "" for none.
    """

    out: Path | str
    dropped_path: Path | str
    num_documents: int
    num_selected: int
    num_candidates: int
    num_groups: int
    num_small_groups: int
    kept_tokens: int
    cut_tokens: int
    dropped: dict[str, int]
    lowest_selected: float
    groups: tuple[dict[str, Any], ...] = ()
    remark: str = ""


def select(
    scores: str | Path,
    out: str | Path,
    *,
    top: float | None = None,
    tokens: int | str | None = None,
    min_score: float | None = None,
    max_score: float | None = None,
    where: str = "",
    by: Sequence[str] = (),
    column: str = "score",
    near_duplicates: float | None = None,
    dry_run: bool = False,
    overwrite: bool = False,
) -> SelectSummary:
    """Write the best documents of a finished scoring run to `out`.

    Documents of which `where` holds and whose value in `column` lies from min_score to max_score are kept: all of them,
    or the best of each group (all documents, or one for each length bucket and source as `by` says), higher values
    first and ties by id. With `top` these are max(1, floor(top * n + 0.5)) of its n documents. So a group of one keeps
    its document, and many small groups keep more than the share: the summary says so. With `tokens` they are as many as
    the budget holds, every group cut at the same depth in tokens. Of rows with one id only the first is a candidate:
    scored ones before others, then in input order.

    Writes: `out` (.jsonl, .jsonl.gz, .jsonl.zst, .parquet): the records in input order with all their fields
      and `score`; the files beside it, with every dropped row and its reason, are described in `selection_files`.
    Args: scores, the output folder of `score`, out, the file to write, or their URLs; top, a share, or tokens, a budget
      (10B, 500M, a number); min_score, max_score; where, SQL over the columns of the parts, such as
      "num_tokens > 4096 AND source <> 'web'"; by, of "length", "source" and extra columns that are no floats; column,
      a numeric column of the parts, extras.NAME among them, or "score_low", score - 2 score_se; near_duplicates, a
      similarity, such as 0.8: of the documents that the rest keeps, drop those that are so similar to one with a higher
      value, so that fewer are kept than asked for; dry_run, write nothing;
      overwrite, replace a file that is there, unless it is this selection made before, which may always be made again.
    Raises: InputError when the run is not finished, nothing is selected, an input has changed since, `out` is there
      already, or it lies over or inside what it comes from; ConfigError for an invalid rule.
    """
    budget = None if tokens is None else parse_amount(tokens, "tokens")
    cuts = {"top": top, "tokens": budget, "min_score": min_score, "max_score": max_score}
    rule = Rule(**cuts, where=where, by=tuple(by), column=column, near_duplicates=near_duplicates)  # type: ignore[arg-type]
    source = input_folder(scores)
    if (url := remote_url(out)) is None or dry_run:
        return _select(source, full_path(out), rule, dry_run, overwrite)
    place, name = url.rstrip("/").rsplit("/", 1)
    beside = selection_folder(Path(name))
    files = [name, *((beside / one).as_posix() for one in (RECORD_NAME, DROPPED_NAME))]
    with sent_files(place, files, records=[files[1]]) as mirror:
        summary = _select(source, mirror.local / name, rule, dry_run, overwrite)
    return replace(summary, out=url, dropped_path=f"{place}/{files[2]}")


def _select(scores: Path, out: Path, rule: Rule, dry_run: bool, overwrite: bool) -> SelectSummary:
    """Select by a rule, as `select` does, with local files."""
    record = read_record(scores, "scores")
    rule.check_columns(record)
    check_output_path(out)
    _check_sound(record, scores)
    _check_finished(record, scores)
    _check_place(record, scores, out)
    if not dry_run:
        claim_file(
            out, "a selection", replaceable=lambda path: _is_this(path, scores, rule), overwrite=overwrite
        )
    parts = [scores / PARTS_FOLDER / part["part"] for part in record["parts"]]
    facts = {
        "scores": str(scores),
        "out": str(out),
        "rule": rule.to_json(),
        "scorer": record["scorer"],
        "reader": record["reader"],
    }
    with query_parts(parts) as base:
        rank(base, parts, rule)
        _check_tokens(base, rule)
        _check_any(base, rule)
        if rule.near_duplicates is not None:
            texts = (
                (row["id"], row[main_field(record["settings"]["text_field"])])
                for row in _selected_rows(base, scores, record)
            )
            drop_near_duplicates(base, texts, rule.near_duplicates)
        if dry_run:
            return _summarize(base, out, record, rule)
        with _sole_writer(out):
            # A killed run may be repeated from here on; its record says that it is not complete.
            write_selection(out, complete=False, **facts)
            _write_documents(base, out, scores, record)
            _write_dropped(base, dropped_path(out))
            summary = _summarize(base, out, record, rule)
            write_selection(out, complete=True, **facts, **_counts(summary))
    return summary


@contextmanager
def _sole_writer(out: Path) -> Iterator[None]:
    """Hold the lock on this selection, after removing the remains of killed runs."""
    folder = selection_folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with write_lock(folder / ".lock", str(out)):
            remove_leftovers(out.parent, out.name, sole_writer=True)
            remove_leftovers(folder, sole_writer=True)
            yield
    except (OSError, duckdb.IOException) as error:
        raise InputError(
            f"{out} cannot be written: {getattr(error, 'strerror', None) or error}. Free space or choose another "
            "place, then run the same command again."
        ) from None


def _check_tokens(base: duckdb.DuckDBPyConnection, rule: Rule) -> None:
    """Raises: ConfigError for a budget of tokens where documents have no token counts."""
    query = "SELECT count(*) FROM ranked WHERE rank IS NOT NULL AND num_tokens IS NULL"
    missing = base.execute(query).fetchall()[0][0]
    if rule.tokens is not None and missing:
        raise ConfigError(
            f"tokens is a budget, but {missing:,} scored documents have no number of tokens: their scorer reads none. "
            "Select by top, or score with a scorer that reads tokens, such as the default one."
        )


def _check_any(base: duckdb.DuckDBPyConnection, rule: Rule) -> None:
    counts = _count_kinds(base)
    if not counts.pop("", 0):
        raise InputError(_nothing(base, rule, counts))


def _write_documents(
    base: duckdb.DuckDBPyConnection, out: Path, scores: Path, record: dict[str, Any]
) -> None:
    """Write the selected documents; one that the format cannot hold counts as dropped from here on."""
    refused: list[tuple[str, str]] = []
    rows = _selected_rows(base, scores, record)
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
    base: duckdb.DuckDBPyConnection, out: Path, record: dict[str, Any], rule: Rule
) -> SelectSummary:
    counts = _count_kinds(base)
    num_selected = counts.pop("", 0)
    lowest, candidates, in_band, kept_tokens, cut_tokens, band_tokens = base.execute(
        """SELECT min(value) FILTER (kind IS NULL), count(*) FILTER (candidate), count(rank),
                  coalesce(sum(num_tokens) FILTER (kind IS NULL), 0)::BIGINT,
                  coalesce(sum(num_tokens) FILTER (candidate AND kind IS NOT NULL), 0)::BIGINT,
                  coalesce(sum(num_tokens) FILTER (rank IS NOT NULL), 0)::BIGINT FROM ranked"""
    ).fetchall()[0]
    num_groups, num_small = base.execute(
        """SELECT count(*), count(*) FILTER (size < ?)
           FROM (SELECT count(*) AS size FROM ranked WHERE rank IS NOT NULL GROUP BY bucket)""",
        [FEW_DOCUMENTS],
    ).fetchall()[0]
    remarks = [_coarse(record, rule), _refused_by_gate(base, record, rule)]
    if rule.top is not None:
        remarks.append(_off_share(rule.top, num_selected, in_band, num_groups, num_small))
    if rule.tokens is not None:
        remarks.append(_off_budget(rule.tokens, kept_tokens, band_tokens))
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
        groups=_groups(base),
        remark=" ".join(remark for remark in remarks if remark),
    )


def _groups(base: duckdb.DuckDBPyConnection) -> tuple[dict[str, Any], ...]:
    """The largest groups, as in `SelectSummary`."""
    names = ("group", "documents", "kept", "tokens", "kept_tokens", "cut")
    rows = base.execute(
        """SELECT bucket, count(*), count(*) FILTER (kind IS NULL), sum(num_tokens)::BIGINT,
                  coalesce(sum(num_tokens) FILTER (kind IS NULL), 0)::BIGINT, min(value) FILTER (kind IS NULL)
           FROM ranked WHERE rank IS NOT NULL GROUP BY bucket ORDER BY count(*) DESC, bucket LIMIT ?""",
        [_GROUPS_LISTED],
    ).fetchall()
    return tuple(dict(zip(names, row, strict=True)) for row in rows)


def _counts(summary: SelectSummary) -> dict[str, Any]:
    """Fields of the record on a selection, except its origin."""
    fields = asdict(summary)
    del fields["out"]
    fields["dropped_path"] = str(summary.dropped_path)
    if not summary.remark:
        del fields["remark"]
    return fields


def _off_share(top: float, kept: int, candidates: int, num_groups: int, num_small: int) -> str:
    """Warning that groups of few documents made the kept share differ from the one asked for; "" without reason."""
    share = kept / max(1, candidates)
    if abs(share - top) <= _SHARE_TOLERANCE * top or num_groups < 2:
        return ""
    return (
        f"Kept {kept:,} of {candidates:,} scored documents ({share:.0%}), asked for {top:.0%}: {num_small:,} of "
        f"{num_groups:,} groups have fewer than {FEW_DOCUMENTS} documents, and every group keeps at least one. Group "
        "by less, or not at all."
    )


def _off_budget(budget: int, kept: int, available: int) -> str:
    """Warning that the kept tokens are far from the budget; "" without reason."""
    if abs(kept - budget) <= _SHARE_TOLERANCE * budget:
        return ""
    why = (
        f"there are only {available:,} in the documents that may be kept"
        if available <= budget
        else "the next document is longer than what is left"
    )
    return f"Kept {kept:,} tokens, asked for {budget:,}: {why}."


def _coarse(record: dict[str, Any], rule: Rule) -> str:
    """Warning about scores that were raced for another cut than this one; "" without reason."""
    race = record.get("race")
    if race is None or (rule == Rule(top=race["top"], by=rule.by) and {*rule.by} == {*race["by"]}):
        return ""
    within = f" by {', '.join(race['by'])}" if race["by"] else ""
    return (
        f"These scores were raced for top {race['top']:g}{within}: elsewhere they are coarse, as documents were read "
        "only until they were sure to lie above or below that cut. Select that, or score without a race."
    )


def _refused_by_gate(base: duckdb.DuckDBPyConnection, record: dict[str, Any], rule: Rule) -> str:
    """Warning that the share includes documents below the profile's gate; "" without reason."""
    if "gate" not in record.get("extras", {}) or rule.column != "score":
        return ""
    (number,) = base.execute("SELECT count(*) FROM ranked WHERE kind IS NULL AND value < 0").fetchall()[0]
    if not number:
        return ""
    return (
        f"{number:,} of the kept documents score below 0: they are not one text in its order. A smaller share, or a "
        "lowest score of 0 (--min 0), leaves them out."
    )


def _check_sound(record: dict[str, Any], scores: Path) -> None:
    """Refuse a record that lacks what a selection needs, before any of it is used."""
    for _ in scored_parts(scores, record):
        pass
    try:
        for item in record["inputs"]:
            full_path(item)
        _ = record["scorer"], record["reader"], record["settings"]["text_field"]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"the record of {scores} is damaged ({type(error).__name__}: {error}). Run the same score command again; "
            "it writes the record anew and keeps the parts that are whole."
        ) from None


def _check_finished(record: dict[str, Any], scores: Path) -> None:
    if missing := record.get("shards", {}).get("missing"):
        raise InputError(
            f"the scoring run in {scores} is not complete: it lacks {', '.join(map(str, missing))} of its "
            f"{record['shards']['total']} shards. Run the same score command with each of them (--shard)."
        )
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
    for part in scored_parts(scores, record):
        files = {file.path for unit in part.units for file in unit.files}
        if {str(out), str(place)} & files or any(
            place == Path(file).resolve() for file in files if "://" not in file
        ):
            raise InputError(f"{out} is one of the inputs that were scored; choose another name.")


def _is_this(path: Path, scores: Path, rule: Rule) -> bool:
    """Tell if the file was selected from these scores by this rule."""
    record = read_selection(path)
    return record is not None and (record.get("scores"), record.get("rule")) == (str(scores), rule.to_json())


def _count_kinds(base: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Rows by the kind of their reason, "" for what is selected."""
    query = "SELECT coalesce(kind, ''), count(*) FROM ranked GROUP BY kind ORDER BY kind"
    return dict(base.execute(query).fetchall())


def _nothing(base: duckdb.DuckDBPyConnection, rule: Rule, dropped: dict[str, int]) -> str:
    """Message on why nothing is selected, and on what would be."""
    counted = ", ".join(f"{count} {kind}" for kind, count in dropped.items()) or "there are no rows"
    best = base.execute("SELECT max(value) FROM ranked").fetchall()[0][0]
    if best is None:
        return f"nothing is selected: no document has a value in column {rule.column!r} ({counted})."
    if rule.min_score is not None and best < rule.min_score:
        return (
            f"nothing is selected: min_score is {rule.min_score}, the best document has {best:g} ({counted})."
        )
    if rule.tokens is not None and base.execute("SELECT count(rank) FROM ranked").fetchall()[0][0]:
        least = base.execute("SELECT num_tokens FROM ranked WHERE rank = 1 ORDER BY num_tokens").fetchall()[
            0
        ][0]
        return f"nothing is selected: tokens is {rule.tokens:,}, and the best document has {least:,} ({counted})."
    return f"nothing is selected: no document fits {rule.to_json()} ({counted})."


def _selected_rows(
    base: duckdb.DuckDBPyConnection, scores: Path, record: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """Read the selected documents again, unit by unit, and yield their records with the score."""
    settings = record["settings"]
    how = {"text_field": settings["text_field"], "encoding": settings.get("encoding", UTF8)}
    numbers = base.execute("SELECT DISTINCT part FROM ranked WHERE kind IS NULL ORDER BY part").fetchall()
    for (number,) in numbers:
        part = scored_part(scores, record["parts"][number])
        found = base.execute(
            "SELECT place, file, row, id, num_bytes, score FROM ranked WHERE kind IS NULL AND part = ?",
            [number],
        ).fetchall()
        by_unit: dict[int, dict[tuple[str, int], tuple[str, int, float]]] = {}
        for place, file, row, name, num_bytes, value in found:
            by_unit.setdefault(part.number_at(place), {})[file, row] = (name, num_bytes, value)
        for unit in sorted(by_unit):
            yield from _rows_of_unit(part.units[unit], by_unit[unit], how)


def _rows_of_unit(
    unit: Unit, wanted: dict[tuple[str, int], tuple[str, int, float]], how: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """The records of a unit. Args: wanted, (id, num_bytes, score) by (file, row). Raises: InputError if one changed."""
    for item in read_unit(unit, **how):
        if isinstance(item, Unreadable) and item.transient:
            raise InputError(_changed(unit, item.reason))
        expected = wanted.pop((item.file, item.row), None)
        if expected is None:
            continue
        if not isinstance(item, Document) or (item.id, item.num_bytes) != expected[:2]:
            raise InputError(_changed(unit, f"row {item.row} of {item.file}"))
        yield item.metadata | {
            "id": item.id,
            "source": item.source,
            main_field(how["text_field"]): item.text,
            "score": expected[2],
        }
    if wanted:
        raise InputError(_changed(unit, f"{len(wanted)} selected rows of {next(iter(wanted))[0]}"))


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
