"""The delta rule on a CUDA device: our Triton kernels against fla's, and against the machine's own limits.

    python -m benchmarks.delta_rule_gpu                       (B, T, H, d) = (8, 8192, 16, 128), bfloat16
    python -m benchmarks.delta_rule_gpu --gated --save        with decay; writes a dated result
    python -m benchmarks.delta_rule_gpu --kernels             time by kernel, one forward and backward
    python -m benchmarks.delta_rule_gpu --sweep               other block sizes, each checked before it is timed
    python -m benchmarks.delta_rule_gpu --compile             no GPU needed: compile for Hopper, print registers,
                                                              bytes on the stack and shared memory of each kernel

Method: every contender is first checked against the chunkwise path in float64, on random and on equal keys; if ours
is wrong, no time is printed. Contenders then take turns, round after round, in this one process; a figure is the
median round, a round is ten calls between two CUDA events. Floor: the larger of the fewest bytes over the rate of
a device copy and the operations of the chunk form (C = 64) over the rate of an 8192^3 bfloat16 product, both measured
in the same run. fla is timed if `pip install fla-core` has been run.
"""

import argparse
import datetime
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.delta_rule import RESULTS, Inputs, run
from longlode.core.records import versions, write_json
from longlode.ops.delta_rule import available_backends, delta_rule

CALLS_PER_ROUND = 10
LIMIT = {torch.bfloat16: 3e-2, torch.float32: 1e-4}
POINTERS = {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64", torch.int32: "*i32"}
Contender = Callable[[Inputs], torch.Tensor]


def ours(x: Inputs) -> torch.Tensor:
    return delta_rule(x["q"], x["k"], x["v"], x["beta"], g=x["g"], backend="triton")[0]


def ours_chunkwise(x: Inputs) -> torch.Tensor:
    return delta_rule(x["q"], x["k"], x["v"], x["beta"], g=x["g"], backend="chunkwise")[0]


def theirs(x: Inputs) -> torch.Tensor:
    if x["g"] is None:
        from fla.ops.delta_rule import chunk_delta_rule

        return chunk_delta_rule(x["q"], x["k"], x["v"], x["beta"])[0]
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    return chunk_gated_delta_rule(x["q"], x["k"], x["v"], x["g"], x["beta"])[0]


def contenders(dtype: torch.dtype) -> dict[str, Contender]:
    """Ours, the portable path, and fla where it can be imported and takes the dtype."""
    found = {"longlode triton": ours, "longlode chunkwise": ours_chunkwise}
    try:
        import fla.ops.delta_rule  # noqa: F401
    except ImportError as error:
        print(f"fla is not timed: {error}. pip install fla-core")
    else:
        if dtype == torch.float32:
            print("fla is not timed: chunk_delta_rule refuses float32")
        else:
            found["fla"] = theirs
    return found


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype, gated: bool, keys: str = "random") -> Inputs:
    B, T, H, d = shape
    rng = torch.Generator("cuda").manual_seed(0)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=rng, device="cuda")

    k = normal(B, T, H, d) if keys == "random" else normal(B, 1, H, d).expand(B, T, H, d)
    return {
        "q": normal(B, T, H, d).to(dtype),
        "k": (k / k.norm(dim=-1, keepdim=True)).to(dtype),
        "v": normal(B, T, H, d).to(dtype),
        "beta": torch.rand(B, T, H, generator=rng, device="cuda").to(dtype),
        "g": -0.1 * torch.rand(B, T, H, generator=rng, device="cuda") if gated else None,
    }


def check(entries: dict[str, Contender], d: int, dtype: torch.dtype, gated: bool) -> dict[str, float]:
    """Worst relative error (L2) of output and gradients, a contender at a time, against float64."""
    worst = dict.fromkeys(entries, 0.0)
    for keys in ("random", "equal"):
        inputs = make_inputs((2, 1111, 2, d), dtype, gated, keys)
        wide = {name: x if x is None else x.double() for name, x in inputs.items()}
        exact = run(ours_chunkwise, wide, backward=True)
        for name, contender in entries.items():
            for got, expected in zip(run(contender, inputs, backward=True), exact, strict=True):
                error = float((got.double() - expected).norm() / expected.norm())
                worst[name] = max(worst[name], error if error == error else float("inf"))
    return worst


def median_ms(calls: dict[str, Callable[[], object]], num_rounds: int) -> dict[str, float]:
    """Median time of a call, the calls taking turns; the first round warms up and is dropped."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(num_rounds + 1):
        for name, call in calls.items():
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            for _ in range(CALLS_PER_ROUND):
                call()
            last.record()
            torch.cuda.synchronize()
            times[name].append(first.elapsed_time(last) / CALLS_PER_ROUND)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def ceilings() -> dict[str, float]:
    """Bytes a second of a large copy (read and written), and operations a second of a large bfloat16 product."""
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    ms = median_ms({"copy": lambda: target.copy_(source), "product": lambda: a @ b}, 5)
    return {
        "bytes_per_second": 2 * 4 * source.numel() / ms["copy"] * 1e3,
        "flops_per_second": 2 * 8192**3 / ms["product"] * 1e3,
    }


def floors_ms(shape: tuple[int, ...], dtype: torch.dtype, limits: dict[str, float]) -> dict[str, float]:
    """Least time of the forward, and of forward and backward, with K = V = d and C = 64."""
    B, T, H, d = shape
    C, size = 64, dtype.itemsize
    moved = {"forward": 4 * d * size + 4, "both": 11 * d * size + 12}
    forward = 8 * C * d + 6 * d * d + C * C
    work = {"forward": forward, "both": forward + 22 * C * d + 14 * d * d + C * C}
    return {
        part: 1e3
        * B
        * T
        * H
        * max(moved[part] / limits["bytes_per_second"], work[part] / limits["flops_per_second"])
        for part in moved
    }


def measure(args: argparse.Namespace, dtype: torch.dtype) -> int:
    shape = tuple(int(part) for part in args.shape.split(","))
    entries = contenders(dtype)
    errors = check(entries, shape[3], dtype, args.gated)
    for name, error in errors.items():
        print(f"{name}: largest relative error {error:.1e}{'' if error <= LIMIT[dtype] else '  WRONG'}")
    if not errors["longlode triton"] <= LIMIT[dtype]:
        print("our kernels are wrong on this device; no times are printed")
        return 1
    limits = ceilings()
    floors = floors_ms(shape, dtype, limits)
    inputs = make_inputs(shape, dtype, args.gated)
    if args.kernels:
        print(kernel_table(inputs))
    rows = []
    forward = median_ms({name: lambda c=c: run(c, inputs, False) for name, c in entries.items()}, args.rounds)
    both = median_ms({name: lambda c=c: run(c, inputs, True) for name, c in entries.items()}, args.rounds)
    lines = ["| contender | forward ms | times floor | fwd+bwd ms | times floor |", "|---|---|---|---|---|"]
    for name in entries:
        rows.append({"contender": name, "forward_ms": forward[name], "forward_backward_ms": both[name]})
        lines.append(
            f"| {name} | {forward[name]:.3f} | {forward[name] / floors['forward']:.2f} "
            f"| {both[name]:.3f} | {both[name] / floors['both']:.2f} |"
        )
    lines.append(f"| floor | {floors['forward']:.3f} | 1 | {floors['both']:.3f} | 1 |")
    if "fla" in entries:
        faster = (part["fla"] / part["longlode triton"] for part in (forward, both))
        lines.append("\nfaster than fla: forward {:.2f}x, forward and backward {:.2f}x".format(*faster))
    print("\n" + "\n".join(lines))
    if args.save:
        save({"shape": args.shape, "gated": args.gated, "dtype": str(dtype)}, rows, errors, limits, lines)
    return 0


def kernel_table(inputs: Inputs) -> str:
    from torch.profiler import ProfilerActivity, profile

    run(ours, inputs, True)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        run(ours, inputs, True)
        torch.cuda.synchronize()
    return str(profiler.key_averages().table(sort_by="cuda_time_total", row_limit=15))


def sweep(args: argparse.Namespace, dtype: torch.dtype) -> int:
    """Time other block sizes; a choice that is wrong or does not compile is named and passed over."""
    from longlode.ops.delta_rule.triton import Config, delta_rule_triton, launch_config

    shape = tuple(int(part) for part in args.shape.split(","))
    d = shape[3]
    table = launch_config(d, d, dtype)
    choices = {"table": table}
    for block_v, warps in ((32, 4), (64, 4), (64, 8), (128, 8)):
        for chunk in (32, 64):
            for stages in (1, 2, 3):
                name = f"C {chunk}, BV {block_v}, {warps} warps, {stages} stages"
                if block_v <= d:
                    choices[name] = Config(
                        chunk, block_v, min(64, d), (4, 1), (warps, stages), table.gradients
                    )
    for block_v in (32, 64):
        for warps in (2, 8):
            name = f"gradients BV {block_v}, {warps} warps"
            choices[name] = Config(table.chunk, table.block_v, block_v, (4, 1), table.scan, (warps, 2))
    inputs = make_inputs(shape, dtype, args.gated)
    for name, config in choices.items():

        def call(x: Inputs, config: Config = config) -> torch.Tensor:
            return delta_rule_triton(
                *(x["q"], x["k"], x["v"], x["beta"], x["g"], d**-0.5, None, None, None), config
            )[0]

        try:
            error = check({name: call}, d, dtype, args.gated)[name]
            if not error <= LIMIT[dtype]:
                print(f"{name}: WRONG, error {error:.1e}")
                continue
            ms = median_ms({"f": lambda: run(call, inputs, False), "b": lambda: run(call, inputs, True)}, 3)
        except Exception as fault:  # out of shared memory, compiler faults: one choice must not end the sweep
            print(f"{name}: {type(fault).__name__}: {str(fault).splitlines()[0]}")
            continue
        print(f"{name}: forward {ms['f']:.3f} ms, forward and backward {ms['b']:.3f} ms", flush=True)
    return 0


@dataclass
class Recorder:
    """Stands in for a kernel: notes the arguments of each launch instead of launching."""

    kernel: Any
    launches: list[tuple[Any, ...]]

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        """What a launch calls: kernel, run-time arguments, constants and options go to `launches`."""

        def launch(*arguments: Any, **named: Any) -> None:
            values = dict(zip(self.kernel.arg_names, arguments, strict=False))
            constants = {name: named.pop(name) for name in self.kernel.arg_names if name in named}
            self.launches.append((self.kernel, values, constants, named))

        return launch


def compile_for_hopper(args: argparse.Namespace, dtype: torch.dtype) -> int:
    """Compile every kernel of a forward and backward for compute capability 9.0 and print what it uses."""
    from longlode.ops.delta_rule import triton as backend

    launches: list[Any] = []
    for name in ("inverses", "forward", "states", "backward", "gradients"):
        kernel = f"{name}_kernel"
        setattr(backend, kernel, Recorder(getattr(backend, kernel), launches))
    d = int(args.shape.split(",")[3])
    x = torch.zeros(1, 4, 1, d, dtype=dtype, requires_grad=True)
    beta = torch.zeros(1, 4, 1)
    g = beta if args.gated else None
    o, _ = backend.delta_rule_triton(x, x.detach(), x.detach(), beta, g, 1.0, None, None, None)
    torch.autograd.grad(o.sum(), x)
    for launch in launches:
        print(build(*launch), flush=True)
    return 0


def build(kernel: Any, values: dict[str, Any], constants: dict[str, Any], options: dict[str, Any]) -> str:
    """Compile one recorded launch; a line on what the machine code uses."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, aligned = dict.fromkeys(kernel.arg_names, "constexpr"), {}
    for index, name in enumerate(kernel.arg_names):
        value = values.get(name)
        if isinstance(value, torch.Tensor):
            signature[name], aligned[index,] = POINTERS[value.dtype], [["tt.divisibility", 16]]
        elif value is not None:
            signature[name] = "fp32" if isinstance(value, float) else "i32"
    named = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=named, attrs=aligned)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(built.asm["cubin"])
        usage, code = (
            subprocess.run([str(tool), option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    registers, stack = found.groups() if found else ("?", "?")
    counts = {name: len(re.findall(rf"\b{name}", code)) for name in ("HGMMA", "HMMA", "LDL", "STL")}
    return (
        f"{kernel.__name__}, {options['num_warps']} warps, {options['num_stages']} stages: {registers} registers, "
        f"{stack} bytes of stack, {built.metadata.shared} bytes shared, {counts}"
    )


def save(
    what: dict[str, Any],
    rows: list[dict[str, Any]],
    errors: dict[str, float],
    limits: dict[str, float],
    lines: list[str],
) -> None:
    now = datetime.datetime.now(datetime.UTC)
    stem = RESULTS / f"{now:%Y-%m-%d}-delta-rule-gpu"
    facts = {
        "benchmark": "delta_rule_gpu",
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "command": "python -m benchmarks.delta_rule_gpu " + " ".join(sys.argv[1:]),
        "device": torch.cuda.get_device_name(),
        "versions": versions(),
        "largest_relative_error": errors,
        **limits,
        **what,
        "method": " ".join((__doc__ or "").split("\n\n")[-1].split()),
    }
    write_json(stem.with_suffix(".json"), {**facts, "rows": rows})
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    text = "\n".join(lines)
    stem.with_suffix(".md").write_text(f"# Delta rule on a GPU\n\n{listed}\n\n{text}\n")
    print(f"saved {stem}.json and .md")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="8,8192,16,128", help="B,T,H,d")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--gated", action="store_true", help="with decay (Gated DeltaNet)")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--kernels", action="store_true", help="also print the time by kernel")
    parser.add_argument("--sweep", action="store_true", help="time other block sizes instead")
    parser.add_argument("--compile", action="store_true", help="compile for Hopper instead; needs no GPU")
    parser.add_argument("--save", action="store_true", help=f"write a dated result to {RESULTS}")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    if args.compile:
        return compile_for_hopper(args, dtype)
    if not torch.cuda.is_available():
        print("This benchmark needs a CUDA device and torch sees none. --compile works without one.")
        return 2
    why_not = available_backends()["triton"]
    if why_not:
        print(f"The Triton backend is not available: {why_not}.")
        return 2
    return sweep(args, dtype) if args.sweep else measure(args, dtype)


if __name__ == "__main__":
    sys.exit(main())
