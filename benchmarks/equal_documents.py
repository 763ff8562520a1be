"""The scores of other methods beside `profile`, on the same documents, against the gate's 41 families.

    python -m benchmarks.equal_documents [--lengths 4096,16384] [--coherent 32] [--per-family 4] [--pairs 64]
        [--models now=starter,before=FOLDER] [--attention-reader FOLDER] [--side dev] [--dtype bfloat16]
        [--keep FOLDER] [--save]

Documents are English and code, made of works of one side that the starter was not trained on. Every scorer is given the
same ones: `profile`, `coherence`, `overlap` and compressors read no model; ProLong by the paper's formulas and by the
released code, its delta-perplexity strength, and LongFilter's gain (`context_gain`) read each of `--models`. Attention
mass reads the model of `--attention-reader`, which has attention layers. gzip is taken as it is used for selection:
close to the median of all documents is best (`gzip_middle`), and as a plain ratio; LZMA whole, with a dictionary of
4 KiB (`lzma_near`), and what the whole one saves beyond that (`lzma_far`, `benchmarks/compressors.py`).

AUC of each family against all coherent documents; mean over families with a 95 % interval over works and documents, the
worst family, and the mean by group of families. `--keep` keeps the scores of each scorer: the same command then does
not compute them again. Without it and `--save` nothing is written.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.compressors import COMPRESSORS
from benchmarks.context_curve import unseen
from benchmarks.gate_set import COHERENT, Sample, samples_of
from benchmarks.labelled import Labelled
from benchmarks.mining_quality import balanced
from benchmarks.quality_scoring import Scored, Setup, run_all
from benchmarks.saved import about, save
from benchmarks.works import SIDES, works_of
from longlode.core.fingerprints import fingerprint
from longlode.core.ranking import wins
from longlode.core.records import write_json
from longlode.mining.baselines import gzip_ratio

WITHOUT_MODEL = ("profile", "coherence", "overlap", "gzip")
WITH_MODEL = (("paper", "release", "strength"), ("context_gain",))
"""Those of one tuple share their readings."""
RESAMPLES = 1000


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, tabulate, print, save if asked to."""
    options = parse(arguments)
    blocks = []
    for length in options.lengths:
        samples = draw(options, length)
        scores = score_all(samples, options)
        blocks.append(tabulate(samples, scores, length, options.seed))
        print(markdown([blocks[-1]]), flush=True)
    if options.save:
        made_by = about("equal_documents")
        for folder in filter(None, (options.attention_reader, str(options.keep or ""))):
            made_by["command"] = made_by["command"].replace(folder, "FOLDER")
        text = f"# Scores at equal documents\n\n`{made_by['command']}`\n\n{markdown(blocks)}"
        save(options.name, made_by | {"lengths": blocks}, text)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", type=_numbers, default=[4096, 16_384])
    parser.add_argument("--coherent", type=int, default=32, help="coherent documents at most, per length")
    parser.add_argument("--per-family", type=int, default=4, help="documents at most of each family")
    parser.add_argument("--every", type=int, default=1, help="take every so many families only")
    parser.add_argument("--pairs", type=int, default=64, help="pairs per document of the scorers of pairs")
    parser.add_argument("--models", type=_models, default={"now": "starter"}, help="NAME=FOLDER, by commas")
    parser.add_argument("--attention-reader", default="", help="folder of a model with attention layers")
    parser.add_argument("--keep", type=Path, default=None, help="folder that keeps the scores of each scorer")
    parser.add_argument("--name", default="equal-documents-all", help="of the file that --save writes")
    parser.add_argument("--side", choices=SIDES[:2], default="dev")
    parser.add_argument("--dtype", default="bfloat16", help="of the reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    return parser.parse_args(arguments)


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _models(text: str) -> dict[str, str]:
    return {name: folder for name, _, folder in (part.partition("=") for part in text.split(",") if part)}


def draw(options: argparse.Namespace, length: int) -> list[Labelled]:
    """The documents, balanced over domains within each label; a document's group of works is part of its id."""
    works = [
        work
        for work in works_of(options.side)
        if work.language == "en" and (work.domain == "list" or unseen(work))
    ]
    samples = list(samples_of(works, length, name=options.side, seed=options.seed, per_family=4))
    items = [_labelled(number, sample) for number, sample in enumerate(samples)]
    coherent = [item for item in items if item.label == COHERENT]
    labels = list(dict.fromkeys(item.label for item in items if item.label != COHERENT))[:: options.every]
    others = [item for item in items if item.label in labels]
    return balanced(coherent, options.coherent) + in_turn(others, options.per_family)


def in_turn(items: Sequence[Labelled], most: int) -> list[Labelled]:
    """At most so many documents of each label; each label begins with another domain, so that few cover them all."""
    chosen: list[Labelled] = []
    for turn, label in enumerate(dict.fromkeys(item.label for item in items)):
        here = [item for item in items if item.label == label]
        domains = list(dict.fromkeys(item.domain for item in here))
        order = {domain: (place - turn) % len(domains) for place, domain in enumerate(domains)}
        seen: Counter[str] = Counter()
        ranked = []
        for item in here:
            ranked.append((seen[item.domain], order[item.domain], item))
            seen[item.domain] += 1
        chosen += [item for _, _, item in sorted(ranked, key=lambda row: row[:2])[:most]]
    return chosen


def _labelled(number: int, sample: Sample) -> Labelled:
    name = f"{number}:{sample.group}:{sample.group_of_work}"
    return Labelled(name, sample.label, sample.domain, sample.text, np.zeros(0, dtype=np.int32))


def score_all(documents: Sequence[Labelled], options: argparse.Namespace) -> dict[str, np.ndarray]:
    """Scores by name of the scorer, and "MODEL" after it for those that read one; float64 `[n]`, NaN for none."""
    from longlode.models import starter_folder
    from longlode.readers.tokens import TokenReaderSpec

    found: dict[str, np.ndarray] = {}
    for name in WITHOUT_MODEL:
        found |= _scores((name,), "", documents, options, TokenReaderSpec(str(starter_folder())), pairs=0)
    models = {
        model: str(starter_folder()) if place == "starter" else place
        for model, place in options.models.items()
    }
    for names in WITH_MODEL:
        for model, place in models.items():
            found |= _scores(names, f" {model}", documents, options, _reader(place, options))
    if options.attention_reader:
        reader = _reader(options.attention_reader, options)
        found |= _scores(("attention_mass",), "", documents, options, reader)
    for name, score_of in COMPRESSORS.items():
        found[name] = np.array([score_of(item.text) for item in documents])
    ratios = np.array([gzip_ratio(item.text) for item in documents], dtype=np.float64)
    found["gzip_middle"] = -np.abs(ratios - np.median(ratios))
    return found


def _reader(place: str, options: argparse.Namespace) -> Callable[[], Any]:
    from longlode.readers.lm import ReaderSpec

    return ReaderSpec(place, dtype=options.dtype, device="cpu")


def _scores(
    names: Sequence[str],
    suffix: str,
    documents: Sequence[Labelled],
    options: argparse.Namespace,
    make_reader: Callable[[], Any],
    pairs: int | None = None,
) -> dict[str, np.ndarray]:
    """Scores of these scorers by name and suffix, from the kept ones if there are any; a note to stderr.

    Args: pairs, instead of the command line's.
    """
    pairs = options.pairs if pairs is None else pairs
    reader = make_reader()
    texts = [item.text for item in documents]
    asked = [names, texts, reader.fingerprint, pairs, options.seed]
    kept = (
        options.keep and options.keep / f"{names[0]}{suffix.replace(' ', '-')}-{fingerprint(asked)[:12]}.json"
    )
    if kept is None or not kept.is_file():
        with tempfile.TemporaryDirectory() as folder:
            setup = Setup(reader, Path(folder), pairs=pairs, seed=options.seed)
            results = run_all(names, documents, setup)
        for name, result in results.items():
            print(f"{name}{suffix}: {_note(result)}", file=sys.stderr, flush=True)
        scores = {name: result.scores for name, result in results.items()}
        if kept is None:
            return {name + suffix: values for name, values in scores.items()}
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {name: [None if np.isnan(x) else x for x in v] for name, v in scores.items()})
    found = json.loads(kept.read_text(encoding="utf-8"))
    return {name + suffix: np.array(values, dtype=np.float64) for name, values in found.items()}


def _note(result: Scored) -> str:
    read = "" if result.tokens_read is None else f", {result.tokens_read:.2f} tokens read per token"
    return result.reason or f"{result.seconds:.0f} s{read}"


def tabulate(
    documents: Sequence[Labelled], scores: Mapping[str, np.ndarray], length: int, seed: int
) -> dict[str, Any]:
    """AUC of every scorer and family, their mean with its interval, the worst, the means by group of families."""
    labels = np.array([item.label for item in documents])
    families = [str(label) for label in dict.fromkeys(labels) if label != COHERENT]
    group = {item.label: item.id.split(":")[1] for item in documents}
    owners = [item.id.split(":")[2] for item in documents if item.label == COHERENT]
    rows = {}
    for name, values in scores.items():
        won = {label: wins(values[labels == COHERENT], values[labels == label]) for label in families}
        by_family = {label: float(one.mean()) for label, one in won.items()}
        worst = min(by_family, key=lambda label: by_family[label])
        rows[name] = {
            "mean": float(np.mean(list(by_family.values()))),
            "interval": interval(list(won.values()), owners, seed),
            "worst": by_family[worst],
            "worst_family": worst,
            "groups": {
                kind: float(np.mean([by_family[label] for label in families if group[label] == kind]))
                for kind in dict.fromkeys(group[label] for label in families)
            },
            "families": by_family,
            "unscored": int(np.isnan(values).sum()),
        }
    return {"num_tokens": length, "counts": dict(Counter(map(str, labels))), "scorers": rows}


def interval(won: Sequence[np.ndarray], owners: Sequence[str], seed: int) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of the mean AUC over families.

    Args: won, by family, `[coherent, documents of the family]`; owners, the work of each coherent document: its
      documents are drawn together; those of a family are drawn one by one.
    """
    rng = np.random.default_rng(seed)
    names, member = np.unique(np.array(owners), return_inverse=True)
    found = np.zeros(RESAMPLES)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), RESAMPLES)[:, member]
    for table in won:
        others = rng.multinomial(table.shape[1], np.full(table.shape[1], 1 / table.shape[1]), RESAMPLES)
        found += ((drawn @ table) * others).sum(1) / (drawn.sum(1) * table.shape[1])
    low, high = np.percentile(found / len(won), [2.5, 97.5])
    return float(low), float(high)


def markdown(blocks: Sequence[Mapping[str, Any]]) -> str:
    """A table per length: scorers down, groups of families across."""
    lines = []
    for block in blocks:
        counts = dict(block["counts"])
        coherent = counts.pop(COHERENT)
        rows = sorted(block["scorers"].items(), key=lambda item: -item[1]["mean"])
        groups = list(rows[0][1]["groups"])
        lines += [
            f"{block['num_tokens']:,} tokens: {coherent} coherent documents against {sum(counts.values())} of "
            f"{len(counts)} families",
            "",
            "| scorer | mean AUC | 95 % | worst | family | " + " | ".join(groups) + " |",
            "|---" * (5 + len(groups)) + "|",
        ]
        for name, row in rows:
            low, high = row["interval"]
            cells = [
                name,
                f"{row['mean']:.3f}",
                f"{low:.2f} to {high:.2f}",
                f"{row['worst']:.2f}",
                row["worst_family"],
            ]
            cells += [f"{row['groups'][kind]:.2f}" for kind in groups]
            lines.append("| " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
