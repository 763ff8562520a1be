"""Work of the stages: score by several signals, keep, pack, train, read."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.api.readers import pick_dtype
from longlode.api.results import read_result
from longlode.api.scoring import run_scoring
from longlode.cli.console import ConsoleWatch
from longlode.core.defaults import SCORER
from longlode.core.model_names import model_source
from longlode.demo import training
from longlode.demo.curves import Curves
from longlode.demo.findings import DEFAULT, GZIP
from longlode.demo.material import KINDS, REAL, File, Material, corpus_rows
from longlode.demo.pair import explain_pair

if TYPE_CHECKING:
    from longlode.mining import Scorer

TRAIN_SHARE = 0.3
"""Share of the target time for training."""
NUM_PER_KIND = 24
NUM_PROLONG = 6
"""Documents of each kind that ProLong's formulas read."""
PROLONG_PAIRS, PROLONG_SEGMENTS = 32, 12
NEAR_TOKENS = 256
PAIR = (REAL, "glued")
TRAINED, STARTER = "The model trained here", "The packaged starter"
_ROWS_PER_UNIT, _FEW_ROWS_PER_UNIT = 16, 4  # few where a document takes a second, so that the bar moves
_EXPLAIN_SEGMENTS = 48
Row = dict[str, Any]
Signals = dict[str, list[float | None]]


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """out: folder. minutes: target time. model: as `model_source` takes it. seed: draws. full: compare training too."""

    out: Path
    minutes: float
    model: str = "starter"
    seed: int = 0
    full: bool = False


def write_corpus(settings: DemoSettings, material: Material) -> list[Row]:
    """Make the documents and write them."""
    from longlode.corpus import write_documents

    rows = corpus_rows(material.files, NUM_PER_KIND, settings.seed)
    write_documents(settings.out / "corpus" / "corpus.jsonl", rows)
    return rows


def score_by_default(settings: DemoSettings, rows: Sequence[Row]) -> Signals:
    """Score the corpus into `scores`; the default score and gzip of every document."""
    out = settings.out / "scores"
    _score([str(settings.out / "corpus")], out, settings, _scorer(SCORER), explain_segments=_EXPLAIN_SEGMENTS)
    return {
        DEFAULT: _column(out, rows, "score"),
        GZIP: [None if ratio is None else 1 - ratio for ratio in _column(out, rows, "gzip_ratio")],
    }


def _scorer(name: str) -> "Scorer":
    """A scorer; those that read pairs of segments with a model read few of them."""
    from longlode.mining import SCORERS, make_scorer

    known = {field.name for field in fields(SCORERS.get(name).options_type)}
    options = {"max_segments": PROLONG_SEGMENTS} if "max_segments" in known else {}
    return make_scorer(name, pairs=PROLONG_PAIRS if options else "default", options=options)


def _score(
    inputs: Sequence[str], out: Path, settings: DemoSettings, scorer: "Scorer", explain_segments: int = 0
) -> None:
    from longlode.mining import ScoreSettings

    rows_per_unit = _FEW_ROWS_PER_UNIT if scorer.reads_model else _ROWS_PER_UNIT
    run_scoring(
        inputs,
        out,
        model=settings.model,
        scorer=scorer,
        settings=ScoreSettings(seed=settings.seed, rows_per_unit=rows_per_unit),
        explain_segments=explain_segments,
        watch=ConsoleWatch(),
    )


def _column(scores: Path, rows: Sequence[Row], name: str) -> list[float | None]:
    table = read_result(scores).table()
    found = dict(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))
    return [found.get(row["id"]) for row in rows]


def values_by(settings: DemoSettings, rows: Sequence[Row], scorer: str) -> list[float | None]:
    """Scores of documents by another scorer; its files are removed."""
    from longlode.corpus import write_documents

    with tempfile.TemporaryDirectory(prefix="longlode-demo-") as name:
        folder = Path(name)
        write_documents(folder / "some.jsonl", rows)
        _score([str(folder / "some.jsonl")], folder / "scores", settings, _scorer(scorer))
        return _column(folder / "scores", rows, "score")


def prolong_values(settings: DemoSettings, rows: Sequence[Row]) -> list[float | None]:
    """Scores by ProLong's formulas, of NUM_PROLONG documents of each kind and twice as many real ones; else None."""
    chosen: list[Row] = []
    for source, wanted in ((REAL, 2 * NUM_PROLONG), *((kind.name, NUM_PROLONG) for kind in KINDS)):
        chosen += [row for row in rows if row["source"] == source][:wanted]
    values = dict(zip([row["id"] for row in chosen], values_by(settings, chosen, "paper"), strict=True))
    return [values.get(row["id"]) for row in rows]


def explain_two(settings: DemoSettings, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The real and the glued document of median score, explained."""
    texts = {row["id"]: row["text"] for row in rows}
    return explain_pair(settings.out / "scores", texts, PAIR, _scorer(SCORER))


def select_best(settings: DemoSettings, rows: Sequence[Row]) -> list[str]:
    """Keep as many documents as there are real ones, the best first; the sources of those that are kept."""
    from longlode.corpus import Document, read
    from longlode.mining import select

    path = settings.out / "kept" / "kept.jsonl"
    path.parent.mkdir()
    num_real = sum(row["source"] == REAL for row in rows)
    select(settings.out / "scores", path, top=num_real / len(rows))
    return [item.source for item in read(path) if isinstance(item, Document)]


def pack_kept(settings: DemoSettings) -> int:
    """Pack the kept documents; returns their number of tokens."""
    from longlode.corpus import Tokenizer, read
    from longlode.packing import pack

    tokenizer = Tokenizer.load(model_source(settings.model))
    documents = read(settings.out / "kept" / "kept.jsonl")
    summary = pack(documents, tokenizer, settings.out / "shards", length=training.LENGTH)
    return int(summary["num_tokens"])


def train_on_kept(settings: DemoSettings) -> int:
    """Train for as many steps as the time allows; returns their number."""
    from longlode.packing import open_shards

    shards = settings.out / "shards"
    dtype, _ = pick_dtype("auto")
    probe = training.make_recipe(shards, 1, settings.seed, dtype)
    seconds = TRAIN_SHARE * 60 * settings.minutes
    num_steps = training.affordable_steps(probe, open_shards(shards).vocab_size, seconds)
    recipe = training.make_recipe(shards, num_steps, settings.seed, dtype)
    training.train_one(recipe, settings.out / "run", "training")
    return num_steps


def read_far(settings: DemoSettings, heldout: Sequence[File]) -> dict[str, Curves]:
    """Context curves by model: of the one trained here, and of the given one."""
    texts = [one.text for one in heldout]
    name = STARTER if settings.model == "starter" else settings.model
    return {
        one: training.context_curve(source, settings.out / "eval" / folder, texts, one, settings.seed)
        for one, source, folder in (
            (TRAINED, settings.out / "run" / "model", "trained"),
            (name, model_source(settings.model), "given"),
        )
    }
