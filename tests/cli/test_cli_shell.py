"""Around the commands: what an error looks like, what a terminal gets to see, what starting costs."""

import errno
import importlib
import io
import json
import logging
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
import typer
from rich.color import ColorSystem
from rich.console import Console
from rich.panel import Panel
from rich.text import Text
from safetensors import SafetensorError
from typer.testing import CliRunner

from longlode.cli import console, guard
from longlode.cli.guard import guarded
from longlode.core.errors import ConfigError, InputError


def invoke(command):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(guarded(command))
    return CliRunner().invoke(app, [])


def raising(error):
    def command() -> None:
        raise error

    return command


@pytest.fixture
def log_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(guard.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("LONGLODE_DEBUG", raising=False)
    return tmp_path


@pytest.mark.parametrize("kind", [ConfigError, InputError])
def test_own_errors_are_refusals(kind):
    result = invoke(raising(kind("length is 0; expected 1 or more.")))
    assert result.exit_code == 2
    assert "length is 0; expected 1 or more." in result.output
    assert "Traceback" not in result.output


def test_other_errors_leave_a_log(log_folder):
    result = invoke(raising(ZeroDivisionError("seven")))
    assert result.exit_code == 1
    assert "ZeroDivisionError: seven" in result.output
    assert "Traceback" not in result.output
    (log,) = log_folder.glob("longlode-error-*.log")
    assert "Traceback" in log.read_text()
    assert log.name in re.sub(r"[\s│]", "", result.output)  # the frame may break a long path


def test_debug_shows_the_traceback(log_folder, monkeypatch):
    monkeypatch.setenv("LONGLODE_DEBUG", "1")
    result = invoke(raising(ZeroDivisionError("seven")))
    assert result.exit_code == 1
    assert "Traceback" in result.output


def test_the_log_is_new_unpredictable_and_for_its_owner_alone(log_folder):
    names = set()
    for _ in range(2):
        invoke(raising(ZeroDivisionError("seven")))
        logs = set(log_folder.glob("longlode-error-*.log")) - names
        names |= logs
        (log,) = logs
        assert log.stat().st_mode & 0o777 == 0o600
        assert str(os.getpid()) not in log.stem.split("-")


def test_the_log_follows_no_planted_link(log_folder, monkeypatch):
    victim = log_folder / "victim"
    victim.write_text("precious")
    monkeypatch.setattr(guard.secrets, "token_hex", lambda size: "guessed")
    (log_folder / "longlode-error-guessed.log").symlink_to(victim)
    result = invoke(raising(ZeroDivisionError("seven")))
    assert victim.read_text() == "precious"
    assert "LONGLODE_DEBUG=1" in result.output


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied", "/some/file"),
        OSError(errno.ENOSPC, "No space left on device", "/some/file"),
        OSError(errno.EROFS, "Read-only file system", "/some/file"),
        OSError(errno.EIO, "Input/output error", "/some/file"),
    ],
)
def test_a_refusal_of_the_system_names_the_file(log_folder, error):
    result = invoke(raising(error))
    assert result.exit_code == 2
    assert f"{error.strerror}: /some/file" in result.output
    assert not list(log_folder.iterdir())


@pytest.mark.parametrize("kind", [RuntimeError, SafetensorError])
def test_a_full_disk_is_reported_however_the_library_words_it(log_folder, tmp_path, kind):
    def command(out: Path = tmp_path / "model") -> None:
        raise kind("Error while serializing: I/O error: No space left on device (os error 28)")

    result = invoke(command)
    assert result.exit_code == 2
    assert "model" in result.output
    assert "Free space" in result.output


def test_interrupt():
    result = invoke(raising(KeyboardInterrupt()))
    assert result.exit_code == 130
    assert "Interrupted" in result.output


COMMANDS = (
    "score",
    "select",
    "pack",
    "train",
    "evaluate",
    "generate",
    "convert",
    "explain",
    "report",
    "demo",
    "doctor",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_after_an_interrupt_what_is_there(tmp_path, name):
    told = importlib.import_module(f"longlode.cli.{name}").interrupted({"out": tmp_path / "out"})
    assert "is on disk" not in told
    if name in ("select", "pack", "evaluate", "report", "demo"):
        assert "the same command" in told


def test_an_interrupted_score_counts_what_is_there(tmp_path):
    from longlode.cli.score import interrupted

    assert "nothing is kept" in interrupted({"out": tmp_path})
    for place in ("parts", "rounds/1/parts"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "a.parquet").write_text("")
    assert interrupted({"out": tmp_path}).startswith("2 finished units")


def test_an_interrupted_training_names_its_checkpoint(tmp_path):
    from longlode.cli.train import interrupted

    assert "step 0" in interrupted({"out": tmp_path})
    for step in (2, 10):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    assert "step-00000010" in interrupted({"out": tmp_path})


def test_exits_of_our_own_pass():
    assert invoke(raising(typer.Exit(5))).exit_code == 5


def test_control_characters_do_not_reach_the_terminal(capsys):
    console.table("Rows", ("id", "score"), [("[red]\x1b[31mevil\u202e", 1.25)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[red]" in shown
    assert "1.25" in shown


@pytest.mark.parametrize(
    "show",
    [
        lambda text: console.say(f"[bold]Kept[/] {text}"),
        lambda text: console.finish(f"{text} explained.", then=[text]),
        console.note,
        console.echo,
        lambda text: console.echo_json({"id": text}),
        lambda text: console.stdout().print(Panel(Text(text), title=Text(text))),
        lambda text: console.stdout().print(Text(text), soft_wrap=True),
    ],
)
def test_nothing_lets_control_characters_through(capsys, show):
    show("evil\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e\U000e0041red")
    captured = capsys.readouterr()
    shown = captured.out + captured.err
    assert "evil" in shown
    assert "red" in shown
    assert not [one for one in shown if one != "\n" and unicodedata.category(one)[0] == "C"]


def test_json_keeps_what_it_escapes(capsys):
    text = "evil\x1b[31m\x9b\u202e\U000e0041 \u00e9"
    console.echo_json({"id": text})
    assert json.loads(capsys.readouterr().out) == {"id": text}


def test_log_records_are_plain_too():
    record = logging.LogRecord("a", logging.WARNING, "", 0, "bad \x1b[2J file", (), None)
    assert "\x1b" not in console.PlainFormatter("%(message)s").format(record)


def test_styles_of_our_own_still_reach_a_terminal():
    stream = io.StringIO()
    terminal = console.PlainConsole(stderr=False)
    terminal.file, terminal._force_terminal = stream, True
    terminal._color_system = ColorSystem.STANDARD
    terminal.print("[bold]ours[/]", Text("\x1b[31mtheirs"))
    assert "\x1b[1mours" in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()


def test_errors_are_plain_too(capsys):
    assert "\x1b" not in invoke(raising(InputError("bad\x1b[2J file"))).output


def test_figures_stand_right_and_words_left(capsys):
    console.table("T", ("word", "figure"), [("a", 5), ("bbbb", 12345)])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.split() == ["bbbb", "12,345"] for line in lines)
    five = next(line for line in lines if line.split() == ["a", "5"])
    assert five.rstrip().endswith("     5")


def test_progress_without_a_terminal_is_lines(capsys, monkeypatch):
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", 0.0)
    with console.progress("scoring") as update:
        update(1, 4, "units")
    assert capsys.readouterr().err == "scoring: 1 of 4 units\n"


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    stream = io.StringIO()
    terminal = Console(file=stream, force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    with console.progress("scoring") as update:
        update(3, 4, "units")
    assert "3/4" in stream.getvalue()


def test_help_is_light():
    program = (
        "import sys\nfrom longlode.cli import main\nsys.argv = ['longlode', 'score', '--help']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'duckdb', 'pyarrow'} & set(sys.modules)\nprint('heavy:', *heavy)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy:"


def test_a_sentence_breaks_between_words(monkeypatch, capsys):
    sentence = " ".join(["interval"] * 20)
    monkeypatch.setenv("COLUMNS", "80")
    console.say_wrapped(sentence, first="- ", rest="  ")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert " ".join(lines).split() == ["-", *sentence.split()]


def test_a_bar_shows_its_times_at_80_columns(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(
        console, "stderr", lambda: Console(file=stream, force_terminal=True, width=80, color_system=None)
    )
    with console.progress("training, a small model") as update:
        update(1234, 5678, "steps: loss 4.321, 12,345 tokens/s, ends in about 40 s")
    assert re.search(r"1234/5678 \d:\d\d:\d\d [-\d]:[-\d]{2}:[-\d]{2} steps", stream.getvalue())


def test_a_bar_of_bytes_tells_the_time_left_at_80_columns(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    terminal = Console(file=stream, force_terminal=True, width=80, color_system=None, get_time=lambda: now[0])
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    with console.progress("scoring", in_bytes=True) as update:
        for seconds, done in enumerate([1_000_000, 1_100_000, 1_200_000]):  # a million is of an earlier run
            now[0] = seconds
            update(done, 3_000_000, "12 documents, 234,567 tokens")
    assert re.search(r"1\.2/3\.0 MB +0:00:02 0:00:18 12 documents, 234,567 tokens", stream.getvalue())


def test_the_first_step_of_a_bar_tells_the_time_left(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    terminal = Console(file=stream, force_terminal=True, width=80, color_system=None, get_time=lambda: now[0])
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    with console.progress("scoring", in_bytes=True) as update:
        update(0, 3_000_000)
        now[0] = 10.0
        update(1_000_000, 3_000_000, "no documents yet")
    assert re.search(r"1\.0/3\.0 MB +0:00:10 0:00:20 no documents yet", stream.getvalue())


def test_lines_of_bytes_tell_the_time_left(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with console.progress("scoring", in_bytes=True) as update:
        update(1_000_000, 5_000_000, "8 documents")
        now[0] = 20.0
        update(2_000_000, 5_000_000, "9 documents")
        now[0] = 25.0
        update(0, 5_000_000, "0 documents")
        now[0] = 35.0
        update(1_000_000, 5_000_000, "8 documents")
    first, second = capsys.readouterr().err.splitlines()
    assert first == "scoring: 2.0 MB of 5.0 MB 9 documents, about 1 min left"
    assert "1.0 MB of 5.0 MB" in second
    assert "40 s left" in second
