"""Runs scorers over the labelled set: by the engine, from a file, as `longlode score` does."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.labelled import Labelled
from longlode.core.errors import ModelError
from longlode.corpus import write_documents
from longlode.mining import DocumentScore, ScoreSettings, SegmentedDocument, make_scorer, score
from longlode.mining.requests import check_reader
from longlode.mining.scorers.paper import PaperScorer

SAME_PAIRS = ("paper", "release", "strength")
"""They read the same pairs, so these are read once for all of them; the cost of each is that of the reading."""
ROWS_PER_UNIT = 16
"""Documents of one unit of work: the bar moves after each, and foreign segments come from its others."""


@dataclass(frozen=True)
class Setup:
    """What the runs share. reader: any `Reader`; pairs: None for all, 0 for none where the scorer can do without."""

    reader: Any
    folder: Path
    pairs: int | None = 500
    seed: int = 0
    quiet: bool = False


@dataclass(frozen=True, eq=False)
class Scored:
    """float64 `[n]` in the order of the documents, nan where there is none; and what it cost.

    tokens_read: of the model, for each token of the documents; None if the scorer reads no model. reason: why the
    first document without a score has none.
    """

    scores: np.ndarray
    tokens_read: float | None
    seconds: float
    reason: str = ""


class SharedPairs(PaperScorer):
    """The paper's score; release and strength are finished from the same readings, into `found[name][id]`."""

    def __init__(self, *, pairs: int | None, names: Sequence[str]) -> None:
        """Args: pairs, as of every scorer; names, of the others to finish."""
        super().__init__(pairs=pairs)
        self.others = {name: make_scorer(name, pairs=pairs) for name in names}
        self.found: dict[str, dict[str, float]] = {name: {} for name in names}

    def finish(self, doc: SegmentedDocument, readings: Sequence[Any]) -> DocumentScore:
        """As the paper's; a scorer that would have read no pair (release of few segments) is shown none."""
        for name, other in self.others.items():
            own = other.requests(doc, np.random.default_rng(0))
            found = other.finish(doc, readings if own else []).score
            if found is not None:
                self.found[name][doc.document.id] = found
        return super().finish(doc, readings)


def run_all(names: Sequence[str], documents: Sequence[Labelled], setup: Setup) -> dict[str, Scored]:
    """Score the documents with every scorer."""
    done: dict[str, Scored] = {}
    shared = [name for name in names if name in SAME_PAIRS]
    for name in names:
        if name in done:
            continue
        if name in shared and len(shared) > 1:
            done |= _run_shared(shared, documents, setup)
        else:
            done[name] = _run(make_scorer(name, pairs=setup.pairs), documents, setup)
    return {name: done[name] for name in names}


def _run_shared(names: Sequence[str], documents: Sequence[Labelled], setup: Setup) -> dict[str, Scored]:
    scorer = SharedPairs(pairs=setup.pairs, names=[name for name in names if name != "paper"])
    paper = _run(scorer, documents, setup, ", ".join(names))
    found = {"paper": paper} if "paper" in names else {}
    for name, scores in scorer.found.items():
        values = np.array([scores.get(item.id, np.nan) for item in documents])
        found[name] = replace(paper, scores=values)
    return found


def _run(scorer: Any, documents: Sequence[Labelled], setup: Setup, title: str = "") -> Scored:
    try:
        check_reader(scorer.name, scorer.asks, setup.reader)
    except ModelError as error:
        return Scored(np.full(len(documents), np.nan), None, 0.0, str(error))
    source = setup.folder / "documents.jsonl"
    out = setup.folder / f"run-{len(list(setup.folder.glob('run-*')))}"
    # Mixed, so that a unit holds all labels and domains.
    order = np.random.default_rng(setup.seed).permutation(len(documents))
    mixed = [documents[place] for place in order]
    write_documents(source, ({"id": d.id, "source": d.domain, "text": d.text} for d in mixed))
    title = f"{title or scorer.name}, {len(documents[0].tokens):,} tokens" if documents else scorer.name
    with Progress(
        TextColumn(f"{title:40}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} documents"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=setup.quiet or not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task(title, total=len(documents))
        summary = score(
            source,
            out,
            scorer=scorer,
            make_reader=lambda: setup.reader,
            reader_fingerprint=setup.reader.fingerprint,
            settings=ScoreSettings(seed=setup.seed, rows_per_unit=ROWS_PER_UNIT),
            progress=lambda done: progress.update(task, completed=done.documents),
        )
    record = json.loads((out / "record.json").read_text())
    values = np.full(len(documents), np.nan)
    reasons = [unit["error"] for unit in summary.failed_units]
    for part in sorted((out / "parts").glob("*.parquet")):
        for row in pq.read_table(part, columns=["row", "score", "reason"], partitioning=None).to_pylist():
            if row["score"] is None:
                reasons.append(row["reason"])
            else:
                values[order[row["row"]]] = row["score"]
    cost = record["cost"]["tokens_read_per_token"] if scorer.reads_model else None
    return Scored(values, cost, record["seconds"], reasons[0] if reasons else "")
