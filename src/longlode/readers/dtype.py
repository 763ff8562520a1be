"""Choice of the dtype for reading a model on this machine, when the user names none."""

import time

import torch

from longlode.ops.devices import pick_device

WORTH_IT = 1.2
"""Least speed-up over float32 at which bfloat16 is chosen; some CPUs are 500 times slower in it."""

_ROWS, _WIDTH = 1024, 256
_PROBE_SECONDS = 0.05


def fastest_dtype(device: str = "auto") -> tuple[str, str]:
    """Return ("bfloat16" or "float32", reason), for scoring on `device` ("auto": a GPU if there is one)."""
    if pick_device(device).type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return ("bfloat16", "the GPU has it") if native else ("float32", "the GPU has no bfloat16")
    ratio = products_per_second(torch.bfloat16) / products_per_second(torch.float32)
    why = f"bfloat16 has {ratio:.1f} times the speed of float32 on this CPU"
    return ("bfloat16" if ratio > WORTH_IT else "float32"), why


def products_per_second(dtype: torch.dtype) -> float:
    """Measure the matrix products per second of a small model's size on the CPU, for 50 ms or one product."""
    x = torch.randn(_ROWS, _WIDTH).to(dtype)
    weight = torch.randn(_WIDTH, _WIDTH).to(dtype)
    with torch.inference_mode():
        x @ weight
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < _PROBE_SECONDS or count == 0:
            x @ weight
            count += 1
    return count / spent
