"""A Trainer whose first step is a checkpointed one: `python -m peers.fresh.trainer_checkpointed MIXERS OUT`."""

import json
import sys

from peers import tiny
from peers.training import logged, trainer


def main(mixers: str, out: str) -> None:
    """Three checkpointed steps, then the same three without."""
    checkpointed = trainer(tiny.model(mixers), out, gradient_checkpointing=True)
    plain = trainer(tiny.model(mixers), out)
    print(json.dumps({"checkpointed": logged(checkpointed), "plain": logged(plain)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
