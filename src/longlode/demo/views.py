"""Figures as text of at most 80 columns: separation by kind, two profiles side by side, curves of context."""

from collections.abc import Mapping, Sequence
from typing import Any

from longlode.demo.separation import Auc

_AXIS = 41
"""Characters of the axis from 0 to 1; the middle one is 0.5."""
_BAR = 16
_BLOCKS = " ▏▎▍▌▋▊▉█"


def separation_table(found: Mapping[str, Mapping[str, Auc]], signals: Sequence[str]) -> list[str]:
    """AUC by kind and signal, of the first signal with its interval, with the numbers of documents.

    Args: found, kind -> signal -> AUC; signals, the columns.
    """
    wide = max(map(len, found), default=0)
    first, others = signals[0], signals[1:]
    heads = "".join(f"{name:>13}" for name in others)
    lines = [f"{'AUC':{wide}}  {first + ' (95 % interval; n)':24}{heads}"]
    for kind, row in found.items():
        one = row.get(first)
        cell = "-" if one is None else f"{one.value:.2f} ({one.low:.2f}-{one.high:.2f}; {one.num_fake})"
        cells = "".join(f"{_with_number(row.get(name)):>13}" for name in others)
        lines.append(f"{kind:>{wide}}  {cell:24}{cells}")
    return lines


def _with_number(one: Auc | None) -> str:
    return "-" if one is None else f"{one.value:.2f} ({one.num_fake})"


def separation_lines(found: Mapping[str, Mapping[str, Auc]], marks: Mapping[str, str]) -> list[str]:
    """One axis per kind, from 0 to 1, with a letter for each signal and the interval of the first one as a line.

    Args: found, kind -> signal -> AUC; marks, signal -> letter; the first is drawn over the others.
    """
    wide = max(map(len, found), default=0)
    lines = [f"{'':{wide}}  {'0':<{_AXIS // 2}}{'0.5':<{_AXIS // 2 - 1}}1"]
    for kind, signals in found.items():
        axis = [" "] * _AXIS
        axis[_AXIS // 2] = "┊"
        for number, name in reversed([*enumerate(marks)]):
            if (one := signals.get(name)) is None:
                continue
            if number == 0:
                for place in range(_place(one.low), _place(one.high) + 1):
                    axis[place] = "─"
            axis[_place(one.value)] = marks[name]
        lines.append(f"{kind:>{wide}} ▕{''.join(axis)}▏")
    keys = ", ".join(f"{mark} {name}" for name, mark in marks.items())
    first = next(iter(marks), "")
    return [*lines, f"{keys}; ─ interval of {first}; ┊ chance"]


def _place(value: float) -> int:
    return round(value * (_AXIS - 1))


def bar(value: float, most: float, width: int = _BAR) -> str:
    """A bar of blocks, an eighth of a character exact. Args: value, nothing is drawn below 0; most, the full width."""
    eighths = round(8 * width * min(max(value, 0.0), most) / most) if most > 0 else 0
    return ("█" * (eighths // 8) + _BLOCKS[eighths % 8]).strip()


def profile_lines(explained: Sequence[Mapping[str, Any]]) -> list[str]:
    """The profiles of documents side by side, with the gate of each. Args: explained, entries of explain.json."""
    told = [one["explanation"] for one in explained]
    octaves = [_octaves(one) for one in told]
    starts = sorted({start for one in octaves for start in one})
    most = max((gain for one in octaves for gain in one.values()), default=0.0)
    columns = _BAR + 10
    rows: list[tuple[str, list[str]]] = [("", [_short(one["id"], columns) for one in explained])]
    for start in starts:
        cells = [f"{one[start]:+.4f} {bar(one[start], most)}" if start in one else "-" for one in octaves]
        rows.append((f"{start // 1024}k to {start // 512}k back", cells))
    rows.append(("one text in its order", [_gate(one) for one in told]))
    rows.append(("score", [f"{one['score']:+.2f}" for one in explained]))
    return [
        f"{name:>22}  {'  '.join(f'{cell:<{columns}}' for cell in cells)}".rstrip() for name, cells in rows
    ]


def _octaves(told: Mapping[str, Any]) -> dict[int, float]:
    profile = told["profile"] or {"octaves": []}
    return {one["first_tokens"]: one["gain_nats"] for one in profile["octaves"]}


def _gate(told: Mapping[str, Any]) -> str:
    gate = told["gate"]
    return "-" if gate is None else f"{gate['probability']:.1%} likely"


def _short(name: str, width: int) -> str:
    return name if len(name) <= width else f"…{name[1 - width :]}"


def curve_lines(curves: Mapping[str, Mapping[int, float]]) -> list[str]:
    """Loss by context, models side by side; bars show what context has saved since the first row.

    Args: curves, model -> context in tokens -> loss in nats per token.
    """
    contexts = sorted({context for one in curves.values() for context in one})
    saved = {
        name: {context: one[contexts[0]] - loss for context, loss in one.items()}
        for name, one in curves.items()
    }
    most = max((value for one in saved.values() for value in one.values()), default=0.0)
    columns = _BAR + 10
    lines = [f"{'tokens before':>22}  {'  '.join(f'{_short(name, columns):<{columns}}' for name in curves)}"]
    for context in contexts:
        cells = [
            f"{one[context]:.3f} {bar(saved[name][context], most)}".ljust(columns)
            for name, one in curves.items()
        ]
        lines.append(f"{context:>22,}  {'  '.join(cells)}")
    return [line.rstrip() for line in lines]


def comparison_lines(arms: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One row per arm of the training comparison. Args: arms, name -> the fields of a `comparison.Arm`."""
    wide = max(map(len, arms), default=0)
    lines = [f"{'':{wide}}  in order    loss    gain  {'loss less random':25}  gain less random"]
    for name, arm in arms.items():
        cells = [
            "" if arm[key] is None else "{:+.3f} ({:+.3f} to {:+.3f})".format(*arm[key])
            for key in ("loss_less_random", "gain_less_random")
        ]
        figures = f"{arm['in_order']:8.0%}  {arm['loss']:6.3f}  {arm['gain']:6.3f}"
        row = f"{name:>{wide}}  {figures}  {cells[0]:25}  {cells[1]}"
        lines.append(row.rstrip())
    return lines
