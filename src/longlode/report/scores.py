"""Scores section: distribution of scores, gain from context by distance, status of every document."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from longlode.report.charts import Group, histograms
from longlode.report.distance_charts import corpus_profile
from longlode.report.far_context import FarContext, far_context
from longlode.report.read import Found, Gathered, score_table
from longlode.report.score_meaning import Meaning, meaning, scorer_name
from longlode.report.selection import Decisions, Identity, decisions
from longlode.report.text import clipped

MAX_RIVALS = 5
_MAX_GROUPS = 6
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


@dataclass(frozen=True, eq=False)
class Corpus:
    """One scores folder, read.

    table: its rows. score: of each row, NaN without one. identities: key of each row; places: the
    row of each key. decisions: the selection made from it. columns: (name, head, meaning) of the SHOWN_COLUMNS, and of
    the scorer's own that the record says to show, that hold anything; a scorer without a model has no strengths.
    """

    found: Found
    table: pa.Table
    score: np.ndarray
    identities: list[Identity]
    places: dict[Identity, int]
    far: FarContext | None
    meaning: Meaning
    decisions: Decisions | None
    columns: list[tuple[str, str, str]]
    codes: np.ndarray
    groups: list[str]
    grouped_by: str

    @property
    def name(self) -> str:
        """The folder as the user named it."""
        return self.found.name

    @property
    def scorer(self) -> str:
        """Name of the scorer, "" where the record has none."""
        return scorer_name(self.found)

    @property
    def scored(self) -> np.ndarray:
        """The rows that have a score."""
        return np.flatnonzero(np.isfinite(self.score))

    def group_of(self, place: int) -> str:
        """The label of a row, or its source."""
        return self.groups[self.codes[place]]


@dataclass(frozen=True)
class ScoresView:
    """Data for the template on one scores folder.

    meaning: of the score. profile: gain from context by distance, of a scorer that measures it. rivals: families
    of text that the documents below the gate resemble most, with their numbers.
    """

    name: str
    scorer: str
    meaning: Meaning
    complete: bool
    num_documents: int
    num_scored: int
    only_score: float | None
    statuses: list[tuple[str, int, float, list[tuple[str, int]]]]
    chart: Markup | None
    grouped_by: str
    quantiles: list[tuple[str, int, list[float]]]
    profile: Markup | None
    rivals: list[tuple[str, int]]


QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)


def corpus(gathered: Gathered, found: Found, labels: Mapping[str, str]) -> Corpus:
    """Read one scores folder. labels: document id -> label, groups the rows where it covers them; else sources do."""
    table = score_table(gathered, found)
    good, score = ok_scores(table)
    rows = identities(table)
    far = far_context(table)
    codes, names, grouped_by = _group_codes(table, labels)
    kept = np.full(len(score), np.nan)
    kept[good] = score[good]
    return Corpus(
        found=found,
        table=table,
        score=kept,
        identities=rows,
        places={identity: place for place, identity in enumerate(rows)},
        far=far,
        meaning=meaning(scorer_name(found), gated=far is not None),
        decisions=decisions(gathered, found, rows),
        columns=[one for one in (*SHOWN_COLUMNS, *_extras(found)) if _holds_any(table, one[0], good)],
        codes=codes,
        groups=names,
        grouped_by=grouped_by,
    )


def scores_view(one: Corpus, key: str) -> ScoresView:
    """Lay out one scores folder. key: prefix of the ids on the page."""
    good, num = one.scored, one.table.num_rows
    groups = _groups(one.codes[good], one.groups, one.score[good])
    title = f"Distribution of scores, {one.name}"
    label = one.meaning.axis(one.scorer)
    far = one.far
    stopped = (
        Counter(far.rivals[place] for place in np.flatnonzero(far.gate < 0).tolist()) if far else Counter()
    )
    return ScoresView(
        name=one.name,
        scorer=one.scorer,
        meaning=one.meaning,
        complete=one.found.record.get("complete") is not False,
        num_documents=num,
        num_scored=len(good),
        only_score=float(one.score[good[0]]) if len(good) == 1 else None,
        statuses=_statuses(one.table),
        chart=_spread(groups, one.meaning, key=f"{key}-hist", title=title, x_label=label),
        grouped_by=one.grouped_by,
        quantiles=[(g.name, len(g.values), np.quantile(g.values, QUANTILES).tolist()) for g in groups],
        profile=corpus_profile(far, key=f"{key}-profile") if far else None,
        rivals=[
            (clipped(name or "nothing known", 60), count) for name, count in stopped.most_common(MAX_RIVALS)
        ],
    )


def _spread(groups: Sequence[Group], told: Meaning, *, key: str, title: str, x_label: str) -> Markup | None:
    """Histograms with a line at a zero that has a meaning; None for fewer than two scores."""
    if sum(len(group.values) for group in groups) < 2:
        return None
    zero = 0.0 if told.above else None
    return histograms(groups, key=key, title=title, x_label=x_label, reference=zero)


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
    """Tell if a column has a value in any of some rows."""
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
    """The group number of each row, the groups' names, and their kind: labels, else sources."""
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
    """Each status with its number of documents, their share, and its commonest reasons; a document is in one row."""
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
    """Reasons with their counts, most common first; those that differ only in numbers count as their commonest one."""
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
