"""Extra columns: results of a scorer besides those that all scorers have.

A scorer declares them (`Scorer.extra_columns`) and fills them (`DocumentScore.extras`). Parts hold them as flat columns
`extras.NAME`; the record says the unit and the meaning of each.
"""

import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from longlode.core.errors import ConfigError

PREFIX = "extras."
"""Before the name of every extra column in the parts, so that none can hide a column of every scorer."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TYPES: dict[str, pa.DataType] = {"float": pa.float64(), "int": pa.int64(), "str": pa.string()}
_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class ExtraColumn:
    """One extra column.

    name: small letters, digits and "_". dtype: of its values, "float", "int" or "str". unit: "nats per token",
    "tokens", ...; "" for a name or a pure number.
    doc: its meaning, and that of 0. in_report: whether reports list it; in_table: whether the command line shows
    it beside the best and the worst scores.
    """

    name: str
    dtype: Literal["float", "int", "str"]
    unit: str
    doc: str
    in_report: bool = True
    in_table: bool = False

    def __post_init__(self) -> None:
        """Raises: ConfigError for a name or a dtype that parts cannot hold."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"an extra column is called {self.name!r}; expected small letters, digits and '_', a letter first."
            )
        if self.dtype not in _TYPES:
            raise ConfigError(
                f"the extra column {self.name!r} has dtype {self.dtype!r}; expected one of {', '.join(_TYPES)}."
            )

    @cached_property
    def column(self) -> str:
        """Its name in the parts."""
        return PREFIX + self.name


def extra_fields(columns: Sequence[ExtraColumn]) -> list[pa.Field]:
    """The fields of the parts. Raises: ConfigError when two columns have one name."""
    names = [column.name for column in columns]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"the extra column {twice[0]!r} is declared twice; give one of them another name.")
    return [pa.field(column.column, _TYPES[column.dtype]) for column in columns]


def describe_extras(columns: Sequence[ExtraColumn]) -> dict[str, dict[str, Any]]:
    """Description of the columns for a record: name -> all that is declared."""
    return {
        column.name: {name: value for name, value in asdict(column).items() if name != "name"}
        for column in columns
    }


def extra_values(
    given: Mapping[str, float | int | str | None], columns: Sequence[ExtraColumn], scorer: str
) -> dict[str, float | int | str | None]:
    """The cells of a row, by column of the parts; None where nothing is given, and for a float that is not finite.

    Args: given, `DocumentScore.extras`; scorer, its name, for messages.
    Raises: ConfigError for a key that is not declared and for a value of another type.
    """
    if not given:
        return dict.fromkeys([column.column for column in columns])
    declared = {column.name: column for column in columns}
    if unknown := [key for key in given if key not in declared]:
        raise ConfigError(
            f"scorer {scorer!r} gave the extra {unknown[0]!r}, which it does not declare; expected one of "
            f"{', '.join(declared) or 'none'} (`extra_columns`)."
        )
    return {column.column: _cell(given.get(column.name), column, scorer) for column in columns}


def _cell(value: Any, column: ExtraColumn, scorer: str) -> float | int | str | None:
    """The value as it is stored: numbers of numpy become plain ones, and a text becomes valid UTF-8."""
    if value is None:
        return None
    is_bool = isinstance(value, bool | np.bool_)
    if column.dtype == "str" and isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if column.dtype == "int" and isinstance(value, numbers.Integral) and not is_bool and int(value) in _INT64:
        return int(value)
    if column.dtype == "float" and isinstance(value, numbers.Real) and not is_bool:
        number = float(value)
        return number if np.isfinite(number) else None
    expected = {"int": "an int of 64 bits", "float": "a float", "str": "a str"}[column.dtype]
    raise ConfigError(
        f"scorer {scorer!r} gave {value!r:.80} ({type(value).__name__}) for the extra {column.name!r}; expected "
        f"{expected} or None."
    )
