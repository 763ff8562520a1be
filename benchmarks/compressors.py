"""Compressors as scores: what a text saves by looking back, near and far. LZMA, with a dictionary that can be limited.

A dictionary of 4 KiB sees 1,024 tokens of 4 bytes back; a whole one sees all of the text. Higher is more compressible.
"""

import lzma
from collections.abc import Callable

NEAR_BYTES = 4096
"""The least dictionary that LZMA allows."""


def saved(text: str, dictionary: int | None = None) -> float:
    """Share of the bytes of a text, which is not empty, that LZMA saves with a dictionary of so many bytes, or all."""
    raw = text.encode("utf-8", "surrogatepass")
    size = max(NEAR_BYTES, len(raw)) if dictionary is None else dictionary
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": size}]
    return 1 - len(lzma.compress(raw, format=lzma.FORMAT_RAW, filters=filters)) / len(raw)


def near(text: str) -> float:
    """Share saved by what stands at most NEAR_BYTES back."""
    return saved(text, NEAR_BYTES)


def far(text: str) -> float:
    """Share of the bytes that looking further back than NEAR_BYTES saves beyond that."""
    return saved(text) - near(text)


COMPRESSORS: dict[str, Callable[[str], float]] = {"lzma": saved, "lzma_near": near, "lzma_far": far}
"""Scores by name."""
