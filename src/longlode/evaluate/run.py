"""Evaluation of a model on examples of tasks at several lengths: one row per example, and a record of the means."""

import logging
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint, text_fingerprint
from longlode.core.outputs import claim_folder
from longlode.core.records import versions, write_record
from longlode.core.rows import write_rows
from longlode.evaluate.cells import Cells
from longlode.evaluate.ranks import Ranks
from longlode.evaluate.statistics import bootstrap_mean, wilson
from longlode.evaluate.surprisal import SurprisalMeter, context_limit, make_encode
from longlode.evaluate.tasks import TASKS
from longlode.evaluate.tasks.base import Example, Metric, SpanScore, Task, TaskInfo, Tokens
from longlode.evaluate.tasks.generated import GeneratedTask
from longlode.evaluate.writing import Sampling, Writer
from longlode.models.fingerprint import model_fingerprint

_log = logging.getLogger(__name__)

EXAMPLES_NAME = "examples.parquet"
DEFAULT_SUITE = "basic"
_SEED_STRIDE = 1_000_003  # example k of seed s is made from s * stride + k: runs of seeds never overlap
_BLOCK = 32  # examples made and read at a time
GREEDY = Sampling()

Progress = Callable[[int, int, str], None]


def evaluate(
    model: Any,
    tokenizer: Any,
    *,
    tasks: Sequence[str | Task | type[Task]] | None = None,
    lengths: Sequence[int] = (512, 1024, 2048),
    out: str | os.PathLike[str],
    num_examples: int = 50,
    seed: int = 0,
    texts: Sequence[str] = (),
    name: str | None = None,
    sampling: Sampling = GREEDY,
    batch_tokens: int = 16384,
    overwrite: bool = False,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Evaluate a causal LM.

    The examples depend on the tokenizer, `lengths`, `seed`, `num_examples` and `texts`, never on the model,
    so two models that share a tokenizer get the same questions for `compare`. After a kill the same call goes on.

    Args:
      model, tokenizer: a Hugging Face causal LM and its fast tokenizer.
      tasks: names, addresses (`package.module:Class`), classes, instances; None: suite `basic`, as texts allow.
      lengths: most tokens per example, special tokens included.
      out: folder for examples.parquet (a row per example; tasks with a curve: a row per stretch of it) and record.json.
      num_examples: examples per task and length; a task with less material uses what there is (`n` in the summary).
      texts: held-out documents, needed by context_curve and loss_by_position.
      name: of the model in reports; default: its configured name or its class.
      sampling: of answers that the model writes, where a task asks for them.
      overwrite: replace an evaluation of another model or with other options that `out` holds.
      progress: called with (examples done, examples in all, task name).   ranks: that read with this one (`Ranks.run`).
    Returns: the written record's fields.
    Raises: InputError when `out` holds another result; ConfigError for unknown tasks, and lengths that the model, a
      task or the texts cannot serve.
    """
    limit = context_limit(model)
    started, chosen = time.perf_counter(), find_tasks(tasks, has_texts=bool(texts))
    _check(lengths, num_examples, limit)
    infos = {task.name: task.info() for task in chosen}
    settings = {"num_examples": num_examples, "seed": seed, **_texts_identity(texts), **_sampling(sampling)}
    asked = _asked(_model_identity(model, name), infos, lengths, settings)
    folder = claim_folder(out, "evaluation", identity=asked, overwrite=overwrite)
    plan = _plan([task.bound_to(make_encode(tokenizer), texts) for task in chosen], lengths, num_examples)
    meter = SurprisalMeter(model, batch_tokens=batch_tokens, ranks=ranks)
    writer = Writer(model, tokenizer, sampling, batch_tokens=batch_tokens, ranks=ranks)
    cells = Cells(folder, {**asked, "made_with": versions()})
    rows, examples_fingerprint = _ask_all(meter, writer, plan, seed, cells, progress)
    write_rows(folder / EXAMPLES_NAME, rows)
    fields = {
        **asked,
        "model_info": _model_info(model, limit),
        "examples_fingerprint": examples_fingerprint,
        **_results(rows, chosen, infos),
        "seconds": round(time.perf_counter() - started, 3),
    }
    write_record(folder, "evaluation", **fields)
    cells.remove()
    return fields


def _asked(
    model: Mapping[str, str],
    infos: Mapping[str, TaskInfo],
    lengths: Sequence[int],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The request of an evaluation, which tells it from others."""
    return {
        **model,
        "tasks": [*infos],
        "lengths": [*lengths],
        "settings": settings,
        "task_options": {task: info.options for task, info in infos.items()},
    }


def _results(
    rows: Sequence[dict[str, Any]], tasks: Sequence[Task], infos: Mapping[str, TaskInfo]
) -> dict[str, Any]:
    """The part of the record that the rows decide, with the description of the tasks."""
    return {
        "task_info": {name: info.to_json() for name, info in infos.items()},
        "summary": [*summarise(rows, infos), *_derived(rows, tasks)],
        "curves": curves(rows, infos),
    }


@dataclass(frozen=True)
class _Part:
    """`num` examples of one task at one length."""

    task: Task
    length: int
    num: int


def _plan(tasks: Sequence[Task], lengths: Sequence[int], num_examples: int) -> list[_Part]:
    plan = [
        _Part(task, length, task.num_available(length, num_examples)) for task in tasks for length in lengths
    ]
    usable = [part for part in plan if part.num]
    for part in plan:
        if not part.num and not usable:
            part.task.make(part.length, 0)  # raises with the reason
        if not part.num:
            _log.warning(
                "Task %s has no example of %d tokens and is left out there.", part.task.name, part.length
            )
    return usable


def _blocks(plan: Sequence[_Part]) -> Iterator[tuple[_Part, range]]:
    """All examples in blocks: the numbers of each in its part."""
    for part in plan:
        for start in range(0, part.num, _BLOCK):
            yield part, range(start, min(start + _BLOCK, part.num))


def _ask_all(
    meter: SurprisalMeter,
    writer: Writer,
    plan: Sequence[_Part],
    seed: int,
    cells: Cells,
    progress: Progress | None,
) -> tuple[list[dict[str, Any]], str]:
    """The rows of all examples, and a name for exactly these examples; finished cells are not asked again."""
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    done = 0
    for part, numbers in _blocks(plan):
        known = cells.read(part.task.name, part.length, numbers.start)
        if known is None:
            block = [part.task.make(part.length, example_seed(seed, k)) for k in numbers]
            sides = [side for example in block for side in example.conditions().values()]
            rows_here = _ask(meter, part.task, block, part.length, numbers.start)
            _judge(writer, part.task, block, rows_here, seed)
            known = ([text_fingerprint(side.text) for side in sides], rows_here)
            cells.write(part.task.name, part.length, numbers.start, *known)
        names += known[0]
        rows += known[1]
        done += len(numbers)
        if progress is not None:
            progress(done, sum(part.num for part in plan), part.task.name)
    return rows, fingerprint(names)


def example_seed(seed: int, number: int) -> int:
    """The seed of example `number` of an evaluation with `seed`."""
    return seed * _SEED_STRIDE + number


def suite_tasks(suite: str) -> list[str]:
    """Names of the tasks of a suite; "all" has every task. Raises: ConfigError for one that there is not."""
    members: dict[str, list[str]] = {"all": TASKS.names()}
    for name in members["all"]:
        for one in TASKS.get(name).suites:
            members.setdefault(one, []).append(name)
    if suite not in members:
        raise ConfigError(f"There is no suite {suite!r}; expected one of {', '.join(sorted(members))}.")
    return members[suite]


def find_tasks(
    tasks: Sequence[str | Task | type[Task]] | None,
    *,
    has_texts: bool,
    suite: str = DEFAULT_SUITE,
    repeat: int = 1,
    write: bool = False,
) -> list[Task]:
    """Tasks as instances.

    Args: tasks, as of `evaluate`; has_texts, whether there are held-out texts; suite, whose tasks are meant where
      `tasks` is None, those that need texts only where there are some; repeat, write, settings of the generated tasks
      among those named or of the suite (instances have their own). The log names the others.
    Raises: ConfigError for an unknown name, with the nearest names, for no task at all, and for two of one name.
    """
    if tasks is None:
        tasks = [name for name in suite_tasks(suite) if has_texts or not TASKS.get(name).needs_texts]
    kinds = [TASKS.get(task) if isinstance(task, str) else task for task in tasks]
    found = [_instance(kind, repeat, write) for kind in kinds]
    _tell_settings(found, repeat, write)
    names = [task.name for task in found]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"tasks are {names}; expected at least one, and none twice.")
    return found


def _instance(kind: Task | type[Task], repeat: int, write: bool) -> Task:
    if not isinstance(kind, type):
        return kind
    changed: dict[str, Any] = {"repeat": repeat} if repeat != 1 else {}
    if write:
        changed["write"] = True
    return kind(**changed) if issubclass(kind, GeneratedTask) else kind()


def _tell_settings(tasks: Sequence[Task], repeat: int, write: bool) -> None:
    """Log which tasks know nothing of repeated contexts and written answers, if these were asked for."""
    if repeat == 1 and not write:
        return
    others = [task.name for task in tasks if not isinstance(task, GeneratedTask)]
    if others:
        _log.warning(
            "Contexts are repeated and answers written in generated tasks only; as always: %s.",
            ", ".join(others),
        )


def _check(lengths: Sequence[int], num_examples: int, limit: int | None) -> None:
    if not lengths or min(lengths) < 2:
        raise ConfigError(f"lengths are {list(lengths)}; expected at least one, each of 2 tokens or more.")
    if num_examples < 1:
        raise ConfigError(f"num_examples is {num_examples}; expected at least 1.")
    if limit is not None and max(lengths) > limit:
        raise ConfigError(
            f"length {max(lengths)} is more than this model can read: its positions end at {limit} "
            f"(max_position_embeddings). Ask for lengths up to {limit}."
        )


def _read(task: Task, sides: Sequence[Example], length: int) -> list[Tokens]:
    """The tokens that the model reads of each text, which is tokenized once for all conditions that share it."""
    known: dict[str, Tokens] = {}
    for side in sides:
        if side.text not in known:
            known[side.text] = task.encode(side.text).first(length)
    return [known[side.text] if side.last is None else known[side.text].last(side.last) for side in sides]


def _ask(
    meter: SurprisalMeter, task: Task, block: Sequence[Example], length: int, start: int
) -> list[dict[str, Any]]:
    """Read all conditions of some examples and make their rows."""
    sides = [
        (k, name, side) for k, example in enumerate(block) for name, side in example.conditions().items()
    ]
    read = _read(task, [side for _, _, side in sides], length)
    spans = [
        [tokens.positions(*span) for span in side.answer_spans]
        for tokens, (_, _, side) in zip(read, sides, strict=True)
    ]
    if not all(len(part) for parts in spans for part in parts):
        raise ConfigError(
            f"task {task.name!r}: this tokenizer leaves no token of an answer within {length} tokens, so "
            "there is nothing to score. Use a longer length, or a tokenizer that covers plain English text "
            "and digits."
        )
    results = meter.read([tokens.ids for tokens in read], [np.concatenate(parts) for parts in spans])
    scores: list[dict[str, list[SpanScore]]] = [{} for _ in block]
    for (k, name, _), parts, (nats, hits) in zip(sides, spans, results, strict=True):
        edges = np.cumsum([0, *map(len, parts)])
        scores[k][name] = [
            SpanScore(part, nats[a:b], hits[a:b])
            for part, a, b in zip(parts, edges[:-1], edges[1:], strict=True)
        ]
    num_tokens = {k: len(tokens) for tokens, (k, name, _) in zip(read, sides, strict=True) if name == ""}
    rows = []
    for k, example in enumerate(block):
        fixed = {"task": task.name, "length": length, "example": start + k, "num_tokens": num_tokens[k]}
        rows += [{**fixed, **example.meta, **row} for row in task.rows(example, scores[k])]
    return rows


def _judge(
    writer: Writer, task: Task, block: Sequence[Example], rows: Sequence[dict[str, Any]], seed: int
) -> None:
    """Add to each row what the model wrote and the task's judgement of it, for examples that ask for that."""
    if not any(example.max_new_tokens for example in block):
        return
    if len(rows) != len(block):
        raise ConfigError(
            f"task {task.name!r} asks the model to write and has {len(rows)} rows for {len(block)} examples; "
            "expected one per example."
        )
    asked = [(example, row) for example, row in zip(block, rows, strict=True) if example.max_new_tokens]
    prompts = [task.encode(example.prompt).ids for example, _ in asked]
    first = rows[0]
    written = writer.write(
        prompts,
        [example.max_new_tokens for example, _ in asked],
        [example.stop for example, _ in asked],
        zlib.crc32(f"{task.name} {first['length']} {first['example']} {seed}".encode()),
    )
    for (example, row), samples in zip(asked, written, strict=True):
        row.update(task.judge(example, samples))
        row["written"] = samples[0]


def metric_columns(
    rows: Sequence[dict[str, Any]], infos: Mapping[str, TaskInfo]
) -> list[tuple[TaskInfo, int, Metric, list[dict[str, Any]]]]:
    """(task, length, metric, its rows) for everything that can be averaged in the rows of an evaluation."""
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["length"]), []).append(row)
    return [
        (infos[task], length, metric, part)
        for (task, length), part in groups.items()
        for metric in infos[task].averages
    ]


def sampling(info: TaskInfo, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Settings for resampling rows: their weights, and the groups that must be drawn together."""
    weight, group = info.weight_column, info.group_column or "example"
    return {
        "weights": [row[weight] for row in rows] if weight else None,
        "groups": [row[group] for row in rows],
    }


def summarise(rows: Sequence[dict[str, Any]], infos: Mapping[str, TaskInfo]) -> list[dict[str, Any]]:
    """One summary row per task, length and metric: mean, low, high (95 %), n examples."""
    summary = []
    for info, length, metric, part in metric_columns(rows, infos):
        values = [row[metric.name] for row in part]
        mean, low, high = bootstrap_mean(values, **sampling(info, part))
        if metric.interval == "wilson":
            low, high = wilson(sum(values), len(values))
        summary.append(
            {
                "task": info.name,
                "length": length,
                "metric": metric.name,
                "mean": mean,
                "low": low,
                "high": high,
                "n": len({row["example"] for row in part}),
                "unit": metric.unit,
                "better": metric.better,
            }
        )
    return summary


def _derived(rows: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """A summary row for each metric that a task computes from all its rows of a length; it has no interval."""
    summary = []
    for task in tasks:
        metrics = {metric.name: metric for metric in task.metrics}
        lengths: dict[int, list[dict[str, Any]]] = {}
        for row in rows:
            if row["task"] == task.name:
                lengths.setdefault(row["length"], []).append(row)
        for length, part in lengths.items():
            fixed = {"task": task.name, "length": length, "low": None, "high": None}
            fixed["n"] = len({row["example"] for row in part})
            for name, value in task.derived(part).items():
                told = metrics[name]
                summary.append(
                    {**fixed, "metric": name, "mean": value, "unit": told.unit, "better": told.better}
                )
    return summary


def curves(
    rows: Sequence[dict[str, Any]], infos: Mapping[str, TaskInfo], column: str | None = None
) -> dict[str, list[dict[str, Any]]]:
    """For each task that has a curve: the mean in each stretch of positions, {length, start, stop, mean, low, high, n}.

    Args: column, the metric to average; default: the metric of the task's curve.
    """
    found = {}
    for info in infos.values():
        if info.curve is None:
            continue
        stretches: dict[tuple[int, int, int], list[dict[str, Any]]] = {}
        for row in rows:
            if row["task"] == info.name:
                place = (row["length"], row[info.curve.start], row[info.curve.stop])
                stretches.setdefault(place, []).append(row)
        found[info.name] = [
            dict(
                zip(
                    ("length", "start", "stop", "mean", "low", "high", "n"),
                    (
                        *place,
                        *bootstrap_mean(
                            [row[column or info.curve.metric] for row in part], **sampling(info, part)
                        ),
                        len(part),
                    ),
                    strict=True,
                )
            )
            for place, part in sorted(stretches.items())
        ]
    return found


def _texts_identity(texts: Sequence[str]) -> dict[str, Any]:
    names = [text_fingerprint(text) for text in texts]
    return {"num_texts": len(texts), "texts_fingerprint": fingerprint(names)}


def _sampling(sampling: Sampling) -> dict[str, Any]:
    """Settings for the record, of other than greedy answers: records from before there were any stay valid."""
    return {} if sampling == GREEDY else asdict(sampling)


def _model_identity(model: Any, name: str | None) -> dict[str, str]:
    return {
        "model": name or getattr(model.config, "name_or_path", "") or type(model).__name__,
        "model_fingerprint": model_fingerprint(model),
    }


def _model_info(model: Any, limit: int | None) -> dict[str, Any]:
    return {
        "class": type(model).__name__,
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "device": str(model.device),
        "context_limit": limit,
    }
