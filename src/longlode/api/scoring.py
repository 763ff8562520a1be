"""Scoring by name: load the scorer, run mining's engine, map a few documents."""

import functools
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from longlode.api.dependency_maps import EXPLAIN_NAME, explain_ends, map_ends
from longlode.api.readers import Source, open_source
from longlode.api.results import Result, read_result
from longlode.api.watch import SILENT, Watch
from longlode.core.defaults import ROWS_PER_UNIT, SCORER, UNITS_PER_PART
from longlode.core.errors import ConfigError
from longlode.core.records import write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from longlode.corpus import Shard
    from longlode.mining import RaceRule, ScoreSettings, ScoreSummary
    from longlode.mining.engine.tally import Progress, RunProgress
    from longlode.mining.scorers import Scorer


EXPLAIN_SEGMENTS = 48
PathLike = str | os.PathLike[str]


def score(
    inputs: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    model: str = "starter",
    scorer: "str | Scorer" = SCORER,
    scorer_options: Mapping[str, Any] | None = None,
    weights: PathLike | None = None,
    segment: int = 128,
    pairs: int | Literal["default"] | None = "default",
    dtype: str = "auto",
    text_field: str = "text",
    encoding: str = "utf-8",
    limit: int | None = None,
    seed: int = 0,
    keep_pairs: bool = False,
    race: float | None = None,
    race_by: Sequence[str] = (),
    workers: int = 1,
    engine: str = "processes",
    rows_per_unit: int = ROWS_PER_UNIT,
    units_per_part: int = UNITS_PER_PART,
    shard: str = "",
    explain: bool = True,
    overwrite: bool = False,
    verify: bool = False,
    watch: Watch = SILENT,
) -> Result:
    """Score every document for long-range dependency, as `longlode score` does.

    Args: inputs: files, folders, globs or URLs.   out: folder for the scores, or its URL, where the same call goes on.
      model: "starter", a model or run folder, or a hub id; its model is read only if the score or `pairs` needs it.
      scorer: a name, or one from `mining.make_scorer`.   scorer_options: its own, if it is given by name.
      weights: folder of `fit_score`, for the profile.   segment: tokens per segment.
      pairs: pairs of segments that the model reads per document; None: all; "default": none where the score needs none.
      dtype: of the model: "float32", "bfloat16" or "auto", the faster one here.
      text_field: of records, or several: "text,content" is the first that a record has.   encoding: of texts.
      limit: score only this many rows, the first ones.   race, race_by: see `mining.RaceRule`.
      workers, engine: how many, and where: "processes" of this machine, or "ray", actors of a cluster.
      rows_per_unit, units_per_part: most documents per unit of work, and units whose results become one file.
      shard: "2/8": the second of eight shares, all written to one folder.   explain: also explain the best and worst.
      verify: hash all that is done.   watch: receives notes and progress.
    Returns: `.record` and `.table()`, one row per input document. Raises: as `mining.score`.
    """
    from longlode.corpus.mirror import output_folder
    from longlode.mining import RaceRule, ScoreSettings, check_raceable

    chosen = chosen_scorer(scorer, pairs, with_weights(scorer_options, weights))
    if (rule := None if race is None else RaceRule(top=race, by=tuple(race_by))) is not None:
        check_raceable(chosen, rule)
    paths = [os.fspath(one) for one in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    cut: dict[str, Any] = {"segment": segment, "seed": seed, "keep_pairs": keep_pairs, "engine": engine}
    cut |= {"rows_per_unit": rows_per_unit, "units_per_part": units_per_part, "encoding": encoding}
    settings = ScoreSettings(**cut, text_field=text_field, verify=verify)
    how: dict[str, Any] = {"model": model, "scorer": chosen, "settings": settings, "dtype": dtype}
    how |= {"workers": workers, "limit": limit, "rule": rule, "overwrite": overwrite, "watch": watch}
    how |= {"shard": parse_shard(shard), "explain_segments": EXPLAIN_SEGMENTS if explain else 0}
    with output_folder(out, paths, keep=True) as folder:
        run_scoring(paths, folder, **how)
        return read_result(folder)


def parse_shard(text: str) -> "Shard | None":
    """The shard that "2/8" names; None for "". Raises: ConfigError for anything else."""
    from longlode.corpus import Shard

    if not text:
        return None
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if found is None:
        raise ConfigError(f"the shard is {text!r}; expected I/N, such as 1/8 to 8/8.")
    return Shard(int(found[1]), int(found[2]))


def check_whole(rule: "RaceRule | None", shard: "Shard | None") -> None:
    """Raises: ConfigError for a race over a shard."""
    if rule is not None and shard is not None:
        raise ConfigError("a race compares all documents of the corpus; expected no shard with it.")


def with_weights(options: Mapping[str, Any] | None, weights: PathLike | None) -> dict[str, Any]:
    """Options of a scorer including its weights, by their absolute path, as worker processes need it."""
    found = dict(options or {})
    return found if weights is None else found | {"weights": str(Path(weights).expanduser().absolute())}


def chosen_scorer(
    scorer: "str | Scorer", pairs: int | Literal["default"] | None, options: Mapping[str, Any] | None
) -> "Scorer":
    """The scorer of that name with these settings, or the one given, which has its own."""
    from longlode.mining import make_scorer

    if isinstance(scorer, str):
        return make_scorer(scorer, pairs=pairs, options=options)
    if options:
        raise ConfigError(
            f"scorer_options are for a scorer by name; {scorer.name!r} is made already. Give it its options."
        )
    return scorer


def score_texts(
    texts: Sequence[str],
    *,
    model: str = "starter",
    scorer: "str | Scorer" = SCORER,
    scorer_options: Mapping[str, Any] | None = None,
    weights: PathLike | None = None,
    segment: int = 128,
    pairs: int | Literal["default"] | None = "default",
    seed: int = 0,
) -> "pa.Table":
    """Score texts in memory. Args: texts; the others as of `score`.

    Returns: a pyarrow table, a row per text in their order, with the columns of `score` that do not name a file.
    """
    from longlode.corpus import write_documents

    if isinstance(texts, str):
        raise ConfigError("texts is one string; expected a list of texts, such as [text].")
    with tempfile.TemporaryDirectory(prefix="longlode-") as folder:
        place = Path(folder)
        write_documents(
            place / "texts.jsonl",
            ({"id": str(number), "source": "texts", "text": text} for number, text in enumerate(texts)),
        )
        result = score(
            place / "texts.jsonl",
            place / "scores",
            model=model,
            scorer=scorer,
            scorer_options=scorer_options,
            weights=weights,
            segment=segment,
            pairs=pairs,
            seed=seed,
            explain=False,
        )
        return result.table().sort_by("row").drop_columns(["id", "source", "file"])


def run_scoring(
    inputs: Sequence[str],
    out: Path,
    *,
    model: str,
    scorer: "Scorer",
    settings: "ScoreSettings",
    dtype: str = "auto",
    workers: int = 1,
    limit: int | None = None,
    explain_segments: int = 48,
    rule: "RaceRule | None" = None,
    shard: "Shard | None" = None,
    overwrite: bool = False,
    watch: Watch = SILENT,
) -> "ScoreSummary":
    """Score `inputs` into `out` and write explain.json for the best and worst documents.

    A model that the scorer does not run is not loaded; then explain.json has the scorer's explanations, or the
    words behind the scores, and no map.
    Args: model, as for `model_source`; dtype, its own, as of `pick_dtype`; limit, most rows to score;
      explain_segments, segments of a document to map, 0 for no map; rule, to race by instead of reading equally many
      pairs of all documents; shard, the share; overwrite, as of `mining.score`; watch, for notes and progress.
    Raises: InputError, ConfigError, ModelError as `mining.score`.
    """
    from longlode.corpus import find_files
    from longlode.mining import race, score

    check_whole(rule, shard)
    find_files(inputs)  # a slip in a name should not wait for a model to load
    loaders = workers if settings.engine == "processes" else max(workers, 2)  # readers are made elsewhere
    source = open_source(scorer, model, settings, dtype=dtype, workers=loaders, out=out, watch=watch)
    with watch.progress("scoring", in_bytes=True) as update:

        def teller(remark: str) -> "Progress":
            def tell(done: "RunProgress") -> None:
                read = f"{done.documents:,} documents" + (f", {done.tokens:,} tokens" if done.tokens else "")
                update(done.num_bytes, done.total_bytes or None, f"{remark}{read}")

            return tell

        if rule is None:
            run = functools.partial(score, shard=shard, progress=teller(""))
        else:
            run = functools.partial(race, rule=rule, progress=lambda number: teller(f"round {number}: "))
        summary = run(
            inputs,
            out,
            scorer=scorer,
            make_reader=source.make,
            reader_fingerprint=source.fingerprint,
            settings=settings,
            num_workers=workers,
            limit=limit,
            notes=source.notes,
            overwrite=overwrite,
        )
    shown = explain_segments if summary.counts.get("ok") and not summary.shards_missing else 0
    _explain(out, scorer, source, settings, shown, watch)
    return summary


def _explain(
    out: Path,
    scorer: "Scorer",
    source: Source,
    settings: "ScoreSettings",
    max_segments: int,
    watch: Watch,
) -> None:
    """Write explain.json of the best and the worst documents, or remove that of an earlier run."""
    path = out / EXPLAIN_NAME
    path.unlink(missing_ok=True)  # of an earlier run, perhaps of other documents
    if not max_segments:
        return
    with watch.progress("explaining") as update:
        if source.reader is not None:
            found = map_ends(
                out, source.reader, settings, model=source.lm, max_segments=max_segments, update=update
            )
        else:
            found = explain_ends(out, scorer, settings, update=update)
    if found or source.reader is not None:
        write_json(path, found)
