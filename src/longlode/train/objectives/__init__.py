"""Objectives: the losses that training steps minimise. A new one is a new file here, or an entry point.

    next_token   cross entropy of the next token, labels weighted by the batch
    far_tokens   the same, with less weight for labels with little context
    long_ce      the same, with more weight for labels that far context makes likelier
    prefix_lm    the same after a prefix, which is read in both directions
    masked_lm    cross entropy of masked tokens
    distill      a teacher's layers or predictions

Start reading: `base.py` (the interface), `next_token.py`.
"""

from longlode.train.objectives.base import OBJECTIVES, Losses, Objective, make_objective
from longlode.train.objectives.next_token import NextToken

__all__ = ["OBJECTIVES", "Losses", "NextToken", "Objective", "make_objective"]
