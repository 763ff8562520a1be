"""Rows of a scores folder picked by id, rank, condition or selection, with the beginning of each text."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.core.defaults import SCORER
from longlode.core.errors import ConfigError, InputError
from longlode.core.kinds import RECORD_NAME, SELECTION_FOLDER, kind_of
from longlode.core.near_names import did_you_mean
from longlode.core.outputs import full_path, remote_url
from longlode.core.records import read_record
from longlode.corpus import stores
from longlode.corpus.mirror import input_folder

if TYPE_CHECKING:
    import duckdb

    from longlode.corpus import Document, Unit

NUM_SHOWN = 10
EXCERPT_CHARACTERS = 200


def show(
    scores: str | os.PathLike[str],
    *,
    document_id: str | None = None,
    top: int | None = None,
    bottom: int | None = None,
    dropped: str | os.PathLike[str] | None = None,
    where: str = "",
    limit: int | None = None,
    excerpt: int = EXCERPT_CHARACTERS,
) -> list[dict[str, Any]]:
    """Rows of a scores folder, as `longlode show` prints them.

    Args:
      scores: the folder, or its URL in a store, of which a local copy is made.
      document_id: only the rows of this id.   top, bottom: number of the best or the worst scored documents.
      dropped: only documents that this selection dropped: its file, its folder below `__selection__`, or their folder.
      where: SQL over the columns, as of `select`.   limit: most rows; 10 unless top, bottom or an id is given.
      excerpt: characters of each text, 0 for none.
    Returns: for each row its columns, `kind` and `why` if it was dropped, and `excerpt`, None where the document cannot
      be read any more. The best first, rows without a score last.
    Raises: InputError when there is nothing to show; ConfigError for an invalid condition.
    """
    if top is not None and bottom is not None:
        raise ConfigError("give either top or bottom; got both.")
    number = top if top is not None else bottom
    if number is not None and number < 1:
        raise ConfigError(f"{'top' if top is not None else 'bottom'} is {number}; expected at least 1.")
    out = input_folder(scores)
    conditions = ["status = 'ok'"] if number is not None else []
    if document_id is not None:
        conditions.append("id = $id")
    elif number is None:
        number = NUM_SHOWN if limit is None else limit
    rows = _query(out, conditions, document_id, where, dropped, number, worst_first=bottom is not None)
    if not rows:
        near = "" if document_id is None else _near_ids(out, document_id)
        raise InputError(f"{out} has no such row.{near} `longlode show {out}` lists the best documents.")
    texts = documents_of(out, rows) if excerpt else {}
    for row in rows:
        found = texts.get((row["file"], row["row"]))
        row["excerpt"] = None if found is None else " ".join(found.text[: 4 * excerpt].split())[:excerpt]
        del row["filename"], row["file_row_number"]
    return rows


def _query(
    out: Path,
    conditions: list[str],
    document_id: str | None,
    where: str,
    dropped: str | os.PathLike[str] | None,
    number: int | None,
    *,
    worst_first: bool,
) -> list[dict[str, Any]]:
    from longlode.api.scores import part_paths
    from longlode.mining.engine.part_queries import query_parts
    from longlode.mining.selection_rule import check_where, make_views

    parts = part_paths(out)
    if not parts:
        return []
    with query_parts(parts) as base:
        columns = [name for name in make_views(base) if name != "pairs"]
        view = _join_dropped(base, dropped)
        columns += ["kind", "why"] if dropped is not None else []
        if where:
            check_where(base, where, columns, view=view)
            conditions = [*conditions, f"(\n{where}\n)"]
        shown = ", ".join(f'"{name}"' for name in columns)
        query = f"""SELECT {shown} FROM {view}
                    {"WHERE " + " AND ".join(conditions) if conditions else ""}
                    ORDER BY score {"ASC" if worst_first else "DESC"} NULLS LAST, id, file, row
                    {"" if number is None else f"LIMIT {number:d}"}"""
        found = base.execute(query, {} if document_id is None else {"id": document_id}).fetchall()
    return [dict(zip(columns, row, strict=True)) for row in found]


def _near_ids(out: Path, document_id: str) -> str:
    """Hint at the ids of a scores folder that resemble one that is not there."""
    from longlode.api.scores import part_paths
    from longlode.mining.engine.part_queries import query_parts

    with query_parts(part_paths(out)) as base:
        rows = base.execute(
            "SELECT DISTINCT id, jaro_winkler_similarity(id, $id) AS near FROM parts ORDER BY near DESC, id LIMIT 5",
            {"id": document_id},
        ).fetchall()
    return did_you_mean(document_id, (name for name, _ in rows))


def _join_dropped(base: "duckdb.DuckDBPyConnection", dropped: str | os.PathLike[str] | None) -> str:
    """Returns: the view to read: `scored`, or of it what a selection dropped, with kind and why."""
    if dropped is None:
        return "scored"
    path = _dropped_table(full_path(dropped))
    base.execute(
        "CREATE TABLE left_out AS SELECT file, row, kind, why FROM read_parquet(?, hive_partitioning=false)",
        [str(path)],
    )
    base.execute(
        "CREATE VIEW shown AS SELECT scored.*, kind, why FROM scored JOIN left_out USING (file, row)"
    )
    return "shown"


def _dropped_table(given: Path) -> Path:
    """The table of dropped rows that a name stands for. Raises: InputError when there is none, or more than one."""
    from longlode.mining.selection_files import DROPPED_NAME, dropped_path

    if given.is_dir():
        inside = given if given.name == SELECTION_FOLDER else given / SELECTION_FOLDER
        found = (
            [given / DROPPED_NAME]
            if (given / DROPPED_NAME).is_file()
            else sorted(inside.glob(f"*/{DROPPED_NAME}"))
        )
    else:
        found = [path for path in [dropped_path(given)] if path.is_file()]
    if len(found) == 1:
        return found[0]
    there = f"; there are {', '.join(path.parent.name for path in found)}" if found else ""
    raise InputError(
        f"{given} is no selection with a table of dropped rows{there}. Expected the file that longlode select wrote, "
        f"or its folder {SELECTION_FOLDER}/NAME."
    )


def is_scores(given: str | os.PathLike[str]) -> bool:
    """Tell if a path, or a URL, is that of a scores folder."""
    url = remote_url(given)
    if url is None:
        return kind_of(full_path(given)) == "scores"
    try:
        has_record = stores.describe(f"{url.rstrip('/')}/{RECORD_NAME}") is not None
    except InputError:  # as web servers say of what is not theirs
        return False
    return has_record and kind_of(input_folder(url)) == "scores"


def scorer_of(scores: str | os.PathLike[str]) -> str:
    """The name of the scorer of a scores folder, if it explains its scores; else that of the default one."""
    name = read_record(input_folder(scores), "scores")["scorer"]["name"]
    return name if name in ("coherence", SCORER) else SCORER


def documents_of(out: Path, rows: Sequence[dict[str, Any]]) -> "dict[tuple[str, int], Document]":
    """The documents of rows of a scores folder, read from the paths they had when they were scored.

    Args: rows, each with file, row, id, num_bytes, filename (the path of its part) and file_row_number.
    Returns: (file, row) -> document, for those that have not changed since.
    """
    from longlode.corpus import Document, read_unit

    record = read_record(out, "scores")
    settings = record["settings"]
    how = {"text_field": settings["text_field"], "encoding": settings.get("encoding", "utf-8")}
    found: dict[tuple[str, int], Document] = {}
    for unit, wanted in _by_unit(out, record, rows):
        for item in read_unit(unit, **how):
            row = wanted.pop((item.file, item.row), None)
            if (
                row
                and isinstance(item, Document)
                and (item.id, item.num_bytes) == (row["id"], row["num_bytes"])
            ):
                found[item.file, item.row] = item
            if not wanted:
                break
    return found


def _by_unit(
    out: Path, record: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> "Iterator[tuple[Unit, dict[tuple[str, int], dict[str, Any]]]]":
    """The units that rows come from, each with its rows by (file, row)."""
    from longlode.mining.engine.scored import scored_part

    entries = {entry["part"]: entry for entry in record["parts"]}
    for filename in dict.fromkeys(row["filename"] for row in rows):
        part = scored_part(out, entries[Path(filename).name])
        by_unit: dict[int, dict[tuple[str, int], dict[str, Any]]] = {}
        for row in (row for row in rows if row["filename"] == filename):
            number = part.number_at(row["file_row_number"])
            by_unit.setdefault(number, {})[row["file"], row["row"]] = row
        yield from ((part.units[number], wanted) for number, wanted in by_unit.items())


def scored_document(
    scores: str | os.PathLike[str], *, row: int | None, document_id: str | None
) -> "Document":
    """The document of a row of a scores folder, read again from its source.

    Raises: ConfigError without an id; InputError when there is no such row, or its document has gone.
    """
    if document_id is None or row is not None:
        raise ConfigError(f"{scores} holds scores of many documents; say which one with --id ID.")
    out = input_folder(scores)
    rows = _query(out, ["id = $id"], document_id, "", None, 1, worst_first=False)
    if not rows:
        near = _near_ids(out, document_id)
        raise InputError(
            f"{out} has no document of id {document_id!r}.{near} `longlode show {out}` lists ids."
        )
    found = documents_of(out, rows)
    if not found:
        raise InputError(
            f"the document {document_id!r} ({rows[0]['file']}) cannot be read any more as it was scored: its status is "
            f"{rows[0]['status']}, or the input was moved or changed. {rows[0]['reason']}".rstrip()
        )
    return next(iter(found.values()))
