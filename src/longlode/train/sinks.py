"""Sinks for the rows of metrics.jsonl: TensorBoard and trackio (extra `track`). The file stays the record."""

import importlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from longlode.core.errors import BackendError

logger = logging.getLogger(__name__)


class Sink(ABC):
    """A receiver of metrics rows. It must never end a run: `Sinks` drops one that fails."""

    name: ClassVar[str]

    @abstractmethod
    def __init__(self, run: Path, step: int) -> None:
        """Open it. Args: run: the run folder. step: steps done so far; what it holds beyond them is repeated."""

    @abstractmethod
    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take the numbers of a step."""

    @abstractmethod
    def close(self) -> None:
        """Write what is left."""


class TensorBoard(Sink):
    """Event files in RUN/tensorboard: tensorboard --logdir RUN."""

    name = "tensorboard"

    def __init__(self, run: Path, step: int) -> None:
        """See `Sink`."""
        _require("tensorboard")
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1 if step else None)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Sink`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name.replace(".", "/"), value, step)

    def close(self) -> None:
        """See `Sink`."""
        self._writer.close()


class Trackio(Sink):
    """A trackio run of the run folder's name, in the project of the folder that holds it."""

    name = "trackio"

    def __init__(self, run: Path, step: int) -> None:
        """See `Sink`."""
        self._trackio: Any = _require("trackio")
        whole = run.resolve()
        self._trackio.init(project=whole.parent.name or "longlode", name=whole.name, resume="allow")

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """See `Sink`."""
        self._trackio.log(dict(numbers), step=step)

    def close(self) -> None:
        """See `Sink`."""
        self._trackio.finish()


_SINKS: dict[str, type[Sink]] = {sink.name: sink for sink in (TensorBoard, Trackio)}
SINK_NAMES = tuple(_SINKS)
"""Names of all sinks."""


class Sinks:
    """The sinks of a run."""

    def __init__(self, names: list[str], run: Path, step: int) -> None:
        """Open them. Raises: BackendError that names the extra if a package is not installed."""
        self._open = {name: _SINKS[name](run, step) for name in names}

    def log(self, row: Mapping[str, Any]) -> None:
        """Send the numbers of a row of metrics.jsonl to each."""
        numbers = {
            name: float(value)
            for name, value in row.items()
            if isinstance(value, int | float) and name != "step" and not isinstance(value, bool)
        }
        for name, sink in list(self._open.items()):
            try:
                sink.log(int(row["step"]), numbers)
            except Exception as error:  # whatever it is, the run is worth more
                logger.warning("%s takes no more metrics: %s: %s", name, type(error).__name__, error)
                del self._open[name]

    def close(self) -> None:
        """Close all."""
        for name, sink in self._open.items():
            try:
                sink.close()
            except Exception as error:
                logger.warning("%s could not be closed: %s: %s", name, type(error).__name__, error)
        self._open = {}


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BackendError(
            f"run.track names {package}, which cannot be imported ({error}). Install it: pip install 'longlode[track]'."
        ) from None
