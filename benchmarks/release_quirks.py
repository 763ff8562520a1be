"""What each quirk of ProLong's released code does to its score: one at a time, all from the same readings.

    python -m benchmarks.release_quirks [--model starter] [--lengths 4096,8192,16384] [--max-documents 8]
        [--split test] [--documents FOLDER] [--work FOLDER] [--save]

R1 to R11 and X1 are described in `longlode/mining/dependency.py` and `longlode/mining/scorers/release.py`. Every
document of the labelled set is read once, at the longest length; shorter documents are its beginnings. The base is the
paper's LDS. A quirk that the paper does not have is put in ("in"); one that its formulas, as we read them, share with
the release (R3, R4, R5, R9, R11) is taken out of it ("out"), R11 with a foreign source of any domain, and of the same
one ("kin"). Printed are: the rank correlation with the base; the share of documents on the other side of the median;
the rank correlation of the score with the length of the same coherent documents; AUC of coherent documents against
four negatives, and its difference from the base's. "Mixed" gives every document one of the lengths in turn, mean over
the ways to do so. What another number says better is a line below.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.labelled import (
    COHERENT,
    Labelled,
    build_set,
    data_folder,
    folder_sources,
    heldout_sources,
    side,
)
from benchmarks.mining_quality import balanced, load_reader
from benchmarks.quality_measures import auc, auc_interval, length_bias, same_half, spearman
from benchmarks.quirk_scoring import PAPER, SEGMENT, Rule, Study, measure, perplexity, read_all, rules, total
from benchmarks.saved import about, save
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer
from longlode.mining import dependency
from longlode.mining.sampling import document_rng, sample_pairs, sample_segments
from longlode.models import starter_folder

NEGATIVES = ("spliced", "lists", "logs", "repeated")


def chosen_documents(options: argparse.Namespace) -> tuple[list[Labelled], list[Labelled]]:
    """Documents of the table, of the longest length (shorter ones are their beginnings), and all coherent ones."""
    if any(length % SEGMENT for length in options.lengths) or options.lengths != sorted(set(options.lengths)):
        raise ConfigError(f"lengths are {options.lengths}; expected multiples of {SEGMENT}, ascending.")
    items = build_set(
        num_tokens=max(options.lengths), split=options.split, seed=options.seed, documents=options.documents
    ).items
    chosen = balanced([item for item in items if item.label in (COHERENT, *NEGATIVES)], options.max_documents)
    return chosen, [item for item in items if item.label == COHERENT]


def tabulate(study: Study, scores: np.ndarray, paper: np.ndarray) -> dict[str, Any]:
    """One row of the table: each number by view, a mean over the ways to mix; None where it cannot be told."""
    rows: dict[str, dict[str, list[float | None]]] = {"rank": {}, "changed": {}}
    rows |= {f"auc {label}": {} for label in NEGATIVES}
    for (view, own), (_, base) in zip(study.views(scores), study.views(paper), strict=True):
        same = same_half(own, base)
        rows["rank"].setdefault(view, []).append(spearman(own, base))
        rows["changed"].setdefault(view, []).append(None if same is None else 1 - same)
        for label in NEGATIVES:
            positive, negative = own[study.labels == COHERENT], own[study.labels == label]
            known = len(negative) and np.isfinite(own).any()
            rows[f"auc {label}"].setdefault(view, []).append(auc(positive, negative) if known else None)
    means = {name: {view: _mean(values) for view, values in row.items()} for name, row in rows.items()}
    return means | {"length": length_bias(scores[study.labels == COHERENT], study.options.lengths)}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) > 0 else None


def lines(study: Study) -> dict[str, str]:
    """What another number than those of the table says better, by quirk."""
    sums = np.concatenate([study.scores(Rule(half=half)).ravel() for half in (False, True)])
    return {
        "paper": _intervals(study),
        "R2": f"{_share(_floored(study))} of rows hold a probability that is exactly 0",
        "R3": _singles(study),
        "R4": _saturation(study),
        "R5": _growth(study),
        "R6": f"{np.isnan(sums).sum()} of {len(sums)} sums are NaN, in float64 and in float16",
        "R7": _zeros(study),
        "R8": _windows(study),
        "R9": _first_tokens(study),
        "R10": _tails(study),
        "R11": _foreign(study),
        "X1": _half(study),
    }


def _share(flags: Sequence[bool] | np.ndarray) -> str:
    return f"{100 * float(np.mean(flags)):.1f} %"


def _intervals(study: Study) -> str:
    scores = study.scores(PAPER)[:, -1]
    positive = scores[study.labels == COHERENT]
    found = []
    for label in dict.fromkeys(study.labels[study.labels != COHERENT].tolist()):
        value = auc_interval(positive, study.groups, scores[study.labels == label], study.options.seed)
        found.append(f"{label} {value[0]:.2f} [{value[1]:.2f}, {value[2]:.2f}]")
    return (
        f"AUC at {study.options.lengths[-1]:,} tokens with 95 % intervals over documents: {', '.join(found)}"
    )


def _floored(study: Study) -> list[bool]:
    pairs = zip(study.measured(-1), study.measured(-1, Rule(floor=dependency.RELEASE_FLOOR)), strict=True)
    # Where there is no exact 0 the floor is not used.
    return [
        a != b for (_, x), (_, y) in pairs for a, b in zip(x.rows, y.rows, strict=True) if not np.isnan(a)
    ]


def _singles(study: Study) -> str:
    views, half = [(study, column, "") for column in range(len(study.sizes))], study.with_half_the_pairs()
    found = []
    for part, column, name in [*views, (half, -1, " and half the pairs")]:
        rows: list[bool] = []
        sums = np.zeros(2)
        for _, one in part.measured(column):
            single = np.bincount(one.targets, minlength=len(one.rows)) == 1
            terms = dependency.lds_terms(one.strengths, one.distances, one.specificities)
            rows += single[~np.isnan(one.rows)].tolist()
            sums += terms[single[one.targets]].sum(), terms.sum()
        share = 100 * sums[0] / max(sums[1], 1e-9)
        length = study.options.lengths[column]
        found.append(f"{length:,} tokens{name}: {_share(rows)} of rows, {share:.1f} % of the sum of scores")
    ranks = _agreement(*(half.scores(rule)[:, -1:].T for rule in (PAPER, Rule(one_source=0.0))))
    return f"rows with one source: {'; '.join(found)}; rank correlation without those {ranks[0]:.3f}"


def _saturation(study: Study) -> str:
    found, related = [], []
    for rule in (PAPER, Rule(relative=True)):
        rows: list[float] = []
        for doc, one in study.measured(-1, rule):
            several = np.bincount(one.targets, minlength=len(one.rows)) > 1
            rows += one.rows[several].tolist()
            rank = spearman(doc.alone[: len(one.rows)][several], one.rows[several])
            related.append(np.nan if rank is None else rank)
        found.append(f"mean {np.mean(rows):.3f}, above 0.9 in {_share(np.array(rows) > 0.9)} of rows")
    return (
        f"specificity of rows with two sources or more: {found[0]}; with DST in the softmax {found[1]}; its rank "
        f"correlation with PPL(s_i) in a document {np.nanmean(related[: len(related) // 2]):.2f}"
    )


def _growth(study: Study) -> str:
    medians = [f"{np.median(column):.1f}" for column in study.scores(PAPER)[study.labels == COHERENT].T]
    text = f"median of coherent documents at {study.options.pairs} pairs: {', '.join(medians)}, by length"
    if not _has_all_pairs(study):
        return text
    sizes = study.sizes[0] // 2, study.sizes[0]
    drawn = [(size, sample_pairs(size, None, np.random.default_rng(0))) for size in sizes]
    sums = [[total(doc, size, pairs, PAPER) for size, pairs in drawn] for doc in study.readings]
    ratio = np.median([after / before for before, after in sums if before > 0])
    return f"{text}; with all pairs, {sizes[1]} segments have {ratio:.1f} times the score of their first {sizes[0]}"


def _has_all_pairs(study: Study) -> bool:
    """Whether the shortest documents have no pair that was not read."""
    return study.sizes[0] * (study.sizes[0] - 1) // 2 <= study.options.pairs


def _zeros(study: Study) -> str:
    scores = study.scores(Rule(sample_size=study.options.pairs))
    found = [f"{_share(x == 0)} at {n:,}" for n, x in zip(study.options.lengths, scores.T, strict=True)]
    return f"documents that score exactly 0 at {study.options.pairs} pairs: {', '.join(found)} tokens"


def _windows(study: Study, num_draws: int = 20) -> str:
    """A window of few segments on documents all pairs of which were read: nothing but the segments is by chance."""
    size, window = study.sizes[0], study.options.max_segments
    if not _has_all_pairs(study) or window >= size:
        return "not measured: it needs documents with all pairs read, and more segments than the window"
    scores = np.zeros((3, num_draws, len(study.readings)))
    inner = sample_pairs(window, None, np.random.default_rng(0))
    for number in range(num_draws):
        for place, (item, doc) in enumerate(zip(study.documents, study.readings, strict=True)):
            rng = document_rng(study.options.seed, item.id, "", f"window {number}")
            drawn = sample_segments(size, window, rng)
            one = measure(doc, size, (drawn[inner[0]], drawn[inner[1]]), PAPER)
            counted = dependency.distance(*inner, window)
            scores[:, number, place] = (
                dependency.lds(one.strengths, one.distances, one.specificities),
                dependency.lds(one.strengths, counted, one.specificities),
                total(doc, size, sample_pairs(size, len(inner[0]), rng), PAPER),
            )
    kept, counted, pairwise = scores
    full = study.scores(PAPER)[:, 0]
    text = f"in small, {window} of {size} segments, {num_draws} draws"
    for name, draws in (("", kept), (f" with {len(inner[0])} pairs of all segments instead", pairwise)):
        again, exact = _agreement(draws[::2], draws[1::2]), _agreement(draws, np.tile(full, (num_draws, 1)))
        text += f";{name} rank correlation of two draws {again[0]:.3f}, {again[1]:.1f} % of documents change halves, "
        text += f"with all pairs {exact[0]:.3f}"
    return f"{text}; i - j of drawn segments for that of the text: {_agreement(kept, counted)[0]:.3f}"


def _agreement(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Means over the rows of `[N, D]`: rank correlation, and percent of documents that change halves."""
    ranks = _mean([spearman(x, y) for x, y in zip(a, b, strict=True)])
    same = _mean([same_half(x, y) for x, y in zip(a, b, strict=True)])
    return np.nan if ranks is None else ranks, np.nan if same is None else 100 - 100 * same


def _first_tokens(study: Study) -> str:
    pools = [
        [getattr(doc, x) for doc in study.readings] for x in ("first_alone", "first_given", "alone", "given")
    ]
    if np.isnan(pools[0]).any():
        return "not measured: the reader's tokenizer has no end-of-text mark to read the first token after"
    nats = [np.nanmean(np.concatenate([x.ravel() for x in pool])) for pool in pools]
    return (
        f"nats of the first token: {nats[0]:.2f} after an end-of-text mark, {nats[1]:.2f} after a source; of the "
        f"others {nats[2]:.2f} alone, {nats[3]:.2f} after a source"
    )


def _tails(study: Study) -> str:
    """Of whole documents: those of the set are cut to whole segments."""
    folder, split = study.options.documents, study.options.split
    sources = heldout_sources(data_folder()) if folder is None else folder_sources(folder)
    texts = [source.text for source in sources if split in ("all", side(source.id))]
    counts = np.array([len(tokens) for tokens in Tokenizer.load(starter_folder()).encode(texts)])
    tails, few = counts % SEGMENT, _share(counts < 33 * SEGMENT)
    shares, middle = (100 * tails.sum() / counts.sum(), 100 * np.mean(tails / counts)), np.median(counts)
    return (
        f"{shares[0]:.2f} % of the tokens of {len(counts)} whole documents of {middle:,.0f} tokens (median), "
        f"{shares[1]:.2f} % of a document (mean); {few} of them have fewer than 33 segments (R7)"
    )


def _foreign(study: Study) -> str:
    found = []
    for label in dict.fromkeys(study.labels.tolist()):
        here = [pair for pair, its in zip(study.measured(-1), study.labels, strict=True) if its == label]
        pools = [
            np.concatenate([_strength(doc.alone, doc.foreign) for doc, _ in here]),
            np.concatenate([_strength(doc.alone, doc.kin) for doc, _ in here]),
            np.concatenate([one.strengths for _, one in here]),
        ]
        cells = [
            f"{np.median(x):+.3f} ({_share(x > dependency.STRENGTH_THRESHOLD)})"
            for x in (pool[np.isfinite(pool)] for pool in pools)
            if len(x)
        ]
        found.append(f"{label} {', '.join(cells)}")
    marks = np.mean([_strength(doc.unmarked, doc.marked).mean() for doc in study.readings])
    return (
        "median DST (share above the threshold) after a segment of any other coherent document, of one of the same "
        f"domain where there is one, of the same document: {'; '.join(found)}; after an end-of-text mark {marks:+.3f}"
    )


def _strength(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """DST from nats a token."""
    return dependency.strength(*(perplexity(nats, nats, PAPER) for nats in (before, after)))


def _half(study: Study) -> str:
    pairs = list(zip(study.measured(-1), study.measured(-1, Rule(half=True)), strict=True))
    fine, coarse = (np.concatenate([pair[k][1].strengths for pair in pairs]) for k in (0, 1))
    crossed = (fine > dependency.STRENGTH_THRESHOLD) != (coarse > dependency.STRENGTH_THRESHOLD)
    alone = np.concatenate(
        [perplexity(doc.alone, doc.first_alone, Rule(half=True)) for doc in study.readings]
    )
    moved, zero = np.nanmean(np.abs(fine - coarse)), _share(coarse == 0)
    return (
        f"{_share(crossed)} of pairs cross the threshold, {zero} have a strength of exactly 0, DST moves by "
        f"{moved:.4f} (mean); {np.isinf(alone).sum()} of {len(alone)} segments have infinite PPL"
    )


def markdown(table: dict[str, dict[str, Any]], said: dict[str, str], lengths: Sequence[int]) -> str:
    """Both tables and the lines."""
    views = [*(f"{length:,}" for length in lengths), "mixed"]
    shown = [views[-2], "mixed"]
    heads = [
        *(f"rank, {view}" for view in views),
        *(f"changed, {view}" for view in shown),
        "length, within",
        "between",
    ]
    aucs = [(label, view) for view in shown for label in NEGATIVES]
    first, second = _head("quirk", heads), _head("AUC", [f"{label}, {view}" for label, view in aucs])
    for name, row in table.items():
        cells = [_cell(row["rank"][view]) for view in views] + [_cell(row["changed"][view]) for view in shown]
        first.append(
            f"| {name} | {' | '.join(cells)} | " + " | ".join(_cell(x) for x in row["length"].values()) + " |"
        )
        changes = []
        for label, view in aucs:
            value, base = row[f"auc {label}"][view], table["paper"][f"auc {label}"][view]
            known = name != "paper" and value is not None and base is not None
            changes.append(_cell(value) + (f" ({value - base:+.3f})" if known else ""))
        second.append(f"| {name} | {' | '.join(changes)} |")
    return "\n".join([*first, "", *second, "", *(f"- {name}: {text}" for name, text in said.items())])


def _head(name: str, heads: Sequence[str]) -> list[str]:
    return [f"| {name} | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]


def _cell(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="starter", help="starter, a folder, or a hub id")
    parser.add_argument(
        "--lengths", type=_numbers, default=[4096, 8192, 16_384], help="tokens, multiples of 128"
    )
    parser.add_argument("--split", choices=("dev", "test", "all"), default="test")
    parser.add_argument(
        "--documents", type=Path, default=None, help="a folder of coherent documents of yours"
    )
    parser.add_argument("--max-documents", type=int, default=8, help="of each label, balanced over domains")
    parser.add_argument("--pairs", type=int, default=500, help="the sample size")
    parser.add_argument("--max-segments", type=int, default=16, help="the small window of R8")
    parser.add_argument("--dtype", default="bfloat16", help="of the reader")
    parser.add_argument("--device", default="auto", help="of the reader")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None, help="keep the readings here, for another run")
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read, change one thing at a time, print, save if asked to."""
    options = parse(arguments)
    documents, coherent = chosen_documents(options)
    study = Study(documents, read_all(documents, coherent, load_reader(options, True), options), options)
    paper = study.scores(PAPER)
    table = {name: tabulate(study, study.scores(rule), paper) for name, rule in rules(options.pairs).items()}
    said = lines(study)
    text = markdown(table, said, options.lengths)
    print(text)
    if options.save:
        save_all(study, table, said, text)


def save_all(study: Study, table: dict[str, dict[str, Any]], said: dict[str, str], text: str) -> None:
    """Write the numbers and the tables, with what made them."""
    made_by = about("release_quirks") | {
        "documents": dict(Counter(study.labels.tolist())),
        "reading_cpu_seconds": round(sum(float(doc.seconds) for doc in study.readings)),
    }
    listed = "\n".join(f"- {name}: {value}" for name, value in made_by.items())
    title = "# The quirks of ProLong's release, one at a time"
    save("release-quirks", made_by | {"table": table, "lines": said}, f"{title}\n\n{listed}\n\n{text}")


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, InputError) as error:
        sys.exit(f"error: {error}")
