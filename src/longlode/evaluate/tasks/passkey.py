"""Passkey: a number said once among lines that repeat, asked for at the end.

Form after Stuffed Mamba (arXiv 2410.07145), with new wording: an instruction, a block of noise lines
with the pass code at a chosen depth, a question. A recurrent model that never erases can keep the code for
ever in such noise, so success here is the least that a long-context model should show, not the most.
"""

import random
import sys
from dataclasses import dataclass

from longlode.evaluate.tasks.controlled import HiddenAnswer, Page

_INTRO = (
    "Somewhere in the lines below a pass code is hidden. The other lines do not matter. "
    "Find it and keep it in mind.\n"
)
_NOISE = "The field is wide. The road is long. The wind is up. On we walk. Then we turn back.\n"
_FACT = "The pass code is {code}. Keep it in mind. {code} is the pass code.\n"
_QUESTION = "What is the pass code? The pass code is"


@dataclass
class _NoisePage(Page):
    code: str
    depth: float
    size_name: str = "num_lines"
    max_size: int = sys.maxsize

    def prompt(self, size: int, with_fact: bool) -> str:
        before = round(self.depth * size)
        fact = _FACT.format(code=self.code) if with_fact else ""
        return _INTRO + _NOISE * before + fact + _NOISE * (size - before) + _QUESTION

    def answer(self, size: int) -> str:
        return self.code


class Passkey(HiddenAnswer):
    """Recall of five digits at five depths; the control lacks the pass code line."""

    name = "passkey"
    about = "five digits, said once among repeating lines, are asked for at the end"
    suites = ("basic", "recall")

    def page(self, length: int, seed: int, depth: float) -> Page:
        """Noise lines around one pass code; the size is the number of noise lines."""
        rng = random.Random(f"passkey {length} {seed}")
        return _NoisePage(str(rng.randrange(10_000, 100_000)), depth)
