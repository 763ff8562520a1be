"""The delta rule against its peers on this CPU: forward, forward and backward, peak memory, and the floor.

    python -m benchmarks.delta_rule [--threads 1 2] [--shapes 1,4096,8,64 ...] [--gated] [--quick] [--save]

A shape is B,T,H,d with K = V = d, float32. First every contender is checked against the float64 recurrence;
if one is wrong, no time is printed. Then all contenders are timed in turn, round after round, in this one
process; a figure is the best round (of two for a contender that takes over a second). Peak memory: in a process of
its own, the growth of the resident set (VmHWM) over that before the call, by one forward and backward. Floor: the
operations of the chunk form at C = 32 (ops/delta_rule/README.md, section 5) at the rate of this machine's own GEMM
(torch's), measured in the same run; kernels that multiply faster than torch come below it. Growth: time a token of
forward and backward at T = 65,536 over that at T = 4,096 (B = 1, H = 8, d = 64), ours only, in a process of its own;
with large pages too, where glibc can be told to ask for them. fla's naive chunkwise takes part where
flash-linear-attention (and einops) can be imported, without decay only.
"""

import argparse
import datetime
import importlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from longlode.core.records import versions, write_json
from longlode.ops.delta_rule import available_backends, delta_rule, delta_rule_step

RESULTS = Path(__file__).parent / "results"
SHAPES = ["1,4096,8,64", "1,4096,8,128", "4,1024,4,64", "1,16384,8,64", "1,2048,16,128"]
FLOOR_CHUNK = 32
GROWTH_SHAPES = ("1,4096,8,64", "1,65536,8,64")

Inputs = dict[str, torch.Tensor | None]
Contender = Callable[[Inputs], torch.Tensor]
Row = dict[str, str | int | float]


def longlode_native(x: Inputs) -> torch.Tensor:
    return delta_rule(x["q"], x["k"], x["v"], x["beta"], g=x["g"], backend="native")[0]


def longlode_chunkwise(x: Inputs) -> torch.Tensor:
    return delta_rule(x["q"], x["k"], x["v"], x["beta"], g=x["g"], backend="chunkwise")[0]


def transformers_fallback(x: Inputs) -> torch.Tensor:
    from transformers.models.qwen3_next import modeling_qwen3_next as room

    # Past the decorator, which may fetch a compiled kernel: the fallback is what runs without one.
    function = room.torch_chunk_gated_delta_rule
    function = getattr(function, "__wrapped__", function)
    g = torch.zeros_like(x["beta"]) if x["g"] is None else x["g"]
    return function(x["q"], x["k"], x["v"], g, x["beta"])[0]


def fla_naive(x: Inputs) -> torch.Tensor:
    from fla.ops.delta_rule.naive import delta_rule_chunkwise

    heads_first = (x[name].transpose(1, 2) for name in ("q", "k", "v", "beta"))
    return delta_rule_chunkwise(*heads_first)[0].transpose(1, 2)


CONTENDERS: dict[str, Contender] = {
    "longlode native": longlode_native,
    "longlode chunkwise": longlode_chunkwise,
    "transformers fallback": transformers_fallback,
    "fla naive chunkwise": fla_naive,
}


def absent(gated: bool) -> dict[str, str]:
    """Contenders that cannot take part, with the reason."""
    reasons = {"longlode native": available_backends("cpu")["native"]}
    try:
        importlib.import_module("fla.ops.delta_rule.naive")
        reasons["fla naive chunkwise"] = "it has no decay" if gated else ""
    except Exception as error:  # it probes for GPUs and compilers on import, and may fail in any way
        reasons["fla naive chunkwise"] = f"not installed ({type(error).__name__}: {error})"
    return {name: reason for name, reason in reasons.items() if reason}


def make_inputs(shape: tuple[int, ...], gated: bool, keys: str = "random") -> Inputs:
    B, T, H, d = shape
    rng = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(B, T, H, d, generator=rng) for _ in range(3))
    if keys == "equal":
        k = k[:, :1].expand_as(k).contiguous()
    k = k / k.norm(dim=-1, keepdim=True)
    beta = torch.rand(B, T, H, generator=rng)
    g = -torch.rand(B, T, H, generator=rng) if gated else None
    return {"q": q, "k": k, "v": v, "beta": beta, "g": g}


def run(contender: Contender, inputs: Inputs, backward: bool) -> list[torch.Tensor]:
    """One forward, and with `backward` the gradients of the sum of squares of its output."""
    if not backward:
        with torch.no_grad():
            return [contender(inputs)]
    leaves = {name: x if x is None else x.detach().requires_grad_() for name, x in inputs.items()}
    o = contender(leaves)
    return [o.detach(), *torch.autograd.grad(o, [x for x in leaves.values() if x is not None], o.detach())]


def check(contenders: dict[str, Contender], gated: bool) -> dict[str, float]:
    """Largest relative error of each contender's output and gradients against the float64 recurrence."""
    worst = dict.fromkeys(contenders, 0.0)
    for keys in ("random", "equal"):
        inputs = make_inputs((2, 224, 2, 32), gated, keys)
        wide = {name: x if x is None else x.double() for name, x in inputs.items()}
        exact = run(lambda x: delta_rule(**x, backend="reference")[0], wide, backward=True)
        for name, contender in contenders.items():
            for got, expected in zip(run(contender, inputs, backward=True), exact, strict=True):
                error = float((got.detach().double() - expected).abs().max() / expected.abs().max())
                worst[name] = max(worst[name], error if error == error else float("inf"))
    return worst


SLOW_SECONDS, SLOW_ROUNDS = 1.0, 2


def best_seconds(calls: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Best time of each call, the calls taking turns, after one call each to warm up.

    A call of more than SLOW_SECONDS takes part in SLOW_ROUNDS rounds only: it is far from a tie.
    """
    best = dict.fromkeys(calls, float("inf"))
    for round_ in range(num_rounds + 1):
        for name, call in calls.items():
            if round_ > SLOW_ROUNDS and best[name] > SLOW_SECONDS:
                continue
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if round_:
                best[name] = min(best[name], elapsed)
    return best


def gemm_flops_per_second() -> float:
    """The better of one large product and of a batch of the chunk form's own products."""
    calls, flops = {}, {}
    for shape in ((1, 1024, 1024, 1024), (64, 64, 64, 64), (64, 128, 128, 128)):
        X, m, n, k = shape
        a, b, out = torch.randn(X, m, k), torch.randn(X, k, n), torch.empty(X, m, n)
        calls[str(shape)] = lambda a=a, b=b, out=out: torch.bmm(a, b, out=out)
        flops[str(shape)] = 2.0 * X * m * n * k
    best = best_seconds(calls, 20)
    return max(flops[name] / seconds for name, seconds in best.items())


def floor_flops(shape: tuple[int, ...]) -> tuple[float, float]:
    """Operations of the forward, and of forward and backward, at C = 32 and K = V = d."""
    B, T, H, d = shape
    C = FLOOR_CHUNK
    forward = 8 * C * d + 6 * d * d + C * C / 3
    backward = 22 * C * d + 16 * d * d + C * C / 3
    return B * T * H * forward, B * T * H * (forward + backward)


def memory_growth_bytes(name: str, shape: str, gated: bool) -> int:
    """Peak memory of one forward and backward, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.delta_rule", "--memory-of", name, "--shapes", shape]
    command += ["--gated"] if gated else []
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return int(done.stdout.split()[-1])


def print_memory_growth(name: str, shape: tuple[int, ...], gated: bool) -> None:
    torch.set_num_threads(1)
    run(CONTENDERS[name], make_inputs((1, 64, 1, 16), gated), backward=True)
    inputs = make_inputs(shape, gated)
    before = resident_bytes("VmRSS")
    if before is None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
    results = run(CONTENDERS[name], inputs, backward=True)
    peak = resident_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert len(results) >= 5
    print(peak - before)


def resident_bytes(field: str) -> int | None:
    """VmRSS (now) or VmHWM (peak) of this process; None where there is no /proc."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def measure(
    contenders: dict[str, Contender], shape_text: str, gated: bool, threads: list[int], num_rounds: int
) -> list[Row]:
    """Rows of one shape: one a contender and thread count."""
    shape = tuple(int(part) for part in shape_text.split(","))
    inputs = make_inputs(shape, gated)
    memory = {name: memory_growth_bytes(name, shape_text, gated) for name in contenders}
    rows: list[Row] = []
    for num_threads in threads:
        torch.set_num_threads(num_threads)
        rate = gemm_flops_per_second()
        floors = [flops / rate for flops in floor_flops(shape)]
        seconds = [
            best_seconds(
                {name: lambda c=c, b=b: run(c, inputs, b) for name, c in contenders.items()}, num_rounds
            )
            for b in (False, True)
        ]
        for name in contenders:
            both = seconds[1][name]
            rows.append(
                {
                    "shape": shape_text,
                    "gated": gated,
                    "threads": num_threads,
                    "contender": name,
                    "forward_seconds": seconds[0][name],
                    "forward_backward_seconds": both,
                    "peak_memory_bytes": memory[name],
                    "gemm_flops_per_second": rate,
                    "forward_floor_seconds": floors[0],
                    "forward_backward_floor_seconds": floors[1],
                }
            )
    return rows


def growth_per_token(contender: Contender, gated: bool) -> tuple[float, float]:
    """Microseconds a token, forward and backward, at the two lengths of GROWTH_SHAPES, at the current thread count."""
    calls = {}
    for text in GROWTH_SHAPES:
        inputs = make_inputs(tuple(int(part) for part in text.split(",")), gated)
        calls[text] = lambda inputs=inputs: run(contender, inputs, backward=True)
    best = best_seconds(calls, 4)
    short, long = (1e6 * best[text] / int(text.split(",")[1]) for text in GROWTH_SHAPES)
    return short, long


def growth_lines(name: str, gated: bool, num_threads: int) -> str:
    """What the growth of the time a token was, with the pages that the system gives and with large ones."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.delta_rule",
        "--growth-of",
        name,
        "--threads",
        str(num_threads),
    ]
    command += ["--gated"] if gated else []
    text = ""
    for pages, tunables in (("", {}), (" (large pages)", {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})):
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=600, env={**os.environ, **tunables}
        )
        short, long = (float(part) for part in done.stdout.split()[-2:])
        text += f"\n\nTime a token, fwd+bwd, {name}{pages}, {num_threads} thread(s): {short:.2f} us at T = 4,096, "
        text += f"{long:.2f} us at T = 65,536 ({long / short:.3f} times)"
    return text


def decode_microseconds(shape_text: str) -> float:
    """Best time of one decoding step, forward only, at the current thread count."""
    B, _, H, d = (int(part) for part in shape_text.split(","))
    x = make_inputs((B, 1, H, d), gated=False)
    q, k, v, beta = (x[name][:, 0] for name in ("q", "k", "v", "beta"))
    state = torch.randn(B, H, d, d)

    def steps() -> None:
        with torch.no_grad():
            for _ in range(100):
                delta_rule_step(q, k, v, beta, state=state)

    return best_seconds({"step": steps}, 5)["step"] / 100 * 1e6


def table(rows: list[Row]) -> str:
    """The rows as Markdown; "faster" and "memory" compare with the transformers fallback."""
    peer = {(r["shape"], r["threads"]): r for r in rows if r["contender"] == "transformers fallback"}
    lines = [
        "| B,T,H,d | threads | contender | forward ms | fwd+bwd ms | faster, fwd+bwd | times floor | peak MB "
        "| memory of fallback |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        other = peer[r["shape"], r["threads"]]
        both, memory = float(r["forward_backward_seconds"]), float(r["peak_memory_bytes"])
        cells = [
            r["shape"],
            r["threads"],
            r["contender"],
            f"{float(r['forward_seconds']) * 1e3:.1f}",
            f"{both * 1e3:.1f}",
            f"{float(other['forward_backward_seconds']) / both:.2f}x",
            f"{both / float(r['forward_backward_floor_seconds']):.2f}",
            f"{memory / 1e6:.0f}",
            f"{memory / float(other['peak_memory_bytes']):.2f}",
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def machine() -> dict[str, str | int]:
    model = "unknown"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else model
    return {"cpu": model, "cores": os.cpu_count() or 0, "capability": torch.backends.cpu.get_cpu_capability()}


def save(rows: list[Row], text: str, errors: dict[str, float], load: float) -> None:
    now = datetime.datetime.now(datetime.UTC)
    stem = RESULTS / f"{now:%Y-%m-%d}-delta-rule"
    facts = {
        "benchmark": "delta_rule",
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "command": "python -m benchmarks.delta_rule " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "load_average_before": load,
        "versions": versions(),
        "largest_relative_error": errors,
        "method": " ".join((__doc__ or "").split("\n\n")[-1].split()),
    }
    write_json(stem.with_suffix(".json"), {**facts, "rows": rows})
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    stem.with_suffix(".md").write_text(f"# Delta rule on CPU\n\n{listed}\n\n{text}\n")
    print(f"saved {stem}.json and .md")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--shapes", nargs="+", default=None, help="B,T,H,d")
    parser.add_argument("--gated", action="store_true", help="with decay (Gated DeltaNet)")
    parser.add_argument("--quick", action="store_true", help="two small shapes, three rounds: does it run")
    parser.add_argument("--save", action="store_true", help=f"write a dated result to {RESULTS}")
    parser.add_argument("--memory-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    parser.add_argument("--growth-of", choices=list(CONTENDERS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    shapes = args.shapes or (["1,1024,4,64", "4,256,4,64"] if args.quick else SHAPES)
    if args.memory_of:
        print_memory_growth(args.memory_of, tuple(int(part) for part in shapes[0].split(",")), args.gated)
        return 0
    if args.growth_of:
        torch.set_num_threads(args.threads[0])
        print(*growth_per_token(CONTENDERS[args.growth_of], args.gated))
        return 0
    load = os.getloadavg()[0]
    missing = absent(args.gated)
    for name, reason in missing.items():
        print(f"{name}: does not take part: {reason}")
    contenders = {name: c for name, c in CONTENDERS.items() if name not in missing}
    errors = check(contenders, args.gated)
    for name, error in errors.items():
        print(f"{name}: largest relative error {error:.1e} against the float64 recurrence")
    if max(errors.values()) > 1e-4:
        print("a contender is wrong; no times are printed")
        return 1
    rows: list[Row] = []
    for shape in shapes:
        print(f"measuring {shape}", file=sys.stderr, flush=True)
        rows += measure(contenders, shape, args.gated, args.threads, 3 if args.quick else 7)
    text = table(rows)
    rates = sorted({(int(r["threads"]), round(float(r["gemm_flops_per_second"]) / 1e9)) for r in rows})
    text += "\n\nGEMM, GFLOP/s by threads: " + ", ".join(f"{n}: {rate}" for n, rate in rates)
    ours = [] if args.quick else [name for name in contenders if name.startswith("longlode")]
    text += "".join(growth_lines(name, args.gated, args.threads[0]) for name in ours)
    torch.set_num_threads(args.threads[0])
    text += "\n\nDecoding, us a step: " + ", ".join(f"{s}: {decode_microseconds(s):.0f}" for s in shapes)
    print(f"\n{text}\n\nload average before: {load:.2f}")
    if args.save:
        save(rows, text, errors, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
