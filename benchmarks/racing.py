"""How many pairs does it take to select the best share, by racing and by a fixed number for each document?

    python -m benchmarks.racing SCORES [--top 0.5] [--draws 100] [--save]

SCORES is a folder of exhaustive readings: `longlode score ... --scorer strength --pairs all --keep-pairs`. Racing
(`longlode.mining.racing.standings`, the rule that `longlode score --race` goes by) and fixed sampling are replayed on
the stored pairs, each document's in a new random order in every draw. Prints, as means over draws: pairs a document;
tokens that the model reads for each token of the documents, segments alone (again in every round that needs them) and
targets; Spearman's rank correlation with the exhaustive score; and the share of documents that are selected, or not, as
by the exhaustive score (mean and standard deviation). `gain` is the share of wrong decisions that racing saves against
a fixed number at the same cost, interpolated.
"""

import argparse
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.quality_measures import spearman
from benchmarks.saved import about, save
from longlode.core.errors import InputError
from longlode.core.records import read_record
from longlode.mining.engine.parts import PARTS_FOLDER, read_pairs
from longlode.mining.racing.race import check_raceable
from longlode.mining.racing.rounds import perplexities
from longlode.mining.racing.standings import PairRange, RaceRule, Standings, cut, run_rounds
from longlode.mining.scorers import make_scorer
from longlode.mining.scorers.pair_mean import PairMeanScorer

ERRORS = (1.0, 1.5, 2.0)
FIRST = (16, 32, 64)
MOST = (128, 256, 512, 1024)
FIXED = (16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, eq=False)
class Exhaustive:
    """One document, read in full. values: of each pair, `[P]`; segments: the two of each, `[P, 2]`."""

    values: np.ndarray
    segments: np.ndarray
    num_tokens: int


@dataclass(frozen=True, eq=False)
class Corpus:
    """What is replayed. scores: exhaustive, `[D]`."""

    documents: list[Exhaustive]
    scores: np.ndarray
    segment: int


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scores", type=Path, help="scores folder with every pair")
    parser.add_argument("--top", type=float, default=0.5, help="share to select")
    parser.add_argument("--scorer", default="strength")
    parser.add_argument("--draws", type=int, default=100, help="replays of each setting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="write a dated table to benchmarks/results/")
    arguments = parser.parse_args()
    corpus = load(arguments.scores, check_raceable(make_scorer(arguments.scorer)))
    sizes = [document.num_tokens for document in corpus.documents]
    print(
        f"{len(sizes)} documents of {min(sizes):,} to {max(sizes):,} tokens (median {int(np.median(sizes)):,}); "
        f"{arguments.scorer}, top {arguments.top:g}; {arguments.draws} draws"
    )
    rows = measure(corpus, arguments.top, arguments.draws, arguments.seed)
    lines = table(rows)
    print("\n".join(lines))
    if arguments.save:
        made_by = about("racing") | {"num_documents": len(sizes), "num_tokens": list(sizes)}
        save(
            "racing",
            made_by | {"rows": rows},
            "\n".join(["# Racing", "", f"`{made_by['command']}`", "", *lines]),
        )


def load(folder: Path, scorer: PairMeanScorer) -> Corpus:
    """Raises: InputError when the pairs are not there, or not all of them."""
    record = read_record(folder, "scores")
    documents = []
    for entry in record["parts"]:
        path = folder / PARTS_FOLDER / entry["part"]
        if "pairs" not in pq.read_schema(path).names:
            raise InputError(f"{folder} holds no pairs. Score it with --keep-pairs --pairs all.")
        rows = pq.read_table(path, columns=["id", "num_segments", "num_tokens", "status"], partitioning=None)
        rows = rows.to_pylist()
        for row, pairs in zip(rows, read_pairs(path), strict=True):
            if row["status"] != "ok":
                continue
            expected = scorer.num_all_pairs(row["num_segments"])
            if len(pairs) != expected:
                raise InputError(
                    f"{row['id']} has {len(pairs)} of {expected} pairs in {folder}; expected all. Score it with "
                    "--pairs all."
                )
            both = np.stack([pairs["i"], pairs["j"]], axis=1)
            documents.append(Exhaustive(scorer.values(*perplexities(pairs)), both, row["num_tokens"]))
    scores = np.array([document.values.mean() for document in documents])
    return Corpus(documents, scores, record["settings"]["segment"])


def measure(corpus: Corpus, top: float, num_draws: int, seed: int) -> list[dict]:
    """One row a setting: what it is, and means over the draws."""
    settings = [{"kind": "fixed", "first": most, "most": most, "z": None} for most in FIXED]
    settings += [
        {"kind": "race", "first": first, "most": most, "z": z}
        for z, first, most in itertools.product(ERRORS, FIRST, MOST)
    ]
    rows = []
    for setting in settings:
        # The same orders for every setting, so that settings differ by what they do with them.
        found = [
            replay(corpus, top, setting, np.random.default_rng([seed, draw])) for draw in range(num_draws)
        ]
        means = {name: float(np.nanmean([one[name] for one in found])) for name in found[0]}
        rows.append(setting | means | {"same_sd": float(np.std([one["same"] for one in found]))})
    return rows


def replay(corpus: Corpus, top: float, setting: dict, rng: np.random.Generator) -> dict[str, float]:
    """One draw of one setting."""
    orders = [rng.permutation(len(document.values)) for document in corpus.documents]
    standings = Standings.blank(np.array([len(document.values) for document in corpus.documents]))
    tokens_read = 0

    def read(pair_ranges: Sequence[PairRange]) -> Standings:
        nonlocal tokens_read
        for pair_range in pair_ranges:
            for number in range(len(orders)) if pair_range.documents is None else pair_range.documents:
                document, new = corpus.documents[number], orders[number][pair_range.start : pair_range.stop]
                standings.add(number, document.values[new])
                tokens_read += (len(np.unique(document.segments[new])) + len(new)) * corpus.segment
        return standings

    if setting["kind"] == "fixed":
        read([PairRange(0, setting["most"], None)])
    else:
        rule = RaceRule(top=top, first_pairs=setting["first"], z=setting["z"])
        for _ in run_rounds(rule, setting["most"], read):
            pass
    found, exact = standings.scores, corpus.scores
    return {
        "pairs": float(standings.num_read.mean()),
        "read": tokens_read / sum(document.num_tokens for document in corpus.documents),
        "spearman": np.nan if (rank := spearman(found, exact)) is None else rank,
        "same": float(np.mean((found > cut(found, top)) == (exact > cut(exact, top)))),
    }


def table(rows: Sequence[dict]) -> list[str]:
    """Markdown: one line a setting."""
    fixed = sorted((row["read"], 1 - row["same"]) for row in rows if row["kind"] == "fixed")
    costs, wrong = np.array(fixed).T
    lines = [
        "| | z | first | most | pairs, mean | read a token | Spearman | same decision | gain |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        is_race = row["kind"] == "race"
        expected = np.interp(np.log(row["read"]), np.log(costs), wrong)
        gain = f"{1 - (1 - row['same']) / expected:+.0%}" if is_race and expected > 0 else ""
        z, first = (f"{row['z']:g}", f"{row['first']}") if is_race else ("", "")
        lines.append(
            f"| {row['kind']} | {z} | {first} | {row['most']} | {row['pairs']:.0f} | {row['read']:.2f} | "
            f"{row['spearman']:.3f} | {row['same']:.3f} +- {row['same_sd']:.3f} | {gain} |"
        )
    return lines


if __name__ == "__main__":
    main()
