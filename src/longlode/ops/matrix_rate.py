"""The speed of a plain matrix product on this machine: what the use of its arithmetic is measured by."""

import functools
import time

import torch

_SIDES = {"cpu": 1024, "cuda": 8192}
_SECONDS = 0.15


@functools.cache
def matrix_rate(device: str, dtype: torch.dtype, num_threads: int) -> float:
    """Measure the floating-point operations per second of the product of two square matrices; best of several runs.

    Args: device: its name. dtype: of the matrices. num_threads: torch's at the time of the call, for the cache.
    A busy machine gives less than it could, and then too high a share to what runs later.
    """
    side = _SIDES.get(torch.device(device).type, 2048)
    one, other = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    began, best = time.perf_counter(), float("inf")
    while True:
        started = time.perf_counter()
        product = one @ other
        product[0, 0].item()  # waits for the device
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() - began > _SECONDS:
            return 2 * side**3 / best
