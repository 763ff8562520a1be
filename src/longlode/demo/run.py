"""The demo's stages, one after the other, each timed; `run_demo` reads from top to bottom.

Time decides two numbers only, each once and for both models alike: how many documents are scored, and how
many steps the models train. Everything else is fixed by the seed.
"""

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from longlode.api.scores import score_rows, signal_by_source
from longlode.api.scoring import run_scoring
from longlode.api.training import train_run
from longlode.cli.console import ConsoleWatch, note, progress, say
from longlode.cli.train import watched
from longlode.core.defaults import SCORER
from longlode.core.kinds import RECORD_NAME
from longlode.core.model_names import model_source
from longlode.core.outputs import claim_folder
from longlode.core.records import write_record
from longlode.demo.findings import FILES, Auc, auc, findings
from longlode.demo.material import INTACT, SPLICED, Material, corpus_rows, gather

if TYPE_CHECKING:
    from longlode.mining import ScoreSummary
    from longlode.train import Recipe

SELECTED, RANDOM = "selected", "random"
SCORE_SHARE, TRAIN_SHARE = 0.3, 0.18
"""Parts of the time aimed at: for scoring, and for training each model."""
MIN_PAIRS, MAX_PAIRS = 20, 100
MIN_STEPS, MAX_STEPS = 40, 600
NUM_STAGES = 7
_LENGTH, _BATCH_SIZE = 256, 8
_TASKS = ("loss_by_position", "passkey", "repeated_list")
_EVAL_LENGTHS = (512,)
_NUM_EXAMPLES = 64
_ROWS_PER_UNIT = 8
_MAX_SEGMENTS = 16  # of a document, for scorers whose model reads pairs of segments
_PAIRS = 500  # at most, for the same scorers
_SIGNALS = {"score": "score", "mean strength": "strength_mean", "gzip": "1 - gzip_ratio"}
_EXPLAIN_SEGMENTS = 24
_PROBE_DOCUMENTS, _PROBE_STEPS = 2, 3
_MADE = ("probe", "corpus", "scores", "halves", "shards", "runs", "eval", "report.html", RECORD_NAME)


@dataclass(frozen=True, kw_only=True)
class DemoSettings:
    """out: folder. minutes: to aim at. model: as `model_source` takes it. scorer: a name. seed: draws."""

    out: Path
    minutes: float
    model: str = "starter"
    scorer: str = SCORER
    seed: int = 0


class Stages:
    """Times the stages and says what is going on; `done` is what the record keeps."""

    def __init__(self) -> None:
        """Nothing is done yet."""
        self.done: list[dict[str, Any]] = []

    @contextmanager
    def __call__(self, name: str, about: str) -> Iterator[dict[str, Any]]:
        """Run one stage; what the body puts into the yielded dict is printed and kept."""
        note(f"[{len(self.done) + 1}/{NUM_STAGES}] {about}")
        started = time.monotonic()
        facts: dict[str, Any] = {}
        yield facts
        seconds = time.monotonic() - started
        self.done.append({"name": name, "seconds": round(seconds, 2), "summary": facts})
        shown = ", ".join(f"{key.replace('_', ' ')} {_shown(value)}" for key, value in facts.items())
        say(f"[bold]{name:9}[/] {seconds:6.1f} s   {escape(shown)}")


def run_demo(settings: DemoSettings, *, overwrite: bool = False) -> list[str]:
    """Run all stages into `settings.out`; returns the findings.

    Args: overwrite: replace a demo of other settings that lies there.
    Raises: what the rooms raise.
    """
    out, stages = settings.out, Stages()
    clear(settings, overwrite=overwrite)
    with stages("gather", "reading Python's own library and splicing controls") as facts:
        material = gather(settings.seed)
        rows = _write_corpus(settings, material)
        facts |= {**Counter(row["source"] for row in rows), "held_out": len(material.heldout)}
    with stages("score", f"scoring {len(rows)} documents") as facts:
        _score(settings, [str(out / "corpus")], out / "scores", _EXPLAIN_SEGMENTS)
        separation = _separation(out / "scores")
        facts |= {f"AUC_{name}": one.value for name, one in separation.items()}
    with stages("select", "taking the best half, and a random half") as facts:
        halves = _select(settings, rows)
        facts |= {f"{name}_intact": counts[INTACT] for name, counts in halves.items()}
    with stages("pack", "packing both halves") as facts:
        facts |= _pack(settings)
    with stages("train", "training a small DeltaNet on each half, equal steps and tokens") as facts:
        facts |= _train(settings)
    with stages("evaluate", "evaluating both on held-out files") as facts:
        comparison = _evaluate(settings, material)
        facts |= {"examples": _num_examples(comparison)}
    found = findings(separation, halves, comparison)
    record = {
        "settings": _recorded(settings),
        "auc": {name: {SPLICED: one.value} for name, one in separation.items()},
        "auc_intervals": {name: asdict(one) for name, one in separation.items()},
        "halves": halves,
        "compare": comparison,
        "findings": found,
        "labels": {row["id"]: row["source"] for row in rows},
    }
    with stages("report", "writing the report") as facts:
        from longlode.report import build

        write_record(out, "demo", status="finished", stages=stages.done, **record)
        build([out], out / "report.html")
        facts |= {"kilobytes": (out / "report.html").stat().st_size // 1024}
    write_record(out, "demo", status="finished", stages=stages.done, **record)
    return found


def clear(settings: DemoSettings, *, overwrite: bool = False) -> None:
    """Make the folder of a demo ready: new, empty, or that of the same demo made before, whose pieces are removed."""
    out = claim_folder(settings.out, "demo", identity={"settings": _recorded(settings)}, overwrite=overwrite)
    for name in _MADE:
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_record(out, "demo", status="running", settings=_recorded(settings))


def _recorded(settings: DemoSettings) -> dict[str, Any]:
    """The settings that decide what the demo finds."""
    return {name: value for name, value in asdict(settings).items() if name != "out"}


def _write_corpus(settings: DemoSettings, material: Material) -> list[dict[str, Any]]:
    """Write as many documents as the time allows, after scoring a few to see how long one takes."""
    from longlode.corpus import write_documents

    probe = settings.out / "probe"
    write_documents(probe / "corpus.jsonl", corpus_rows(material, _PROBE_DOCUMENTS, settings.seed))
    summary = _score(settings, [str(probe / "corpus.jsonl")], probe / "scores", 0)
    seconds = summary.seconds / summary.num_documents
    shutil.rmtree(probe)
    affordable = int(SCORE_SHARE * 60 * settings.minutes / (2 * seconds))
    num_pairs = min(max(affordable, MIN_PAIRS), MAX_PAIRS, len(material.intact))
    rows = corpus_rows(material, num_pairs, settings.seed)
    write_documents(settings.out / "corpus" / "corpus.jsonl", rows)
    return rows


def _score(settings: DemoSettings, inputs: list[str], out: Path, explain_segments: int) -> "ScoreSummary":
    from longlode.mining import SCORERS, ScoreSettings, make_scorer

    known = {field.name for field in fields(SCORERS.get(settings.scorer).options_type)}
    options = {"max_segments": _MAX_SEGMENTS} if "max_segments" in known else {}
    return run_scoring(
        inputs,
        out,
        model=settings.model,
        scorer=make_scorer(settings.scorer, pairs=_PAIRS, options=options),
        settings=ScoreSettings(seed=settings.seed, rows_per_unit=_ROWS_PER_UNIT),
        explain_segments=explain_segments,
        watch=ConsoleWatch(),
    )


def _separation(scores: Path) -> dict[str, Auc]:
    """AUC, intact against spliced, of the score and of two baselines."""
    found = {}
    for name, expression in _SIGNALS.items():
        values = signal_by_source(scores, expression)
        one = auc(values.get(INTACT, []), values.get(SPLICED, []))
        if one is not None:
            found[name] = one
    return found


def _select(settings: DemoSettings, rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Write the two halves; returns what each holds: documents by source, and of how many files."""
    from longlode.corpus import Document, read, write_documents
    from longlode.mining import select

    folder = settings.out / "halves"
    summary = select(settings.out / "scores", folder / f"{SELECTED}.jsonl", top=0.5)
    scored_ids = {row["id"] for row in score_rows(settings.out / "scores", order="best", limit=len(rows))}
    scored = [row for row in rows if row["id"] in scored_ids]
    chosen = random.Random(settings.seed).sample(scored, summary.num_selected)
    write_documents(folder / f"{RANDOM}.jsonl", chosen)
    halves = {}
    for name in (SELECTED, RANDOM):
        documents = [item for item in read(folder / f"{name}.jsonl") if isinstance(item, Document)]
        counts = Counter(document.source for document in documents)
        files = {file for document in documents for file in document.metadata["made_of"]}
        halves[name] = {INTACT: counts[INTACT], SPLICED: counts[SPLICED], FILES: len(files)}
    return halves


def _pack(settings: DemoSettings) -> dict[str, int]:
    from longlode.corpus import Tokenizer, read
    from longlode.packing import pack

    tokenizer = Tokenizer.load(model_source(settings.model))
    num_tokens = {}
    for name in (SELECTED, RANDOM):
        documents = read(settings.out / "halves" / f"{name}.jsonl")
        summary = pack(documents, tokenizer, settings.out / "shards" / name, length=_LENGTH)
        num_tokens[f"{name}_tokens"] = summary["num_tokens"]
    return num_tokens


def _train(settings: DemoSettings) -> dict[str, int]:
    """Train a model on each half, for as many steps as the time allows one of them, the same for both."""
    from longlode.packing import open_shards

    vocab_size = open_shards(settings.out / "shards" / SELECTED).vocab_size
    seconds = _seconds_per_step(_recipe(settings, RANDOM, 1), vocab_size)
    affordable = int(TRAIN_SHARE * 60 * settings.minutes / seconds)
    num_steps = min(max(affordable, MIN_STEPS), MAX_STEPS)
    for name in (SELECTED, RANDOM):
        recipe = _recipe(settings, name, num_steps)
        with watched(f"training, {name} half") as (_, tell):
            train_run(recipe, settings.out / "runs" / name, on_step=tell)
    return {"steps": num_steps, "tokens_each": num_steps * _LENGTH * _BATCH_SIZE}


def _recipe(settings: DemoSettings, half: str, num_steps: int) -> "Recipe":
    from longlode.train import Recipe

    return Recipe.parse(
        {
            "model": {
                "mixers": "D*2",
                "hidden_size": 128,
                "num_heads": 2,
                "tie_word_embeddings": True,
                # About 1 / sqrt(hidden_size): the paper's 0.02 stands on the unigram plateau for most of the minute.
                "initializer_range": 0.08,
            },
            "data": {
                "shards": str(settings.out / "shards" / half),
                "length": _LENGTH,
                "batch_size": _BATCH_SIZE,
                "packed": False,
            },
            "optim": {"lr": 6e-3, "warmup_steps": min(20, num_steps), "schedule": "cosine"},
            "run": {"steps": num_steps, "seed": settings.seed, "device": "cpu", "checkpoint_every": None},
        }
    )


def _seconds_per_step(recipe: "Recipe", vocab_size: int) -> float:
    """Time of one training step on this machine: the fastest of a few, after one to warm up."""
    import numpy as np

    from longlode.core.batch import Batch
    from longlode.train import build_model
    from longlode.train.loop import training_step
    from longlode.train.optim import build_optimizer

    model = build_model(recipe, vocab_size)
    optimizer = build_optimizer(model, recipe.optim)
    tokens = np.random.default_rng(0).integers(0, vocab_size, (_BATCH_SIZE, _LENGTH))
    times = []
    for _ in range(1 + _PROBE_STEPS):
        started = time.monotonic()
        training_step(model, Batch(tokens, tokens), optimizer, 1e-4, recipe)
        times.append(time.monotonic() - started)
    return min(times[1:])


def _evaluate(settings: DemoSettings, material: Material) -> dict[str, Any]:
    """Evaluate both models task by task; returns the paired comparison, selected minus random."""
    from longlode.evaluate import compare, evaluate
    from longlode.models import load

    texts = [text for _, text in material.heldout]
    folders = {name: settings.out / "eval" / name for name in (RANDOM, SELECTED)}
    for name, folder in folders.items():
        model, tokenizer = load(settings.out / "runs" / name / "model")
        with progress(f"evaluating, {name} half") as update:
            evaluate(
                model,
                tokenizer,
                tasks=_TASKS,
                lengths=_EVAL_LENGTHS,
                out=folder,
                num_examples=_NUM_EXAMPLES,
                seed=settings.seed,
                texts=texts,
                name=f"{name} half",
                progress=update,
            )
    return compare(folders[RANDOM], folders[SELECTED])


def _num_examples(comparison: dict[str, Any]) -> int:
    return sum(row["n"] for row in comparison["rows"] if row["metric"] == "hard")


def _shown(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
