"""From names to a scored folder: loads the model, runs mining's engine, maps a few documents."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from longlode.cli.console import note, progress
from longlode.cli.dependency_maps import EXPLAIN_NAME, map_ends
from longlode.core.model_names import model_source
from longlode.core.records import write_json

if TYPE_CHECKING:
    from longlode.mining import RaceRule, Reader, ScoreSettings, ScoreSummary
    from longlode.mining.engine import Progress
    from longlode.mining.scorers import Scorer
    from longlode.readers.lm import LMReader
    from longlode.readers.tokens import TokenReader


def run_scoring(
    inputs: list[str],
    out: Path,
    *,
    model: str,
    scorer: "Scorer",
    settings: "ScoreSettings",
    dtype: str = "float32",
    workers: int = 1,
    explain_segments: int = 48,
    rule: "RaceRule | None" = None,
    overwrite: bool = False,
) -> "ScoreSummary":
    """Score `inputs` into `out` and write explain.json for the best and worst documents.

    A model that the scorer does not run is not loaded; then explain.json has the words behind the scores and no map.
    Args: model, as for `model_source`; dtype, its own; explain_segments, segments of a document to map, 0 for
      no map; rule, to race for instead of reading all documents alike; overwrite, as of `mining.score`.
    Raises: InputError, ConfigError, ModelError as `mining.score`.
    """
    from longlode.corpus import find_files
    from longlode.mining import race, score

    find_files(inputs)  # a slip in a name should not wait for a model to load
    reader: LMReader | None = None
    tokens: TokenReader | None = None
    source: tuple[str, Callable[[], Reader] | None] = ("", None)
    if scorer.reads_model:
        reader, make_lm = load_reader(model, settings.segment, workers, dtype)
        source = (reader.fingerprint, make_lm)
    elif scorer.needs_reader:
        tokens, make_tokens = _load_tokens(model, workers)
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
            scorer=scorer,
            make_reader=source[1],
            reader_fingerprint=source[0],
            settings=settings,
            num_workers=workers,
            overwrite=overwrite,
        )
    _explain(out, reader or tokens, reader, settings, explain_segments if summary.counts.get("ok") else 0)
    return summary


def _explain(
    out: Path,
    tokens: "TokenReader | LMReader | None",
    reader: "LMReader | None",
    settings: "ScoreSettings",
    max_segments: int,
) -> None:
    """Write explain.json of the best and the worst documents, or remove that of an earlier run."""
    path = out / EXPLAIN_NAME
    path.unlink(missing_ok=True)  # of an earlier run, perhaps of other documents
    if tokens and max_segments:
        note("explaining the best and the worst documents")
        write_json(path, map_ends(out, tokens, settings, model=reader, max_segments=max_segments))


def load_reader(
    model: str, segment: int, workers: int, dtype: str = "float32"
) -> "tuple[LMReader, Callable[[], LMReader]]":
    """The reader, and how workers get theirs: this very one, or in other processes one of their own."""
    from longlode.readers.lm import ReaderSpec

    note(f"loading the model: {model} in {dtype}")
    spec = ReaderSpec(model_source(model), segment=segment, dtype=dtype)
    reader = spec()
    return reader, spec if workers > 1 else lambda: reader


def _load_tokens(model: str, workers: int) -> "tuple[TokenReader, Callable[[], TokenReader]]":
    """What gives the model's tokens, and how workers get theirs; the model stays on the disk."""
    from longlode.readers.tokens import TokenReaderSpec

    note(f"loading the tokenizer of the model: {model}; no pass of the model is needed")
    spec = TokenReaderSpec(model_source(model))
    tokens = spec()
    return tokens, spec if workers > 1 else lambda: tokens
