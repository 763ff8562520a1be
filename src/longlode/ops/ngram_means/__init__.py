"""ngram_means: means of what followed earlier occurrences of the n-gram that ends at a token.

The caller numbers the n-grams by sorting (`mixers/ngram_head.py`); this op sums. May import: core, torch, and the ops'
shared modules. Start reading: `ngram_means` below, then `plain.py` (in torch) and `native.py` (compiled, for CPUs).
"""

from collections.abc import Sequence

import torch

from longlode.ops import rowwise
from longlode.ops.ngram_means.native import BACKENDS
from longlode.ops.ngram_means.plain import SortedNgrams
from longlode.ops.surroundings import resolved

__all__ = ["SortedNgrams", "ngram_means"]


def ngram_means(
    values: torch.Tensor, ngrams: Sequence[SortedNgrams], num_asked: int, matches: int | None
) -> torch.Tensor:
    """Average the values of the tokens after earlier occurrences of each token's n-gram; 0 where there are none.

    An occurrence that ends one token before is none, since what follows it is the token itself.

    Args:
      values: `[B, S, D]`.
      ngrams: all tokens sorted by the n-gram that ends at them, once for each n.
      num_asked: T, the last tokens of each row that have a mean.
      matches: most recent occurrences that the mean is of; None: all.
    Returns: `[B, T, len(ngrams) D]` in values.dtype, the means of each n side by side. Gradients flow to values.
    float32 and bfloat16 on the CPU run in the compiled kernels, with sums in float64; all else, and second derivatives,
    in torch.
    Cost: O(B S D) time for each n, times `matches`.
    """
    inputs = (resolved(values), *(part for one in ngrams for part in one))
    reason = "the tensors are small" if values.numel() < rowwise.LEAST_NUMBERS else ""
    chosen = BACKENDS.pick("auto", inputs, values.device, rowwise.Request((values.dtype,), reason))
    y: torch.Tensor = chosen.run(inputs[0], ngrams, num_asked, matches)
    return y
