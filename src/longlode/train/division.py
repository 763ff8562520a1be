"""Division of a batch among the ranks: who reads which part, alone or together with other ranks.

    Grid           data ranks x sequence ranks: groups of one size, the same in every step
    FittedGroups   groups of different sizes, chosen for the documents of each step (`parallel.planner`)

All ranks know the whole batch and get equally many shares of it, so that they run the model equally often (FSDP gathers
weights in every pass). How a batch is divided changes no step beyond rounding.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch.distributed as dist
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.parallel import GroupTransport
from longlode.parallel.planner import CostModel, GroupPlan, plan_rounds
from longlode.parallel.world import ALONE, World
from longlode.train.fitted_cost import cost_of_run
from longlode.train.parts import documents_of, filling, parts_of_rank
from longlode.train.recipe import Recipe
from longlode.train.sections import ParallelSection
from longlode.train.sequence import Sharing

_MOST_PLANS = 64
"""Plans that are kept for later batches of the same lengths."""

_GAP = 0.05
"""Plans within 5 % of the fastest are good enough: the ranks wait for a plan."""


@dataclass(frozen=True)
class Share:
    """A part of a batch that this rank reads: alone, or as one of the ranks of `sharing`."""

    batch: Batch
    sharing: Sharing | None = None

    @property
    def num_ranks(self) -> int:
        """Ranks that read the part together."""
        return 1 if self.sharing is None else self.sharing.transport.num_ranks


class Division(ABC):
    """Division of batches among the ranks of a world. world: the ranks."""

    def __init__(self, world: World, settings: ParallelSection | None = None) -> None:
        """settings: what ranks that share rows exchange; None: no ranks share any."""
        self.world = world
        self._settings = ParallelSection.model_validate({}) if settings is None else settings
        self._groups: dict[tuple[int, int], Any] = {}
        self._own: dict[tuple[int, int], Sharing] = {}

    @abstractmethod
    def shares(self, batch: Batch, rows: int, length: int) -> list[Share]:
        """Return this rank's shares of a batch. rows, length: `data.micro_batch_size` and `data.length`."""

    def facts(self) -> dict[str, Any]:
        """Return what to log about the last division."""
        return {}

    def close(self) -> None:
        """Leave all process groups."""
        for group in self._groups.values():
            if group != dist.GroupMember.NON_GROUP_MEMBER:
                with contextlib.suppress(RuntimeError, ValueError):  # after an error it may be closed already
                    dist.destroy_process_group(group)
        self._groups.clear()
        self._own.clear()

    def _sharing(self, groups: Iterable[tuple[int, int]]) -> Sharing | None:
        """Return how this rank shares rows, of groups (first rank, size) that no rank is in twice.

        Every rank must call this with the same groups, as process groups are made by all ranks together.
        """
        shared = [(first, size) for first, size in groups if size > 1]
        new = [group for group in shared if group not in self._groups]
        for first, size in new:
            ranks = range(first, first + size)
            self._groups[first, size] = group = dist.new_group(list(ranks))
            if self.world.rank in ranks:
                transport = GroupTransport(group, self.world.timeout_seconds)
                self._own[first, size] = Sharing(transport, self._settings.attention, self._settings.states)
        if new:
            self.world.agree([0.0])  # a rank that ends early would cut the others off while they connect
        return next((self._own[group] for group in shared if group in self._own), None)


class Grid(Division):
    """Data ranks take different rows; the sequence ranks of one data rank share them."""

    def shares(self, batch: Batch, rows: int, length: int) -> list[Share]:
        """See `Division.shares`: the share of the data rank, in parts of at most `rows` x `length` tokens."""
        world = self.world
        size = world.sequence_ranks
        sharing = self._sharing((first, size) for first in range(0, world.size, size))
        parts = parts_of_rank(batch, rows, length, world.data_rank, world.data_ranks)
        return [Share(part, sharing) for part in parts]


class FittedGroups(Division):
    """Groups that fit the lengths of a batch's documents (rows, if they are not packed)."""

    def __init__(self, world: World, settings: ParallelSection, cost: CostModel) -> None:
        """settings: with the most tokens per rank. cost: seconds of a step."""
        super().__init__(world, settings)
        assert settings.max_tokens is not None, "checked by the section"
        self._cost, self._max_tokens = cost, settings.max_tokens
        self._plans: dict[tuple[int, ...], list[GroupPlan]] = {}
        self._last: list[GroupPlan] = []

    def shares(self, batch: Batch, rows: int, length: int) -> list[Share]:
        """See `Division.shares`; `parallel.max_tokens` takes the place of `rows` and `length`."""
        if batch.cu_seqlens is None:
            lengths = (batch.tokens.shape[1],) * len(batch.tokens)
        else:
            lengths = tuple(np.diff(batch.cu_seqlens).tolist())
        self._last = self._plan(lengths)
        return [self._share(batch, lengths, plan) for plan in self._last]

    def facts(self) -> dict[str, Any]:
        """See `Division.facts`: the sizes of the groups, of every round of the step."""
        return {"groups": [[group.size for group in plan.groups] for plan in self._last]}

    def _plan(self, lengths: tuple[int, ...]) -> list[GroupPlan]:
        """Return the rounds of groups for these lengths, found on rank 0: all ranks must have the same."""
        if lengths not in self._plans:
            found = self.world.on_main(
                lambda: plan_rounds(
                    lengths,
                    self.world.size,
                    self._cost,
                    self._max_tokens,
                    sizes=self._settings.sizes,
                    gap=_GAP,
                )
            )
            if len(self._plans) == _MOST_PLANS:
                self._plans.pop(next(iter(self._plans)))
            self._plans[lengths] = found
        return self._plans[lengths]

    def _share(self, batch: Batch, lengths: tuple[int, ...], plan: GroupPlan) -> Share:
        sharing = self._sharing((group.first_rank, group.size) for group in plan.groups)
        for group in plan.groups:
            if group.first_rank <= self.world.rank < group.first_rank + group.size:
                return Share(documents_of(batch, group.documents), sharing)
        return Share(filling(batch))


UNDIVIDED = Grid(ALONE)
"""The division of one process."""


@contextlib.contextmanager
def divided(world: World, recipe: Recipe, model: PreTrainedModel) -> Iterator[Division]:
    """Make the division that a recipe asks for; its process groups end with the block. Raises: as `cost_of_run`."""
    division: Division = Grid(world, recipe.parallel)
    if recipe.parallel.groups == "fitted" and world.size > 1:
        division = FittedGroups(world, recipe.parallel, cost_of_run(recipe, model))
    try:
        yield division
    finally:
        division.close()
