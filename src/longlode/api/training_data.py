"""The data of a run: shards of each stage, their rows step by step, and held-out rows."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.core.mixes import parse_mix

if TYPE_CHECKING:
    from longlode.packing import Mixture, Packer, Schedule, Shards, SourceReport
    from longlode.train import Recipe
    from longlode.train.sections import DataSection
    from longlode.train.skill_it import SkillIt
    from longlode.train.stages import Stage


@dataclass(frozen=True)
class RunData:
    """Shards of a run and what its stages read of them. `facts`: fields of the run's record on them."""

    recipe: "Recipe"
    by_folders: "dict[tuple[str, ...], Shards]"
    facts: dict[str, Any]

    @cached_property
    def skill_it(self) -> "SkillIt | None":
        """The shares of the run's groups where they follow held-out losses.

        Raises: ConfigError for settings that are invalid.
        """
        from longlode.train.skill_it import SkillIt, SkillItSection

        data = self.recipe.data
        if data.skill_it is None or data.mix is None:
            return None
        return SkillIt(SkillItSection.of(data.skill_it), parse_mix(data.mix), self.heldout)

    def recall_shares(self, rows: Iterable[dict[str, Any]]) -> None:
        """Take back the shares that a run has chosen. Args: rows, of its metrics.jsonl."""
        if self.skill_it is not None:
            self.skill_it.changes += [(row["step"], row["shares"]) for row in rows if "shares" in row]

    def _mixture(self, stage: "Stage") -> "Mixture | None":
        """Return the mixture of a stage; one with a mix of its own keeps it, others follow the losses."""
        from longlode.packing import Mixture

        data = stage.data
        if data.mix is None:
            return None
        follows = self.skill_it is not None and data.mix == self.recipe.data.mix
        changes = self.skill_it.changes_from(stage.first_step) if self.skill_it and follows else ()
        return Mixture(parse_mix(data.mix), data.mix_epochs, changes)

    @property
    def shards(self) -> "Shards":
        """The shards of [data], or of the first stage."""
        return next(iter(self.by_folders.values()))

    @property
    def fingerprint(self) -> str:
        """Hash of the content of all shards."""
        names = [shards.fingerprint for shards in self.by_folders.values()]
        return names[0] if len(names) == 1 else fingerprint(names)

    def check_batches(self) -> None:
        """Read the first batch of each stage and of the held-out rows: a run must not fail for want of them later.

        Raises: InputError, as `packing.batches`.
        """
        for stage in self.recipe.stage_list:
            next(self._stage_batches(stage, 0))
        if self.recipe.data.heldout_fraction:
            next(self.heldout())
        for name in () if self.skill_it is None else self.skill_it.names:
            next(self.heldout(name))

    def batches(self, step: int) -> Iterator[Batch]:
        """Yield the batches from a step of the run on, stage after stage."""
        from longlode.train.stages import from_step

        for stage, begin, steps in from_step(self.recipe.stage_list, step):
            yield from itertools.islice(self._stage_batches(stage, begin), steps)

    def heldout(self, group: str | None = None) -> Iterator[Batch]:
        """Yield held-out batches: rows of [data] by `concat`, whatever the stage, so that they can be compared.

        What the packer of [data] inserts (landmarks) stands in them too.

        Args: group, of the mixture, whose documents alone are read; None: all.
        """
        from longlode.packing import Mixture, batches

        data = self.recipe.data
        return batches(
            self.shards,
            length=data.length,
            batch_size=data.batch_size,
            seed=self.recipe.run.seed,
            packer=_packer(data).for_heldout(),
            packed=data.packed,
            split="heldout",
            heldout_fraction=data.heldout_fraction,
            mix=None if group is None else Mixture({group: 1}),
        )

    def schedule(self, stage: "Stage") -> "Schedule":
        """Return the plan of a stage's rows."""
        from longlode.packing import plan

        data = stage.data
        return plan(
            self.by_folders[_folders(data)],
            _packer(data),
            length=data.length,
            batch_size=data.batch_size,
            seed=stage.seed(self.recipe.run.seed),
            heldout_fraction=data.heldout_fraction,
            mix=self._mixture(stage),
        )

    def describe(self, step: int) -> list[dict[str, Any]]:
        """Name the documents of the batch of a step, from 0: id, source, file, row, first token read and last + 1."""
        from longlode.train.stages import stage_at

        stage = stage_at(self.recipe.stage_list, step)
        shards = self.by_folders[_folders(stage.data)]
        documents = shards.split("train", stage.data.heldout_fraction)
        rows = self.schedule(stage).step(step - stage.first_step).rows
        pieces = [piece for row in rows for piece in row]
        places = [int(documents[piece.document]) for piece in pieces]
        names = {
            name: shards.column(name).take(places).to_pylist() for name in ("id", "source", "file", "row")
        }
        return [
            {name: values[number] for name, values in names.items()} | {"tokens": [piece.start, piece.stop]}
            for number, piece in enumerate(pieces)
        ]

    def warnings(self) -> Iterator[str]:
        """Yield messages on data that a model to start from may not understand."""
        start = self.recipe.run.start
        known = None if start is None else _vocabulary(start)
        if known is not None and _tokens(self.shards.tokenizer_folder) != known:
            yield (
                f"the shards were packed by another tokenizer than that of run.start {start!r}: the model will read "
                f"other words. Pack again with --tokenizer {start}."
            )

    def _stage_batches(self, stage: "Stage", begin: int) -> Iterator[Batch]:
        from longlode.packing import batches

        data = stage.data
        return batches(
            self.by_folders[_folders(data)],
            length=data.length,
            batch_size=data.batch_size,
            seed=stage.seed(self.recipe.run.seed),
            packer=_packer(data),
            start_step=begin,
            packed=data.packed,
            heldout_fraction=data.heldout_fraction,
            mix=self._mixture(stage),
        )


def open_run_data(
    recipe: "Recipe", known: list[str] | None, verify: bool | None, tell: Callable[[str], None]
) -> RunData:
    """Open the shards of a recipe and its stages.

    Args: known: the shards that an earlier session of the run has verified; verify: as in `train_run`.
    Raises: ConfigError if a recipe names no shards, or shards of several tokenizers; InputError as `open_shards`.
    """
    from longlode.packing import open_shards

    sections = [recipe.data, *(stage.data for stage in recipe.stage_list)]
    needed = sections if recipe.data.heldout_fraction else sections[1:]
    named = list(dict.fromkeys(_folders(section) for section in needed))
    if not all(named):
        raise ConfigError(
            "The recipe names no shards; make some with longlode pack, then add --set data.shards=FOLDER."
        )
    paths = [str(Path(folder).resolve()) for folders in named for folder in folders]
    if verify is None:
        verify = known != paths
    if verify:
        tell("Verifying the checksums of the shards.")
    found = {folders: open_shards(list(folders), verify=verify) for folders in named}
    if len({shards.tokenizer_fingerprint for shards in found.values()}) > 1:
        raise ConfigError("The stages name shards of several tokenizers; pack them all with one.")
    return RunData(recipe, found, {"shards": paths, "verified": verify or known == paths})


def mixed_sources(schedule: "Schedule", num_steps: int | None) -> "tuple[SourceReport, ...]":
    """The parts of a stage that come from each group; of one limited by time, in as many steps as there are rows."""
    from longlode.packing import MixedSchedule

    if not isinstance(schedule, MixedSchedule):
        return ()
    return tuple(schedule.sources(num_steps or schedule.num_rows))


def _folders(data: "DataSection") -> tuple[str, ...]:
    named = data.shards
    return (named,) if isinstance(named, str) else tuple(named or ())


def _packer(data: "DataSection") -> "Packer":
    from longlode.packing import make_packer

    return make_packer(data.packer, data.packer_options)


def _tokens(folder: Path) -> dict[str, int]:
    """Return the tokens of the tokenizer in a folder of shards, with their ids."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()


def _vocabulary(model: str) -> dict[str, int] | None:
    """Return the tokens of a model's tokenizer with their ids; None if it has none that can be loaded."""
    from longlode.core.errors import LonglodeError
    from longlode.models.load import load_tokenizer

    try:
        return load_tokenizer(model).get_vocab()
    except LonglodeError:
        return None
