"""Numbers for stretches of text: equal stretches get equal numbers, many at a time.

A dictionary of Python strings spends 300 ns per word of a text, most of it on making the string. Here all stretches are
looked up by their hashes with numpy, and compared code by code with the known stretch of that hash; no string is made.

    hash of codes c_0 .. c_(m-1) = sum_k c_k B^k + m D   modulo 2^64        B, D odd
    from prefix sums P_i = sum_(k<i) c_k B^k:  hash of [start, stop) = (P_stop - P_start) B^(-start) + m D

Different stretches may share a hash, also on purpose, as the constants are public. The later ones are kept in a
dictionary of their codes, which is slow but exact.
"""

import os
import threading
from collections.abc import Callable
from types import TracebackType

import numpy as np

_BASE = 0x9E3779B97F4A7C15
_LENGTH = 0xD6E8FEB86659FD93
_MIX = 0xFF51AFD7ED558CCD
_WORD = 1 << 64
_LEAST_BITS = 12


class SpanTable:
    """Numbers of stretches from 0, in order of first occurrence: an open-addressing hash table, at most half full."""

    def __init__(self) -> None:
        """Make an empty table."""
        self._hashes = np.zeros(0, dtype=np.uint64)
        self._numbers = np.zeros(0, dtype=np.int64)
        self._powers = np.ones((2, 1), dtype=np.uint64)
        self._clear(_LEAST_BITS)
        # The stretch of each number: its codes lie in one array of all codes.
        self._codes = np.zeros(0, dtype=np.uint32)
        self._begin = np.zeros(0, dtype=np.int64)
        self._length = np.zeros(0, dtype=np.int64)
        self._aside: dict[bytes, int] = {}

    def __len__(self) -> int:
        """Number of known stretches."""
        return len(self._length)

    @property
    def num_codes(self) -> int:
        """Number of codes of all known stretches."""
        return len(self._codes)

    def numbers(
        self, codes: np.ndarray, starts: np.ndarray, stops: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each stretch, and which stretches were new.

        Args: codes uint `[n]`, bytes or code points; starts, stops int `[k]`, stretch i is codes[starts[i] : stops[i]].
        Returns: int64 `[k]`; and int `[j]`, the index of the first stretch with each new number, in order.
        """
        hashes = self._hash(codes, starts, stops)
        numbers = self._find(hashes)
        missing = np.flatnonzero(numbers < 0)
        new = missing
        if len(missing):
            _, first, which = np.unique(hashes[missing], return_index=True, return_inverse=True)
            # np.unique sorts by hash; `rank` renumbers its groups by where each first occurs.
            in_order = np.argsort(first)
            rank = np.empty(len(first), dtype=np.int64)
            rank[in_order] = np.arange(len(first))
            numbers[missing] = len(self) + rank[which]
            new = missing[first[in_order]]
            self._add(hashes[new], numbers[new])
            self._keep(codes, starts[new], stops[new])
        others = np.flatnonzero(self._is_other(codes, starts, stops, numbers))
        for row in others.tolist():
            known = codes[starts[row] : stops[row]].astype(np.uint32).tobytes()
            numbers[row] = self._aside.setdefault(known, len(self))
            if numbers[row] == len(self):
                self._keep(codes, starts[row : row + 1], stops[row : row + 1])
                new = np.append(new, row)
        return numbers, new

    def _keep(self, codes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> None:
        """Store the codes of the stretches with the next numbers."""
        lengths = stops - starts
        ends = np.cumsum(lengths)
        self._begin = np.append(self._begin, len(self._codes) + ends - lengths)
        self._length = np.append(self._length, lengths)
        rows = np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())
        self._codes = np.append(self._codes, codes[rows].astype(np.uint32))

    def _is_other(
        self, codes: np.ndarray, starts: np.ndarray, stops: np.ndarray, numbers: np.ndarray
    ) -> np.ndarray:
        """Mark stretches that differ from the stored stretch of their number, bool `[k]`."""
        lengths = stops - starts
        is_other: np.ndarray = self._length[numbers] != lengths
        # For stretches of the stored length, compare all codes at once, laid end to end.
        rows = np.flatnonzero(~is_other & (lengths > 0))
        length, ends = lengths[rows], np.cumsum(lengths[rows])
        here = np.repeat(starts[rows] - (ends - length), length) + np.arange(length.sum())
        there = here + np.repeat(self._begin[numbers[rows]] - starts[rows], length)
        wrong = codes[here] != self._codes[there]
        if wrong.any():
            is_other[rows[np.searchsorted(ends, np.flatnonzero(wrong), side="right")]] = True
        return is_other

    def _hash(self, codes: np.ndarray, starts: np.ndarray, stops: np.ndarray) -> np.ndarray:
        n = len(codes)
        if self._powers.shape[1] <= n:
            factors = np.array([_BASE, pow(_BASE, -1, _WORD)], dtype=np.uint64)
            powers = np.repeat(factors[:, None], n + 1, axis=1)
            powers[:, 0] = 1
            self._powers = np.cumprod(powers, axis=1, dtype=np.uint64)
        powers, inverses = self._powers
        sums = np.zeros(n + 1, dtype=np.uint64)
        np.cumsum(codes * powers[:n], out=sums[1:])
        lengths = (stops - starts).astype(np.uint64)
        hashes: np.ndarray = (sums[stops] - sums[starts]) * inverses[starts] + lengths * np.uint64(_LENGTH)
        # The first code (times B^0 = 1) changes the lowest bits only, but slots are taken from the highest.
        return (hashes ^ (hashes >> np.uint64(32))) * np.uint64(_MIX)

    def _find(self, hashes: np.ndarray) -> np.ndarray:
        """Look up numbers by hash; -1 for unknown ones."""
        slots = (hashes >> self._shift).astype(np.int64)
        numbers = self._number_at[slots]
        other = np.flatnonzero((self._hash_at[slots] != hashes) & (numbers >= 0))
        while len(other):  # another hash has the slot: look in the next (linear probing)
            slots[other] = (slots[other] + 1) % len(self._number_at)
            numbers[other] = self._number_at[slots[other]]
            other = other[(self._hash_at[slots[other]] != hashes[other]) & (numbers[other] >= 0)]
        return numbers

    def _add(self, hashes: np.ndarray, numbers: np.ndarray) -> None:
        """Insert new hashes, all different, with the numbers of their stretches."""
        self._hashes, self._numbers = np.append(self._hashes, hashes), np.append(self._numbers, numbers)
        bits = 1 + len(self._hashes).bit_length()
        if 1 << bits > len(self._number_at):
            self._clear(bits)
            hashes, numbers = self._hashes, self._numbers
        slots = (hashes >> self._shift).astype(np.int64)
        while len(numbers):
            free = self._number_at[slots] < 0
            self._number_at[slots[free]] = numbers[free]  # of several that want one slot, one gets it
            left = self._number_at[slots] != numbers
            self._hash_at[slots[~left]] = hashes[~left]
            numbers, hashes, slots = numbers[left], hashes[left], (slots[left] + 1) % len(self._number_at)

    def _clear(self, bits: int) -> None:
        self._number_at = np.full(1 << bits, -1, dtype=np.int64)
        self._hash_at = np.zeros(1 << bits, dtype=np.uint64)
        self._shift = np.uint64(64 - bits)


class ForkGuard:
    """A lock, safe across forks, for a cache that is filled in several steps: `with guard: ...`.

    When a step raises, or a process is forked while another thread fills the cache, its parts no longer agree, so
    the cache is dropped.
    """

    def __init__(self, forget: Callable[[], None]) -> None:
        """Make a guard. Args: forget, a function that empties the cache."""
        self._forget = forget
        self._lock, self._process = threading.Lock(), os.getpid()

    def __enter__(self) -> None:
        """Wait for other threads; a forked child does not wait for threads of its parent."""
        if self._process != os.getpid():
            self._lock, self._process = threading.Lock(), os.getpid()
            self._forget()
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the lock; drop the cache after an error."""
        try:
            if kind is not None:
                self._forget()
        finally:
            self._lock.release()
