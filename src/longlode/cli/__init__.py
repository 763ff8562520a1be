"""cli: the `longlode` command. Each file is one command; what a command does lives in the rooms, not here.

May import: every room, lazily, inside the command that needs it, so that `longlode --help` loads no torch.
Start reading: `app.py` (the list of commands), then `score.py`, then `demo.py` (all of them in a row).
"""

from longlode.cli.app import app, main

__all__ = ["app", "main"]
