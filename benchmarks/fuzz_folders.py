"""Damaged folders of longlode's own, given to the commands that read them.

A command may refuse (exit status 2) or say what is wrong (1), and it may go on where the damage does not matter; it may
not end in anything but a message of ours. Beyond that:

    parts        scoring again mends them: every part is then what it was
    shards       training on them is refused, or gives the same model
    checkpoints  going on from them is refused, or gives the same model (from the older checkpoint)
    models, states   read, or refused
"""

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fuzz_mutate import damage
from benchmarks.fuzz_readers import Kind
from benchmarks.kill_cases import PREPARE, write_corpus, write_model
from benchmarks.kill_child import Outcome, command, import_what_it_imports, run_call
from benchmarks.kill_compare import snapshot

# With a learning rate that does not depend on the number of steps, a run of 4 steps is the beginning of one of 6.
_STEADY = (
    "train",
    "recipe.toml",
    "--set",
    "run.eval_every=none",
    "--set",
    "optim.schedule=constant",
    "--set",
)
_TRAIN = (*_STEADY, "run.steps=6", "-o")
_GENERATE = ("generate", "model", "--max-new-tokens", "2", "--prompt", "river")
_BAD = ("Traceback (most recent call last)", "This should not have happened", "The operating system refused")


class Folder(Kind):
    """One file of a folder damaged, then commands on a copy of the whole template."""

    limit = 100.0

    def __init__(
        self, name: str, damaged: str, commands: Sequence[tuple[str, ...]], result: str = ""
    ) -> None:
        """Args: damaged, glob of files; one is. result, what must be as undisturbed where all ends well."""
        self.name, self.damaged, self.commands, self.result = name, damaged, commands, result
        self._wanted: dict[str, str] = {}

    def prepare(self, template: Path) -> None:
        """Make the template if no kind has, and the undisturbed result."""
        make_template(template)
        place = template.with_name("undisturbed")
        if self.result:
            shutil.copytree(template, place)
            for arguments in self.commands:
                outcome = import_what_it_imports(command(arguments), template.with_name("log"), place)
                if outcome.status:
                    raise SystemExit(f"{self.name} does not run undisturbed:\n{outcome.output}")
            self._wanted = _result(place / self.result)
            shutil.rmtree(place)

    def try_one(self, draw: random.Random, template: Path, place: Path) -> str:
        """See `Kind.try_one`."""
        folder = place / "copy"
        shutil.copytree(template, folder)
        path = draw.choice(sorted(path for path in folder.glob(self.damaged) if path.is_file()))
        if draw.random() < 0.03:
            path.unlink()
        else:
            path.write_bytes(damage(path.read_bytes(), draw))
        what = path.relative_to(folder).as_posix()
        for arguments in self.commands:
            outcome = _run(arguments, folder)
            if fault := _fault(outcome):
                return f"{what}: {fault}"
            if outcome.status:
                return ""
        if self.result and _result(folder / self.result) != self._wanted:
            return f"{what}: all ended well, and the result is another"
        return ""


def make_template(template: Path) -> None:
    """The corpus, model and folders of benchmarks.kill, a run with two checkpoints and a state beside them."""
    if (template / "state").exists():
        return
    write_corpus(template)
    commands = [PREPARE["scores"], PREPARE["shards"]]
    commands += [(*_STEADY, "run.steps=4", "-o", "run")]
    commands += [(*_GENERATE[:2], "--prompt", "the river", "--save-state", "state", "--max-new-tokens", "0")]
    for call in (lambda: write_model(template), *map(command, commands)):
        outcome = import_what_it_imports(call, template.with_name("log"), template)
        if outcome.status:
            raise SystemExit(f"the template could not be made:\n{outcome.output}")


def _run(arguments: Sequence[str], folder: Path) -> Outcome:
    return run_call(command(arguments), folder.with_name(f"{folder.name}.log"), folder=folder)


def _fault(outcome: Outcome) -> str:
    end = outcome.output.strip()[-400:]
    if outcome.hung:
        return f"hung: {end}"
    if outcome.status not in (0, 1, 2):
        return f"status {outcome.status}: {end}"
    return next((f"{words}: {end}" for words in _BAD if words in outcome.output), "")


def _result(folder: Path) -> dict[str, str]:
    return {name: content for name, content in snapshot(folder).items() if "record.json" not in name}


FOLDERS: tuple[Kind, ...] = (
    Folder(
        "parts",
        "scores/parts/*",
        [PREPARE["scores"], ("select", "scores", "-o", "kept.jsonl", "--top", "0.5")],
        "scores/parts",
    ),
    Folder(
        "parts-selected",
        "scores/parts/*",
        [("select", "scores", "-o", "kept.jsonl", "--top", "0.5")],
        "kept.jsonl",
    ),
    Folder("scores-record", "scores/record.json", [("select", "scores", "-o", "kept.jsonl", "--top", "0.5")]),
    Folder("shards", "shards/**/*", [(*_TRAIN, "new")], "new/model"),
    Folder("checkpoints", "run/checkpoints/*/*", [(*_TRAIN, "run", "--resume")], "run/model"),
    Folder("model", "model/*", [_GENERATE]),
    Folder("state", "state", [(*_GENERATE, "--state", "state")]),
)
