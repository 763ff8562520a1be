"""longlode doctor: what this machine offers, and whether the kernels are right on it."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from longlode import __version__
from longlode.cli.console import finish, say, table
from longlode.cli.guard import EXIT_UNEXPECTED

EXAMPLES = (
    "longlode doctor",
    "longlode doctor --ops",
)
_OPTIONAL = {
    "triton": "GPU kernels; comes with torch on Linux GPU builds",
    "fla-core": "a peer to compare GPU kernels with",
    "lm-eval": "longlode evaluate --lm-eval: pip install lm-eval",
}


def doctor(
    ops: Annotated[
        bool, typer.Option("--ops", help="Also test every delta-rule backend for right results.")
    ] = False,
) -> None:
    """Show what longlode finds on this machine: torch, device, threads, speed of bfloat16, backends, disk.

    Paste the output into bug reports. With --ops every backend is compared with the plain recurrence, forward
    and gradients, on random and on near-identical keys; one that fails is named and the exit status is 1.
    """
    say(f"longlode {__version__}, Python {platform.python_version()} ({sys.executable})")
    say(f"{platform.platform()}, {os.cpu_count()} CPU cores")
    table("Torch", ("what", "found"), _torch_rows())
    table("Delta-rule backends", ("backend", "state"), _backend_rows())
    table("Optional", ("package", "found", "for"), _optional_rows())
    table("Room", ("where", "free", "writable"), _disk_rows())
    if ops:
        _self_test()
    else:
        finish(
            "Nothing above needs more than reading.",
            then=["longlode doctor --ops   (are the kernels right here?)"],
        )


def _torch_rows() -> list[tuple[str, str]]:
    import torch

    from longlode.readers.dtype import WORTH_IT, products_per_second

    cuda = "none"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        cuda = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    bf16, fp32 = products_per_second(torch.bfloat16), products_per_second(torch.float32)
    verdict = "worth trying" if bf16 > WORTH_IT * fp32 else "stay with float32 on this CPU"
    return [
        ("torch", f"{torch.__version__} (CUDA build: {torch.version.cuda or 'no'})"),
        ("transformers", importlib.metadata.version("transformers")),
        ("GPU", cuda),
        ("threads", f"{torch.get_num_threads()} within an op, {torch.get_num_interop_threads()} between"),
        ("bfloat16 on the CPU", f"{bf16 / fp32:.2f} x the speed of float32: {verdict}"),
        ("C++ compiler (torch.compile only)", shutil.which("c++") or shutil.which("g++") or "none"),
    ]


def _backend_rows() -> list[tuple[str, str]]:
    from longlode.ops.delta_rule import available_backends

    return [(name, why_not or "usable") for name, why_not in available_backends().items()]


def _optional_rows() -> list[tuple[str, str, str]]:
    rows = []
    for name, purpose in _OPTIONAL.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = "-"
        rows.append((name, found, purpose))
    return rows


def _disk_rows() -> list[tuple[str, str, str]]:
    rows = []
    for name, path in (("this folder", Path.cwd()), ("temporary files", Path(tempfile.gettempdir()))):
        free = shutil.disk_usage(path).free / 2**30
        rows.append((f"{name} ({path})", f"{free:,.1f} GiB", "yes" if os.access(path, os.W_OK) else "no"))
    return rows


def _self_test() -> None:
    from longlode.cli.op_check import check_backends

    checks = check_backends()
    table(
        "Against the float64 recurrence (relative error)",
        ("backend", "device", "dtype", "keys", "forward", "gradients", "verdict"),
        [
            (
                c.backend,
                c.device,
                c.dtype,
                c.keys,
                f"{c.forward:.1e}",
                f"{c.gradient:.1e}",
                "ok" if c.passed else "WRONG",
            )
            for c in checks
        ],
    )
    failed = sorted({f"{c.backend} on {c.device}" for c in checks if not c.passed})
    if failed:
        say(f"[bold red]Do not use {', '.join(failed)}[/]: its results are wrong on this machine.")
        say("Pass another backend to delta_rule ('reference' is always right), and report the output above.")
        raise typer.Exit(EXIT_UNEXPECTED)
    finish(f"All {len(checks)} checks passed.", then=["longlode demo"])


def interrupted(options: Mapping[str, Any]) -> str:
    """What Ctrl-C leaves: nothing."""
    return "Nothing was written."
