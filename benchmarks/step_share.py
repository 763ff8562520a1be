"""Share of the machine's own matrix rate that a training step reaches, with the row-wise kernels and without.

    python -m benchmarks.step_share [--dtype bfloat16 float32] [--rounds 4] [--threads 1] [--save]

The stack of the starter (four DeltaNet layers of width 256, 4.5 million parameters, 8,192 tokens a step) takes one step
with the compiled row-wise kernels and one in plain torch, in turns, with a product of two matrices of 1,024 between
them. Times are CPU times of this process, whose ratios a busy machine changes less than times on the clock; the best
of each counts. First the gradients of both are compared with those of plain torch in
float32. Share: floating-point operations of the step (three times
those of the forward) per second, over the rate of the product.
"""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longlode.core.batch import Batch
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.ops import rowwise
from longlode.ops.host_memory import keep_freed_memory
from longlode.train.optim import build_optimizer
from longlode.train.recipe import Recipe
from longlode.train.step import training_step

STACK: dict[str, Any] = {
    "mixers": "D*4",
    "hidden_size": 256,
    "num_heads": 4,
    "intermediate_size": 768,
    "tie_word_embeddings": True,
    "initializer_range": 0.06,
}
VOCABULARY, ROWS, LENGTH, SIDE = 4096, 4, 2048, 1024
RESULTS = Path(__file__).parent / "results"


class Trainer:
    """A model and what a step of it needs."""

    def __init__(self, dtype: str) -> None:
        """Make the model, a batch of random tokens, and the optimizer, the same at every call."""
        torch.manual_seed(0)
        self.model = LonglodeForCausalLM(LonglodeConfig(vocab_size=VOCABULARY, **STACK))
        self.recipe = Recipe.model_validate(
            {
                "model": STACK,
                "data": {"length": LENGTH, "batch_size": ROWS},
                "run": {"steps": 1, "dtype": dtype},
            }
        )
        tokens = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, LENGTH + 1))
        self.batch = Batch(*(np.ascontiguousarray(x) for x in (tokens[:, :-1], tokens[:, 1:])))
        self.optimizer = build_optimizer(self.model, self.recipe.optim)

    def step(self) -> float:
        """Take a step; return its CPU time in seconds."""
        started = time.process_time()
        training_step(self.model, self.batch, self.optimizer, 0.0, self.recipe)
        return time.process_time() - started

    def gradients(self) -> torch.Tensor:
        """Return the gradients of a step as one vector."""
        found: list[torch.Tensor] = []

        def keep(model: torch.nn.Module) -> None:
            found.extend(p.grad.flatten().clone() for p in model.parameters() if p.grad is not None)

        training_step(self.model, self.batch, self.optimizer, 0.0, self.recipe, on_gradients=keep)
        return torch.cat(found)


@contextmanager
def in_torch() -> Iterator[None]:
    """Run the row-wise operations in plain torch, as where they were not compiled."""
    before = rowwise.why_no_rowwise
    rowwise.why_no_rowwise = lambda: "the benchmark compares with torch"
    try:
        yield
    finally:
        rowwise.why_no_rowwise = before


def product_seconds(dtype: torch.dtype) -> float:
    """Return the CPU time of a product of two matrices."""
    one = torch.ones(SIDE, SIDE, dtype=dtype)
    started = time.process_time()
    torch.mm(one, one)
    return time.process_time() - started


def measure(dtype: str, rounds: int) -> dict[str, Any]:
    """Return the row of a dtype. Raises: SystemExit if the gradients differ."""
    trainer = Trainer(dtype)
    found = {"compiled": trainer.gradients()}
    with in_torch():
        found["torch"] = trainer.gradients()
        exact = Trainer("float32").gradients()
    errors = {name: float((x - exact).norm() / exact.norm()) for name, x in found.items()}
    if not errors["compiled"] < 1.2 * errors["torch"] + 1e-5:
        raise SystemExit(f"The gradients in {dtype} differ from float32 by {errors}; no time is printed.")
    times: dict[str, list[float]] = {"compiled": [], "torch": [], "product": []}
    for _ in range(rounds):
        times["compiled"].append(trainer.step())
        times["product"] += [product_seconds(getattr(torch, dtype)) for _ in range(5)]
        with in_torch():
            times["torch"].append(trainer.step())
    best = {name: min(found) for name, found in times.items()}
    rate = 2 * SIDE**3 / best["product"]
    tokens = ROWS * LENGTH
    work = 3 * trainer.model.flops_per_token(LENGTH) * tokens
    return {
        "dtype": dtype,
        "compiled_gradient_error": errors["compiled"],
        "torch_gradient_error": errors["torch"],
        "product_gflops": rate / 1e9,
        "compiled_tokens_per_second": tokens / best["compiled"],
        "torch_tokens_per_second": tokens / best["torch"],
        "ratio": best["torch"] / best["compiled"],
        "compiled_share": work / best["compiled"] / rate,
        "torch_share": work / best["torch"] / rate,
        "rounds": rounds,
    }


def main() -> int:
    """Measure, print, and keep the result if it is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dtype", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"]
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/DATE-step-share.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    reason = rowwise.why_no_rowwise()
    if reason:
        raise SystemExit(f"There are no row-wise kernels here: {reason}.")
    keep_freed_memory()
    rows = []
    for dtype in options.dtype:
        rows.append(measure(dtype, options.rounds))
        print(
            {name: float(f"{x:.4g}") if isinstance(x, float) else x for name, x in rows[-1].items()},
            flush=True,
        )
    if options.save:
        path = RESULTS / f"{datetime.datetime.now(datetime.UTC).date()}-step-share.json"
        about = {"command": " ".join(sys.argv), "torch": torch.__version__, "threads": options.threads}
        path.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
