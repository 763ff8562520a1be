"""A pytest plugin that counts outcomes per suite and renews the generated part of docs/compatibility.md.

    python -m pytest -c peers/pytest.ini peers --table docs/compatibility.md

A suite is a test module; the first clause of its docstring names it, and `PACKAGES` the distributions under test. A
class with an attribute `row` gets a row of its own. The table is written only by a run of everything: one that left
tests out, or was stopped, changes nothing.
"""

import datetime
import importlib.metadata
import platform
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BEGIN = "<!-- made by `make peers`; do not edit by hand -->"
END = "<!-- end of what `make peers` makes -->"
RANKS = ("passed", "skipped", "failed")


@dataclass
class Row:
    """One line of the table."""

    title: str
    packages: tuple[str, ...]
    outcomes: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def count(self, outcome: str) -> int:
        """How many tests ended so."""
        return sum(found == outcome for found in self.outcomes.values())

    def add(self, report: pytest.TestReport) -> None:
        """Take a test's report, or a sub-test's; a test is as bad as its worst report, but no sub-test skips it."""
        of_part = type(report).__name__ == "SubtestReport"
        if of_part and not report.failed:
            return
        if report.when != "call" and report.passed:
            return
        outcome, before = report.outcome, self.outcomes.get(report.nodeid, "passed")
        self.outcomes[report.nodeid] = max(outcome, before, key=RANKS.index)
        if report.skipped:
            self.reasons[report.nodeid] = _reason(report)


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else getattr(report, "wasxfail", "")
    return str(text).removeprefix("Skipped: ").strip().rstrip(".")


class Table:
    """Collects reports and writes the table at the end."""

    def __init__(self, path: Path) -> None:
        """`path` is a Markdown file with BEGIN and END in it."""
        self.path = path
        self.rows: dict[tuple[str, str], Row] = {}
        self.row_of: dict[str, Row] = {}
        self.whole = True

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Give every test its row."""
        for item in items:
            module = item.getparent(pytest.Module).obj  # type: ignore[union-attr]
            part = getattr(getattr(item, "cls", None), "row", "")
            name = module.__doc__.splitlines()[0].rstrip(".")
            title = f"{name.split(':')[0]}: {part}" if part else name
            self.row_of[item.nodeid] = self.rows.setdefault(
                (module.__name__, part), Row(title, module.PACKAGES)
            )

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Note that this is not a run of everything."""
        self.whole = self.whole and not items

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a report."""
        self.row_of[report.nodeid].add(report)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Write the table, if everything ran."""
        folder = Path(__file__).parent
        asked = {Path(str(argument)).resolve() for argument in session.config.args}
        ran = sum(len(row.outcomes) for row in self.rows.values())
        if not self.whole or asked != {folder} or ran != len(session.items) or exitstatus not in (0, 1):
            print(f"\n{self.path} stays as it is: not every test ran.")
            return
        text = self.path.read_text(encoding="utf-8")
        before, rest = text.split(BEGIN)
        after = rest.split(END)[1]
        self.path.write_text(f"{before}{BEGIN}\n\n{self._markdown()}\n{END}{after}", encoding="utf-8")

    def _markdown(self) -> str:
        packages = sorted({package for row in self.rows.values() for package in row.packages}, key=str.lower)
        versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
        today = datetime.datetime.now(datetime.UTC).date()
        lines = [
            f"longlode {importlib.metadata.version('longlode')} on {today}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}, CPU. {versions}.",
            "",
            "| suite | passed | failed | skipped |",
            "|---|---|---|---|",
        ]
        for row in self.rows.values():
            lines.append(f"| {row.title} | " + " | ".join(str(row.count(o)) for o in _COLUMNS) + " |")
        lines += ["", *self._failures(), *self._skips()]
        return "\n".join(lines).rstrip() + "\n"

    def _failures(self) -> list[str]:
        failed = [
            name
            for row in self.rows.values()
            for name, outcome in row.outcomes.items()
            if outcome == "failed"
        ]
        if not failed:
            return []
        return ["Failed:", "", *(f"- `{name}`" for name in failed), ""]

    def _skips(self) -> list[str]:
        lines = ["Skipped, and why (tests that one reason skips, over all rows of a suite):", ""]
        suites: dict[str, Counter[str]] = {}
        for (module, _), row in self.rows.items():
            suites.setdefault(module, Counter()).update(row.reasons.values())
        for module, reasons in suites.items():
            if reasons:
                lines.append(f"- {module.rpartition('.')[2]}:")
                lines += [f"  - {count}: {reason}" for reason, count in reasons.most_common()]
        return lines if len(lines) > 2 else []


_COLUMNS = ("passed", "failed", "skipped")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--table FILE`."""
    parser.addoption("--table", metavar="FILE", help="renew the generated part of this Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    """Count only where a table is wanted."""
    if config.getoption("table"):
        config.pluginmanager.register(Table(Path(config.getoption("table"))), "peers-table")
