"""Run folders: files, locking, checkpoints, record.

record.json      settings and result of the run          metrics.jsonl    one row per logged step
checkpoints/     see checkpoint.py                       model/           Hugging Face folder, at the end
skipped.jsonl    steps that were left out, and their     tensorboard/     events, if run.track names it
                 documents
"""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from longlode.core.errors import InputError
from longlode.core.kinds import RECORD_NAME
from longlode.core.locks import write_lock
from longlode.core.outputs import claim_folder
from longlode.core.records import (
    append_jsonl,
    read_jsonl,
    read_record,
    remove_leftovers,
    sync_folder,
    write_jsonl,
    write_record,
)
from longlode.models.card import add_training
from longlode.ops import used_backends
from longlode.parallel.world import ALONE, World
from longlode.train.checkpoint import (
    RunState,
    check_identity,
    load_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
    remove_unfinished,
    run_identity,
    save_checkpoint,
    set_aside_newer,
)
from longlode.train.recipe import Recipe
from longlode.train.sharding import is_sharded, whole_state
from longlode.train.sinks import Sinks

_LOCK = ".lock"
_TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)

logger = logging.getLogger(__name__)


class RunFolder:
    """One run's folder. All its files are written through this class, inside `with run.opened()`.

    With several ranks all of them call its methods at the same time, and rank 0 writes.
    """

    def __init__(
        self,
        path: Path,
        recipe: Recipe,
        data_fingerprint: str,
        data_facts: dict[str, Any] | None = None,
        world: World = ALONE,
    ) -> None:
        """Store the run's settings. data_facts: further facts about the data for the record."""
        self.world = world
        self.path = path
        self.recipe = recipe
        self.data_fingerprint = data_fingerprint
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.skipped = path / "skipped.jsonl"
        self.saved_step: int | None = None
        self.resumed_from: int | None = None
        self.skipped_checkpoints: list[str] = []
        self.loss: float | None = None
        self.eval_loss: float | None = None
        self.evaluated_step: int | None = None
        self.facts: dict[str, Any] = {}
        self._backends_before: dict[str, list[str]] = {}
        self._backends_recorded: dict[str, list[str]] = {}
        self.data_facts = data_facts or {}
        self.sinks: Sinks | None = None

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Make the folder and lock it against other writers.

        Raises: InputError if it cannot be made, or while another session writes to it.
        """
        with contextlib.ExitStack() as held:
            self.world.on_main(lambda: self._lock(held))
            try:
                yield
            finally:
                if self.sinks is not None:
                    self.sinks.close()

    def _lock(self, held: contextlib.ExitStack) -> None:
        with _writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        held.enter_context(write_lock(self.path / _LOCK, f"run folder {self.path}"))

    def restore(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, resume: bool) -> RunState:
        """Begin the run at step 0, or with `resume` at the newest checkpoint that verifies.

        Rows of metrics.jsonl beyond that checkpoint are removed, as their steps will be repeated.
        Raises: InputError if the folder holds another run and `resume` is False, holds anything else, or cannot be
          made; CheckpointError if no checkpoint verifies, or if it is of another recipe or other data.
        """
        found, self.skipped_checkpoints = self.world.on_main(lambda: self._newest(resume))
        state = RunState()
        if found is not None:
            checkpoint = Path(found)
            check_identity(checkpoint, self.recipe, self.data_fingerprint)
            state = load_checkpoint(checkpoint, model, optimizer, self.world.rank)
            self.saved_step = self.resumed_from = state.step
            logger.info("Resumed from %s.", checkpoint)
        elif resume:
            logger.warning("%s holds no checkpoint; the run starts at step 0.", self.checkpoints)
        for line in self.skipped_checkpoints:
            logger.warning("Checkpoint skipped and set aside as unusable-*: %s.", line)
        noted = self.world.on_main(lambda: self._tidy(state.step))
        self.world.on_main(lambda: self._open_sinks(state.step))
        self.loss, self.eval_loss, self.evaluated_step = noted
        return state

    def _newest(self, resume: bool) -> tuple[str | None, list[str]]:
        """Check the folder; return the newest checkpoint that verifies, and why newer ones do not."""
        with _writing(self.path):
            self._check_empty_or_ours(resume)
            remove_leftovers(self.path, sole_writer=True)
            self.checkpoints.mkdir(exist_ok=True)
        if (self.path / RECORD_NAME).exists():
            self._backends_before = read_record(self.path, "run").get("backends", {})
        checkpoint, skipped = newest_checkpoint(self.checkpoints)
        return None if checkpoint is None else str(checkpoint), skipped

    def _open_sinks(self, step: int) -> None:
        if self.recipe.run.track:
            self.sinks = Sinks(list(self.recipe.run.track), self.path, step)

    def _tidy(self, step: int) -> tuple[float | None, float | None, int | None]:
        """Remove what killed sessions left beyond `step`; return the newest losses and the step of the last."""
        with _writing(self.path):
            set_aside_newer(self.checkpoints, step)
            remove_unfinished(self.checkpoints)
            if (
                self.saved_step is not None
            ):  # a session killed while it removed an old checkpoint left its remains
                prune_checkpoints(self.checkpoints, self.recipe.run.keep)
            for file in (self.skipped, self.metrics):
                if file.exists():
                    rows = [row for row in read_jsonl(file) if row["step"] <= step]
                    write_jsonl(file, rows)
                    for row in rows:
                        self._note(row)
        return self.loss, self.eval_loss, self.evaluated_step

    def _check_empty_or_ours(self, resume: bool) -> None:
        # A run killed before its record was written leaves an empty checkpoints folder and nothing else.
        claim_folder(
            self.path,
            "run",
            identity={} if resume else None,
            advice="continue its run with --resume",
        )

    def log(self, row: dict[str, Any]) -> None:
        """Add a row to metrics.jsonl, and send it to the sinks."""
        if self.world.is_main:
            with _writing(self.metrics):
                append_jsonl(self.metrics, row)
            if self.sinks is not None:
                self.sinks.log(row)
        self._note(row)

    def log_skip(self, row: dict[str, Any], describe: Callable[[int], list[dict[str, Any]]] | None) -> None:
        """Add a step that was left out to skipped.jsonl, with the documents of its batch.

        Args: describe: names the documents of the batch of a step, from 0; None: nothing is known of them.
        """
        if self.world.is_main:
            documents = {} if describe is None else {"documents": describe(row["step"] - 1)}
            with _writing(self.skipped):
                append_jsonl(self.skipped, row | documents)

    def _note(self, row: dict[str, Any]) -> None:
        if "eval_loss" in row:
            self.eval_loss, self.evaluated_step = row["eval_loss"], row["step"]
        elif "loss" in row and not row.get("skipped"):
            self.loss = row["loss"]

    def save(self, model: PreTrainedModel, optimizer: torch.optim.Optimizer, state: RunState) -> None:
        """Save a checkpoint of `state` unless there is one, then remove the oldest ones."""
        if self.saved_step == state.step:
            return
        self.world.on_main(lambda: self._before_save(state))
        identity = run_identity(self.recipe, self.data_fingerprint, self.world.size)
        save_checkpoint(self.checkpoints, model, optimizer, state, identity, self.world)
        self.saved_step = state.step
        if self.world.is_main:
            prune_checkpoints(self.checkpoints, self.recipe.run.keep)

    def _before_save(self, state: RunState) -> None:
        # Before the checkpoint: a session that continues from it may have no step left that would write them.
        if self._backends() != self._backends_recorded:
            self.write_record("running", state)
        if self.metrics.exists():
            with self.metrics.open("rb") as stream:
                os.fsync(stream.fileno())

    def export(self, model: PreTrainedModel, tokenizer_folder: Path | None) -> Path:
        """Write model/ with the tokenizer's files, replacing an older one."""
        weights = whole_state(model) if is_sharded(model) else None
        self.world.on_main(
            lambda: self._export(partial(model.save_pretrained, state_dict=weights), tokenizer_folder)
        )
        return self.path / "model"

    def _export(self, save_model: Callable[[Path], None], tokenizer_folder: Path | None) -> None:
        folder, unfinished, old = (
            self.path / "model",
            self.path / ".model.unfinished",
            self.path / ".model.old",
        )
        with _writing(folder):
            for leftover in (unfinished, old):
                shutil.rmtree(leftover, ignore_errors=True)
            unfinished.mkdir()
            save_model(unfinished)
            add_training(unfinished, self._card_facts())
            if tokenizer_folder is not None:
                _copy_tokenizer(tokenizer_folder, unfinished)
            if folder.exists():
                folder.rename(old)
            unfinished.rename(folder)
            sync_folder(self.path)
            shutil.rmtree(old, ignore_errors=True)

    def _card_facts(self) -> list[tuple[str, str]]:
        """The lines of the model card on the training; no paths, which say nothing elsewhere."""
        data, run, optim = self.recipe.data, self.recipe.run, self.recipe.optim
        steps = (
            "as many as its time allowed" if self.recipe.num_steps is None else f"{self.recipe.num_steps:,}"
        )
        if self.recipe.stages:
            steps += f", in {len(self.recipe.stages)} stages; below is what they begin with"
        return [
            ("objective", f"`{optim.objective}`"),
            ("steps", steps),
            ("tokens of a step", f"{data.batch_size} rows of {data.length:,}"),
            (
                "learning rate",
                f"{optim.lr:g}, schedule `{optim.schedule}`, {optim.warmup_steps:,} steps of warm-up",
            ),
            ("packer", f"`{data.packer}`"),
            ("seed, dtype of matrix products", f"{run.seed}, {run.dtype}"),
            ("fingerprint of the data", f"`{self.data_fingerprint[:16]}`"),
        ]

    def start_record(
        self, model: PreTrainedModel, state: RunState, flops_per_second: float | None = None
    ) -> None:
        """Record the model and the machine, with the status of a run in progress."""
        self.facts = {
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "model_config": orjson.loads(model.config.to_json_string()),
            "device": str(next(model.parameters()).device),
            "threads": self.recipe.run.threads or torch.get_num_threads(),
            "ranks": self.world.size,
            "matrix_flops_per_second": flops_per_second,
        }
        self.write_record("running", state)

    def _backends(self) -> dict[str, list[str]]:
        """Return the backends used in the run, in earlier sessions and then in this process; op -> names."""
        before, now = self._backends_before, used_backends()
        ops = dict.fromkeys([*before, *now])
        return {op: list(dict.fromkeys([*before.get(op, ()), *now.get(op, ())])) for op in ops}

    def write_record(self, status: str, state: RunState, **results: Any) -> None:
        """Write record.json: resolved recipe, data, progress, losses (nats per token), backends used, `results`."""
        if not self.world.is_main:
            return
        self._backends_recorded = self._backends()
        with _writing(self.path):
            write_record(
                self.path,
                "run",
                status=status,
                recipe=self.recipe.resolved(),
                recipe_fingerprint=self.recipe.fingerprint(),
                data_fingerprint=self.data_fingerprint,
                data=self.data_facts,
                steps=state.step,
                tokens=state.tokens,
                seconds=round(state.seconds, 3),
                skips=state.skips,
                resumed_from=self.resumed_from,
                skipped_checkpoints=self.skipped_checkpoints,
                loss=self.loss,
                eval_loss=self.eval_loss,
                backends=self._backends_recorded,
                **self.facts,
                **results,
            )


def _copy_tokenizer(source: Path, target: Path) -> None:
    found = sorted({path for pattern in _TOKENIZER_FILES for path in source.glob(pattern)})
    if not found:
        raise InputError(f"{source} has no tokenizer files; expected at least tokenizer.json.")
    for path in found:
        shutil.copy2(path, target / path.name)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into an InputError that names `path`."""
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors raises its own error for a full disk
        raise InputError(f"{path} cannot be written: {error}. Make room or pick another folder.") from error
