"""Skill-It: shares of a mixture that follow the held-out losses of its groups while a run goes on.

Every `every` steps the held-out loss L_j of each group is measured, and group i has the share

    p_i = prior_i exp(rate sum_j A_ij Lbar_j) / Z        Lbar_j: sum of the newest `window` losses of j

where A_ij says how much a step on group i lowers the loss of group j (`graph_from_losses`; the unit matrix for groups
that have nothing to do with each other), and prior_i is the share that the recipe gives. Before the first measurement
all losses count as 1. The shares and losses so far are part of every checkpoint, and what a step reads is a function of
them; so a run that is resumed repeats its choices bit for bit.
Source: Chen et al. 2023, "Skill-it! A data-driven skills framework", arXiv 2307.14430, algorithm 1.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field, ValidationError

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.train.sections import Section


class SkillItSection(Section):
    """Settings of Skill-It."""

    every: int = Field(100, gt=0, description="Steps between two choices of shares.")
    rate: float = Field(0.5, ge=0, description="Learning rate of the shares.")
    window: int = Field(3, gt=0, description="Newest losses that count.")
    batches: int = Field(2, gt=0, description="Held-out batches per group and choice.")
    graph: list[list[float]] | None = Field(
        None, description="Row i, column j: effect of group i on the loss of group j; unset: 1 and 0."
    )

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "SkillItSection":
        """Check plain values. Raises: ConfigError that names the first bad one."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(
                f"data.skill_it: {where} is {first['input']!r}: {first['msg']}. Its settings: "
                f"{', '.join(cls.model_fields)}."
            ) from None


class SkillIt:
    """Shares of a run's groups. `changes` are those so far, (step, shares), as of `packing.Mixture`."""

    def __init__(
        self,
        settings: SkillItSection,
        prior: Mapping[str, float],
        heldout: Callable[[str], Iterable[Batch]],
    ) -> None:
        """Args: prior, shares of the groups without measurements; heldout, gives the same batches of a group each time.

        Raises: ConfigError for a graph of another shape than groups by groups.
        """
        size = len(prior)
        graph = np.eye(size) if settings.graph is None else np.array(settings.graph, dtype=np.float64)
        if graph.shape != (size, size):
            raise ConfigError(
                f"the graph of skill_it has the shape {graph.shape}; expected a row and a column for each of the "
                f"groups {', '.join(prior)}."
            )
        self.settings, self.names, self.heldout = settings, tuple(prior), heldout
        self._prior = np.array([prior[name] for name in self.names])
        self._graph = graph
        self.losses: list[list[float]] = []
        self.changes: list[tuple[int, dict[str, float]]] = [(0, self._shares(np.ones(size)))]

    def due(self, step: int) -> bool:
        """Return True if shares are chosen after `step` steps."""
        return step % self.settings.every == 0

    def update(self, step: int, losses: Sequence[float]) -> dict[str, float]:
        """Choose the shares that hold after `step` steps, given the held-out loss of each group; return them."""
        if not all(math.isfinite(loss) for loss in losses):
            return self.changes[-1][1]
        self.losses = [*self.losses, list(losses)][-self.settings.window :]
        shares = self._shares(np.sum(self.losses, axis=0))
        self.changes.append((step, shares))
        return shares

    def changes_from(self, step: int) -> tuple[tuple[int, dict[str, float]], ...]:
        """Return the changes for rows that begin at a step of the run, with steps counted from there."""
        at_once = [shares for at, shares in self.changes if at <= step][-1]
        return ((0, at_once), *((at - step, shares) for at, shares in self.changes if at > step))

    def saved(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as JSON."""
        return {"changes": [[step, shares] for step, shares in self.changes], "losses": self.losses}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take back the state of a checkpoint; {}: there is none yet."""
        if saved:
            self.changes = [(int(step), dict(shares)) for step, shares in saved["changes"]]
            self.losses = [list(losses) for losses in saved["losses"]]

    def _shares(self, losses: np.ndarray) -> dict[str, float]:
        exponents = self.settings.rate * self._graph @ losses
        weights = self._prior * np.exp(exponents - exponents.max())
        return dict(zip(self.names, (weights / weights.sum()).tolist(), strict=True))


def graph_from_losses(before: Sequence[float], after: Sequence[Sequence[float]]) -> list[list[float]]:
    """Estimate the graph from short runs: one per group, all from one model, each on its group alone.

    Args: before, held-out losses of the groups before the runs; after, row i, those after the run on group i.
    Returns: how much the run on i lowered the loss of j, as a part of what the run on j itself did, between 0 and 1; 1
      on the diagonal. A row and column of a group that its own run did not improve are 0 elsewhere.
    """
    drops = np.array(before)[None] - np.array(after)
    own = np.diag(drops)
    shares = np.divide(drops, own[None], out=np.zeros_like(drops), where=own[None] > 0)
    graph: np.ndarray = np.clip(shares, 0.0, 1.0)
    np.fill_diagonal(graph, 1.0)
    return [[float(value) for value in row] for row in graph.tolist()]
