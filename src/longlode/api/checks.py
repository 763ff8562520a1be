"""Report on this machine: versions, devices and packages, and a check of the kernels on it."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

OPTIONAL = {
    "triton": "GPU kernels; comes with torch on Linux GPU builds",
    "fla-core": "GPU kernels to compare ours with",
    "lm-eval": "longlode evaluate --lm-eval: pip install lm-eval",
}
"""Optional packages that longlode uses if they are installed, and their purpose."""


def doctor(*, ops: bool = False) -> dict[str, Any]:
    """Report on this machine, as `longlode doctor` shows it.

    Args: ops: also compare every delta-rule backend with the float64 recurrence.
    Returns: longlode, python, executable, platform, cores; torch: property -> value; backends: name -> "usable" or
      why not; packages: name -> version or None; `room`: name of a folder -> {path, free_gib, writable}; with `ops`,
      checks: a list of `ops.delta_rule.accuracy.OpCheck`.
    """
    from longlode import __version__

    found: dict[str, Any] = {
        "longlode": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "torch": _torch(),
        "backends": _backends(),
        "packages": {name: _version(name) for name in OPTIONAL},
        "room": _room(),
    }
    if ops:
        from longlode.ops.delta_rule.accuracy import check_backends

        found["checks"] = check_backends()
    return found


def _torch() -> dict[str, str]:
    import torch

    from longlode.readers.dtype import WORTH_IT, products_per_second

    cuda = "none"
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        cuda = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, {memory:.0f} GiB"
    bf16, fp32 = products_per_second(torch.bfloat16), products_per_second(torch.float32)
    verdict = "worth trying" if bf16 > WORTH_IT * fp32 else "stay with float32 on this CPU"
    return {
        "torch": f"{torch.__version__} (CUDA build: {torch.version.cuda or 'no'})",
        "transformers": importlib.metadata.version("transformers"),
        "GPU": cuda,
        "threads": f"{torch.get_num_threads()} within an op, {torch.get_num_interop_threads()} between",
        "bfloat16 on the CPU": f"{bf16 / fp32:.2f} x the speed of float32: {verdict}",
        "C++ compiler (torch.compile only)": shutil.which("c++") or shutil.which("g++") or "none",
    }


def _backends() -> dict[str, str]:
    from longlode.ops.delta_rule import available_backends

    return {name: why_not or "usable" for name, why_not in available_backends().items()}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _room() -> dict[str, dict[str, Any]]:
    places = {"this folder": Path.cwd(), "temporary files": Path(tempfile.gettempdir())}
    return {
        name: {
            "path": str(path),
            "free_gib": shutil.disk_usage(path).free / 2**30,
            "writable": os.access(path, os.W_OK),
        }
        for name, path in places.items()
    }
