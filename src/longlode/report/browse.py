"""Browsing section: every document, kept or dropped, with the reasons for its score and the beginning of its text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from longlode.report.far_context import FarContext, octave, thousands
from longlode.report.scores import Corpus
from longlode.report.selection import Identity
from longlode.report.text import clipped, ending, json_for_script, number, one_line

MAX_ROWS = 10_000
NUM_SHOWN = 25
"""Number of rows on the page without the script."""
EXCERPT_CHARS = 180
_ID_CHARS, _PLACE_CHARS, _REASON_CHARS = 300, 200, 160
_MAX_OWN = 4
"""A scorer's own columns that the table shows; the others are in the opened row."""
_RATED = ("strength_mean", "specificity_mean", "repetition", "gzip_ratio")


@dataclass(frozen=True)
class Column:
    """A column of the table.

    name: in copies. title: its head. about: its meaning. kind: "text" or "number". shown: in the table, else only in
    the opened row.
    """

    name: str
    title: str
    about: str
    kind: str
    shown: bool = True


@dataclass(frozen=True)
class BrowseView:
    """Data for the template: num_documents of the corpus, those that have a row, and the first of them as cells.

    excerpts: a sentence on where excerpts come from. data: all rows for the script. first: rows of
    (id, anchor, excerpt, source, cells of the columns shown).
    """

    num_documents: int
    num_rows: int
    columns: list[Column]
    excerpts: str
    data: Markup
    first: list[tuple[str, str, str, str, list[str]]]

    @property
    def shown(self) -> list[Column]:
        """The columns of the table."""
        return [column for column in self.columns if column.shown]


def browse_view(
    corpora: Sequence[Corpus], anchors: Mapping[Identity, str], texts: Mapping[Identity, str], excerpts: str
) -> BrowseView | None:
    """Lay out the documents of all scores folders, each once.

    Args: anchors, of documents that have a section of their own; texts, beginnings of documents; excerpts, a sentence
      on where they come from.
    """
    documents = list(dict.fromkeys(identity for one in corpora for identity in one.identities))
    if not documents:
        return None
    columns = _columns(corpora)
    chosen = _chosen(corpora, documents)
    known = [_known(corpus, chosen) for corpus in corpora]
    rows = [_row(identity, corpora, known, columns, anchors, texts) for identity in chosen]
    data = {
        "columns": [vars(column) for column in columns],
        "rows": rows,
        "num_documents": len(documents),
    }
    shown = [place for place, column in enumerate(columns) if column.shown]
    source = next(place for place, column in enumerate(columns) if column.name == "source")
    first = [
        (name, anchor, excerpt, str(cells[source]), [_cell(cells[k], columns[k]) for k in shown])
        for name, anchor, excerpt, cells in rows[:NUM_SHOWN]
    ]
    return BrowseView(len(documents), len(rows), columns, excerpts, json_for_script(data), first)


def _chosen(corpora: Sequence[Corpus], documents: list[Identity]) -> list[Identity]:
    """Documents by descending score in the first folder that has one; of too many, both ends and every k-th between."""
    ranked: dict[Identity, float] = {}
    for corpus in corpora:
        for identity, score in zip(corpus.identities, corpus.score.tolist(), strict=True):
            if np.isfinite(score):
                ranked.setdefault(identity, score)
    ordered = sorted(documents, key=lambda one: (-ranked.get(one, -np.inf), one))
    if len(ordered) <= MAX_ROWS:
        return ordered
    part = MAX_ROWS * 2 // 5
    middle = ordered[part:-part]
    places = np.linspace(0, len(middle) - 1, MAX_ROWS - 2 * part).round().astype(int)
    return [*ordered[:part], *(middle[place] for place in places), *ordered[-part:]]


def _columns(corpora: Sequence[Corpus]) -> list[Column]:
    several = len(corpora) > 1
    columns = []
    if any(corpus.decisions for corpus in corpora):
        columns.append(Column("decision", "kept", "kept or dropped by the selection", "text"))
    for corpus in corpora:
        name = f"score {corpus.name}" if several else "score"
        columns.append(Column(name, clipped(name, 30), corpus.meaning.zero or "the score", "number"))
    far = next((corpus.far for corpus in corpora if corpus.far), None)
    if far:
        columns += _far_columns(far)
    size = "tokens" if any(_counts_tokens(corpus.table) for corpus in corpora) else "bytes"
    columns += [
        Column(size, size, "length of the document", "number"),
        Column("source", "source", "the source, or the label where there are labels", "text", shown=False),
        Column(
            "why", "reason", "why it was dropped or has no score, or what puts its score in doubt", "text"
        ),
        Column("place", "file and row", "where the document was read", "text", shown=False),
    ]
    rated = {name: (title, about) for corpus in corpora for name, title, about in corpus.columns}
    own = [name for name in rated if name.startswith("extras.") and not (far and name in far.columns)]
    for name in (*own, *(name for name in _RATED if name in rated)):
        title, about = rated[name]
        columns.append(Column(name, title, about, "number", shown=name in own[:_MAX_OWN]))
    return columns


def _far_columns(far: FarContext) -> list[Column]:
    gains = [
        Column(
            f"far_{start // 1024}k", octave(start), f"gain of context {octave(start)} tokens back, nats per token",
            "number", shown=False,
        )
        for start in far.starts
    ]  # fmt: skip
    return [
        Column("gate", "gate", "log-odds, in nats, of one text in its order; 0 or more passes", "number"),
        Column("reach", "uses up to", "tokens back up to which context helps; 0: not beyond 1k", "number"),
        Column("rival", "most like", "of texts that are not one text, the kind it is most like", "text", shown=False),
        *gains,
    ]  # fmt: skip


def _known(corpus: Corpus, chosen: Sequence[Identity]) -> dict[Identity, dict[str, Any]]:
    """The rows of some documents, read from the table at once."""
    here = [identity for identity in chosen if identity in corpus.places]
    rows = corpus.table.take(pa.array([corpus.places[identity] for identity in here], pa.int64())).to_pylist()
    return dict(zip(here, rows, strict=True))


def _row(
    identity: Identity,
    corpora: Sequence[Corpus],
    known: Sequence[Mapping[Identity, Mapping[str, Any]]],
    columns: Sequence[Column],
    anchors: Mapping[Identity, str],
    texts: Mapping[Identity, str],
) -> list[Any]:
    """[id, anchor, excerpt, [value of each column]]."""
    values: dict[str, Any] = {}
    for corpus, rows in zip(corpora, known, strict=True):
        place = corpus.places.get(identity)
        name = f"score {corpus.name}" if len(corpora) > 1 else "score"
        if place is None:
            values[name] = None
            continue
        values[name] = _rounded(corpus.score[place])
        for key, value in _facts(corpus, identity, place, rows[identity]).items():
            if values.get(key) in (None, ""):
                values[key] = value
    file, row, name = identity
    values["place"] = clipped(file + ("" if row < 0 else f", row {row}"), _PLACE_CHARS)
    excerpt = one_line(texts.get(identity, ""), EXCERPT_CHARS)
    return [
        clipped(name, _ID_CHARS),
        anchors.get(identity, ""),
        excerpt,
        [values.get(column.name, "" if column.kind == "text" else None) for column in columns],
    ]


def _facts(corpus: Corpus, identity: Identity, place: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Values of one folder for a document, by name of the column. row: of its table."""
    far = corpus.far
    decision, why = corpus.decisions.of(identity) if corpus.decisions else ("", "")
    reason = row.get("reason") or ""
    status = str(row.get("status") or "")
    status = "" if status == "ok" else status.replace("_", " ")
    told = [why, *(part for part in (status, reason) if part not in why)]
    facts: dict[str, Any] = {
        "decision": decision,
        "tokens": row.get("num_tokens"),
        "bytes": row.get("num_bytes"),
        "source": ending(corpus.group_of(place), 44),
        "why": clipped("; ".join(filter(None, told)), _REASON_CHARS),
    }
    facts |= {name: _rounded(row.get(name)) for name, _, _ in corpus.columns}
    if far:
        facts |= {"gate": _rounded(far.gate[place]), "rival": clipped(far.rivals[place], 60)}
        facts["reach"] = int(far.reach[place]) if np.isfinite(far.reach[place]) else None
        for start, gain in zip(far.starts, far.gains[place], strict=True):
            facts[f"far_{start // 1024}k"] = _rounded(gain)
    return facts


def _counts_tokens(table: pa.Table) -> bool:
    return "num_tokens" in table.column_names and table.column("num_tokens").null_count < table.num_rows


def _rounded(value: Any) -> float | None:
    """Four significant digits, to keep the page small; None for no finite number."""
    if value is None or isinstance(value, str) or not np.isfinite(value):
        return None
    return float(f"{value:.4g}")


def _cell(value: Any, column: Column) -> str:
    if value is None:
        return "\u2013"
    if column.name == "reach":
        return thousands(value) if value else "0"
    if column.name in ("tokens", "bytes"):
        return f"{value:,}"
    return number(value) if column.kind == "number" else str(value)
