"""Disturbances of scoring beyond kills and write errors: what else may happen to a folder between two runs.

SIGTERM        the command is asked to end at a random moment
damage         after a kill, a file that the run left is cut short, or a byte of it is changed
stale claim    after a kill, the file of a run on another machine claims all units; it stands still, and the clock
               of that machine is a day ahead, or a day behind
kill again     after a kill, the command runs with other numbers of workers, and is killed again, twice
"""

import contextlib
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

SIGTERM, DAMAGE, STALE, AGAIN = "SIGTERM", "damage", "stale claim", "kill again"
OTHERS = (SIGTERM, DAMAGE, STALE, AGAIN)
CLAIM_NAME = "0badcafe-7-1.json"
LEASE_VARIABLE = "LONGLODE_LEASE_SECONDS"
_DAY = 86_400.0


def damage(folder: Path, draw: random.Random) -> str:
    """Cut a file of a scores folder short, or change a byte of it. Returns: its name, "" where there is none."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.parent.name in ("parts", "plan") and not path.name.startswith(".")
    )
    if not files:
        return ""
    path = draw.choice(files)
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data)) if data else 0
    if draw.random() < 0.5 or not data:
        del data[place:]
    else:
        data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return path.relative_to(folder).as_posix()


def claim_all(folder: Path, units: list[str], draw: random.Random) -> None:
    """Leave the file of a run on another machine that has all these units in hand."""
    runs = folder / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    skewed = time.time() + draw.choice((-_DAY, _DAY))
    about = {"run": "0badcafe-7-1", "beat": 3, "written": skewed, "in_hand": dict.fromkeys(units, 1.0)}
    (runs / CLAIM_NAME).write_text(json.dumps(about), encoding="utf-8")


def forget_claim(folder: Path) -> None:
    """Remove that file: a run with nothing left to do has not watched it for long enough to know that it is stale."""
    (folder / "runs" / CLAIM_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        (folder / "runs").rmdir()


def with_workers(arguments: tuple[str, ...], numbers: Iterator[int]) -> tuple[str, ...]:
    """The command with the next number of workers."""
    kept = list(arguments)
    if "--workers" in kept:
        place = kept.index("--workers")
        del kept[place : place + 2]
    return (*kept, "--workers", str(next(numbers)))
