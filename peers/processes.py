"""Run a module of `peers.fresh` in a process of its own: the first call of a process is what users see first."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import longlode

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}


def environment() -> dict[str, str]:
    """The environment of a child: offline, one thread, this test's packages first."""
    # The longlode under test and this folder first, wherever the child runs.
    paths = [str(Path(longlode.__file__).parents[1]), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, **SETTINGS, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(*command: str | Path, timeout_seconds: float = 300, cwd: Path | None = None) -> str:
    """Run a command of this environment's Python; return what it printed, fail the test with its errors."""
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=timeout_seconds,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, (
        f"{' '.join(map(str, command))}\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}"
    )
    return done.stdout


def fresh(name: str, *arguments: str | Path) -> Any:
    """Run `peers.fresh.NAME` in a fresh process; return the JSON that is its last line."""
    return json.loads(run("-m", f"peers.fresh.{name}", *arguments).strip().splitlines()[-1])
