"""The readings that `benchmarks.release_quirks` needs, and the paper's LDS with one thing changed."""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labelled import COHERENT, Labelled
from longlode.core.errors import ConfigError
from longlode.core.fingerprints import fingerprint
from longlode.core.records import atomic_path
from longlode.mining import dependency
from longlode.mining.sampling import document_rng, sample_foreign, sample_pairs
from longlode.mining.scorers.base import MAX_SEGMENTS
from longlode.mining.segments import split_segments

READINGS_VERSION = 1
"""Part of the name of what is kept: raise it when a document is read in another way."""
SEGMENT = 128
NUM_FOREIGN = 32
"""Foreign segments of a document; target i is read after number i modulo this."""
COLD_EVERY = 8
"""Of so many segments one is also read after an end-of-text mark."""

Pairs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Readings:
    """What the reader said of one document of S segments: mean nats a token, NaN where nothing was read.

    alone `[S]`; given `[S, S]`, of target i after source j; foreign `[S]`, after a segment of another document; kin
    `[S]`, of another document of the same domain, NaN where there is none. seconds: CPU time of all but kin.
    first_alone `[S]`, nats of the first token after an end-of-text mark; first_given `[S, S]`, after the whole source.
    unmarked, marked `[C]`: tokens 1 to L - 2 of some segments read alone, and after an end-of-text mark.
    """

    alone: np.ndarray
    given: np.ndarray
    foreign: np.ndarray
    first_alone: np.ndarray
    first_given: np.ndarray
    unmarked: np.ndarray
    marked: np.ndarray
    seconds: np.ndarray
    kin: np.ndarray


def read_after(reader: Any, segments: np.ndarray, foreign: np.ndarray) -> np.ndarray:
    """Each segment after one of another document, `[S]`; NaN where there is none. Args: as of `read_document`."""
    if not len(foreign):
        return np.full(len(segments), np.nan)
    _, states = reader.alone(foreign)
    return _mean_nats(reader.given(states, np.arange(len(segments)) % len(foreign), segments))


def _mean_nats(nll: np.ndarray) -> np.ndarray:
    return np.asarray(nll.mean(-1, dtype=np.float64))


def read_kin(reader: Any, segments: np.ndarray, kin: np.ndarray) -> dict[str, np.ndarray]:
    """The field of `Readings`."""
    return {"kin": read_after(reader, segments, kin)}


def read_document(
    reader: Any, segments: np.ndarray, foreign: np.ndarray, pairs: Pairs
) -> dict[str, np.ndarray]:
    """Read every segment alone, after a foreign one, and in the pairs.

    Args: segments int64 `[S, L]`; foreign int64 `[F, L]`; pairs, targets and sources. A reader without an end-of-text
      mark leaves first_alone and marked NaN.
    Returns: the fields of `Readings`, without kin.
    """
    start = time.process_time()
    targets, sources = pairs
    count = len(segments)
    given, first_given = np.full((2, count, count), np.nan)
    nll, states = reader.alone(segments)
    given[targets, sources] = _mean_nats(reader.given(states, sources, segments[targets]))
    # A source's last token belongs to the target here: then the first token of the segment behind it has a score.
    _, states = reader.alone(segments[:, :-1])
    joints = np.stack([segments[sources, -1], segments[targets, 0]], axis=1)
    first_given[targets, sources] = reader.given(states, sources, joints)[:, 0]
    some, mark = segments[::COLD_EVERY], reader.tokenizer.eos_token_id
    first_alone, marked = np.full(count, np.nan), np.full(len(some), np.nan)
    if mark is not None:
        first_alone = reader.alone(np.insert(segments[:, :1], 0, mark, axis=1))[0][:, 0]
        marked = _mean_nats(reader.alone(np.insert(some[:, :-1], 0, mark, axis=1))[0][:, 1:])
    return {
        "alone": _mean_nats(nll),
        "given": given,
        "foreign": read_after(reader, segments, foreign),
        "first_alone": first_alone,
        "first_given": first_given,
        "unmarked": _mean_nats(nll[::COLD_EVERY, :-1]),
        "marked": marked,
        "seconds": np.array(time.process_time() - start),
    }


def draw(item: Labelled, num_segments: int, num_pairs: int, seed: int) -> Pairs:
    """The pairs of a document cut at so many segments; the same for the same arguments."""
    rng = document_rng(seed, item.id, "", f"pairs {num_segments}")
    return sample_pairs(num_segments, num_pairs, rng)


def all_draws(item: Labelled, sizes: Sequence[int], num_pairs: int, seed: int) -> Pairs:
    """What has to be read: the pairs of every size, each once."""
    wanted = np.zeros((max(sizes), max(sizes)), dtype=bool)
    for size in sizes:
        wanted[draw(item, size, num_pairs, seed)] = True
    targets, sources = np.nonzero(wanted)
    return targets, sources


def read_all(
    documents: Sequence[Labelled], coherent: Sequence[Labelled], reader: Any, options: argparse.Namespace
) -> list[Readings]:
    """The readings of every document, from `--work` where they are there already.

    Args: coherent, documents that foreign segments of the same domain come from, for a domain without any those of
      `documents` themselves. Foreign segments of any domain come from the coherent ones of `documents`.
    """
    found = []
    sizes = [length // SEGMENT for length in options.lengths]
    near = [item for item in documents if item.label == COHERENT]
    for number, item in enumerate(documents):
        segments = split_segments(item.tokens.astype(np.int64), SEGMENT)
        foreign = foreign_segments(item, near, options.seed)
        if not len(foreign):
            raise ConfigError(
                "There is one coherent document; expected two or more, to be foreign to each other."
            )
        alike = [other for other in coherent if other.domain == item.domain]
        alike = alike or [other for other in documents if other.domain == item.domain]
        kin = foreign_segments(item, alike, options.seed)
        pairs = all_draws(item, sizes, options.pairs, options.seed)
        named = [
            READINGS_VERSION,
            reader.fingerprint,
            *(part.tolist() for part in (segments, foreign, *pairs)),
        ]
        print(f"reading {number + 1} of {len(documents)}: {item.id}", file=sys.stderr, flush=True)
        parts = kept(options.work, named, partial(read_document, reader, segments, foreign, pairs))
        named = [READINGS_VERSION, reader.fingerprint, segments.tolist(), kin.tolist()]
        after = kept(options.work, named, partial(read_kin, reader, segments, kin))
        found.append(Readings(**parts, **after))
    return found


def foreign_segments(item: Labelled, others: Sequence[Labelled], seed: int) -> np.ndarray:
    """Segments of the others, int64 `[F, L]`, of none that the document is a part of or made from; F may be 0."""
    bases = [re.escape(other.id.rsplit("@", 1)[0]) for other in others]
    unlike = [
        other
        for other, base in zip(others, bases, strict=True)
        if not re.search(rf"(^|[/#]){base}($|[/@#])", item.id)
    ]
    if not unlike:
        return np.zeros((0, SEGMENT), dtype=np.int64)
    rows = [split_segments(other.tokens.astype(np.int64), SEGMENT) for other in unlike]
    return sample_foreign(rows, NUM_FOREIGN, document_rng(seed, item.id, "", "foreign"))


def kept(folder: Path | None, named: list[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returns, or what it returned for this name when the folder was used before."""
    path = None if folder is None else folder / f"{fingerprint(named)}.npz"
    if path and path.exists():
        return dict(np.load(path))
    found = make()
    if path:
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez(stream, **found)
    return found


@dataclass(frozen=True)
class Rule:
    """The paper's LDS, and what may be changed in it.

    window: distances over so many segments (R1). floor: of probabilities (R2). one_source: specificity of a row of one
    source (without R3). relative: softmax over DST, not over PPL (without R4). per_pair: mean, not sum (without R5).
    nan_is_zero: R6. sample_size: R7. first_token: it counts, too (without R9). control: strengths are less that of a
    foreign source, "foreign" or "kin" (without R11). half: loss and PPL in float16 (X1).
    """

    window: int | None = None
    floor: float = 0.0
    one_source: float = 1.0
    relative: bool = False
    per_pair: bool = False
    nan_is_zero: bool = False
    sample_size: int = 0
    first_token: bool = False
    control: str = ""
    half: bool = False


PAPER = Rule()


def rules(sample_size: int) -> dict[str, Rule]:
    """The rows of the table. R8 and R10 change what is read, not the formula: they have a line only."""
    window, floor = MAX_SEGMENTS, dependency.RELEASE_FLOOR
    return {
        "paper": PAPER,
        "R1 in": Rule(window=window),
        "R2 in": Rule(floor=floor),
        "R3 out": Rule(one_source=0.0),
        "R4 out": Rule(relative=True),
        "R5 out": Rule(per_pair=True),
        "R6 in": Rule(nan_is_zero=True),
        "R7 in": Rule(sample_size=sample_size),
        "R9 out": Rule(first_token=True),
        "R11 out": Rule(control="foreign"),
        "R11 out, kin": Rule(control="kin"),
        "X1 in": Rule(half=True),
        "release": Rule(window=window, floor=floor, nan_is_zero=True, sample_size=sample_size),
    }


@dataclass(frozen=True, eq=False)
class Measured:
    """The pairs of one document by one rule, `[P]` each; rows `[S]`, the specificity of each target, else NaN."""

    targets: np.ndarray
    strengths: np.ndarray
    distances: np.ndarray
    rows: np.ndarray

    @property
    def specificities(self) -> np.ndarray:
        """Of each pair's target."""
        return self.rows[self.targets]


def perplexity(nats: np.ndarray, first: np.ndarray, rule: Rule) -> np.ndarray:
    """PPL from the mean over L - 1 tokens and what the first one has, by the rule; float64."""
    if rule.first_token:
        nats = (nats * (SEGMENT - 1) + first) / SEGMENT
    if not rule.half:
        return dependency.perplexity(nats[..., None])
    with np.errstate(over="ignore"):  # infinity is what X1 is about
        return np.exp(nats.astype(np.float16)).astype(np.float64)


def measure(doc: Readings, num_segments: int, pairs: Pairs, rule: Rule) -> Measured:
    """Strengths, distances and specificities of the pairs of the document's first segments."""
    targets, sources = pairs
    alone = perplexity(doc.alone, doc.first_alone, rule)
    given = perplexity(doc.given[pairs], doc.first_given[pairs], rule)
    with np.errstate(invalid="ignore" if rule.half else "warn"):  # infinity less infinity
        strengths = dependency.strength(alone[targets], given)
        differences = strengths if rule.relative else alone[targets] - given
        rows = dependency.specificity_rows(targets, differences, num_segments, rule.floor)
    rows[np.bincount(targets, minlength=num_segments) == 1] = rule.one_source
    if rule.control:
        # The same for all sources of a target, so that its specificity stays.
        foreign = perplexity(getattr(doc, rule.control), doc.first_alone, rule)
        strengths = strengths - dependency.strength(alone, foreign)[targets]
    if rule.window is None:
        distances = dependency.distance(targets, sources, num_segments)
    else:
        distances = dependency.release_distance(targets, sources, rule.window)
    return Measured(targets, strengths, distances, rows)


def total(doc: Readings, num_segments: int, pairs: Pairs, rule: Rule) -> float:
    """The score by the rule; NaN where the readings lack what it asks for."""
    if len(pairs[0]) < rule.sample_size:
        return 0.0
    found = measure(doc, num_segments, pairs, rule)
    if np.isnan(found.strengths).any() and not rule.half:
        return np.nan  # what the rule asks for was not read
    add = dependency.release_lds if rule.nan_is_zero else dependency.lds
    score = add(found.strengths, found.distances, found.specificities)
    return score / len(pairs[0]) if rule.per_pair else score


class Study:
    """The documents, their readings, and the pairs of document d at length k: `draws[k][d]`."""

    def __init__(
        self, documents: Sequence[Labelled], readings: Sequence[Readings], options: argparse.Namespace
    ) -> None:
        """Draw the pairs."""
        self.documents, self.readings, self.options = documents, readings, options
        self.sizes = [length // SEGMENT for length in options.lengths]
        self.draws = [
            [draw(item, size, options.pairs, options.seed) for item in documents] for size in self.sizes
        ]
        self.labels = np.array([item.label for item in documents])
        self.groups = [item.id.rsplit("@", 1)[0] for item in documents if item.label == COHERENT]

    def scores(self, rule: Rule) -> np.ndarray:
        """float64 `[D, K]`."""
        columns = [
            [total(doc, size, pairs, rule) for doc, pairs in zip(self.readings, draws, strict=True)]
            for size, draws in zip(self.sizes, self.draws, strict=True)
        ]
        return np.array(columns).T

    def views(self, scores: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """The scores `[D]` at each length, and mixed: a document, counted within its label, at one of the lengths."""
        for length, column in zip(self.options.lengths, scores.T, strict=True):
            yield f"{length:,}", column
        number = np.concatenate([np.arange(count) for count in Counter(self.labels.tolist()).values()])
        for shift in range(len(self.sizes)):
            yield "mixed", scores[np.arange(len(scores)), (number + shift) % len(self.sizes)]

    def measured(self, column: int, rule: Rule = PAPER) -> Iterator[tuple[Readings, Measured]]:
        """The pairs of each document at one length."""
        for doc, pairs in zip(self.readings, self.draws[column], strict=True):
            yield doc, measure(doc, self.sizes[column], pairs, rule)

    def with_half_the_pairs(self) -> "Study":
        """The same with half the pairs of each draw, by chance."""
        other = Study(self.documents, self.readings, self.options)
        rng = np.random.default_rng(self.options.seed)
        for column in other.draws:
            for place, (targets, sources) in enumerate(column):
                kept = np.sort(rng.permutation(len(targets))[: len(targets) // 2])
                column[place] = targets[kept], sources[kept]
        return other
