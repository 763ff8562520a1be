"""Schemes for sequences on several ranks, side by side: time, peak memory, bytes on the wire, and how they grow.

    python -m benchmarks.sharding [--ranks 1,2,4] [--lengths 1024,4096] [--rounds 3] [--device cuda] [--save]

A case is a mixer x scheme x mask x length x ranks. Schemes: those of softmax attention, and for the states of recurrent
mixers (the delta rule with and without decay, linear attention without and with decays per head or channel) `fold` and
`ulysses`. Masks: causal (one document), packed (documents of long-tailed lengths in one row), window (softmax attention
in which each token sees 128). A step
is forward, loss and backward of a model of one block, width 256, 4 heads of 64, with little besides the mixer, float32,
one thread per rank. Every loss is first compared with that of one rank: beyond 1e-5 relative, nothing is printed. Ranks
are processes of gloo, or of NCCL with --device cuda, one device each. Rounds are interleaved: every scheme once, then
again.

Processor time is that of the rank that needs most, in the best round, as a ratio to `gather` (attention) or `fold`
(states) of the same case; it leaves out waiting. Seconds are those of the rank that took longest, in the best round.
Memory: the highest peak of a rank within the step, above what was held before it. Bytes: most that a rank receives. A
slope is the exponent between the two outer lengths: 1 grows as the length, 2 as its square. The JSON has a cost model
per scheme, of this model of one block (`benchmarks.sharding_cost` fits that of a recipe).
"""

import argparse
import ctypes
import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist

from benchmarks.saved import about, save
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.parallel import ATTENTION_SCHEMES, GroupTransport, RankShard, SequencePlan, next_tokens
from longlode.parallel.planner import CostModel

VOCAB, WIDTH, HEADS, WINDOW = 64, 256, 4, 128
ATTENTION, WINDOWED = "attention", "sliding_window_attention"
RECURRENT = ("delta_net", "gated_delta_net", "linear_attention", "gated_linear_attention", "mamba2")
"""Mixers whose states are exchanged: dense maps, dense maps with decay, sums, diagonal maps, one decay per head."""
BASE = {ATTENTION: "gather", WINDOWED: "gather", **dict.fromkeys(RECURRENT, "fold")}
"""Scheme that others are compared with, by mixer."""
MOST_SCORES = 4096
"""Longest sequence for `ring_scores`, which holds all scores."""


class Case(NamedTuple):
    """A mixer x scheme x mask x length."""

    mixer: str
    scheme: str
    mask: str
    length: int

    @property
    def documents(self) -> tuple[int, ...]:
        """Lengths of the documents of the row."""
        return long_tailed(self.length) if self.mask == "packed" else (self.length,)


def cases(lengths: list[int], ranks: int) -> Iterator[Case]:
    """All cases, shortest first; one rank exchanges nothing, so there is one scheme per mixer."""
    return (case for case in _all_cases(lengths) if ranks > 1 or case.scheme == BASE[case.mixer])


def _all_cases(lengths: list[int]) -> Iterator[Case]:
    for length in sorted(lengths):
        for mask in ("causal", "packed"):
            for scheme in ATTENTION_SCHEMES:
                if scheme != "ring_scores" or length <= MOST_SCORES:
                    yield Case(ATTENTION, scheme, mask, length)
            for mixer in RECURRENT:
                for states in ("fold", "ulysses"):
                    yield Case(mixer, states, mask, length)
        for scheme in ("gather", "ulysses"):  # all others send a window as gather does
            yield Case(WINDOWED, scheme, "window", length)


def long_tailed(length: int) -> tuple[int, ...]:
    """Lengths of documents that fill a row: one of half of it, the others as of a Pareto distribution.

    None of the others is longer than a sixteenth of the row, so that a row always holds many short documents.
    """
    rng = np.random.default_rng(length)
    found = [length // 2]
    while (left := length - sum(found)) > 0:
        found.append(min(left, max(1, length // 16), int(16 * (rng.pareto(1.1) + 1))))
    return tuple(rng.permutation(found).tolist())


class Rank:
    """One rank of a run: its device, its process group, its models. facts: of the run and the rank, as `run` says."""

    num_tokens = VOCAB

    def __init__(self, facts: dict[str, Any]) -> None:
        """Join the process group of the run."""
        torch.set_num_threads(1)
        self.rank, self.ranks = facts["rank"], facts["ranks"]
        self.device = torch.device(f"cuda:{self.rank}" if facts["device"] == "cuda" else "cpu")
        if self.is_cuda:
            torch.cuda.set_device(self.device)
        dist.init_process_group(
            "nccl" if self.is_cuda else "gloo",
            init_method=f"file://{facts['folder']}/meeting",
            rank=self.rank,
            world_size=self.ranks,
            timeout=timedelta(hours=1),
        )
        self.models: dict[str, LonglodeForCausalLM] = {}

    @property
    def is_cuda(self) -> bool:
        """True on a CUDA device."""
        return self.device.type == "cuda"

    def model(self, mixer: str) -> LonglodeForCausalLM:
        """Return the model of one block, the same on all ranks."""
        if mixer not in self.models:
            torch.manual_seed(0)
            config = LonglodeConfig(
                vocab_size=VOCAB,
                hidden_size=WIDTH,
                layers=[mixer],
                num_heads=HEADS,
                head_dim=WIDTH // HEADS,
                intermediate_size=32,
                window=WINDOW,
            )
            self.models[mixer] = LonglodeForCausalLM(config).train().to(self.device)
        return self.models[mixer]

    def exchanges(self, case: Case) -> dict[str, Any]:
        """Return the scheme of a case as options of `RankShard`."""
        return {"states" if case.mixer in RECURRENT else "attention": case.scheme}

    def loss(self, model: LonglodeForCausalLM, inputs: dict[str, Any]) -> torch.Tensor:
        """Return this rank's share of the loss."""
        return model(**inputs).loss

    def step(self, case: Case) -> dict[str, float]:
        """Take one step of a case; its loss is this rank's share."""
        model = self.model(case.mixer)
        tokens = torch.randint(self.num_tokens, (1, case.length), generator=torch.Generator().manual_seed(1))
        edges = np.concatenate(([0], np.cumsum(case.documents))).tolist() if case.mask == "packed" else None
        plan = SequencePlan.even(self.ranks, tokens.shape, cu_seqlens=edges)
        labels = next_tokens(tokens, cu_seqlens=edges).to(self.device)
        inputs = plan.piece(self.rank).model_inputs(tokens.to(self.device), labels)
        transport = GroupTransport(timeout_s=3600)
        options = self.exchanges(case)
        shard = None if self.ranks == 1 else RankShard(plan, transport, device=self.device, **options)
        model.zero_grad(set_to_none=True)
        held = self._forget_peak()
        dist.barrier()
        began, processor = time.perf_counter(), time.process_time()
        loss = self.loss(model, {**inputs, "shard": shard})
        loss.backward()
        if self.is_cuda:
            torch.cuda.synchronize()
        return {
            "loss": float(loss.detach()),
            "seconds": time.perf_counter() - began,
            "processor_seconds": time.process_time() - processor,
            "peak_bytes": self._peak() - held,
            "received_bytes": transport.traffic.total_bytes,
        }

    def _forget_peak(self) -> int:
        """Return freed memory to the system, begin a new peak, and return the bytes held now."""
        if self.is_cuda:
            torch.cuda.reset_peak_memory_stats()
            return torch.cuda.memory_allocated()
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return self._peak()

    def _peak(self) -> int:
        if self.is_cuda:
            return torch.cuda.max_memory_allocated()
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(rank: Rank, todo: list[Case], rounds: int) -> list[list[dict[str, float]]]:
    """Run all cases as one rank, round after round: `[case][round]`. The round before the first warms up."""
    for case in todo:
        if case.length == min(case.length for case in todo):
            rank.step(case)
    taken = [[rank.step(case) for case in todo] for _ in range(rounds)]
    dist.destroy_process_group()
    return [list(of_case) for of_case in zip(*taken, strict=True)]


def work_as_rank(facts: dict[str, Any], todo: list[Case], kind: type[Rank]) -> None:
    """Write what `measure` returns into the folder of the run."""
    found = measure(kind(facts), todo, facts["rounds"])
    (Path(facts["folder"]) / f"rank{facts['rank']}.json").write_text(json.dumps(found))


def run(
    ranks: int, settings: dict[str, Any], todo: list[Case], kind: type[Rank] = Rank
) -> list[dict[str, Any]]:
    """Run all cases on that many processes; return a row per case.

    settings: device, rounds, and what `kind` needs besides; rank, ranks and folder are added.
    """
    with tempfile.TemporaryDirectory() as folder:
        # One server imports everything once; each rank is a fork of it.
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(["benchmarks.sharding"])
        facts = [{**settings, "rank": rank, "ranks": ranks, "folder": folder} for rank in range(ranks)]
        processes = [forks.Process(target=work_as_rank, args=(one, todo, kind)) for one in facts]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("a rank failed; its message is above")
        found = [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(ranks)]
    rows = []
    for case, of_ranks in zip(todo, zip(*found, strict=True), strict=True):
        row: dict[str, Any] = {**case._asdict(), "documents": case.documents, "ranks": ranks}
        row["loss"] = sum(rounds[0]["loss"] for rounds in of_ranks)
        for name in ("seconds", "processor_seconds", "peak_bytes"):
            # The best round of the rank that is worst in it.
            row[name] = min(max(rounds[n][name] for rounds in of_ranks) for n in range(settings["rounds"]))
        row["received_bytes"] = max(rounds[0]["received_bytes"] for rounds in of_ranks)
        rows.append(row)
    return rows


def check(rows: list[dict[str, Any]]) -> float:
    """Return the largest relative difference of a loss from one rank's. Raises: SystemExit beyond 1e-5."""
    alone = {(r["mixer"], r["mask"], r["length"]): r["loss"] for r in rows if r["ranks"] == 1}
    worst = max(abs(r["loss"] / alone[r["mixer"], r["mask"], r["length"]] - 1) for r in rows)
    if not worst < 1e-5:
        raise SystemExit(
            f"losses differ by {worst:.1e} relative from those of one rank; expected at most 1e-5"
        )
    return worst


def with_slopes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add to each row its ratio of processor time, and to that of the longest length its slopes."""
    key = {tuple(r[name] for name in ("mixer", "scheme", "mask", "ranks", "length")): r for r in rows}
    lengths = sorted({r["length"] for r in rows})
    for row in rows:
        other = key[row["mixer"], BASE[row["mixer"]], row["mask"], row["ranks"], row["length"]]
        row["processor_ratio"] = row["processor_seconds"] / other["processor_seconds"]
        first = key.get((row["mixer"], row["scheme"], row["mask"], row["ranks"], lengths[0]))
        if row["length"] == lengths[-1] and first is not None and len(lengths) > 1:
            row["slopes"] = {
                name: math.log(row[name] / first[name]) / math.log(lengths[-1] / lengths[0])
                for name in ("received_bytes", "peak_bytes", "processor_seconds")
                if row[name] > 0 and first[name] > 0
            }
    return rows


def cost_models(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Fit a cost model per mixer and scheme to the seconds of its cases."""
    found = {}
    for mixer, scheme in sorted({(r["mixer"], r["scheme"]) for r in rows}):
        times = [
            (r["ranks"], r["documents"], r["seconds"])
            for r in rows
            if r["mixer"] == mixer and (r["scheme"] == scheme or r["ranks"] == 1)
        ]
        if len(times) >= 5:
            found[f"{mixer} {scheme}"] = vars(CostModel.fit(times))
    return found


def table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| mixer | scheme | mask | tokens | ranks | seconds | received, MiB | slope | peak, MiB | slope | processor "
        "| slope |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = ("mixer", "mask", "ranks", "length")
    for r in sorted(rows, key=lambda r: [r[name] for name in order]):
        if r["ranks"] == 1:
            continue
        slopes = r.get("slopes", {})
        cells = [
            r["mixer"],
            r["scheme"],
            r["mask"],
            f"{r['length']:,}",
            str(r["ranks"]),
            f"{r['seconds']:.3f}",
        ]
        for name, value in (
            ("received_bytes", f"{r['received_bytes'] / 2**20:.2f}"),
            ("peak_bytes", f"{r['peak_bytes'] / 2**20:.0f}"),
            ("processor_seconds", f"{r['processor_ratio']:.2f}"),
        ):
            cells += [value, f"{slopes[name]:.2f}" if name in slopes else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--lengths", default="1024,4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    lengths = sorted(int(part) for part in args.lengths.split(","))
    settings = {"lengths": lengths, "rounds": args.rounds, "device": args.device}
    counts = sorted({1, *(int(part) for part in args.ranks.split(","))})
    rows = [row for ranks in counts for row in run(ranks, settings, list(cases(lengths, ranks)))]
    worst = check(rows)
    rows = with_slopes(rows)
    text = table(rows)
    print(text)
    if args.save:
        made = about("sharding")
        result = {
            **made,
            **settings,
            "largest_difference": worst,
            "rows": rows,
            "cost_models": cost_models(rows),
        }
        method = " ".join(str(__doc__).split("[--save]")[1].split())
        facts = [f"- {name}: {value}" for name, value in {**made, "method": method}.items()]
        facts.append(f"- losses: within {worst:.0e} of one rank's, relative")
        facts.append(f"- rounds: {args.rounds}")
        save("sharding", result, "\n".join(["# Sequences on several ranks", "", *facts, "", text]))


if __name__ == "__main__":
    main()
