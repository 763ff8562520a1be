"""The commands of a page of the documentation, run as they are written: does the page work, and how long does it take?

    python -m benchmarks.run_page docs/train.md --corpus FOLDER [--block 1] [--work FOLDER] [--save]

Runs the lines of the page's n-th `sh` block one after the other by bash, in a folder that holds `corpus` (a link to the
given one) and `recipes`; stops at the first that fails. `longlode` is this Python's. Exit status: that of the last line
that ran.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.saved import about, save

ROOT = Path(__file__).resolve().parent.parent


def commands_of(page: Path, block: int) -> list[str]:
    """The lines of the page's `sh` block of that number, from 1, without comments.

    Raises: SystemExit where there is no such block.
    """
    blocks = re.findall(
        r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    if not 1 <= block <= len(blocks):
        raise SystemExit(f"{page} has {len(blocks)} blocks of sh; there is no number {block}.")
    lines = (re.sub(r"\s+#.*$", "", line).strip() for line in blocks[block - 1].splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def prepare(work: Path, corpus: Path) -> dict[str, str]:
    """Make what the page's reader has: a corpus, the recipes, the command; return the environment."""
    for name, target in (("corpus", corpus), ("recipes", ROOT / "recipes")):
        if not (work / name).exists():
            (work / name).symlink_to(target.resolve())
    (work / "bin").mkdir(exist_ok=True)
    command = work / "bin" / "longlode"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m longlode "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join((str(work / "bin"), os.environ["PATH"]))
    return {**os.environ, "PATH": path, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))}


def run(commands: Sequence[str], work: Path, environment: dict[str, str]) -> list[dict[str, Any]]:
    """Run the commands in turn up to the first that fails; return each with its status and seconds."""
    done: list[dict[str, Any]] = []
    for command in commands:
        print(f"$ {command}", flush=True)
        started = time.perf_counter()
        status = subprocess.run(["bash", "-c", command], cwd=work, env=environment, check=False).returncode
        done.append({"command": command, "status": status, "seconds": time.perf_counter() - started})
        print(f"[status {status}, {done[-1]['seconds']:.0f} s]", flush=True)
        if status:
            break
    return done


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path)
    parser.add_argument("--corpus", type=Path, required=True, help="folder of text")
    parser.add_argument("--block", type=int, default=1, help="number of the sh block, from 1")
    parser.add_argument("--work", type=Path, help="empty folder to work in, kept; default: a temporary one")
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    options = parser.parse_args(arguments)
    commands = commands_of(options.page, options.block)
    with tempfile.TemporaryDirectory() as temporary:
        work = options.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        done = run(commands, work, prepare(work, options.corpus))
    if options.save:
        facts = about("run_page")
        facts["command"] = f"python -m benchmarks.run_page {options.page} --corpus FOLDER"
        lines = [f"# The commands of {options.page}, as written", "", f"`{facts['command']}`", ""]
        lines += ["| command | status | seconds |", "| --- | --- | --- |"]
        lines += [f"| `{one['command']}` | {one['status']} | {one['seconds']:.0f} |" for one in done]
        save("page-train", facts | {"commands": done}, "\n".join(lines))
    sys.exit(done[-1]["status"])


if __name__ == "__main__":
    main()
