"""What the arms of `benchmarks.claims.mining` take: rows in order, and junk of each kind; without training."""

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.claims.mining_pool import IN_ORDER, Pool

Taken = dict[str, dict[str, float]]
"""By arm: "in order", the share of what it took; by kind of junk the share of the pool's rows of it that it took."""


def taken_of(chosen: Mapping[str, Sequence[np.ndarray]], pool: Pool) -> Taken:
    """What every arm took, mean over its draws. Args: chosen, by arm the rows that it took, one array per draw."""
    found: Taken = {}
    for arm, draws in chosen.items():
        row = {IN_ORDER: float(np.mean([pool.in_order[rows].mean() for rows in draws]))}
        for kind in (str(kind) for kind in dict.fromkeys(pool.kinds) if kind != IN_ORDER):
            of_kind = pool.kinds == kind
            row[kind] = float(np.mean([of_kind[rows].sum() / of_kind.sum() for rows in draws]))
        found[arm] = row
    return found


def as_markdown(taken: Taken) -> str:
    """Arms down, the share of rows in order first, then kinds of junk; arms with most rows in order on top."""
    ranked = sorted(taken.items(), key=lambda item: -item[1][IN_ORDER])
    kinds = [kind for kind in ranked[0][1] if kind != IN_ORDER]
    lines = [["arm", "rows in order of those taken", *(f"{kind}, taken" for kind in kinds)]]
    lines.append(["---"] * len(lines[0]))
    lines += [[arm, f"{row[IN_ORDER]:.2f}", *(f"{row[kind]:.2f}" for kind in kinds)] for arm, row in ranked]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
