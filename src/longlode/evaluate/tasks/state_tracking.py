"""State tracking (arXiv 2411.12537): parity of bits, and sums and products modulo five without brackets.

A model whose state can only fade or stay cannot count modulo anything, at any size. The rows for training are labelled
at every place (parity) or at the end (arithmetic).
"""

import random

import numpy as np

from longlode.evaluate.tasks.generated import GeneratedTask, Question

MODULUS = 5
_SIGNS = "+-*"


def parity_row(rng: np.random.Generator, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits and the parity of all up to and with each, int64 `[length]` both."""
    bits = rng.integers(2, size=length)
    return bits, np.cumsum(bits) % 2


def arithmetic_row(rng: np.random.Generator, terms: int) -> tuple[np.ndarray, np.ndarray]:
    """An expression of digits below five and signs (5, 6, 7 for +, -, *), then an equals sign (8).

    Returns: tokens and labels, int64 `[2 * terms]`; the last label is the value modulo five, the others -100.
    """
    digits, signs = rng.integers(MODULUS, size=terms), rng.integers(len(_SIGNS), size=terms - 1)
    tokens, labels = np.full(2 * terms, 8, np.int64), np.full(2 * terms, -100, np.int64)
    tokens[0::2], tokens[1:-1:2] = digits, MODULUS + signs
    labels[-1] = value(digits.tolist(), [_SIGNS[sign] for sign in signs])
    return tokens, labels


def value(digits: list[int], signs: list[str]) -> int:
    """Value modulo five; products before sums."""
    total, product = 0, digits[0]
    for sign, digit in zip(signs, digits[1:], strict=True):
        if sign == "*":
            product = product * digit % MODULUS
        else:
            total, product = total + product, digit if sign == "+" else -digit
    return (total + product) % MODULUS


class Parity(GeneratedTask):
    """Even or odd: the number of ones in a row of bits."""

    name = "parity"
    about = "whether a row of bits has an even or an odd number of ones"
    suites = ("reasoning",)
    choices = ("even", "odd")
    smallest = 3

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` bits."""
        bits, parities = parity_row(np.random.default_rng(rng.getrandbits(63)), size)
        answer = self.choices[int(parities[-1])]
        return Question("Bits: " + " ".join(map(str, bits)) + "\n", "The number of ones is", (answer,))


class ModularArithmetic(GeneratedTask):
    """The value of an expression modulo five."""

    name = "modular_arithmetic"
    about = "the value modulo five of an expression of sums and products"
    suites = ("reasoning",)
    choices = ("0", "1", "2", "3", "4")
    smallest = 2

    def question(self, size: int, depth: float, rng: random.Random) -> Question:
        """`size` terms."""
        digits = [rng.randrange(MODULUS) for _ in range(size)]
        signs = [rng.choice(_SIGNS) for _ in digits[1:]]
        text = str(digits[0]) + "".join(f" {s} {d}" for s, d in zip(signs, digits[1:], strict=True))
        return Question(f"An expression:\n{text}\n", "Its value modulo 5 is", (str(value(digits, signs)),))
