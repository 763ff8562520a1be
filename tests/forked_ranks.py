"""Ranks of a run as forked processes that speak gloo: what torchrun starts, without its seconds of start-up."""

import multiprocessing
import os
import pickle
import socket
import traceback
from dataclasses import dataclass
from typing import Any

import torch

from longlode.parallel.world import joined


@dataclass
class Outcome:
    """What a rank returned, or the error that it ended with; neither for one that died."""

    value: Any = None
    error: Exception | None = None
    exit_code: int | None = 0


def run_ranks(num_ranks, work, folder, wait_seconds=30, seconds=600):
    """Call `work(rank)` in that many ranks; return their outcomes, in order.

    wait_seconds: the time limit of an exchange. seconds: after which a rank is killed.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    children = [
        fork.Process(
            target=_child, args=(rank, num_ranks, port, work, folder / f"rank{rank}.pickle", wait_seconds)
        )
        for rank in range(num_ranks)
    ]
    for child in children:
        child.start()
    outcomes = []
    for rank, child in enumerate(children):
        child.join(seconds)
        if child.is_alive():
            child.kill()
            child.join()
        path = folder / f"rank{rank}.pickle"
        outcome = pickle.loads(path.read_bytes()) if path.exists() else Outcome()
        path.unlink(missing_ok=True)
        outcome.exit_code = child.exitcode
        outcomes.append(outcome)
    return outcomes


def values(outcomes):
    """Return what the ranks returned; raise the first error."""
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        assert outcome.exit_code == 0
    return [outcome.value for outcome in outcomes]


def _child(rank, num_ranks, port, work, path, wait_seconds):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(num_ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    try:
        with joined(wait_seconds):
            outcome = Outcome(work(rank))
    except Exception as error:
        error.add_note(traceback.format_exc())
        outcome = Outcome(error=error)
    path.write_bytes(pickle.dumps(outcome))
    os._exit(0)  # no exit handlers of the parent
