"""From names to a scored folder: loads the scorer, runs mining's engine, maps a few documents."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from longlode.cli.console import note, progress
from longlode.cli.dependency_maps import EXPLAIN_NAME, map_ends
from longlode.core.model_names import model_source
from longlode.core.records import write_json

if TYPE_CHECKING:
    from longlode.mining import RaceRule, Scorer, ScoreSettings, ScoreSummary
    from longlode.mining.engine import Progress
    from longlode.mining.estimators import Estimator
    from longlode.models.scorer import LMScorer
    from longlode.models.scorer_text import TokensOnly


def run_scoring(
    inputs: list[str],
    out: Path,
    *,
    scorer: str,
    estimator: "Estimator",
    settings: "ScoreSettings",
    dtype: str = "float32",
    workers: int = 1,
    explain_segments: int = 48,
    rule: "RaceRule | None" = None,
    overwrite: bool = False,
) -> "ScoreSummary":
    """Score `inputs` into `out` and write explain.json for the best and worst documents.

    A model that the estimator does not run is not loaded; then explain.json has the words behind the scores and no map.
    Args: scorer, as for `model_source`; dtype, of its model; explain_segments, segments of a document to map, 0 for
      no map; rule, to race for instead of reading all documents alike; overwrite, as of `mining.score`.
    Raises: InputError, ConfigError, ScorerError as `mining.score`.
    """
    from longlode.corpus import find_files
    from longlode.mining import race, score

    find_files(inputs)  # a slip in a name should not wait for the scorer to load
    model: LMScorer | None = None
    tokens: TokensOnly | None = None
    source: tuple[str, Callable[[], Scorer] | None] = ("", None)
    if estimator.reads_model:
        model, make_model = load_scorer(scorer, settings.segment, workers, dtype)
        source = (model.fingerprint, make_model)
    elif estimator.needs_scorer:
        tokens, make_tokens = _load_tokens(scorer, workers)
        source = (tokens.fingerprint, make_tokens)
    with progress("scoring") as update:

        def teller(remark: str) -> "Progress":
            return lambda units, total, documents, tokens: update(
                units, total, f"units{remark}: {documents:,} documents, {tokens:,} tokens"
            )

        if rule is None:
            run = functools.partial(score, progress=teller(""))
        else:
            run = functools.partial(race, rule=rule, progress=lambda number: teller(f" of round {number}"))
        summary = run(
            inputs,
            out,
            estimator=estimator,
            make_scorer=source[1],
            scorer_fingerprint=source[0],
            settings=settings,
            num_workers=workers,
            overwrite=overwrite,
        )
    _explain(out, model or tokens, model, settings, explain_segments if summary.counts.get("ok") else 0)
    return summary


def _explain(
    out: Path,
    tokens: "TokensOnly | LMScorer | None",
    model: "LMScorer | None",
    settings: "ScoreSettings",
    max_segments: int,
) -> None:
    """Write explain.json of the best and the worst documents, or remove that of an earlier run."""
    path = out / EXPLAIN_NAME
    path.unlink(missing_ok=True)  # of an earlier run, perhaps of other documents
    if tokens and max_segments:
        note("explaining the best and the worst documents")
        write_json(path, map_ends(out, tokens, settings, model=model, max_segments=max_segments))


def load_scorer(
    scorer: str, segment: int, workers: int, dtype: str = "float32"
) -> "tuple[LMScorer, Callable[[], LMScorer]]":
    """The scorer, and how workers get theirs: this very one, or in other processes one of their own."""
    from longlode.models.scorer import ScorerSpec

    note(f"loading the scorer: {scorer} in {dtype}")
    spec = ScorerSpec(model_source(scorer), segment=segment, dtype=dtype)
    model = spec()
    return model, spec if workers > 1 else lambda: model


def _load_tokens(scorer: str, workers: int) -> "tuple[TokensOnly, Callable[[], TokensOnly]]":
    """What gives the scorer's tokens, and how workers get theirs; the model stays on the disk."""
    from longlode.models.scorer_text import TokensSpec

    note(f"loading the tokenizer of the scorer: {scorer}; no pass of its model is needed")
    spec = TokensSpec(model_source(scorer))
    tokens = spec()
    return tokens, spec if workers > 1 else lambda: tokens
