"""Data-parallel steps by accelerate and by the Trainer: `torchrun ... -m peers.fresh.data_parallel MIXERS OUT`.

Without torchrun it is one process on the same rows. The first process prints the result.
"""

import json
import sys

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from peers import tiny
from peers.training import logged, trainer

ROWS_PER_STEP, STEPS = 8, 3


def raw(mixers: str) -> list[list[float]]:
    """`[loss, gradient norm]` of three steps of accelerate's own loop, averaged over the processes."""
    accelerator = Accelerator(cpu=True)
    model = tiny.model(mixers).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = tiny.token_rows(ROWS_PER_STEP * STEPS)
    # accelerate deals batches out in turn, so that two processes with half a step's rows each make one step.
    loader = DataLoader(rows, batch_size=ROWS_PER_STEP // accelerator.num_processes)  # type: ignore[arg-type]
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    found = []
    for ids in loader:
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        found.append([accelerator.reduce(loss.detach(), "mean").item(), float(norm)])
    return found


def main(mixers: str, out: str) -> None:
    """Both loops, then what they found."""
    accelerator = Accelerator(cpu=True)
    settings = {"per_device_train_batch_size": ROWS_PER_STEP // accelerator.num_processes, "seed": 0}
    result = {
        "processes": accelerator.num_processes,
        "accelerate": raw(mixers),
        "trainer": logged(trainer(tiny.model(mixers), out, **settings)),
    }
    if accelerator.is_main_process:
        print(json.dumps(result))
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
