"""Speed of a training step by length: DeltaNet and hybrids beside a Llama, tokens a second, and where they cross.

    python -m benchmarks.train_step [--lengths 512 ... 16384] [--threads 1] [--rounds 2] [--quick] [--save]

All models have the same width, depth and vocabulary (4 layers of width 256, about 5 million parameters, so that the
full run takes about ten minutes at one thread), random weights, float32; the Llama has transformers' sdpa attention. A
step is forward, loss, backward and AdamW on 8,192 tokens, cut into rows of the length, or on one row where that is
longer. First each model's loss and gradient are compared with its own in float64; if they differ, no time is printed.
Then, at each length, the models take turns, round after round; a figure is the best round. What a token of DeltaNet
costs at the longest length against 2,048 is measured apart, on as many tokens a step: a longer step has larger tensors.
"""

import copy
import sys
import time
from typing import Any

import torch

from benchmarks.peers import LLAMA, NAMES, Comparison, Row, Size, millions, relative_error

STEP_TOKENS = 8192


def batch(length: int, vocab_size: int, num_tokens: int = STEP_TOKENS) -> torch.Tensor:
    shape = (max(1, num_tokens // length), length)
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(length))


def step(model: Any, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> float:
    """Seconds of one step."""
    started = time.perf_counter()
    model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - started


def error_of(model: Any, size: Size) -> float:
    """Largest relative error of the loss and of all gradients against the same model in float64."""
    model.train()
    tokens = torch.randint(size.vocab_size, (2, 100), generator=torch.Generator().manual_seed(0))
    found = []
    for one in (model, copy.deepcopy(model).double()):
        loss = one(input_ids=tokens, labels=tokens, use_cache=False).loss
        grads = torch.autograd.grad(loss, list(one.parameters()))
        found.append(torch.cat([loss.detach().reshape(1), *(grad.flatten() for grad in grads)]))
    return relative_error(*found)


def measure(models: dict[str, Any], lengths: list[int], rounds: int, size: Size) -> list[Row]:
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    for name, model in models.items():
        step(model, optimizers[name], batch(lengths[0], size.vocab_size))
    rows: list[Row] = []
    for length in lengths:
        tokens = batch(length, size.vocab_size)
        best = dict.fromkeys(models, float("inf"))
        for _ in range(rounds):
            for name, model in models.items():
                best[name] = min(best[name], step(model, optimizers[name], tokens))
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
    mine = measure_slope(models[NAMES[0]], optimizers[NAMES[0]], lengths, rounds + 1, size)
    for row in rows:
        if row["model"] == NAMES[0] and row["length"] in mine:
            row["tokens_per_second_of_equal_steps"] = mine[int(row["length"])]
    return rows


def measure_slope(
    model: Any, optimizer: torch.optim.Optimizer, lengths: list[int], rounds: int, size: Size
) -> dict[int, float]:
    """Tokens a second at the base and at the longest length, on the longest length's number of tokens a step."""
    ends = (base_of(lengths), max(lengths))
    best = dict.fromkeys(ends, float("inf"))
    for round_ in range(rounds + 1):
        for length in ends:
            seconds = step(model, optimizer, batch(length, size.vocab_size, max(lengths)))
            best[length] = min(best[length], seconds) if round_ else best[length]
    return {length: max(lengths) // length * length / seconds for length, seconds in best.items()}


def base_of(lengths: list[int]) -> int:
    """The length that a long one is compared with."""
    return 2048 if 2048 in lengths else min(lengths)


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
    base = base_of(lengths)
    equal = {
        row["length"]: float(row["tokens_per_second_of_equal_steps"])
        for row in rows
        if "tokens_per_second_of_equal_steps" in row
    }
    cost = equal[base] / equal[lengths[-1]] - 1
    lines.append(
        f"- A token of DeltaNet costs {100 * cost:+.1f} % at {lengths[-1]:,} against {base:,} (target: within 5 %); "
        "target of the crossover: 2,048."
    )
    return "\n".join(lines)


COMPARISON = Comparison(
    name="train_step",
    title="A training step on CPU, by length",
    method=__doc__ or "",
    points_name="lengths",
    points=[512, 1024, 2048, 4096, 8192, 16384],
    quick_points=[64, 128, 256],
    rounds=2,
    columns={
        "model": "",
        "params_millions": ".1f",
        "length": ",",
        "tokens_per_second": ",.0f",
        "of_llama": ".2f",
    },
    checked="loss and gradients against float64",
    error_of=error_of,
    measure=measure,
    verdict=verdict,
)

if __name__ == "__main__":
    sys.exit(COMPARISON.main())
