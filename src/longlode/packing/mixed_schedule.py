"""The rows of every step of a mixture: which source each comes from, and where in that source it stands."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from longlode.core.errors import ConfigError, InputError
from longlode.packing.mixture import Mixture
from longlode.packing.packers import Order, Packer, PackingReport, Schedule, StepRows
from longlode.packing.packers.rows import raw_numbers

_ROUND = 4096
"""Units dealt in one round; shares are rounded to multiples of one in as many."""
_FAR = 1 << 62


@dataclass(frozen=True)
class SourceReport:
    """The part of a run that comes from one group of a mixture.

    share: part of the run's tokens (0 to 1). num_documents, num_tokens: of the group. epochs: how often the run reads
    the whole group.
    """

    name: str
    share: float
    num_documents: int
    num_tokens: int
    epochs: float

    def in_words(self) -> str:
        """Format the report as one line of text."""
        return (
            f"{self.name}: {self.share:.1%} of the run's tokens, {self.epochs:.2g} times its {self.num_tokens:,} "
            f"tokens of {self.num_documents:,} documents"
        )


@dataclass(frozen=True)
class _Source:
    """A group with its own rows. unit: what the mixture deals out, a row or, for packers that mix by steps, a step."""

    name: str
    documents: np.ndarray
    schedule: Schedule
    report: PackingReport
    units_per_epoch: float

    @property
    def fill(self) -> float:
        """Part of the positions of its rows that hold a token."""
        held = self.report.num_tokens - self.report.cut_tokens
        return held / max(1, held + self.report.padding_tokens)


@dataclass(frozen=True)
class _Phase:
    """Steps with constant shares. before: units dealt to each source until `step`; quotas: units of each in a round."""

    step: int
    before: tuple[int, ...]
    quotas: tuple[int, ...]

    def dealt(self, num_units: int) -> list[int]:
        """Return how many units each source has been dealt in all, num_units after the phase began."""
        rounds, rest = divmod(num_units, _ROUND)
        within = _round(self.quotas)[rest].tolist()
        return [
            first + rounds * quota + count
            for first, quota, count in zip(self.before, self.quotas, within, strict=True)
        ]


@lru_cache(maxsize=16)
def _round(quotas: tuple[int, ...]) -> np.ndarray:
    """Deal a round as evenly as possible; return the units of each source before each place, int64 `[_ROUND + 1, S]`.

    Unit j of a source with quota q belongs at (j + 1/2) / q of the round; sorted by that, every source is close to its
    share at any place, and its count never falls, which rounding shares at each place by itself would not ensure.
    Source: the Webster / Sainte-Lague method of apportionment.
    """
    sources = np.repeat(np.arange(len(quotas)), quotas)
    places = np.concatenate([(np.arange(quota) + 0.5) / max(1, quota) for quota in quotas])
    dealt = sources[np.argsort(places, kind="stable")]
    counts = np.zeros((_ROUND + 1, len(quotas)), dtype=np.int64)
    counts[1:] = np.cumsum(dealt[:, None] == np.arange(len(quotas)), axis=0)
    return counts


def _quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """Share out a round by weights with the largest remainders; a source with any weight has at least one unit."""
    exact = np.array(weights) / sum(weights) * _ROUND
    least = np.floor(exact).astype(np.int64)
    order = np.argsort(least - exact, kind="stable")
    least[order[: _ROUND - int(least.sum())]] += 1
    for source in np.flatnonzero((least == 0) & (exact > 0)):
        least[source] += 1
        least[int(np.argmax(least))] -= 1
    return tuple(least.tolist())


class MixedSchedule(Schedule):
    """Schedule of a mixture: every source is packed alone, and its rows are dealt to steps by shares of tokens.

    A row holds documents of one source. At every step the tokens read of each source, without padding, are within a row
    or two of its share. What a step reads depends on its number, the shares and the changes before it, nothing else.
    """

    def __init__(
        self, sources: Sequence[_Source], mixture: Mixture, units_per_step: int, order: Order
    ) -> None:
        """Use `plan_mixture` to make one."""
        self._sources, self._mixture, self._order = tuple(sources), mixture, order
        self._units_per_step = units_per_step
        self.num_rows = sum(source.schedule.num_rows for source in sources)
        self.num_steps: int | None = None
        """Steps until every source has been read `mixture.epochs` times; None without such a limit."""
        self._phases = self._make_phases()
        self._starts = [phase.step for phase in self._phases]

    @property
    def names(self) -> tuple[str, ...]:
        """The groups, in order."""
        return tuple(source.name for source in self._sources)

    def with_shares(self, step: int, shares: Mapping[str, float]) -> "MixedSchedule":
        """Return the schedule that is the same before `step` and has other shares from there on."""
        kept = tuple(change for change in self._mixture.changes if change[0] < step)
        mixture = replace(self._mixture, changes=(*kept, (step, shares)))
        return MixedSchedule(self._sources, mixture, self._units_per_step, self._order)

    def step(self, index: int) -> StepRows:
        """See `Schedule.step`. Raises: InputError beyond `num_steps`."""
        if self.num_steps is not None and index >= self.num_steps:
            raise InputError(
                f"the mixture has no data for step {index + 1}: all its groups have been read {self._mixture.epochs:g} "
                "times. Allow more epochs, take fewer steps, or add text."
            )
        before, after = self._counts(index), self._counts(index + 1)
        units = [(s, n) for s in range(len(before)) for n in range(before[s], after[s])]
        key = f"longlode mixture\0{self._order.seed}\0{index}\0{self._order.fingerprint}"
        rows, length, inserted = [], 0, None
        for place in np.argsort(raw_numbers(len(units), key), kind="stable").tolist():
            source, number = self._sources[units[place][0]], units[place][1]
            found = source.schedule.step(number)
            length, inserted = max(length, found.length), found.inserted  # of one packer
            rows += [
                [replace(piece, document=int(source.documents[piece.document])) for piece in row]
                for row in found.rows
            ]
        return StepRows(rows, length, inserted)

    def report(self) -> PackingReport:
        """Return the statistics of all sources together, each read once."""
        reports = [source.report for source in self._sources]
        held = [report.num_tokens - report.cut_tokens for report in reports]
        context = sum(n * report.mean_context_tokens for n, report in zip(held, reports, strict=True))
        names = [name for name in vars(reports[0]) if name.startswith("num_") or name.endswith("_tokens")]
        summed = {name: sum(getattr(report, name) for report in reports) for name in names}
        return PackingReport(**{**summed, "mean_context_tokens": context / max(1, sum(held))})

    def sources(self, num_steps: int) -> list[SourceReport]:
        """Return what a run of `num_steps` steps reads of each group."""
        counts = self._counts(num_steps)
        held = [count * source.fill for count, source in zip(counts, self._sources, strict=True)]
        return [
            SourceReport(
                source.name,
                tokens / max(1e-9, sum(held)),
                source.report.num_documents,
                source.report.num_tokens,
                count / source.units_per_epoch,
            )
            for source, tokens, count in zip(self._sources, held, counts, strict=True)
        ]

    def _counts(self, step: int) -> list[int]:
        phase = self._phases[bisect_right(self._starts, step) - 1]
        return phase.dealt((step - phase.step) * self._units_per_step)

    def _make_phases(self) -> list[_Phase]:
        """Cut the run where shares change or a source has been read often enough."""
        epochs, mixture = self._mixture.epochs, self._mixture
        limits = [
            _FAR if epochs is None else max(1, int(epochs * source.units_per_epoch))
            for source in self._sources
        ]
        changes = dict(mixture.changes)
        shares = changes.pop(0, mixture.shares)
        step, counts, phases = 0, [0] * len(limits), list[_Phase]()
        over = [False] * len(limits)
        while True:
            quotas = self._quotas_of(shares, over)
            if quotas is None:
                self.num_steps = step
                return phases
            phase = _Phase(step, tuple(counts), quotas)
            phases.append(phase)
            until = min((change for change in changes if change > step), default=_FAR)
            end = self._first_step_over(phase, limits, until) if epochs is not None else until
            if end == _FAR:
                return phases
            dealt = phase.dealt((end + 1 - step) * self._units_per_step)
            counts = phase.dealt((end - step) * self._units_per_step)
            if end < until:
                over = [was or count > limit for was, count, limit in zip(over, dealt, limits, strict=True)]
            else:
                shares = changes.pop(end)
            if end == step:
                phases.pop()
            step = end

    def _quotas_of(self, shares: Mapping[str, float], over: list[bool]) -> tuple[int, ...] | None:
        """Return the units of each source in a round; None if no source is left."""
        # A unit of a source whose rows are half padding brings half the tokens, so that it needs twice the units.
        weights = [
            0.0 if is_over else shares.get(source.name, 0.0) / source.fill
            for source, is_over in zip(self._sources, over, strict=True)
        ]
        return _quotas(weights) if sum(weights) > 0 else None

    def _first_step_over(self, phase: _Phase, limits: list[int], until: int) -> int:
        """Return the first step that needs more of a source than its limit, at most `until`."""

        def fits(step: int) -> bool:
            dealt = phase.dealt((step + 1 - phase.step) * self._units_per_step)
            return all(
                count <= limit or count == before
                for count, limit, before in zip(dealt, limits, phase.before, strict=True)
            )

        low, size = phase.step, 1
        while low + size < until and fits(low + size - 1):
            low, size = low + size, 2 * size
        high = min(low + size, until)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if fits(middle) else (low, middle)
        return low


def plan_mixture(
    lengths: np.ndarray,
    groups: Mapping[str, tuple[Packer, np.ndarray]],
    mixture: Mixture,
    *,
    length: int,
    batch_size: int,
    order: Order,
) -> MixedSchedule:
    """Pack each group alone, and deal its rows by the mixture.

    Args: lengths, int64 `[N]`, as of `Packer.plan`; groups, the packer and the documents of each group of the mixture,
      indices into `lengths`, int64; the rest as of `Packer.plan`.
    Raises: InputError for a group with too few tokens for one row; ConfigError as `Packer.plan`.
    """
    sources, units_per_step = [], batch_size
    for name, (packer, documents) in groups.items():
        own_batch, units_per_step = (batch_size, 1) if packer.mixes_by_steps else (1, batch_size)
        own_order = Order(order.seed, f"{order.fingerprint}\0{name}")
        schedule = packer.plan(lengths[documents], length=length, batch_size=own_batch, order=own_order)
        if schedule.num_rows < 1:
            raise InputError(
                f"the group {name!r} of the mixture has {int(lengths[documents].sum()):,} tokens in {len(documents):,} "
                f"documents; one row needs {length:,}. Leave the group out, or ask for shorter rows."
            )
        report = schedule.report()
        places = report.num_tokens - report.cut_tokens + report.padding_tokens
        sources.append(_Source(name, documents, schedule, report, places / (length * own_batch)))
    if not sources:
        raise ConfigError("the mixture has no groups; expected at least one.")
    return MixedSchedule(sources, mixture, units_per_step, order)
