"""What more threads gain in the compiled delta rule, where there are fewer documents and heads than threads.

    python -m benchmarks.delta_rule_threads [--threads 2] [--shapes 1,4096,1,64 ...] [--rounds 60] [--gated] [--save]

A shape is B,T,H,d with K = V = d, float32. Outputs and gradients on all thread counts are first compared bit for bit.
Then forward and backward are timed apart, on one thread and on `--threads` in turn, round after round, in this one
process; a figure is the ratio of the best rounds. On a machine that others use as well a second core is often not to be
had, and then no code gains anything. So a control that needs no cutting, as many heads as threads of half the length,
is timed in the same rounds: what it gains is what there was to be had. Ratios only: seconds say little there.
The processor's time of a backward on many threads over that on one (median) is what the cutting costs.
"""

import argparse
import statistics
import sys
import time

import torch

from benchmarks.delta_rule import Inputs, make_inputs
from benchmarks.saved import about, save
from longlode.ops.delta_rule import native

SHAPES = [
    "1,512,1,64",
    "1,1024,1,64",
    "1,4096,1,64",
    "1,1024,1,128",
    "1,4096,1,128",
    "1,2048,1,256",
    "1,4096,1,32",
]


def run(x: Inputs, num_threads: int) -> tuple[list[float], list[torch.Tensor]]:
    """Seconds of one forward and one backward, the processor's seconds of the backward; and the results."""
    torch.get_num_threads = lambda: (
        num_threads
    )  # the kernels' threads alone: torch's own would wait for work and count
    leaves = {name: y if y is None else y.detach().requires_grad_() for name, y in x.items()}
    q, k, v, beta = (leaves[name] for name in ("q", "k", "v", "beta"))
    start = time.perf_counter()
    o, _ = native.delta_rule_native(q, k, v, beta, leaves["g"], q.shape[-1] ** -0.5, None, None, None)
    middle, middle_processor = time.perf_counter(), time.process_time()
    grads = torch.autograd.grad(o, [y for y in leaves.values() if y is not None], torch.ones_like(o))
    end, end_processor = time.perf_counter(), time.process_time()
    return [middle - start, end - middle, end_processor - middle_processor], [o.detach(), *grads]


def check(x: Inputs, counts: tuple[int, ...]) -> None:
    """Raises: AssertionError where a thread count changes a bit."""
    expected = run(x, 1)[1]
    for count in counts:
        assert all(torch.equal(a, b) for a, b in zip(run(x, count)[1], expected, strict=True)), count


def measure(shape: str, num_threads: int, gated: bool, num_rounds: int) -> dict[str, object]:
    """The row of one shape."""
    B, T, H, d = (int(part) for part in shape.split(","))
    inputs = {"own": make_inputs((B, T, H, d), gated)}
    check(inputs["own"], (2, 3, num_threads, 16))
    inputs["control"] = make_inputs((1, T // 2, num_threads, d), gated)
    seconds: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(num_rounds):
        for name, x in inputs.items():
            for threads in (1, num_threads):
                time.sleep(0.01)
                seconds.setdefault((name, threads), []).append(run(x, threads)[0])

    def gain(name: str, column: int) -> float:
        one, many = (min(r[column] for r in seconds[name, threads]) for threads in (1, num_threads))
        return round(one / many, 2)

    one, many = (statistics.median(r[2] for r in seconds["own", threads]) for threads in (1, num_threads))
    return {
        "shape": shape,
        "forward_gain": gain("own", 0),
        "backward_gain": gain("own", 1),
        "control_forward_gain": gain("control", 0),
        "control_backward_gain": gain("control", 1),
        "backward_processor_time": round(many / one, 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="B,T,H,d")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--gated", action="store_true", help="with decay (Gated DeltaNet)")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/")
    args = parser.parse_args()
    rows = [measure(shape, args.threads, args.gated, args.rounds) for shape in args.shapes]
    lines = [
        "| B,T,H,d | forward, times faster | control | backward, times faster | control | processor's time, backward |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['shape']} | {r['forward_gain']} | {r['control_forward_gain']} | {r['backward_gain']} "
        f"| {r['control_backward_gain']} | {r['backward_processor_time']} |"
        for r in rows
    ]
    print("\n".join(lines))
    if args.save:
        facts = {**about("delta_rule_threads"), "method": " ".join((__doc__ or "").split("\n\n")[-1].split())}
        listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
        table = "\n".join(lines)
        save(
            "delta-rule-threads",
            {**facts, "rows": rows},
            f"# Delta rule on one head, more threads\n\n{listed}\n\n{table}",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
