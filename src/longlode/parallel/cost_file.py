"""Measured cost models as files: a fit, the times that it was fitted to, and the model and machine that they are of.

`python -m benchmarks.sharding_cost` writes them, `parallel.cost = "FILE"` of a recipe reads them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

from longlode.core.errors import ConfigError, InputError
from longlode.core.near_names import near_path
from longlode.core.records import read_json, write_json
from longlode.parallel.planner import CostModel


class Measurement(NamedTuple):
    """One measured step: ranks of the group, lengths of the documents that it reads, seconds."""

    ranks: int
    lengths: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class MeasuredCost:
    """A cost model, and what it holds of.

    model: facts that a step's seconds depend on, plain values; the cost model fits no other (`check`). machine: what
    made the times (processor, versions, command), for people. measured: the times.
    """

    cost: CostModel
    model: Mapping[str, Any]
    machine: Mapping[str, Any]
    measured: tuple[Measurement, ...]

    @classmethod
    def fit(
        cls,
        measured: Iterable[tuple[int, Sequence[int], float]],
        model: Mapping[str, Any],
        machine: Mapping[str, Any],
    ) -> Self:
        """Fit a cost model to (ranks, lengths, seconds). Raises: as `CostModel.fit`."""
        kept = tuple(Measurement(ranks, tuple(lengths), seconds) for ranks, lengths, seconds in measured)
        return cls(CostModel.fit(kept), model, machine, kept)

    @property
    def largest_error(self) -> float:
        """Largest difference of a measured time from the cost model's, relative to the measured one."""
        return max(abs(self.cost.seconds(one.ranks, one.lengths) / one.seconds - 1) for one in self.measured)

    def check(self, model: Mapping[str, Any], where: str | Path) -> None:
        """Check that the times were measured with this model. where: the file. Raises: ConfigError."""
        names = [*dict.fromkeys((*self.model, *model))]
        for name in names:
            had, has = self.model.get(name), model.get(name)
            if had != has:
                raise ConfigError(
                    f"The cost model {where} was measured with {name} = {had!r}, and this run has {has!r}. Measure it "
                    "again with this recipe (python -m benchmarks.sharding_cost)."
                )

    def write(self, path: str | Path) -> None:
        """Write a JSON file."""
        measured = [one._asdict() for one in self.measured]
        facts = {"cost": asdict(self.cost), "largest_error": self.largest_error}
        write_json(Path(path), {**facts, "model": self.model, "machine": self.machine, "measured": measured})

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a file of `write`. Raises: InputError if there is none, or it holds something else."""
        if not Path(path).is_file():
            lacking = "is no file" if Path(path).exists() else "does not exist"
            raise InputError(f"The cost model {path} {lacking}.{near_path(Path(path))}")
        held = read_json(Path(path))
        try:
            cost = CostModel(**{one.name: float(held["cost"][one.name]) for one in fields(CostModel)})
            measured = tuple(map(_measurement, held["measured"]))
            read = cls(cost, dict(held["model"]), dict(held["machine"]), measured)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is no cost model ({type(error).__name__}: {error}); expected a file that "
                "python -m benchmarks.sharding_cost wrote."
            ) from None
        if not all(0 <= value < float("inf") for value in asdict(cost).values()):
            raise InputError(f"The cost model {path} has {cost}; expected seconds of at least 0.")
        return read


def _measurement(held: Mapping[str, Any]) -> Measurement:
    """Make a measurement of what a file holds. Raises: KeyError, TypeError or ValueError if it is none."""
    found = Measurement(int(held["ranks"]), tuple(map(int, held["lengths"])), float(held["seconds"]))
    if found.ranks < 1 or not 0 < found.seconds < float("inf"):
        raise ValueError(f"{found.seconds} seconds of {found.ranks} ranks")
    return found
