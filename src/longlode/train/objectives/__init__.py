"""Objectives: what a training step minimises. A new one is a new file here, or an entry point.

    next_token   cross entropy of the next token, each label as the batch weighs it
    far_tokens   the same, labels with little context before them count less

Start reading: `base.py` (what an objective is), `next_token.py`.
"""

from longlode.train.objectives.base import OBJECTIVES, Losses, Objective, make_objective
from longlode.train.objectives.next_token import NextToken

__all__ = ["OBJECTIVES", "Losses", "NextToken", "Objective", "make_objective"]
