"""Minimisation of smooth functions, in numpy alone."""

from collections.abc import Callable

import numpy as np


def minimize(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    *,
    steps: int,
    memory: int = 12,
) -> np.ndarray:
    """Minimise a smooth function by L-BFGS with backtracking (Nocedal and Wright, algorithm 7.5).

    Args: function, of a point to its value and gradient; start float64 `[n]`; steps at most; memory, pairs kept.
    """
    point = start.copy()
    value, slope = function(point)
    history: list[tuple[np.ndarray, np.ndarray]] = []
    for _ in range(steps):
        move = -_inverse_hessian(slope, history)
        expected = float(slope @ move)
        if expected >= 0:
            history, move, expected = [], -slope, -float(slope @ slope)
        size = 1.0 if history else min(1.0, 1.0 / (float(np.abs(slope).sum()) + 1e-12))
        while True:
            after = point + size * move
            new_value, new_slope = function(after)
            if new_value <= value + 1e-4 * size * expected or size < 1e-10:
                break
            size *= 0.5
        step, bend = after - point, new_slope - slope
        if float(step @ bend) > 1e-12:
            history = [*history[-(memory - 1) :], (step, bend)]
        settled = value - new_value < 1e-9 * max(1.0, abs(value))
        point, value, slope = after, new_value, new_slope
        if settled:
            break
    return point


def _inverse_hessian(slope: np.ndarray, history: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The approximate inverse Hessian times the slope, by the two loops over the kept pairs."""
    found = slope.copy()
    factors = []
    for step, bend in reversed(history):
        factor = float(step @ found) / float(step @ bend)
        factors.append(factor)
        found -= factor * bend
    if history:
        step, bend = history[-1]
        found *= float(step @ bend) / float(bend @ bend)
    for (step, bend), factor in zip(history, reversed(factors), strict=True):
        found += step * (factor - float(bend @ found) / float(step @ bend))
    return found
