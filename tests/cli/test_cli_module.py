"""`python -m longlode` is the `longlode` command, loads no torch for data, and its workers do not start it again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import longlode as package
from longlode import __version__

SOURCE = Path(package.__file__).parent.parent

HEAVY_AFTER = """
import runpy, sys
sys.argv[1:] = {arguments!r}
try:
    runpy.run_module("longlode", run_name="__main__", alter_sys=True)
except SystemExit as done:
    assert not done.code, done.code
print("heavy:", *sorted({{"torch", "transformers"}} & set(sys.modules)))
"""


def python(*arguments):
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_says_its_version_and_its_name():
    assert python("-m", "longlode", "--version").strip() == f"longlode {__version__}"
    assert "python -m longlode" in python("-m", "longlode", "select", "--help")


def test_importing_it_starts_nothing():
    assert python("-c", "import longlode.__main__") == ""


def test_data_commands_load_no_torch_and_workers_work(tmp_path):
    lines = [json.dumps({"id": str(n), "text": f"word{n} and more " * 200}) for n in range(8)]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    out, kept = tmp_path / "scores", tmp_path / "kept.jsonl"
    score = ("score", tmp_path / "corpus.jsonl", "-o", out, "--scorer", "gzip", "--rows-per-unit", "4")
    python("-m", "longlode", *score, "--workers", "2")
    arguments = [str(one) for one in ("select", out, "-o", kept, "--top", "0.5")]
    assert python("-c", HEAVY_AFTER.format(arguments=arguments)).splitlines()[-1].strip() == "heavy:"
    assert len(kept.read_text().splitlines()) == 4
    arguments = [str(one) for one in score]
    assert python("-c", HEAVY_AFTER.format(arguments=arguments)).splitlines()[-1].strip() == "heavy:"


MAIN = "from longlode.cli import main; sys.exit(main())"
"""The console script's own lines, as pip writes them."""
INTERRUPTED_IMPORT = """
class Interrupt:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
"""


def longlode(*arguments, before="", closed_stdout=False, environment=None):
    """Run the console script in a process of its own: its exit status, standard output and standard error."""
    program = f"import sys\n{before}\n{MAIN}"
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    ) as running:
        if closed_stdout:
            running.stdout.close()
            told = running.stderr.read()
            return running.wait(timeout=120), "", told.decode()
        shown, told = running.communicate(timeout=120)
        return running.returncode, shown.decode(), told.decode()


@pytest.mark.parametrize("name", ["longlode.cli.commands", "rich", "typer", "longlode.cli.guard", "torch"])
def test_an_interrupt_during_the_imports_shows_no_traceback(name):
    status, _, told = longlode("doctor", before=INTERRUPTED_IMPORT.format(name=name))
    assert status == 130
    assert told.startswith("Interrupted.")
    assert "Traceback" not in told


SWALLOWED = """
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have begun with it ignored
class Swallow:
    def find_spec(self, name, *rest):
        if name == {name!r}:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000):
                    pass
            except BaseException:
                pass
sys.meta_path.insert(0, Swallow())
"""


@pytest.mark.parametrize("name", ["longlode.cli.commands", "torch"])
def test_an_interrupt_that_other_code_swallows_does_not_end_well(name):
    status, _, told = longlode("doctor", before=SWALLOWED.format(name=name))
    assert status == 130
    assert told.endswith("Interrupted.\n")


def test_little_is_imported_before_interrupts_are_handled():
    heavy = "{'orjson', 'dataclasses', 'inspect', 'pathlib', 'pkgutil', 'shutil', 'longlode.core'}"
    # -S: what site-packages import by themselves when Python starts is not ours.
    place = f"sys.path.insert(0, {str(SOURCE)!r})"
    found = python(
        "-S", "-c", f"import sys; {place}; import longlode.cli; print(sorted({heavy} & set(sys.modules)))"
    )
    assert found.strip() == "[]"


@pytest.fixture
def corpus_file(tmp_path):
    path = tmp_path / "corpus.jsonl"
    lines = [json.dumps({"id": f"b\u00fccher {n}", "text": f"word{n} and more " * 200}) for n in range(30)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_reader_that_goes_away_changes_no_exit_status(tmp_path, corpus_file):
    command = ("score", corpus_file, "-o", tmp_path / "scores", "--scorer", "gzip")
    status, _, told = longlode(*command, closed_stdout=True)
    assert status == 0, told
    assert "Traceback" not in told
    assert "Exception" not in told
    assert (tmp_path / "scores" / "record.json").is_file()
    assert (
        longlode("select", tmp_path, "-o", tmp_path / "kept.jsonl", "--top", 0.5, closed_stdout=True)[0] == 2
    )


def test_an_encoding_without_umlauts_stops_nothing(tmp_path, corpus_file):
    command = ("score", corpus_file, "-o", tmp_path / "scores", "--scorer", "gzip")
    status, shown, told = longlode(*command, environment={"PYTHONIOENCODING": "ascii"})
    assert status == 0, told
    assert r"b\xfccher" in shown
