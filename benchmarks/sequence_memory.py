"""Peak memory of a training step on one rank, and on each of several that share the sequence.

    python -m benchmarks.sequence_memory [--tokens 262144] [--ranks 4] [--stack "DS*3"] [--checkpoint] [--save]
        [--threads 2] [--keep FOLDER [--only-one]]

A step is forward, loss and backward of one row of random tokens, on a model of about 5 million parameters (width 256,
byte vocabulary), random weights, float32, one thread per process (--threads: of the process that is alone). With --keep
results of finished runs are kept in a folder and not measured again; --only-one measures one rank alone. Every process
is a fresh one; its peak is the largest resident size during the step less the resident size before it (libraries and
weights). Ranks are gloo processes. First the losses are compared: if they differ by more than 1e-6 relative, no memory
is printed. A rank's share is its peak over the one-rank peak divided by the ranks: 1 is perfect. The C library is made
to return every freed block of 1 MiB or more (MALLOC_MMAP_THRESHOLD_), as it does by itself only above 32 MiB: otherwise
small pieces keep freed memory that large ones give back, which has nothing to do with sharding.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

from longlode.core.fingerprints import fingerprint

VOCAB, WIDTH = 256, 256


def resident_bytes() -> int:
    """Resident size of this process now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def measure(rank: int, ranks: int, folder: Path, settings: dict[str, Any]) -> dict[str, float]:
    """Run one step as one rank; return its loss (summed over ranks), peak and seconds."""
    import torch
    import torch.distributed as dist

    from longlode.models import LonglodeConfig, LonglodeForCausalLM
    from longlode.parallel import GroupTransport, RankShard, SequencePlan, next_tokens

    torch.set_num_threads(settings["threads"] if ranks == 1 else 1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=ranks,
        timeout=timedelta(hours=2),
    )
    transport = GroupTransport(timeout_s=7200)
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=VOCAB, hidden_size=WIDTH, mixers=settings["stack"], num_heads=4, head_dim=64, window=512
    )
    model = LonglodeForCausalLM(config).train()
    if settings["checkpoint"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # renamed in transformers 6
            model.gradient_checkpointing_enable({"use_reentrant": False})
    warm_up(model)
    shape = (1, settings["tokens"])
    tokens = torch.randint(VOCAB, shape, generator=torch.Generator().manual_seed(1))
    plan = SequencePlan.even(ranks, shape)
    inputs = plan.piece(rank).model_inputs(tokens, next_tokens(tokens))
    shard = None if ranks == 1 else RankShard(plan, transport, settings["attention"])
    dist.barrier()
    before, started = resident_bytes(), time.perf_counter()
    loss = model(**inputs, shard=shard).loss
    loss.backward()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    whole = transport.all_reduce(loss.detach().double(), "loss")
    received = transport.traffic.total_bytes
    dist.destroy_process_group()
    return {"loss": float(whole), "peak_bytes": peak, "seconds": seconds, "received_bytes": received}


def warm_up(model: Any) -> None:
    """Take a small step, so that libraries and gradients are there before the measured one."""
    import torch

    tokens = torch.zeros(1, 64, dtype=torch.int64)
    model(input_ids=tokens, labels=tokens).loss.backward()


def run(ranks: int, settings: dict[str, Any]) -> list[dict[str, float]]:
    """One result per rank, each a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.sequence_memory", "--as-rank"]
        processes = [
            subprocess.Popen(
                [
                    *command,
                    json.dumps({"rank": rank, "ranks": ranks, "folder": folder, "settings": settings}),
                ],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
            )
            for rank in range(ranks)
        ]
        outputs = [process.communicate()[0] for process in processes]
        for process in processes:
            if process.returncode:
                raise SystemExit(f"a rank ended with exit code {process.returncode}; its message is above")
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def kept(ranks: int, settings: dict[str, Any], folder: Path | None) -> list[dict[str, float]]:
    """The results of `run`, read from `folder` if they were measured before."""
    if folder is None:
        return run(ranks, settings)
    facts = {"ranks": ranks, **settings}
    path = folder / f"{fingerprint(facts)[:16]}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**facts, "results": run(ranks, settings)}))
    return json.loads(path.read_text())["results"]


def table(result: dict[str, Any]) -> str:
    slowest = {
        ranks: max(row["seconds"] for row in result["rows"] if row["ranks"] == ranks)
        for ranks in (1, result["ranks"])
    }
    seconds = " and ".join(f"{taken:,.0f} on {ranks}" for ranks, taken in slowest.items())
    lines = [
        f"One row of {result['tokens']:,} tokens, stack {result['stack']}, attention {result['attention']}, "
        f"activation checkpoints {'on' if result['checkpoint'] else 'off'}; loss {result['loss']:.6f} nats, the ranks' "
        f"within {result['relative_difference']:.0e} relative. Seconds of the step on ranks: {seconds}; threads of the "
        f"rank alone: {result['threads']}.",
        "",
        "| ranks | rank | peak of the step, MiB | of one rank's peak / ranks | received, MiB |",
        "|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['ranks']} | {row['rank']} | {row['peak_bytes'] / 2**20:,.0f} | {row['share']:.3f} | "
            f"{row['received_bytes'] / 2**20:,.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", type=int, default=262144)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--stack", default="DS*3")
    parser.add_argument("--attention", default="gather")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--only-one", action="store_true")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--as-rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_rank:
        facts = json.loads(args.as_rank)
        print(json.dumps(measure(facts["rank"], facts["ranks"], Path(facts["folder"]), facts["settings"])))
        return
    names = ("tokens", "stack", "attention", "checkpoint", "threads")
    settings = {name: getattr(args, name) for name in names}
    [alone] = kept(1, settings, args.keep)
    if args.only_one:
        print(
            f"one rank: {alone['peak_bytes'] / 2**20:,.0f} MiB, {alone['seconds']:,.0f} s, loss {alone['loss']:.6f}"
        )
        return
    several = kept(args.ranks, settings, args.keep)
    difference = abs(several[0]["loss"] - alone["loss"]) / alone["loss"]
    if difference > 1e-6:
        raise SystemExit(f"losses differ by {difference:.2e} relative; expected at most 1e-6")
    rows = [
        {**row, "ranks": ranks, "rank": rank, "share": row["peak_bytes"] / (alone["peak_bytes"] / ranks)}
        for ranks, results in ((1, [alone]), (args.ranks, several))
        for rank, row in enumerate(results)
    ]
    result = {
        **settings,
        "ranks": args.ranks,
        "loss": alone["loss"],
        "relative_difference": difference,
        "rows": rows,
    }
    print(table(result))
    if args.save:
        from benchmarks.saved import about, save

        save("sequence-memory", {**about("sequence_memory"), **result}, table(result))


if __name__ == "__main__":
    main()
