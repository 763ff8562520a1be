"""One rank of the tests with real processes, each forked from a server that has imported longlode once."""

import multiprocessing
import os
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from longlode.core.errors import RankError
from longlode.parallel import GroupTransport, RankShard, sum_gradients


def start(num_ranks, folder, work):
    """Processes that run `work(rank, folder)` in a gloo group."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["longlode.models", "longlode.parallel"])
    processes = [
        forks.Process(target=_join, args=(rank, num_ranks, folder, work)) for rank in range(num_ranks)
    ]
    for process in processes:
        process.start()
    return processes


def _join(rank: int, num_ranks: int, folder: Path, work) -> None:
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group(
        "gloo", init_method=meeting, rank=rank, world_size=num_ranks, timeout=timedelta(seconds=60)
    )
    work(rank, folder)
    dist.destroy_process_group()


def steps(rank: int, folder: Path) -> None:
    """The step of every case in the folder, gradients summed over ranks by `sum_gradients`."""
    from longlode.models import LonglodeConfig, LonglodeForCausalLM

    facts = torch.load(folder / "cases.pt", weights_only=False)
    model = LonglodeForCausalLM(LonglodeConfig(**facts["config"])).double().train()
    model.load_state_dict(facts["weights"])
    results = []
    for scheme, plan, tokens, labels in facts["cases"]:
        model.zero_grad(set_to_none=True)
        transport = GroupTransport(timeout_s=60)
        shard = RankShard(plan, transport, scheme)
        loss = model(**plan.piece(rank).model_inputs(tokens, labels), shard=shard).loss
        loss.backward()
        counted = dict(transport.traffic.num_bytes)
        whole_loss = transport.all_reduce(loss.detach(), "loss")
        sum_gradients(model.parameters(), transport)
        results.append((whole_loss, [parameter.grad for parameter in model.parameters()], counted))
    torch.save(results, folder / f"rank{rank}.pt")


def dies(rank: int, folder: Path) -> None:
    """Rank 1 ends without a word; the others must end by themselves, with a message."""
    _fail(rank, folder, lambda: os._exit(3), timeout_s=30)


def hangs(rank: int, folder: Path) -> None:
    """Rank 1 does not answer."""
    _fail(rank, folder, lambda: time.sleep(60), timeout_s=1)


def _fail(rank: int, folder: Path, failure, timeout_s: float) -> None:
    transport = GroupTransport(timeout_s=timeout_s)
    transport.all_gather(torch.ones(1), "fold")
    if rank == 1:
        failure()
    started = time.monotonic()
    try:
        if rank == 0:
            transport.all_gather(torch.ones(4), "fold")
        else:
            transport.exchange({}, {1: (2,)}, torch.ones(1), "halo")
    except RankError as error:
        (folder / f"rank{rank}.txt").write_text(f"{time.monotonic() - started:.1f}|{error}")
        os._exit(7)
