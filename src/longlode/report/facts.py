"""Facts of any record as rows of a table, so that any record can be shown without knowing its fields."""

from collections.abc import Mapping
from typing import Any

from longlode.report.text import clipped

_MAX_ROWS = 120
_MAX_CHARS = 240


def facts(value: Mapping[str, Any], *, skip: tuple[str, ...] = (), depth: int = 3) -> list[tuple[str, str]]:
    """Flatten a mapping into (dotted name, value) rows; long or nested lists become their size."""
    rows: list[tuple[str, str]] = []
    _collect(value, "", depth, set(skip), rows)
    if len(rows) > _MAX_ROWS:
        rows = [*rows[:_MAX_ROWS], ("more", f"{len(rows) - _MAX_ROWS} rows are not shown; see record.json")]
    return rows


def _collect(
    value: Mapping[str, Any], prefix: str, depth: int, skip: set[str], rows: list[tuple[str, str]]
) -> None:
    for name, inner in value.items():
        if not prefix and name in skip:
            continue
        where = clipped(f"{prefix}{name}", 80)
        if isinstance(inner, Mapping) and depth > 1:
            _collect(inner, f"{where}.", depth - 1, skip, rows)
        else:
            rows.append((where, plain(inner)))


def plain(value: Any) -> str:
    """One line for any JSON value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}".replace("-", "\u2212")
    if value is None:
        return "\u2013"
    if isinstance(value, list):
        if len(value) <= 12 and not any(isinstance(one, list | dict) for one in value):
            return clipped(", ".join(plain(one) for one in value), _MAX_CHARS)
        return f"{len(value)} entries"
    if isinstance(value, Mapping):
        return f"{len(value)} entries"
    return clipped(value, _MAX_CHARS)
