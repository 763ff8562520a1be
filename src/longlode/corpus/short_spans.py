"""Numbers for short stretches of bytes: equal stretches get equal numbers, many at a time.

A stretch of at most 15 bytes is two 64-bit words, its length in the last byte, so that it is compared with a known one
by two comparisons of numbers, for all stretches of a block at once. (`core.spans` does the same for stretches of any
codes and any length, through prefix sums over the whole block and a comparison code by code.)
"""

import secrets

import numpy as np

MOST_BYTES = 15
"""Longest stretch of the table."""
_WORD_BYTES = 8
_MASKS = np.array([(1 << 8 * num) - 1 for num in range(_WORD_BYTES + 1)], dtype=np.uint64)
"""By number: the bytes of a little-endian word that belong to a stretch with so many bytes in it."""
_LEAST_BITS = 12


class ShortSpanTable:
    """Numbers of stretches from 0, in order of first occurrence unless two share a hash: open addressing, half full."""

    def __init__(self) -> None:
        """Make an empty table. Its hash has random factors, so that no text can be made to be slow."""
        factors = [secrets.randbits(64) | 1 for _ in range(3)]
        self._factors = [np.uint64(factor) for factor in factors]
        self._words = np.zeros((1, 2), dtype=np.uint64)  # more rows than stretches: it doubles
        self._size = 0
        self._clear(_LEAST_BITS)

    def __len__(self) -> int:
        """Number of known stretches."""
        return self._size

    def numbers(self, data: bytes, starts: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each stretch, and which stretches were new.

        Args: starts, lengths int64 `[k]`, stretch i is data[starts[i] : starts[i] + lengths[i]], 1 to 15 bytes.
        Returns: int64 `[k]`; and int `[j]`, the index of the first stretch with each new number, by number.
        """
        words = _words(data, starts, lengths)
        hashes = self._hash(words)
        numbers = self._find(hashes, words)
        missing, new = np.flatnonzero(numbers < 0), []
        while len(missing):
            # The first of each hash is new. Others of that hash are the same stretch, or go round again.
            _, first = np.unique(hashes[missing], return_index=True)
            chosen = missing[np.sort(first)]
            self._add(hashes[chosen], words[chosen])
            new.append(chosen)
            numbers[missing] = self._find(hashes[missing], words[missing])
            missing = missing[numbers[missing] < 0]
        return numbers, np.concatenate(new) if new else missing

    def _hash(self, words: np.ndarray) -> np.ndarray:
        one, two, three = self._factors
        mixed: np.ndarray = words[:, 0] * one
        # A product keeps differences in high bits there, and both words end in a byte that often differs; folded down,
        # the first word's cannot cancel the second's.
        mixed = ((mixed ^ (mixed >> np.uint64(32))) + words[:, 1]) * two
        # Slots are taken from the highest bits, to which all bits of a product contribute.
        hashes: np.ndarray = (mixed ^ (mixed >> np.uint64(32))) * three
        return hashes

    def _find(self, hashes: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Look up numbers; -1 for unknown stretches."""
        slots = (hashes >> self._shift).astype(np.int64)
        numbers = self._number_at.take(slots)
        left = np.flatnonzero(self._differs(numbers, words))
        while len(left):  # another stretch has the slot: look in the next (linear probing)
            slots[left] = (slots[left] + 1) % len(self._number_at)
            numbers[left] = self._number_at.take(slots[left])
            left = left[self._differs(numbers[left], words[left])]
        return numbers

    def _differs(self, numbers: np.ndarray, words: np.ndarray) -> np.ndarray:
        """Mark stretches whose slot has another stretch, bool `[k]`. Args: numbers, -1 for an empty slot."""
        known = self._words.take(numbers, axis=0, mode="clip")
        differs: np.ndarray = (known[:, 0] != words[:, 0]) | (known[:, 1] != words[:, 1])
        differs &= numbers >= 0
        return differs

    def _add(self, hashes: np.ndarray, words: np.ndarray) -> None:
        """Insert stretches, all new and different, with the next numbers."""
        size = self._size + len(hashes)
        if size > len(self._words):
            more = max(size, 2 * len(self._words)) - len(self._words)
            self._words = np.concatenate([self._words, np.zeros((more, 2), dtype=np.uint64)])
        self._words[self._size : size] = words
        numbers = np.arange(self._size, size)
        self._size = size
        bits = 1 + size.bit_length()
        if 1 << bits > len(self._number_at):
            self._clear(bits)
            numbers = np.arange(size)
            hashes = self._hash(self._words[:size])
        slots = (hashes >> self._shift).astype(np.int64)
        while len(numbers):
            free = self._number_at[slots] < 0
            self._number_at[slots[free]] = numbers[free]  # of several that want one slot, one gets it
            left = self._number_at[slots] != numbers
            numbers, slots = numbers[left], (slots[left] + 1) % len(self._number_at)

    def _clear(self, bits: int) -> None:
        self._number_at = np.full(1 << bits, -1, dtype=np.int64)
        self._shift = np.uint64(64 - bits)


def _words(data: bytes, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The bytes of each stretch as two little-endian words, the last byte its length; uint64 `[k, 2]`."""
    padded = data + bytes(2 * _WORD_BYTES)
    # Number i of this view is the 8 bytes from place i on; they overlap, and NumPy reads them where they are.
    at: np.ndarray = np.ndarray(len(padded) - _WORD_BYTES + 1, dtype="<u8", buffer=padded, strides=(1,))
    words = np.empty((len(starts), 2), dtype=np.uint64)
    for column in (0, 1):
        offset = column * _WORD_BYTES
        words[:, column] = at[starts + offset] & _MASKS[np.clip(lengths - offset, 0, _WORD_BYTES)]
    words[:, 1] |= lengths.astype(np.uint64) << np.uint64(56)
    return words
