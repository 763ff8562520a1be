"""Steps for datatrove's pipelines: annotate documents with their scores, or keep those that score enough.

    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from longlode.integrations.datatrove import LonglodeFilter

    LocalPipelineExecutor([JsonlReader("in"), LonglodeFilter(minimum=0.0), JsonlWriter("out")], tasks=8).run()

Documents go through the engine in batches, with the numbers that `longlode score` gives the same ids and texts. Only
scorers that read segments of other documents (none of them is a default) depend on what else is in the batch.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from longlode.core.defaults import SCORER
from longlode.core.errors import BackendError, ConfigError

try:
    from datatrove.data import Document
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.filters.base_filter import BaseFilter
except ImportError as error:
    raise BackendError(
        f"longlode.integrations.datatrove needs a package that is not installed ({error}); pip install "
        "'longlode[datatrove]'."
    ) from None

BATCH_DOCUMENTS = 1024
_BATCH_CHARACTERS = 16 << 20
_DROPPED = ("id", "source", "file", "row", "pairs")


class BatchScorer:
    """Scores of batches of texts, by the engine. Picklable; what it needs is loaded at the first batch."""

    def __init__(
        self,
        scorer: str = SCORER,
        *,
        model: str = "starter",
        scorer_options: Mapping[str, Any] | None = None,
        weights: str | None = None,
        segment: int = 128,
        pairs: int | Literal["default"] | None = "default",
        dtype: str = "auto",
        seed: int = 0,
    ) -> None:
        """Args: as of `longlode.score`. Raises: ConfigError for names and options that do not exist."""
        from longlode.api.scoring import chosen_scorer, with_weights
        from longlode.mining import ScoreSettings

        self.scorer = chosen_scorer(scorer, pairs, with_weights(scorer_options, weights))
        if self.scorer.fits:
            raise ConfigError(
                "a score that takes a pass over the corpus first cannot be a step of a pipeline; use `longlode score`."
            )
        self.settings = ScoreSettings(segment=segment, seed=seed)
        self._model, self._dtype = model, dtype
        self._work: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without what was loaded."""
        return {**self.__dict__, "_work": None}

    def rows(self, documents: list[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return the columns of `longlode score` for each (id, text), without those that name a place."""
        from longlode.corpus import plan
        from longlode.mining.engine.work import score_unit

        work = self._loaded()
        with tempfile.TemporaryDirectory(prefix="longlode-") as folder:
            path = Path(folder) / "batch.jsonl"
            with path.open("w", encoding="ascii") as stream:
                for name, text in documents:
                    stream.write(json.dumps({"id": name, "text": text}) + "\n")
            units = plan(path, rows_per_unit=len(documents), bytes_per_unit=1 << 62)
            found = [row for unit in units for row in score_unit(unit, work).rows]
        assert len(found) == len(documents), "every document has a row"
        return [{name: value for name, value in row.items() if name not in _DROPPED} for row in found]

    def _loaded(self) -> Any:
        if self._work is None:
            from longlode.api.readers import open_source
            from longlode.mining.engine.work import Work
            from longlode.mining.requests import BatchSize

            source = open_source(self.scorer, self._model, self.settings, dtype=self._dtype)
            size = BatchSize(self.settings.batch_segments, self.settings.batch_pairs)
            self._work = Work(self.scorer, self.settings, source.reader, size)
        return self._work


class LonglodeScores(PipelineStep):  # type: ignore[misc]
    """Add the columns of `longlode score` to `metadata[field]` of each document: score, status, reason and the rest."""

    name = "longlode scores"
    type = "⛏ - SCORES"

    def __init__(
        self,
        scorer: str = SCORER,
        *,
        field: str = "longlode",
        batch_documents: int = BATCH_DOCUMENTS,
        **options: Any,
    ) -> None:
        """Args: scorer, a name; field, of the metadata; batch_documents, scored at once; options, of `BatchScorer`.

        Raises: ConfigError.
        """
        super().__init__()
        self.field, self.batch_documents = field, batch_documents
        self.batches = BatchScorer(scorer, **options)

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yield all documents, in order, with their columns."""
        for batch in _batches(data, self.batch_documents):
            with self.track_time("batch"):
                annotate(batch, self.batches, self.field)
            for document in batch:
                self.stat_update("total", document.metadata[self.field]["status"])
                yield document


class LonglodeFilter(BaseFilter):  # type: ignore[misc]
    """Keep the documents whose score is at least `minimum`; all of them carry their columns in `metadata[field]`.

    Dropped are those without a score, by their status (`too_short`, `failed`), and those below (`low_score`).
    """

    name = "longlode filter"

    def __init__(
        self,
        scorer: str = SCORER,
        *,
        minimum: float = 0.0,
        column: str = "score",
        keep_unscored: bool = False,
        field: str = "longlode",
        batch_documents: int = BATCH_DOCUMENTS,
        exclusion_writer: Any = None,
        **options: Any,
    ) -> None:
        """Args: minimum, of `column`; keep_unscored, keep documents without a value too; exclusion_writer, of
        datatrove, for those dropped; the others as of `LonglodeScores`.
        """
        super().__init__(exclusion_writer, batch_size=batch_documents)
        self.minimum, self.column, self.keep_unscored, self.field = minimum, column, keep_unscored, field
        self.batches = BatchScorer(scorer, **options)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Decide on one document."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        """Annotate a batch, and decide on each document of it."""
        annotate(batch, self.batches, self.field)
        return [self._decide(document.metadata[self.field]) for document in batch]

    def _decide(self, row: Mapping[str, Any]) -> bool | tuple[bool, str]:
        if self.column not in row:
            raise ConfigError(
                f"column is {self.column!r}, which these scores lack; expected one of {', '.join(row)}."
            )
        value = row[self.column]
        if value is None:
            return True if self.keep_unscored else (False, row["status"])
        return True if value >= self.minimum else (False, "low_score")


def annotate(batch: list[Document], scorer: BatchScorer, field: str) -> None:
    """Write the columns of each document of a batch into its metadata."""
    rows = scorer.rows([(document.id, document.text) for document in batch])
    for document, row in zip(batch, rows, strict=True):
        document.metadata[field] = row


def _batches(data: Iterable[Document], most: int) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in data:
        batch.append(document)
        characters += len(document.text)
        if len(batch) >= most or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
