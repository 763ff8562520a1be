"""From names to a scored folder: loads the scorer, runs mining's engine, maps a few documents."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from longlode.cli.console import note, progress
from longlode.cli.dependency_maps import EXPLAIN_NAME, map_ends
from longlode.cli.sources import model_source
from longlode.core.records import write_json

if TYPE_CHECKING:
    from longlode.mining import ScoreSettings, ScoreSummary
    from longlode.mining.estimators import Estimator
    from longlode.models.scorer import LMScorer


def run_scoring(
    inputs: list[str],
    out: Path,
    *,
    scorer: str,
    estimator: "Estimator",
    settings: "ScoreSettings",
    workers: int = 1,
    explain_segments: int = 48,
) -> "ScoreSummary":
    """Score `inputs` into `out` and write explain.json for the best and worst documents.

    Args: scorer, as for `model_source`; explain_segments, segments of a document to map, 0 for no map.
    Raises: InputError, ConfigError, ScorerError as `mining.score`.
    """
    from longlode.corpus import find_files
    from longlode.mining import score

    find_files(inputs)  # a slip in a name should not wait for the scorer to load
    model, make_scorer = (
        load_scorer(scorer, settings.segment, workers) if estimator.needs_scorer else (None, None)
    )
    with progress("scoring") as update:

        def tell(units: int, total: int, documents: int, tokens: int) -> None:
            update(units, total, f"units: {documents:,} documents, {tokens:,} tokens")

        summary = score(
            inputs,
            out,
            estimator=estimator,
            make_scorer=make_scorer,
            scorer_fingerprint=model.fingerprint if model else "",
            settings=settings,
            num_workers=workers,
            progress=tell,
        )
    explain_path = out / EXPLAIN_NAME
    explain_path.unlink(missing_ok=True)  # of an earlier run, perhaps of other documents
    if model and explain_segments and summary.counts.get("ok"):
        note("mapping the best and the worst documents")
        write_json(explain_path, map_ends(out, model, settings, max_segments=explain_segments))
    return summary


def load_scorer(scorer: str, segment: int, workers: int) -> "tuple[LMScorer, Callable[[], LMScorer]]":
    """The scorer, and how workers get theirs: this very one, or in other processes one of their own."""
    from longlode.models.scorer import ScorerSpec

    note(f"loading the scorer: {scorer}")
    spec = ScorerSpec(model_source(scorer), segment=segment)
    model = spec()
    return model, spec if workers > 1 else lambda: model
