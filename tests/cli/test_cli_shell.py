"""Around the commands: what an error looks like, what a terminal gets to see, what starting costs."""

import io
import subprocess
import sys

import pytest
import typer
from rich.console import Console
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
    assert log.name in result.output


def test_debug_shows_the_traceback(log_folder, monkeypatch):
    monkeypatch.setenv("LONGLODE_DEBUG", "1")
    result = invoke(raising(ZeroDivisionError("seven")))
    assert result.exit_code == 1
    assert "Traceback" in result.output


def test_a_refusal_of_the_system_names_the_file(log_folder):
    result = invoke(raising(PermissionError(13, "Permission denied", "/some/file")))
    assert result.exit_code == 1
    assert "Permission denied (/some/file)" in result.output


def test_interrupt():
    result = invoke(raising(KeyboardInterrupt()))
    assert result.exit_code == 130
    assert "Interrupted" in result.output


def test_exits_of_our_own_pass():
    assert invoke(raising(typer.Exit(5))).exit_code == 5


def test_control_characters_do_not_reach_the_terminal(capsys):
    console.table("Rows", ("id", "score"), [("[red]\x1b[31mevil\u202e", 1.25)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "[red]" in shown
    assert "1.25" in shown


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
