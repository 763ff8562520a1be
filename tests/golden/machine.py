"""On which machines the same program gives the same bits, and how results are compared elsewhere."""

import math
import platform
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longlode.ops.delta_rule import native
from longlode.ops.rowwise import why_no_rowwise

RELATIVE = 1e-5
KERNELS_RELATIVE = 1e-3
"""Under other kernels: training amplifies last bits (a gradient norm moved by 2e-4, a gain near zero by 6e-4)."""
ZLIB_RELATIVE = 2e-2
"""Another zlib packs a little better or worse, and `gzip_ratio` and what is made of it follow."""
_ZERO = 1e-7
"""Differences below this are none: near zero, a relative one says nothing."""


def bits_depend_on() -> dict[str, Any]:
    """What decides the last bits of a float32 result; equal here and there means: compare bit for bit.

    Libraries choose their kernels by the maker of the processor and by its instruction set; ours are compiled or not.
    """
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "processor": f"{platform.machine()} {_maker()}".strip(),
        "compiled_kernels": "rows 2" if not why_no_rowwise() else not native.why_no_native(),
        "zlib": zlib.ZLIB_RUNTIME_VERSION,
    }


def _maker() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("vendor_id")), "")


def to_stored(value: Any) -> Any:
    """JSON with every float as its exact hexadecimal form ("0x1.8p+1"); arrays and tuples become lists."""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, dict):
        return {name: to_stored(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_stored(item) for item in value]
    return value


def differences(stored: Any, now: Any, relative: float, where: str = "") -> list[str]:
    """Every place where two stored trees differ. Args: relative, allowed between floats; 0: none, bit for bit."""
    if isinstance(stored, dict) and isinstance(now, dict):
        found = [f"{where}: {name} is gone" for name in stored if name not in now]
        found += [f"{where}: {name} is new" for name in now if name not in stored]
        for name in stored:
            if name in now:
                found += differences(stored[name], now[name], relative, f"{where}/{name}")
        return found
    if isinstance(stored, list) and isinstance(now, list) and len(stored) == len(now):
        pairs = enumerate(zip(stored, now, strict=True))
        return [d for i, (a, b) in pairs for d in differences(a, b, relative, f"{where}/{i}")]
    if stored == now:
        return []
    if relative and _is_hex(stored) and _is_hex(now):
        a, b = float.fromhex(stored), float.fromhex(now)
        if math.isclose(a, b, rel_tol=relative, abs_tol=_ZERO):
            return []
        return [f"{where}: {a!r} was stored, now {b!r} ({abs(a - b) / max(abs(a), 1e-300):.1e} relative)"]
    if _is_hex(stored) and _is_hex(now):
        return [
            f"{where}: {float.fromhex(stored)!r} was stored, now {float.fromhex(now)!r}, not the same bits"
        ]
    return [f"{where}: {stored!r} was stored, now {now!r}"]


def _is_hex(value: Any) -> bool:
    return isinstance(value, str) and value.lstrip("-").startswith("0x") and "p" in value
