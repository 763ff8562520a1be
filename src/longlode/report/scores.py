"""The section on scores: how they spread, what status every document has, and the documents at both ends."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from longlode.report.charts import Group, histograms
from longlode.report.read import Found
from longlode.report.text import as_number, clipped

NUM_EXTREMES = 10
_MAX_GROUPS = 6
_EXCERPT_CHARS = 170
_NUMBER = re.compile(r"\d+")
SHOWN_COLUMNS = (
    (
        "strength_mean",
        "mean strength",
        "mean over pairs of how much an earlier segment lowers a later one's perplexity",
    ),
    ("strength_max_mean", "best strength", "the same for the most helpful earlier segment of each, averaged"),
    ("gain_nats", "gain", "nats per token gained"),
    ("specificity_mean", "specificity", "1 where one earlier segment helps, 0 where all help alike"),
    ("repetition", "repetition", "share of the text that repeats"),
    ("gzip_ratio", "gzip", "compressed size over size"),
)


@dataclass(frozen=True)
class Extreme:
    """A document at one end of the ranking. values: as the view's columns. anchor: of its map, or empty."""

    rank: int
    id: str
    place: str
    group: str
    score: float
    score_se: float | None
    num_tokens: int | None
    values: list[float | None]
    excerpt: str
    anchor: str


@dataclass(frozen=True)
class ScoresView:
    """What the template needs of one scores folder.

    scorer: what made the scores, "" where the record does not say. columns: those of SHOWN_COLUMNS, and of the
    scorer's own that the record says to show, that hold anything; a scorer without a model knows no strengths.
    has_errors: whether a score has a standard error.
    """

    name: str
    scorer: str
    complete: bool
    num_documents: int
    num_scored: int
    statuses: list[tuple[str, int, float, list[tuple[str, int]]]]
    chart: Markup | None
    grouped_by: str
    quantiles: list[tuple[str, int, list[float]]]
    columns: list[tuple[str, str, str]]
    has_errors: bool
    best: list[Extreme] = field(default_factory=list)
    worst: list[Extreme] = field(default_factory=list)


QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def scores_view(
    found: Found,
    table: pa.Table,
    labels: Mapping[str, str],
    explained: Sequence[Mapping[str, Any]],
    key: str,
) -> ScoresView:
    """Lay out one scores folder.

    Args:
      table: its rows.   labels: document id -> label, colours the histogram where it covers the rows; else
        sources do.
      explained: documents with texts, whose first segment serves as excerpt.
      key: prefix of the ids on the page; document number k of `explained` has the anchor `{key}-map{k}`.
    """
    num = table.num_rows
    good, score = ok_scores(table)
    codes, names, grouped_by = _group_codes(table, labels)
    groups = _groups(codes[good], names, score[good])
    title = f"Distribution of scores, {found.name}"
    scorer = _scorer(found)
    label = f"score ({scorer})" if scorer else "score"
    columns = [one for one in (*SHOWN_COLUMNS, *_extras(found)) if _holds_any(table, one[0], good)]
    chart = histograms(groups, key=f"{key}-hist", title=title, x_label=label) if len(good) > 1 else None
    order = good[np.argsort(-score[good], kind="stable")]
    top = min(NUM_EXTREMES, max(1, len(order) // 2))
    texts = {str(one.get("id")): (number, one) for number, one in enumerate(explained)}

    def extremes(indices: np.ndarray, ranks: Sequence[int]) -> list[Extreme]:
        rows = table.take(pa.array(indices)).to_pylist()
        return [
            _extreme(row, rank, names[codes[i]], columns, texts, key)
            for row, rank, i in zip(rows, ranks, indices.tolist(), strict=True)
        ]

    return ScoresView(
        name=found.name,
        scorer=scorer,
        complete=found.record.get("complete") is not False,
        num_documents=num,
        num_scored=len(good),
        statuses=_statuses(table),
        chart=chart,
        grouped_by=grouped_by,
        quantiles=[(g.name, len(g.values), np.quantile(g.values, QUANTILES).tolist()) for g in groups],
        columns=columns,
        has_errors=_holds_any(table, "score_se", good),
        best=extremes(order[:top], range(1, top + 1)) if len(order) else [],
        worst=extremes(order[::-1][:top], range(len(order), len(order) - top, -1)) if len(order) > 1 else [],
    )


def ok_scores(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """(rows with the status ok and a finite score, the score of every row, NaN without one)."""
    score = _score(table)
    return np.flatnonzero(np.isfinite(score) & _is_ok(table)), score


def identities(table: pa.Table) -> list[tuple[str, int, str]]:
    """(file, row, id) of every row, which tell a document apart; -1 for no row."""
    file, row, name = (
        _column(table, column, kind, default).to_pylist()
        for column, kind, default in (
            ("file", pa.string(), ""),
            ("row", pa.int64(), -1),
            ("id", pa.string(), ""),
        )
    )
    return list(zip(file, row, name, strict=True))


def _scorer(found: Found) -> str:
    """The name of the scorer in a record; older records have it among the settings."""
    given = found.record.get("scorer")
    settings = found.record.get("settings")
    if given is None and isinstance(settings, Mapping):
        given = settings.get("scorer")
    name = given.get("name") if isinstance(given, Mapping) else given
    return clipped(name, 40) if isinstance(name, str) else ""


def _extras(found: Found) -> list[tuple[str, str, str]]:
    """The numbers among the scorer's own columns that the record says to show, as SHOWN_COLUMNS."""
    given = found.record.get("extras")
    extras = given.items() if isinstance(given, Mapping) else ()
    return [
        (
            f"extras.{name}",
            clipped(name, 40),
            clipped(f"{one.get('doc', '')} ({one.get('unit') or 'no unit'})", 200),
        )
        for name, one in extras
        if isinstance(one, Mapping) and one.get("in_report") and one.get("dtype") in ("int", "float")
    ]


def _holds_any(table: pa.Table, name: str, rows: np.ndarray) -> bool:
    """Whether a column has a value in any of some rows."""
    return name in table.column_names and table.column(name).take(pa.array(rows)).null_count < len(rows)


def _column(table: pa.Table, name: str, kind: pa.DataType, default: object) -> pa.ChunkedArray | pa.Array:
    """A column as `kind`, nulls and an absent column as `default`."""
    if name not in table.column_names:
        return pa.array([default] * table.num_rows, kind)
    return pc.fill_null(pc.cast(table.column(name), kind), default)


def _score(table: pa.Table) -> np.ndarray:
    return np.asarray(_column(table, "score", pa.float64(), float("nan")).to_numpy(), dtype=np.float64)


def _is_ok(table: pa.Table) -> np.ndarray:
    return np.asarray(pc.equal(_column(table, "status", pa.string(), ""), "ok"), dtype=bool)


def _group_codes(table: pa.Table, labels: Mapping[str, str]) -> tuple[np.ndarray, list[str], str]:
    """For each row the number of its group, the groups' names, and what they are: labels, else sources."""
    column, what = _column(table, "source", pa.string(), "no source"), "source"
    if labels:
        marks = [labels.get(name) for name in _column(table, "id", pa.string(), "").to_pylist()]
        if any(mark is not None for mark in marks):
            column, what = pa.array([mark or "no label" for mark in marks]), "label"
    coded = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    coded = coded.dictionary_encode()
    return (
        np.asarray(coded.indices, dtype=np.int64),
        [name or f"no {what}" for name in coded.dictionary.to_pylist()],
        what,
    )


def _groups(codes: np.ndarray, names: Sequence[str], values: np.ndarray) -> list[Group]:
    """Groups by size, the smallest ones joined, so that a chart has six rows at most."""
    counts = np.bincount(codes, minlength=len(names))
    ordered = sorted(np.flatnonzero(counts).tolist(), key=lambda code: (-counts[code], names[code]))
    kept = ordered if len(ordered) <= _MAX_GROUPS else ordered[: _MAX_GROUPS - 1]
    groups = [Group(names[code], values[codes == code]) for code in kept]
    if len(kept) < len(ordered):
        groups.append(Group(f"{len(ordered) - len(kept)} others", values[~np.isin(codes, kept)]))
    return groups


def _statuses(table: pa.Table) -> list[tuple[str, int, float, list[tuple[str, int]]]]:
    """Each status, how many documents, their share, its most common reasons; each document is in one row."""
    columns = {
        name: _column(table, name, pa.string(), default)
        for name, default in (("status", "unknown"), ("reason", ""))
    }
    counted = pa.table(columns).group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    rows = []
    for name in {row["status"]: None for row in counted}:
        part = [(str(row["reason"]), int(row["count_all"])) for row in counted if row["status"] == name]
        total = sum(n for _, n in part)
        common = _alike([(reason, n) for reason, n in part if reason])[:4]
        rows.append((str(name), total, total / table.num_rows, common))
    return sorted(rows, key=lambda row: (row[0] != "ok", -row[1], row[0]))


def _alike(reasons: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Reasons that differ in their numbers only as one, told by the commonest of them; most common first."""
    kinds: dict[str, list[tuple[str, int]]] = {}
    for reason, count in sorted(reasons, key=lambda one: (-one[1], one[0])):
        kinds.setdefault(_NUMBER.sub("0", reason), []).append((reason, count))
    told = [
        (
            clipped(kind[0][0], 160) + (" and with other numbers" if len(kind) > 1 else ""),
            sum(n for _, n in kind),
        )
        for kind in kinds.values()
    ]
    return sorted(told, key=lambda one: (-one[1], one[0]))


def _extreme(
    row: Mapping[str, Any],
    rank: int,
    group: str,
    columns: Sequence[tuple[str, str, str]],
    texts: Mapping[str, tuple[int, Mapping[str, Any]]],
    key: str,
) -> Extreme:
    number, document = texts.get(str(row.get("id")), (None, {}))
    segments = document.get("segments")
    excerpt = str(segments[0]) if isinstance(segments, list) and segments else ""
    place = str(row.get("file") or "")
    if row.get("row") is not None:
        place += f", row {row['row']}"
    return Extreme(
        rank=rank,
        id=clipped(row.get("id", ""), 120),
        place=clipped(place, 160),
        group=clipped(group, 40),
        score=float(row["score"]),
        score_se=as_number(row.get("score_se")),
        num_tokens=row.get("num_tokens"),
        values=[row.get(name) for name, _, _ in columns],
        excerpt=clipped(" ".join(excerpt.split()), _EXCERPT_CHARS) if excerpt else "",
        anchor="" if number is None else f"{key}-map{number}",
    )
