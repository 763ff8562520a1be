"""The tables of the mining benchmark: in the terminal, and as Markdown beside the saved numbers."""

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Block = dict[str, Any]
"""One length: num_tokens, counts and left_out by label, and by scorer auc, same_kind, by_domain, cost."""
_GOOD, _FAIR = 0.97, 0.85


def show_block(block: Block, console: Console) -> None:
    """Print one length: AUC with its interval, negatives down, scorers across; then AUC within each domain.

    More scorers than the terminal is wide for come in several tables.
    """
    first = 4 + max(len(title) for title in ("tokens read per token", *_row_names(block)))
    names: list[str] = []
    width = first
    for name in block["scorers"]:
        column = 3 + max(len(name), len("0.000 0.00-0.00"))
        if names and width + column > console.width:
            _show_part(block, names, console)
            names, width = [], first
        names.append(name)
        width += column
    _show_part(block, names, console)
    for name, row in block["scorers"].items():
        if row["unscored"]:
            console.print(
                f"  {name}: {row['unscored']} without a score count as ties. {row['reason']}", style="dim"
            )


def _row_names(block: Block) -> list[str]:
    """What stands before the AUCs: number and name of each negative."""
    return [f"{count} {label}" for label, count in block["counts"].items() if label != "coherent"]


def _show_part(block: Block, names: list[str], console: Console) -> None:
    rows = [block["scorers"][name] for name in names]
    table = Table(
        title=f"{block['num_tokens']:,} tokens a document", title_justify="left", title_style="bold"
    )
    table.add_column(f"{block['counts']['coherent']} coherent against", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    labels = [label for label in block["counts"] if label != "coherent"]
    for label, title in zip(labels, _row_names(block), strict=True):
        table.add_row(title, *(_auc_cell(row["auc"][label]) for row in rows))
    table.add_section()
    for domain in rows[0]["by_domain"]:
        table.add_row(f"{domain}, mean", *(_plain_cell(_mean(row["by_domain"][domain])) for row in rows))
    table.add_section()
    for title, make in (
        ("tokens read per token", _reads),
        ("seconds", _seconds),
        ("without a score", _unscored),
    ):
        table.add_row(title, *(Text(make(row), style="dim") for row in rows))
    console.print()
    console.print(table)


def show_checks(checks: dict[str, dict[str, Any]], console: Console) -> None:
    """Print what holds for a scorer over all lengths: rank correlation with its exhaustive score, length bias."""
    if not checks:
        return
    console.print()
    table = Table(title="Sampling and length", title_justify="left", title_style="bold")
    for title in (
        "scorer",
        "rank corr. with all pairs",
        "same half",
        "length bias within",
        "between documents",
    ):
        table.add_column(title, justify="left" if title == "scorer" else "right")
    for name, row in checks.items():
        table.add_row(name, *_check_cells(row))
    console.print(table)


def markdown(blocks: list[Block], checks: dict[str, dict[str, Any]], about: dict[str, Any]) -> str:
    """The same as Markdown, with every domain spelled out."""
    lines = ["# Which score tells coherent documents from documents that only look long?", ""]
    lines += [
        f"`{about['command']}`, {about['machine']}, longlode {about['versions'].get('longlode', '?')}",
        "",
    ]
    lines += [
        "AUC [95 % interval over resampled documents]: share of (coherent, negative) pairs that are ranked rightly, "
        "ties half. In parentheses: over pairs of one domain alone.",
        "",
    ]
    for block in blocks:
        names = list(block["scorers"])
        lines += [f"## {block['num_tokens']:,} tokens", ""]
        lines += _table([f"{block['counts']['coherent']} coherent against", *names], _auc_rows(block))
        lines += ["AUC by domain of the coherent documents:", ""]
        lines += _table(["domain", "negative", *names], _domain_rows(block))
        lines += [_left_out(block), ""] if block["left_out"] else []
    if checks:
        lines += ["## Sampling and length", ""]
        head = ["scorer", "rank correlation with all pairs", "same half", "length bias within", "between"]
        lines += _table(head, [[name, *_check_cells(row)] for name, row in checks.items()])
    return "\n".join(lines)


def _auc_rows(block: Block) -> list[list[str]]:
    rows = []
    for label, count in block["counts"].items():
        if label == "coherent":
            continue
        cells = []
        for row in block["scorers"].values():
            mean, low, high = row["auc"][label]
            same = row["same_kind"][label]
            cells.append(f"{mean:.3f} [{low:.3f}, {high:.3f}]" + ("" if same is None else f" ({same:.3f})"))
        rows.append([f"{count} {label}", *cells])
    for title, make in (
        ("tokens read per token", _reads),
        ("seconds", _seconds),
        ("without a score", _unscored),
    ):
        rows.append([title, *(make(row) for row in block["scorers"].values())])
    return rows


def _domain_rows(block: Block) -> list[list[str]]:
    scorers = list(block["scorers"].values())
    return [
        [domain, label, *(f"{row['by_domain'][domain][label]:.3f}" for row in scorers)]
        for domain, found in scorers[0]["by_domain"].items()
        for label in found
    ]


def _left_out(block: Block) -> str:
    parts = [f"{count} {label} of {domain}" for label, domain, count in block["left_out"]]
    return f"Too short for {block['num_tokens']:,} tokens, or unfit: " + ", ".join(parts) + "."


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _auc_cell(found: list[float]) -> Text:
    mean, low, high = found
    text = Text(f"{mean:.3f}", style=_style(mean))
    text.append(f" {low:.2f}-{high:.2f}", style="dim")
    return text


def _plain_cell(value: float | None) -> Text:
    return Text("-") if value is None else Text(f"{value:.3f}", style=_style(value))


def _style(value: float) -> str:
    return "bold green" if value >= _GOOD else "yellow" if value >= _FAIR else "red"


def _mean(row: dict[str, float]) -> float | None:
    return sum(row.values()) / len(row) if row else None


def _reads(row: dict[str, Any]) -> str:
    return "no model" if row["tokens_read"] is None else f"{row['tokens_read']:.2f}"


def _seconds(row: dict[str, Any]) -> str:
    return f"{row['seconds']:.0f}"


def _unscored(row: dict[str, Any]) -> str:
    return str(row["unscored"])


def _check_cells(row: dict[str, Any]) -> list[str]:
    def number(name: str, digits: int = 3) -> str:
        return "-" if row.get(name) is None else f"{row[name]:.{digits}f}"

    correlation = "exact" if row.get("exact") else number("exhaustive_correlation")
    half = "exact" if row.get("exact") else number("same_half")
    return [correlation, half, number("within"), number("between")]
