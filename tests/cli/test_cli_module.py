"""`python -m longlode` is the `longlode` command, loads no torch for data, and its workers do not start it again."""

import json
import subprocess
import sys

from longlode import __version__

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
    score = ("score", tmp_path / "corpus.jsonl", "-o", out, "--estimator", "gzip", "--rows-per-unit", "4")
    python("-m", "longlode", *score, "--workers", "2")
    arguments = [str(one) for one in ("select", out, "-o", kept, "--top", "0.5")]
    assert python("-c", HEAVY_AFTER.format(arguments=arguments)).splitlines()[-1].strip() == "heavy:"
    assert len(kept.read_text().splitlines()) == 4
    arguments = [str(one) for one in score]
    assert python("-c", HEAVY_AFTER.format(arguments=arguments)).splitlines()[-1].strip() == "heavy:"
