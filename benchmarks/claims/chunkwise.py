"""Claim: the chunk form of the delta rule beats the recurrence, more so for long texts and wide heads.

python -m benchmarks.claims.chunkwise --work DIR [--save]
"""

import argparse
import time

import torch

from benchmarks.claims.frame import FAILS, HOLDS, PARTLY, Claim, Finding, nothing_yet, run
from longlode.core.records import read_json, write_json
from longlode.ops.delta_rule import delta_rule, delta_rule_step

CLAIM = Claim(
    "chunkwise",
    "Chunk form against recurrence: speed-up by length and head size",
    "On an H100, at 16,384 tokens of width 2,048 per batch, the chunk form is 4 to 10 times as fast as the recurrent "
    "kernel at 512 tokens and 24 to 37 times at 16,384; wide heads gain most (arXiv 2406.06484, figure 1).",
    "Forward pass of one row, float32, one thread, 1,024 numbers of width in heads of 64 or 128: longlode's compiled "
    "chunk form against its compiled step, called token by token; the two take turns, best of 5 rounds, ratios only.",
    "The steps are called from Python, some microseconds each. A GPU's gain comes from the tokens that the chunk form "
    "works on at once; a single thread has no such gain from length.",
)
LENGTHS = (512, 2048, 8192)
HEADS = {64: 16, 128: 8}
_ROUNDS = 5


def seconds(length: int, head_dim: int) -> tuple[float, float]:
    """Seconds of the chunk form and of the recurrence, each the best round. Raises: SystemExit where they differ."""
    heads = HEADS[head_dim]
    generator = torch.Generator().manual_seed(length + head_dim)
    q, k, v = torch.randn(3, 1, length, heads, head_dim, generator=generator)
    k = torch.nn.functional.normalize(k, dim=-1)
    beta = torch.rand(1, length, heads, generator=generator)
    best = [float("inf"), float("inf")]
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            whole, _ = delta_rule(q, k, v, beta)
            best[0] = min(best[0], time.perf_counter() - started)
            state = torch.zeros(1, heads, head_dim, head_dim)
            started = time.perf_counter()
            for t in range(length):
                last, state = delta_rule_step(q[:, t], k[:, t], v[:, t], beta[:, t], state=state)
            best[1] = min(best[1], time.perf_counter() - started)
    if not torch.allclose(whole[:, -1], last, atol=1e-3):
        raise SystemExit(
            f"The two forms differ by {(whole[:, -1] - last).abs().max():.2g} at {length} tokens."
        )
    return best[0], best[1]


def find(options: argparse.Namespace) -> Finding:
    """The ratio at each length and head size."""
    path = options.work / "chunkwise.json"
    known = read_json(path) if path.is_file() else {}
    for head_dim in HEADS:
        for length in LENGTHS:
            if f"{head_dim}_{length}" not in known and not options.only_records:
                chunk, step = seconds(length, head_dim)
                known[f"{head_dim}_{length}"] = step / chunk
                write_json(path, known)
    if len(known) < len(HEADS) * len(LENGTHS):
        return nothing_yet()
    ratios = {head_dim: [known[f"{head_dim}_{length}"] for length in LENGTHS] for head_dim in HEADS}
    every = [one for found in ratios.values() for one in found]
    faster = min(every) > 1
    grows = all(found[-1] > 1.2 * found[0] for found in ratios.values())
    seen = (
        f"The chunk form is {min(every):.1f} to {max(every):.1f} times as fast as the steps. The ratio "
        f"{'grows' if grows else 'does not grow'} with the length."
    )
    verdict = HOLDS if faster and grows else PARTLY if faster else FAILS
    rows = [[f"heads of {head_dim}", *(f"{one:.1f}" for one in found)] for head_dim, found in ratios.items()]
    heads = ("recurrence over chunk form", *(f"{length:,} tokens" for length in LENGTHS))
    return Finding(heads, rows, verdict, seen, 0, {str(key): found for key, found in ratios.items()})


if __name__ == "__main__":
    run(CLAIM, find)
