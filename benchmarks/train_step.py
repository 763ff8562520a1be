"""Speed of a training step by length: DeltaNet and hybrids beside a Llama, tokens a second, and where they cross.

    python -m benchmarks.train_step [--lengths 512 ... 16384] [--threads 1] [--rounds 2] [--quick] [--save]

All models have the same width, depth and vocabulary (benchmarks/peers.py), random weights, float32. A step is forward,
loss, backward and AdamW on 16,384 tokens, cut into rows of the length. First each model's loss and gradient are
compared with its own in float64; if they differ, no time is printed. Then, at each length, the models take turns,
round after round, after one step to warm up; a figure is the best round.
"""

import argparse
import copy
import os
import sys
import time
from typing import Any

import torch

from benchmarks.peers import (
    FULL,
    LLAMA,
    NAMES,
    QUICK,
    Row,
    Size,
    as_table,
    build,
    millions,
    relative_error,
    save,
)

LENGTHS = [512, 1024, 2048, 4096, 8192, 16384]
COLUMNS = {
    "model": "",
    "params_millions": ".1f",
    "length": ",",
    "tokens_per_second": ",.0f",
    "of_llama": ".2f",
}


def batch(length: int, num_tokens: int, vocab_size: int) -> torch.Tensor:
    shape = (max(1, num_tokens // length), length)
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(length))


def step(model: Any, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def error_of(model: Any, vocab_size: int) -> float:
    """Largest relative error of the loss and of all gradients against the same model in float64."""
    tokens = batch(100, 200, vocab_size)
    found = []
    for one in (model, copy.deepcopy(model).double()):
        loss = one(input_ids=tokens, labels=tokens, use_cache=False).loss
        grads = torch.autograd.grad(loss, list(one.parameters()))
        found.append(torch.cat([loss.detach().reshape(1), *(grad.flatten() for grad in grads)]))
    return relative_error(*found)


def measure(size: Size, lengths: list[int], num_tokens: int, rounds: int) -> list[Row]:
    models = {name: build(name, size).train() for name in NAMES}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    rows: list[Row] = []
    for length in lengths:
        tokens = batch(length, num_tokens, size.vocab_size)
        best = dict.fromkeys(models, float("inf"))
        for turn in range(rounds + 1):
            for name, model in models.items():
                seconds = step(model, optimizers[name], tokens)
                if turn:
                    best[name] = min(best[name], seconds)
        for name, model in models.items():
            rows.append(
                {
                    "model": name,
                    "params_millions": millions(model),
                    "length": length,
                    "tokens_per_second": tokens.numel() / best[name],
                    "of_llama": best[LLAMA] / best[name],
                }
            )
        print(f"length {length:,} done", file=sys.stderr)
    return sorted(rows, key=lambda row: (NAMES.index(str(row["model"])), row["length"]))


def verdict(rows: list[Row]) -> str:
    """The crossover of every stack, and the two targets."""
    speed = {(row["model"], row["length"]): float(row["tokens_per_second"]) for row in rows}
    lengths = sorted({int(row["length"]) for row in rows})
    lines = []
    for name in NAMES[:-1]:
        ahead = [length for length in lengths if speed[name, length] > speed[LLAMA, length]]
        behind = [length for length in lengths if length not in ahead]
        from_here = [length for length in ahead if not behind or length > max(behind)]
        where = f"from {min(from_here):,} tokens on" if from_here else f"at no length up to {lengths[-1]:,}"
        lines.append(f"- {name} is ahead of the Llama {where}.")
    base = 2048 if 2048 in lengths else lengths[0]
    cost = speed[NAMES[0], base] / speed[NAMES[0], lengths[-1]] - 1
    lines.append(
        f"- A token of DeltaNet costs {100 * cost:+.1f} % at {lengths[-1]:,} against {base:,} (target: within 5 %); "
        "target of the crossover: 2,048."
    )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=int, nargs="+", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="small models, short rows: does it run")
    parser.add_argument("--save", action="store_true", help="write a dated result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load, size = os.getloadavg()[0], QUICK if args.quick else FULL
    lengths = sorted(args.lengths or ([64, 128, 256] if args.quick else LENGTHS))
    errors = {name: error_of(build(name, size), size.vocab_size) for name in NAMES}
    print("largest relative error of a gradient:", {name: f"{error:.1e}" for name, error in errors.items()})
    if max(errors.values()) > 1e-3:
        print("gradients differ from float64; no times are printed")
        return 1
    num_tokens = max(lengths[-1], 256 if args.quick else 16384)
    rows = measure(size, lengths, num_tokens, args.rounds or (1 if args.quick else 2))
    text = f"{as_table(rows, COLUMNS)}\n\n{verdict(rows)}"
    print(f"\n{text}\n\nload average before: {load:.2f}")
    if args.save:
        save("train_step", "A training step on CPU, by length", __doc__ or "", rows, text, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
