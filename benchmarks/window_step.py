"""Time of a sliding window's forward and backward by length: per token it should not depend on the length.

    python -m benchmarks.window_step [--lengths 2048,8192,32768] [--window 512] [--rounds 3]

One row, four heads of 64, float32, one thread, CPU time, the best of the rounds. Beside each length stands what the
same slices cost as plain ones, whose gradients are tensors of zeros of the whole length.
"""

import argparse
import time
from unittest import mock

import torch

from longlode.ops.attention import attention, blocks


class PlainSlices:
    """Slices as torch takes them, the baseline."""

    def __init__(self, x: torch.Tensor, dim: int = 1) -> None:
        """Prepare slices of `x` along `dim`."""
        self.x, self.dim = x, dim

    def take(self, start: int, end: int) -> torch.Tensor:
        """Return the entries `start` to `end - 1`."""
        return self.x.narrow(self.dim, start, end - start)


def seconds(length: int, window: int) -> float:
    """CPU seconds of a forward and a backward pass."""
    q, k, v = (torch.randn(1, length, 4, 64, requires_grad=True) for _ in range(3))
    started = time.process_time()
    attention(q, k, v, window=window).square().sum().backward()
    return time.process_time() - started


def main() -> None:
    """Print a line per length."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="2048,8192,32768")
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("length   tokens per second   with plain slices   times as fast")
    for length in map(int, options.lengths.split(",")):
        ours, plain = [], []
        for _ in range(options.rounds):
            ours.append(seconds(length, options.window))
            with mock.patch.object(blocks, "Slices", PlainSlices):
                plain.append(seconds(length, options.window))
        print(
            f"{length:6,} {length / min(ours):19,.0f} {length / min(plain):19,.0f} {min(plain) / min(ours):15.2f}"
        )


if __name__ == "__main__":
    main()
