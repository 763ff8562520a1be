"""Every script of examples/ runs, in a folder of its own, and the page beside them names all of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_example_runs(script, tmp_path):
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "error::SyntaxWarning",
    }
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()


def test_the_page_names_every_script():
    named = re.findall(r"`(\w+\.py)`", (ROOT / "examples/README.md").read_text(encoding="utf-8"))
    assert sorted(named) == [path.name for path in SCRIPTS]
