"""Which score tells coherent documents from documents that only look long?

    python -m benchmarks.mining_quality [--scorers profile,gzip,... | all] [--lengths 4096,16384,32768]
        [--split test] [--documents FOLDER] [--max-documents 20] [--model starter] [--save]

Builds the labelled set (`benchmarks/labelled.py`) at each length and prints, for each scorer and negative, the AUC
with a 95 % bootstrap interval over documents, also within each domain; tokens that the model read for each token of the
documents, and seconds. Then two checks: the rank correlation with the scorer's exhaustive score (all pairs), and
the correlation of the score with length, over coherent documents cut at five lengths. A GPU or patience is needed for
scorers that read the model at 16,384 tokens and more; `--max-documents` and `--lengths` make it cheaper. Scorers
whose score needs no pair (`profile`, `coherence`) read none with `--pairs 0`. Without `--save` nothing is written; with
it a dated table goes to benchmarks/results/, as JSON and Markdown.
"""

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.labelled import COHERENT, LENGTHS, Cutter, Labelled, LabelledSet, build_set
from benchmarks.quality_measures import auc_interval, by_domain, length_bias, same_half, same_kind, spearman
from benchmarks.quality_scoring import Scored, Setup, run_all
from benchmarks.quality_table import Block, markdown, show_block, show_checks
from benchmarks.saved import about, save
from longlode.core.errors import ConfigError, InputError
from longlode.corpus import Tokenizer
from longlode.mining import SCORERS, make_scorer

DEFAULT_SCORERS = "profile,coherence,paper,release,strength,overlap,gzip"
BIAS_CUTS = (16, 8, 4, 2, 1)
"""Length bias is measured at these parts of the longest length, from LEAST_BIAS_TOKENS on: 2,048 to 32,768 tokens."""
LEAST_BIAS_TOKENS = 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, tabulate, print, and save if asked to."""
    options = parse(arguments)
    names = list(SCORERS) if options.scorers == "all" else options.scorers.split(",")
    # A name that is not there is refused before hours of work.
    reads_model = any(make_scorer(name, pairs=options.pairs).reads_model for name in names)
    console = Console()
    blocks: list[Block] = []
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(load_reader(options, reads_model), Path(folder), pairs=options.pairs, seed=options.seed)
        for num_tokens in options.lengths:
            blocks.append(block(num_tokens, names, options, setup))
            show_block(blocks[-1], console)
        checks = {} if options.no_checks else check(names, options, setup)
    show_checks(checks, console)
    if options.save:
        made_by = about("mining_quality") | {"split": options.split, "seed": options.seed}
        result = made_by | {"lengths": blocks, "checks": checks}
        save("mining-quality", result, markdown(blocks, checks, made_by))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="starter", help="starter, a folder, or a hub id")
    parser.add_argument("--scorers", default=DEFAULT_SCORERS, help="names, with commas between, or all")
    parser.add_argument(
        "--lengths", type=_numbers, default=list(LENGTHS), help="tokens of each document, with commas between"
    )
    parser.add_argument("--split", choices=("dev", "test", "all"), default="test")
    parser.add_argument(
        "--documents", type=Path, default=None, help="a folder of coherent documents of yours"
    )
    parser.add_argument(
        "--max-documents", type=int, default=None, help="of each label, balanced over domains"
    )
    parser.add_argument(
        "--pairs", type=_pairs, default=500, help="pairs of each document, 0 for none, or all"
    )
    parser.add_argument("--no-checks", action="store_true", help="skip exhaustive scores and length bias")
    parser.add_argument("--check-documents", type=int, default=24, help="coherent documents of the checks")
    parser.add_argument("--check-length", type=int, default=4096, help="tokens of the exhaustively scored")
    parser.add_argument("--dtype", default="float32", help="of the reader; bfloat16 is faster where native")
    parser.add_argument("--device", default="auto", help="of the reader")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _pairs(text: str) -> int | None:
    return None if text == "all" else int(text)


def load_reader(options: argparse.Namespace, reads_model: bool) -> Any:
    """The reader of the command line; its tokenizer alone if no scorer reads the model."""
    from longlode.models import starter_folder

    name = str(starter_folder()) if options.model == "starter" else options.model
    if not reads_model:
        from longlode.readers.tokens import TokenReaderSpec

        return TokenReaderSpec(name)()
    import torch

    from longlode.readers.lm import ReaderSpec

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return ReaderSpec(name, dtype=options.dtype, device=options.device)()


def block(num_tokens: int, names: Sequence[str], options: argparse.Namespace, setup: Setup) -> Block:
    """Everything of one length."""
    found = _set(num_tokens, options)
    documents = balanced(found.items, options.max_documents)
    labels = np.array([item.label for item in documents])
    domains = np.array([item.domain for item in documents])
    groups = [item.id.rsplit("@", 1)[0] for item in documents if item.label == COHERENT]
    scored = run_all(names, documents, setup)
    return {
        "num_tokens": num_tokens,
        "counts": dict(Counter(map(str, labels))),
        "left_out": [[label, domain, count] for (label, domain), count in found.left_out.items()],
        "scorers": {
            name: tabulate(result, labels, domains, groups, options.seed) for name, result in scored.items()
        },
    }


def tabulate(
    result: Scored, labels: np.ndarray, domains: np.ndarray, groups: Sequence[str], seed: int
) -> dict[str, Any]:
    """One scorer at one length."""
    scores = result.scores
    positive = scores[labels == COHERENT]
    negatives = [str(label) for label in dict.fromkeys(labels) if label != COHERENT]
    return {
        "auc": {x: auc_interval(positive, groups, scores[labels == x], seed) for x in negatives},
        "same_kind": same_kind(scores, labels, domains, COHERENT),
        "by_domain": by_domain(scores, labels, domains, COHERENT),
        "unscored": int(np.isnan(scores).sum()),
        "reason": result.reason,
        "tokens_read": result.tokens_read,
        "seconds": result.seconds,
    }


def balanced(items: Sequence[Labelled], most: int | None) -> list[Labelled]:
    """At most so many documents of each label, one domain after the other in turn, in random but fixed order."""
    if most is None:
        return list(items)
    chosen: list[Labelled] = []
    for label in dict.fromkeys(item.label for item in items):
        shelves: dict[str, list[Labelled]] = {}
        for item in items:
            if item.label == label:
                shelves.setdefault(item.domain, []).append(item)
        for shelf in shelves.values():
            random.Random(len(shelf)).shuffle(shelf)
        ordered = sorted((place, domain) for domain, shelf in shelves.items() for place in range(len(shelf)))
        chosen += [shelves[domain][place] for place, domain in ordered[:most]]
    return chosen


def check(names: Sequence[str], options: argparse.Namespace, setup: Setup) -> dict[str, dict[str, Any]]:
    """Rank correlation with the exhaustive score, and length bias, of each scorer."""
    checks: dict[str, dict[str, Any]] = {name: {} for name in names}
    found = coherent_and_not(options.check_length, options)
    sampled = run_all(names, found, setup)
    for name in names:
        if not make_scorer(name, pairs=setup.pairs).reads_model:
            checks[name]["exact"] = True
    reading = [name for name in names if "exact" not in checks[name]]
    exhaustive = run_all(reading, found, replace(setup, pairs=None))
    for name, full in exhaustive.items():
        scores = sampled[name].scores
        checks[name] |= {
            "exact": bool(np.isfinite(scores).any() and np.array_equal(scores, full.scores, equal_nan=True)),
            "exhaustive_correlation": spearman(scores, full.scores),
            "same_half": same_half(scores, full.scores),
            "exhaustive_documents": len(found),
            "exhaustive_tokens": options.check_length,
            "exhaustive_tokens_read": full.tokens_read,
        }
    for name, row in bias(names, options, setup).items():
        checks[name] |= row
    return checks


def coherent_and_not(num_tokens: int, options: argparse.Namespace) -> list[Labelled]:
    """Half the documents of the check coherent, half of them negatives of all labels."""
    items = _set(num_tokens, options).items
    half = max(2, options.check_documents // 2)
    coherent = balanced([item for item in items if item.label == COHERENT], half)
    negative = [item for item in items if item.label != COHERENT]
    labels = len({item.label for item in negative}) or 1
    return coherent + balanced(negative, -(-half // labels))[:half]


def bias(names: Sequence[str], options: argparse.Namespace, setup: Setup) -> dict[str, dict[str, Any]]:
    """Length bias: the longest coherent stretches, cut at each length from the same beginning."""
    from longlode.models import starter_folder

    longest = max(options.lengths)
    lengths = [longest // cut for cut in BIAS_CUTS if cut == 1 or longest // cut >= LEAST_BIAS_TOKENS]
    documents = [item for item in _set(lengths[-1], options).items if item.label == COHERENT]
    documents = balanced(documents, options.check_documents)
    tokenizer = Tokenizer.load(starter_folder())
    scores: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for num_tokens in lengths:
        cutter = Cutter(tokenizer, num_tokens)
        shorter = []
        for item in documents:
            cut = cutter.cut(item.text)
            assert cut is not None, "a stretch of more tokens holds fewer"
            shorter.append(replace(item, text=cut[0], tokens=cut[1]))
        for name, result in run_all(names, shorter, setup).items():
            scores[name].append(result.scores)
    return {
        name: length_bias(np.stack(columns, 1), lengths)
        | {"bias_documents": len(documents), "bias_lengths": lengths}
        for name, columns in scores.items()
    }


def _set(num_tokens: int, options: argparse.Namespace) -> LabelledSet:
    return _built(num_tokens, options.split, options.seed, options.documents)


@lru_cache(maxsize=4)
def _built(num_tokens: int, split: str, seed: int, documents: Path | None) -> LabelledSet:
    return build_set(num_tokens=num_tokens, split=split, seed=seed, documents=documents)


if __name__ == "__main__":
    try:
        main()
    except (ConfigError, InputError) as error:
        sys.exit(f"error: {error}")
