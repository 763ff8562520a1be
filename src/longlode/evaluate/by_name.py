"""Evaluation by the name of a model and the paths of texts, as `longlode evaluate` does."""

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Any

from longlode.core.errors import ConfigError, InputError
from longlode.core.model_names import model_source
from longlode.core.outputs import claim_folder
from longlode.core.processes import started_ranks
from longlode.evaluate.adapters import FORMATS, find_records
from longlode.evaluate.harness import run_harness
from longlode.evaluate.lm_eval_tasks import write_lm_eval_tasks
from longlode.evaluate.ranks import Ranks
from longlode.evaluate.run import DEFAULT_SUITE, Progress, evaluate, find_tasks
from longlode.evaluate.tasks import Task
from longlode.evaluate.writing import Sampling
from longlode.parallel.world import ALONE, World, device_of_rank, joined

Path = str | os.PathLike[str]
LENGTHS = (512, 1024, 2048)
NUM_EXAMPLES = 50
NUM_EXAMPLES_OF_MANY_TASKS = 16  # `recall` on the starter then takes under two minutes of two cores
_SUITES_OF_MANY_TASKS = ("recall", "reasoning", "biographies", "procedures", "all")

_log = logging.getLogger(__name__)


def evaluate_model(
    model: Path,
    out: Path,
    *,
    tasks: Sequence[str | Task | type[Task]] | None = None,
    suite: str = DEFAULT_SUITE,
    lengths: Sequence[int] = LENGTHS,
    texts: Path | Iterable[Path] = (),
    records: Sequence[str] = (),
    text_field: str = "text",
    encoding: str = "utf-8",
    num_examples: int | None = None,
    seed: int = 0,
    repeat_context: int = 1,
    write: bool = False,
    samples: int = 1,
    temperature: float = 0.0,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Load a model and evaluate it, as `longlode evaluate` does.

    Args:
      model: a run folder, a model folder, a hub id, or "starter".
      suite: as `suite_tasks` knows them, where neither `tasks` nor `records` are given.
      texts: files, folders or globs of held-out documents, whose text is in `text_field`, in `encoding`.
      records: `FORMAT:FILE` of published benchmarks (`adapters.FORMATS`).
      num_examples: per task and length; None: 50, or 16 for a suite of many tasks (`default_examples`).
      samples, temperature: of the answers that the model writes (`Sampling`).
      device: "auto", "cpu", "cuda" ...   The others: as of `evaluate`.
    Under torchrun every rank calls this and reads a piece of every prompt; rank 0 alone writes and calls `progress`.
    Returns: the fields of `out/record.json`.
    Raises: as `evaluate`; InputError for a model or texts that are not there.
    """
    sampling = Sampling(samples, temperature)
    with joined() as world:
        documents = world.on_main(lambda: read_texts(texts, text_field, encoding))
        chosen = _chosen(tasks, records, bool(documents), suite, repeat_context, write)
        network, tokenizer = _open(model, out, "evaluation", device, world)

        def measure(ranks: Ranks | None) -> dict[str, Any]:
            return evaluate(
                network,
                tokenizer,
                tasks=chosen,
                lengths=lengths,
                out=out,
                num_examples=num_examples or default_examples(records or tasks, suite),
                seed=seed,
                texts=documents,
                name=os.fspath(model),
                sampling=sampling,
                overwrite=overwrite,
                progress=progress,
                ranks=ranks,
            )

        return measure(None) if world.size == 1 else Ranks(network, tokenizer, world).run(measure)


def _chosen(
    tasks: Sequence[str | Task | type[Task]] | None,
    records: Sequence[str],
    has_texts: bool,
    suite: str,
    repeat: int,
    write: bool,
) -> list[Task]:
    """Tasks as instances, with those of files of records."""
    given: Sequence[str | Task | type[Task]] | None = tasks
    if records:
        given = [*(tasks or ()), *find_records(records, FORMATS)]
    return find_tasks(given, has_texts=has_texts, suite=suite, repeat=repeat, write=write)


def default_examples(tasks: Sequence[Any] | None, suite: str) -> int:
    """Return the number of examples per task and length where none is given: fewer for a suite of many tasks."""
    if tasks is None and suite in _SUITES_OF_MANY_TASKS:
        return NUM_EXAMPLES_OF_MANY_TASKS
    return NUM_EXAMPLES


def write_tasks(
    model: Path,
    out: Path,
    *,
    tasks: Sequence[str | Task | type[Task]] | None = None,
    suite: str = DEFAULT_SUITE,
    lengths: Sequence[int] = LENGTHS,
    texts: Path | Iterable[Path] = (),
    text_field: str = "text",
    encoding: str = "utf-8",
    num_examples: int | None = None,
    seed: int = 0,
    repeat_context: int = 1,
    overwrite: bool = False,
) -> list[str]:
    """Write tasks as YAML of lm-eval, with lengths in tokens of a model's tokenizer; see `write_lm_eval_tasks`.

    Args: as of `evaluate_model`. Tasks of a suite that lm-eval cannot hold are left out.
    """
    documents = read_texts(texts, text_field, encoding)
    chosen = find_tasks(tasks, has_texts=bool(documents), suite=suite, repeat=repeat_context)
    if tasks is None:
        chosen = [task for task in chosen if task.curve is None]
    _, tokenizer = _open(model, out, "lm_eval_tasks", "cpu")
    return write_lm_eval_tasks(
        chosen,
        tokenizer,
        lengths=lengths,
        out=out,
        num_examples=num_examples or default_examples(tasks, suite),
        seed=seed,
        texts=documents,
        overwrite=overwrite,
    )


def evaluate_harness(
    model: Path,
    out: Path,
    *,
    tasks: Sequence[str],
    include_path: Path | None = None,
    max_length: int = max(LENGTHS),
    limit: int | None = None,
    seed: int = 0,
    device: str = "auto",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Load a model and run tasks of lm-evaluation-harness on it. Args and the rest as of `run_harness`."""
    if not tasks:
        raise ConfigError("No task of lm-eval was named; expected some, as `lm_eval ls tasks` lists them.")
    network, tokenizer = _open(model, out, "lm_eval", device)
    return run_harness(
        network,
        tokenizer,
        tasks=tasks,
        out=os.fspath(out),
        include_path=None if include_path is None else os.fspath(include_path),
        max_length=max_length,
        limit=limit,
        seed=seed,
        name=os.fspath(model),
        overwrite=overwrite,
    )


def _open(model: Path, out: Path, kind: str, device: str, world: World = ALONE) -> tuple[Any, Any]:
    """The model and its tokenizer, loaded after checking that the output can be written."""
    if started_ranks() > world.size:
        raise ConfigError(
            f"{started_ranks()} ranks were started, and lm-eval and its tasks are for one process. Leave torchrun out."
        )
    source = model_source(model)
    world.on_main(lambda: claim_folder(out, kind, identity={}))
    from longlode.models import load

    return load(source, device=device_of_rank(device))


def read_texts(inputs: Path | Iterable[Path], text_field: str = "text", encoding: str = "utf-8") -> list[str]:
    """The texts of the readable documents; a warning says how many rows were not readable.

    Raises: InputError when an input is not there, or no document is readable.
    """
    named = [os.fspath(one) for one in ([inputs] if isinstance(inputs, str | os.PathLike) else inputs)]
    if not named:
        return []
    from longlode.corpus import Document, read

    rows = list(read(named, text_field=text_field, encoding=encoding))
    texts = [row.text for row in rows if isinstance(row, Document)]
    if not texts:
        raise InputError(f"The texts {' '.join(named)} hold no readable document.")
    if len(texts) < len(rows):
        _log.warning(
            "%d of %d rows of the texts are no documents and are left out.", len(rows) - len(texts), len(rows)
        )
    return texts
