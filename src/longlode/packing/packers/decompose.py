"""The packer `decompose`: sequences of one document each, in buckets by length, from short to long."""

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np

from longlode.core.errors import ConfigError
from longlode.packing.packers.base import Order, Packer, PackingReport, Piece, Schedule, StepRows
from longlode.packing.packers.rows import raw_numbers, report_of, row_order

_ODDS = {
    "uniform": lambda number, of: 1.0,
    "grow_linear": lambda number, of: float(of - number),
    "grow_p2": lambda number, of: 2.0 ** (of - 1 - number),
    "grow_p100": lambda number, of: 100.0 ** (of - 1 - number),
    "shrink_p100": lambda number, of: 100.0**number,
}


@dataclass(frozen=True, kw_only=True)
class DecomposePacker(Packer):
    """Dataset decomposition: documents are cut into powers of two, and a step has sequences of one length.

    A document of 2,500 tokens gives sequences of 2048, 256, 128 and 64 tokens; 4 are dropped. Every step has equally
    many tokens: many short sequences or few long ones. Within each of `cycles` parts of an epoch, short ones are more
    likely to come first. Source: Pouransari et al. 2024, "Dataset decomposition", arXiv 2405.13226.

    min_length: shortest sequence (tokens, a power of two); a shorter remainder of a document is dropped.
    cycles: number of passes from short to long per epoch.
    curriculum: odds of a bucket to be next, from the shortest on: uniform, all 1; grow_linear, n, n - 1, ..., 1;
    grow_p2, 2^(n-1), ..., 2, 1; grow_p100, the same by powers of 100; shrink_p100, from long to short. With 6 buckets
    grow_p2 has the odds 32, 16, 8, 4, 2, 1 of the authors' published settings.
    """

    name: ClassVar[str] = "decompose"
    mixes_by_steps: ClassVar[bool] = True  # a step has sequences of one length
    min_length: int = 32
    cycles: int = 8
    curriculum: Literal["uniform", "grow_linear", "grow_p2", "grow_p100", "shrink_p100"] = "grow_p2"

    def plan(self, lengths: np.ndarray, *, length: int, batch_size: int, order: Order) -> Schedule:
        """See `Packer.plan`. Raises: ConfigError unless the lengths are powers of two, min_length <= length."""
        for name, value in (("length", length), ("min_length", self.min_length)):
            if value < 2 or value & (value - 1):
                raise ConfigError(f"the packer 'decompose': {name} is {value}; expected a power of two.")
        if self.min_length > length or self.cycles < 1:
            raise ConfigError(
                f"the packer 'decompose': min_length is {self.min_length} and cycles {self.cycles}; expected at most "
                f"length, {length}, and at least 1."
            )
        buckets = [
            bucket
            for exponent in range(self.min_length.bit_length() - 1, length.bit_length())
            if len((bucket := _bucket(lengths, 1 << exponent, length)).documents)
        ]
        return _Buckets(buckets, lengths, length * batch_size, order, self)


@dataclass(frozen=True)
class _Bucket:
    """All sequences of `length` tokens: the document of each and where in it the sequence starts, int64 `[n]`."""

    length: int
    documents: np.ndarray
    starts: np.ndarray


def _bucket(lengths: np.ndarray, size: int, longest: int) -> _Bucket:
    """Collect the sequences of `size` tokens: any number per document of the longest size, of others at most one."""
    if size == longest:
        counts = lengths // size
        documents = np.repeat(np.arange(len(lengths)), counts)
        nth = np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)
        return _Bucket(size, documents, nth * size)
    # In binary, the bit of `size` in a length says if the document has such a sequence. The sequences of higher bits
    # come before it, so it starts at the length with the bit of `size` and all lower bits cleared.
    documents = np.flatnonzero(lengths & size)
    return _Bucket(size, documents, lengths[documents] // (2 * size) * (2 * size))


class _Buckets(Schedule):
    """Schedule of steps of one bucket each. Per epoch every bucket gets its share of steps; fractions carry over.

    Bucket b has n_b sequences, r_b of which make a step. By the end of epoch e it has had floor((e + 1) n_b / r_b)
    steps. So every sequence is read equally often for any n_b, and both the epoch of a step and its position in a
    bucket's endless list of sequences are computed directly, without counting.
    """

    def __init__(
        self,
        buckets: list[_Bucket],
        lengths: np.ndarray,
        step_tokens: int,
        order: Order,
        packer: DecomposePacker,
    ) -> None:
        self._buckets, self._lengths, self._order, self._packer = buckets, lengths, order, packer
        self.num_rows = sum(len(bucket.documents) for bucket in buckets)
        self._per_step = [step_tokens // bucket.length for bucket in buckets]
        self._steps_of_epoch = lru_cache(maxsize=1)(self._arrange)
        self._of_bucket = lru_cache(maxsize=2 * max(1, len(buckets)))(self._sequence_order)

    def step(self, index: int) -> StepRows:
        epoch = self._epoch_of(index)
        buckets, places = self._steps_of_epoch(epoch)
        place_in_epoch = index - sum(self._done(epoch))
        number = int(buckets[place_in_epoch])
        bucket, count = self._buckets[number], self._per_step[number]
        first = (self._done(epoch)[number] + int(places[place_in_epoch])) * count
        rows = []
        for place in range(first, first + count):
            own_epoch, offset = divmod(place, len(bucket.documents))
            sequence = int(self._of_bucket(number, own_epoch)[offset])
            start = int(bucket.starts[sequence])
            rows.append([Piece(int(bucket.documents[sequence]), start, start + bucket.length)])
        return StepRows(rows, bucket.length)

    def report(self) -> PackingReport:
        empty = np.zeros(0, dtype=np.int64)
        documents = np.concatenate([empty, *(bucket.documents for bucket in self._buckets)])
        starts = np.concatenate([empty, *(bucket.starts for bucket in self._buckets)])
        sizes = np.concatenate([empty, *(np.full(len(b.documents), b.length) for b in self._buckets)])
        return report_of(documents, starts, starts + sizes, self._lengths, len(documents), int(sizes.sum()))

    def _done(self, epoch: int) -> list[int]:
        """Return the number of steps of each bucket before an epoch."""
        return [
            epoch * len(bucket.documents) // count
            for bucket, count in zip(self._buckets, self._per_step, strict=True)
        ]

    def _epoch_of(self, index: int) -> int:
        """Return the epoch of a step: the last one before which at most `index` steps were done."""
        low, high = 0, 1
        while sum(self._done(high)) <= index:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sum(self._done(middle)) <= index else (low, middle)
        return low

    def _arrange(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the bucket of each step of an epoch, and the step's index within its bucket; int64 `[S]` each."""
        before, after = self._done(epoch), self._done(epoch + 1)
        totals = [last - first for first, last in zip(before, after, strict=True)]
        cycles = self._packer.cycles
        buckets = [
            self._arrange_cycle(
                epoch, cycle, [(cycle + 1) * n // cycles - cycle * n // cycles for n in totals]
            )
            for cycle in range(cycles)
        ]
        found = np.concatenate(buckets)
        places = np.zeros(len(found), dtype=np.int64)
        for number, total in enumerate(totals):
            places[found == number] = np.arange(total)
        return found, places

    def _arrange_cycle(self, epoch: int, cycle: int, counts: list[int]) -> np.ndarray:
        """Draw buckets by their odds, each until its steps are used up; int64 `[sum of counts]`."""
        key = f"longlode decompose\0{self._order.seed}\0{epoch}\0{cycle}\0{self._order.fingerprint}"
        draws = raw_numbers(sum(counts), key) / 2.0**64
        odds = [_ODDS[self._packer.curriculum](number, len(counts)) for number in range(len(counts))]
        left, found = list(counts), np.zeros(len(draws), dtype=np.int64)
        for place, draw in enumerate(draws.tolist()):
            open_buckets = [number for number, count in enumerate(left) if count]
            point = draw * sum(odds[number] for number in open_buckets)
            for number in open_buckets:
                point -= odds[number]
                if point < 0:
                    break
            left[number] -= 1
            found[place] = number
        return found

    def _sequence_order(self, number: int, epoch: int) -> np.ndarray:
        bucket = self._buckets[number]
        name = f"{self._order.fingerprint}\0{bucket.length}"
        return row_order(len(bucket.documents), self._order.seed, epoch, name)
