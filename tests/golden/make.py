"""Make the golden anew, of the code as it is: python -m tests.golden.make [models] [checkpoints] [scores].

See README.md first.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import torch

from . import models, scores, stored


def make_models() -> None:
    """Write models.json."""
    cases = models.CASES
    stored.write(
        "models",
        {
            "parameters": {name: models.parameters(models.model(case)) for name, case in cases.items()},
            "losses": {name: models.losses(case) for name, case in cases.items()},
        },
        plain={"configs": {name: models.saved_config(case) for name, case in cases.items()}},
    )


def make_checkpoints() -> None:
    """Write the saved models and checkpoints.json."""
    shutil.rmtree(stored.CHECKPOINTS, ignore_errors=True)
    found = {}
    for name, case in models.CHECKPOINTS.items():
        network = models.model(case)
        network.save_pretrained(stored.CHECKPOINTS / name)
        found[name] = {kind: models.pass_once(network, kind == "packed") for kind in ("rows", "packed")}
    stored.write("checkpoints", {"losses": found})


def make_scores() -> None:
    """Write scores.json."""
    with tempfile.TemporaryDirectory() as folder:
        inputs, attending = Path(folder) / "texts", Path(folder) / "attending"
        scores.write_texts(inputs)
        scores.write_attending(attending)
        found = {name: scores.run(name, inputs, attending, Path(folder) / name) for name in scores.RUNS}
    stored.write(
        "scores",
        {
            "parts": {name: run["parts"] for name, run in found.items()},
            **{name: run["rows"] for name, run in found.items()},
        },
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    makers = {"models": make_models, "checkpoints": make_checkpoints, "scores": make_scores}
    for what in sys.argv[1:] or makers:
        makers[what]()
