"""Output of the commands: results on stdout, progress and notes on stderr, readable with and without a terminal.

Everything goes through `PlainConsole` (or `echo`, for text without markup), which passes no control
character on to the terminal: ids, texts, file names and messages of other libraries come from outside.
"""

import contextlib
import json
import logging
import math
import os
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson
from rich import box
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from longlode.api.watch import Update, Watch

_WIDTH_WITHOUT_TERMINAL = 110
_MOST_READABLE = 110
_LONGEST_WHOLE, _BESIDE_COLUMN = 20, 3
"""Characters: of the longest word that a column keeps whole, and of the space beside a column."""
_SECONDS_BETWEEN_LINES = 10.0
_SPEED_SECONDS = 180.0
"""Past seconds by which a bar tells the time left: documents differ, and those read together count at once."""


@dataclass(frozen=True)
class _Shown:
    """Streams that are shown. results: text on standard output; remarks: notes and progress on standard error."""

    results: bool = True
    remarks: bool = True


_shown = _Shown()


@contextmanager
def showing(*, results: bool, remarks: bool) -> Iterator[None]:
    """Within it, `say`, `table` and `finish` print only with `results`, `note` and `progress` only with `remarks`."""
    global _shown
    before, _shown = _shown, _Shown(results, remarks)
    try:
        yield
    finally:
        _shown = before


def plain(text: str) -> str:
    """`text` with control characters made visible: corpus text must not steer the terminal."""
    return "".join(
        character if character in "\n\t" or unicodedata.category(character)[0] != "C" else "\ufffd"
        for character in text
    )


class PlainConsole(Console):
    """Console that prints all text as `plain` gives it, and goes on when the reader of its stream has closed it."""

    def __init__(self, *, stderr: bool) -> None:
        """Write to standard output, or to standard error."""
        super().__init__(stderr=stderr, highlight=False)
        self.push_render_hook(_PlainHook())
        if not self.is_terminal:
            self.width = _WIDTH_WITHOUT_TERMINAL

    def on_broken_pipe(self) -> None:
        """Let the command go on to its end and its exit status: `longlode score ... | head` still scores everything."""
        mute(sys.stderr if self.stderr else sys.stdout)


class _PlainHook(RenderHook):
    """Wrap the renderables that a console is about to print."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Plain(renderable) for renderable in renderables]


class _Plain:
    """Renderable whose text is made plain, piece by piece; styles and cursor movements are rich's own."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(plain(segment.text), segment.style)


class PlainFormatter(logging.Formatter):
    """Formats log records as `plain` text."""

    def format(self, record: logging.LogRecord) -> str:
        """The formatted record without control characters."""
        return plain(super().format(record))


def mute(stream: Any) -> None:
    """Redirect a stream whose reader has gone to the null device, so that further writes raise nothing."""
    with contextlib.suppress(OSError, ValueError):  # no file behind the stream, or a closed one
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def echo(text: str, *, end: str = "\n") -> bool:
    """Print plain text as it is, without markup or wrapping. Returns: False when the reader has closed the stream."""
    try:
        sys.stdout.write(plain(text) + end)
        sys.stdout.flush()
    except BrokenPipeError:
        mute(sys.stdout)
        return False
    return True


def echo_json(value: Any) -> None:
    """Print JSON on standard output; control characters, and those outside of the stream's encoding, are escaped."""
    options = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY
    echo(_escaped(orjson.dumps(value, option=options, default=str)))  # paths are what is no JSON


def echo_line(row: Any) -> bool:
    """Print one line of JSON, as `echo_json` does. Returns: False when the reader has closed the stream."""
    return echo(_escaped(orjson.dumps(row)))


def _escaped(data: bytes) -> str:
    whole = (sys.stdout.encoding or "").lower().replace("-", "").startswith("utf")
    text = data.decode()
    if whole and text.isprintable():
        return text
    return "".join(one if one == "\n" or _shows(one, whole) else json.dumps(one)[1:-1] for one in text)


def _shows(character: str, whole: bool) -> bool:
    return (whole or character.isascii()) and unicodedata.category(character)[0] != "C"


def stdout() -> Console:
    """The console for results. Made anew each time, so that redirected streams are respected."""
    console = PlainConsole(stderr=False)
    console.quiet = not _shown.results
    return console


def stderr() -> Console:
    """The console for progress, notes and errors."""
    return PlainConsole(stderr=True)


def say(text: str) -> None:
    """Print one line of result; rich markup in `text` counts, so escape what came from outside."""
    stdout().print(text, soft_wrap=True)


def say_plain(text: str) -> None:
    """Print text that came from outside, wrapped at words; no markup."""
    stdout().print(plain(text), markup=False, style="dim")


def say_wrapped(text: str, *, first: str = "", rest: str = "") -> None:
    """Print a sentence, broken between words where the terminal ends; no markup.

    Args: first, what its first line begins with; rest, what the others begin with.
    """
    lines = textwrap.wrap(
        plain(text),
        min(stdout().width, _MOST_READABLE),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    say_lines(lines or [first.rstrip()])


def say_lines(lines: Sequence[str]) -> None:
    """Print lines of text as they are; no markup."""
    console = stdout()
    for line in lines:
        console.print(plain(line), markup=False, soft_wrap=True)


def note(text: str) -> None:
    """Print one line for the person watching (stderr); no markup."""
    if _shown.remarks:
        complain(text)


def complain(text: str) -> None:
    """Print one line about an error (stderr), also with --quiet; no markup. A terminal breaks it at words."""
    console = stderr()
    console.print(plain(text), soft_wrap=not console.is_terminal, markup=False, style="dim")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table of results: figures flush right, the rest flush left."""
    grid = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=box.SIMPLE_HEAD
    )
    cells = [[plain(_cell(value)) for value in row] for row in rows]
    least = [
        max(len(word) for text in texts for word in text.split() or [""])
        for texts in zip(columns, *cells, strict=True)
    ]
    least = [min(width, _LONGEST_WHOLE) for width in least]
    # Columns are not narrower than their words where all have room for them: a name should not be broken.
    fits = sum(least) + _BESIDE_COLUMN * len(least) <= stdout().width
    for number, column in enumerate(columns):
        figures = all(isinstance(row[number], int | float | None) for row in rows)
        grid.add_column(
            column,
            justify="right" if figures else "left",
            overflow="fold",
            min_width=least[number] if fits else None,
        )
    for row in cells:
        grid.add_row(*map(escape, row))
    stdout().print(grid)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def duration(seconds: float) -> str:
    """A time in words: 40 s, 12 min, 3.5 h."""
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def finish(where: str, *, then: Sequence[str] = ()) -> None:
    """Print where the results are and what to run next."""
    if not (_shown.results and _shown.remarks):
        return
    say(f"[bold green]Done.[/] {escape(where)}")
    for number, command in enumerate(then):
        say(f"{'Next:' if number == 0 else '     '} {escape(command)}")


class _TimeLeft(TimeRemainingColumn):
    """Time left: by the latest speed, and before two steps have shown one, by the first step since the bar began."""

    def render(self, task: Task) -> Text:
        new = task.completed - task.fields["began"]
        if task.time_remaining is None and task.remaining and task.elapsed and new > 0:
            seconds = math.ceil(task.elapsed * task.remaining / new)
            return Text(str(timedelta(seconds=seconds)), style="progress.remaining")
        return super().render(task)


@contextmanager
def progress(label: str, *, in_bytes: bool = False) -> Iterator[Callable[[int, int | None, str], None]]:
    """Yield `update(done, total, remark)`. A bar on a terminal; else a line about every ten seconds.

    Less done than before begins another pass: its times are its own. Args: in_bytes, for done and total.
    """
    console = stderr()
    if not _shown.remarks:
        yield _ignore
        return
    if not console.is_terminal:
        yield _line_printer(label, in_bytes)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None, table_column=Column(min_width=6, max_width=40, ratio=1)),
        (DownloadColumn if in_bytes else MofNCompleteColumn)(
            table_column=Column(no_wrap=True, min_width=11 if in_bytes else 5)
        ),
        TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
        _TimeLeft(table_column=Column(no_wrap=True, min_width=7)),
        TextColumn(
            "{task.fields[remark]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=2),
        ),
    )
    with Progress(
        *columns, console=console, transient=True, expand=True, speed_estimate_period=_SPEED_SECONDS
    ) as bar:
        task = bar.add_task(label, total=None, remark="", began=0)
        last: int | None = None

        def update(done: int, total: int | None, remark: str = "") -> None:
            nonlocal last
            if last is not None and done < last:
                bar.reset(task, total=total)
            if last is None or done < last:
                bar.update(task, began=done)  # what an earlier run has done
            last = done
            bar.update(task, completed=done, total=total, remark=plain(remark))

        yield update


def results_shown() -> bool:
    """Tell if results go to standard output as text; they do not with --json."""
    return _shown.results


def _ignore(done: int, total: int | None, remark: str = "") -> None:
    """Show no progress."""


def _line_printer(label: str, in_bytes: bool) -> Callable[[int, int | None, str], None]:
    last = started = time.monotonic()
    first: int | None = None  # what an earlier run has done says nothing about the speed of this one
    amount = _megabytes if in_bytes else "{:,}".format

    def update(done: int, total: int | None, remark: str = "") -> None:
        nonlocal last, first, started
        now = time.monotonic()
        if first is None or done < first:
            first, started = done, now
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            of_all = f" of {amount(total)}" if total else ""
            left = ""
            if in_bytes and total and done > first:
                left = f", about {duration((total - done) * (now - started) / (done - first))} left"
            note(f"{label}: {amount(done)}{of_all} {remark}".rstrip() + left)

    return update


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"


class ConsoleWatch(Watch):
    """Prints notes and shows progress on standard error."""

    def note(self, line: str) -> None:
        """Print the line."""
        note(line)

    @contextmanager
    def progress(self, label: str, *, in_bytes: bool = False) -> Iterator[Update]:
        """Show a bar, or lines where there is no terminal."""
        with progress(label, in_bytes=in_bytes) as update:
            yield update
