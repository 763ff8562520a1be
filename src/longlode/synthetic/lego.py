"""LEGO: chains of assignments in shuffled order, with a question about one variable; skills that build on each other.

    b=!a c=b a=1 ?c   ->   0        (a is 1, b is not a, c is b)

To say the value of the k-th variable of the chain is skill k: it needs all skills before it.
Source: Zhang et al. 2022, "Unveiling transformers with LEGO", arXiv 2206.04301; as skills in Chen et al. 2023,
"Skill-it!", arXiv 2307.14430.
"""

import itertools
import random

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def lego(draw: random.Random, num_variables: int, skill: int) -> tuple[str, str]:
    """Draw a chain and a question about its variable `skill`, from 0; return the question and the answer, "0" or "1".

    Args: num_variables, of the chain, at most 26.
    """
    names = draw.sample(_LETTERS, num_variables)
    value = draw.randrange(2)
    clauses, values = [f"{names[0]}={value}"], [value]
    for before, name in itertools.pairwise(names):
        is_negated = draw.randrange(2)
        values.append(values[-1] ^ is_negated)
        clauses.append(f"{name}={'!' if is_negated else ''}{before}")
    draw.shuffle(clauses)
    return f"{' '.join(clauses)} ?{names[skill]}", str(values[skill])
