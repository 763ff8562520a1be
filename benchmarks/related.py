"""The packer `related` at size: time and memory of each part, by number of documents, up to a million.

    python -m benchmarks.related --documents 25000,100000 [--work FOLDER] [--threads 1] [--save]
    OMP_NUM_THREADS=2 python -m benchmarks.related --documents 1000000 --work FOLDER --threads 2 --most-seconds 200

A document is ten pieces of 30 tokens, at random places of one stretch of 20,000 tokens of a work (development corpus):
documents of one stretch are on one subject, and hardly any repeats another. Parts: vectors of hashed n-grams (256
dimensions), ten neighbours of each (faiss from 20,000 on), near-duplicates and the walk. Times are seconds of CPU of
this process; `exponent` is by which power of the number of documents they grow. Checked on a sample: the part of the
ten exact neighbours that is found, and the cosine of documents that the walk makes adjacent, beside random ones.
With --work a finished part is not repeated; --most-seconds ends before the first part that would begin later.
"""

import argparse
import itertools
import json
import math
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.saved import about, save
from benchmarks.works import works_of
from longlode.corpus import Tokenizer
from longlode.models import starter_folder
from longlode.packing.document_walk import degree_ordered_walk, near_duplicates
from longlode.packing.embeddings import SCALE, embed
from longlode.packing.neighbours import neighbours
from longlode.packing.packers.related import RelatedPacker

STRETCH, PIECES, PIECE = 20_000, 10, 30
_SAMPLE = 400
_PARTS = ("vectors", "neighbours", "walk")


def draw_documents(size: int) -> dict[str, np.ndarray]:
    """Return the tokens of the corpus, end to end, and the places of the pieces of each document, `[size, PIECES]`."""
    tokenizer = Tokenizer.load(starter_folder())
    works = [work for work in works_of("fit") if work.language == "en"]
    tokens = np.concatenate([tokenizer.encode_long(work.text) for work in works]).astype(np.int32)
    rng = np.random.default_rng(size)
    stretch = rng.integers(0, len(tokens) - STRETCH, size=size)
    inside = rng.integers(0, STRETCH - PIECE, size=(size, PIECES), dtype=np.int32)
    return {"tokens": tokens, "places": (stretch[:, None] + inside).astype(np.int32)}


class Timed:
    """The parts of one size: done once, kept in a folder as arrays, with their seconds and the peak of memory."""

    def __init__(self, size: int, folder: Path, out_of_time: Callable[[], bool]) -> None:
        """Args: out_of_time, asked before each part that is not done."""
        self.size, self._folder, self._out_of_time = size, folder / str(size), out_of_time
        self._folder.mkdir(parents=True, exist_ok=True)
        self.figures: dict[str, Any] = {}

    def part(self, name: str, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray] | None:
        """Do a part or read it back; None when the time is over."""
        record = self._folder / f"{name}.json"
        if not record.is_file():
            if self._out_of_time():
                return None
            cpu, wall = time.process_time(), time.perf_counter()
            arrays = make()
            spent = {"cpu_seconds": time.process_time() - cpu, "seconds": time.perf_counter() - wall}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            for array, values in arrays.items():
                np.save(self._folder / f"{name}-{array}.npy", values)
            record.write_text(json.dumps({**spent, "peak_gb": peak, "arrays": list(arrays)}))
        self.figures[name] = json.loads(record.read_text())
        return {one: np.load(self._folder / f"{name}-{one}.npy") for one in self.figures[name]["arrays"]}


def measure(size: int, folder: Path, out_of_time: Callable[[], bool]) -> dict[str, Any] | None:
    """Do all parts for so many documents; None when the time is over before that."""
    timed, packer = Timed(size, folder, out_of_time), RelatedPacker()
    shape = {"dimensions": packer.dimensions, "max_tokens": packer.max_tokens}
    if (drawn := timed.part("corpus", lambda: draw_documents(size))) is None:
        return None
    tokens, places = drawn["tokens"], drawn["places"]

    def document(number: int) -> np.ndarray:
        return np.concatenate([tokens[place : place + PIECE] for place in places[number]])

    if (made := timed.part("vectors", lambda: {"v": embed(document, size, **shape)})) is None:
        return None
    vectors = made["v"]

    def near() -> dict[str, np.ndarray]:
        exact = size < packer.exact_below
        found, products = neighbours(vectors, packer.num_neighbours, exact=exact)
        return {"found": found, "products": products}

    if (graph := timed.part("neighbours", near)) is None:
        return None

    def walk() -> dict[str, np.ndarray]:
        least = packer.duplicate_similarity * SCALE**2
        dropped = near_duplicates(graph["found"], graph["products"], least)
        return {"order": degree_ordered_walk(graph["found"], graph["products"], ~dropped)}

    if (walked := timed.part("walk", walk)) is None:
        return None
    checked = timed.part("check", lambda: {"values": check(vectors, graph["found"], walked["order"])})
    if checked is None:
        return None
    names = ("neighbours_found", "cosine_of_adjacent", "cosine_at_random", "dropped")
    return {
        "documents": size,
        "parts": timed.figures,
        **dict(zip(names, checked["values"].tolist(), strict=True)),
    }


def check(vectors: np.ndarray, found: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Part of the exact neighbours of a sample that were found; cosine of adjacent documents, at random; dropped."""
    rng = np.random.default_rng(0)
    sample = rng.choice(len(vectors), min(_SAMPLE, len(vectors)), replace=False)
    hits = []
    for number in sample:
        products = vectors @ vectors[number]
        products[number] = -np.inf
        least = np.partition(products, -found.shape[1])[-found.shape[1]]
        known = found[number][found[number] >= 0]
        # Of documents as near as the last one any counts.
        hits.append((products[known] >= least).sum() / found.shape[1])
    places = rng.choice(len(order) - 1, min(20_000, len(order) - 1), replace=False)
    adjacent = (vectors[order[places]] * vectors[order[places + 1]]).sum(1).mean() / SCALE**2
    others = rng.permutation(order)[: len(places)]
    random = (vectors[order[places]] * vectors[others]).sum(1).mean() / SCALE**2
    return np.array([np.mean(hits), adjacent, random, 1 - len(order) / len(vectors)])


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The figures, a row per size, and the exponents between neighbouring sizes."""
    lines = [
        "| documents | vectors, s | neighbours, s | walk, s | peak, GB | exact neighbours found | cosine of adjacent | "
        "at random | dropped |",
        f"|{' --- |' * 9}",
    ]
    for row in rows:
        seconds = [row["parts"][name]["cpu_seconds"] for name in _PARTS]
        peak = max(row["parts"][name]["peak_gb"] for name in _PARTS)
        lines.append(
            f"| {row['documents']:,} | {' | '.join(f'{one:.1f}' for one in seconds)} | {peak:.2f} | "
            f"{row['neighbours_found']:.2f} | {row['cosine_of_adjacent']:.2f} | {row['cosine_at_random']:.2f} | "
            f"{row['dropped']:.1%} |"
        )
    for small, large in itertools.pairwise(rows):
        ratio = math.log(large["documents"] / small["documents"])
        powers = [
            math.log(large["parts"][name]["cpu_seconds"] / small["parts"][name]["cpu_seconds"]) / ratio
            for name in _PARTS
        ]
        lines.append(
            f"| exponent, {small['documents']:,} to {large['documents']:,} | "
            f"{' | '.join(f'{one:.2f}' for one in powers)} |" + " |" * 5
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sizes in turn, as far as the time reaches."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--documents", default="25000,100000", help="numbers of documents, with commas between"
    )
    parser.add_argument("--work", type=Path, help="folder of finished parts, kept; default: a temporary one")
    parser.add_argument("--threads", type=int, default=1, help="as OMP_NUM_THREADS; for the record")
    parser.add_argument("--most-seconds", type=float, default=None, help="begin no part after so long")
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def out_of_time() -> bool:
        return options.most_seconds is not None and time.monotonic() - started > options.most_seconds

    with TemporaryDirectory() as temporary:
        rows = []
        for size in map(int, options.documents.split(",")):
            row = measure(size, options.work or Path(temporary), out_of_time)
            if row is None:
                print("the time is over; the same command goes on", flush=True)
                return
            rows.append(row)
            print("\n".join(table(rows)), flush=True)
    if options.save:
        command = about("related")["command"].replace(str(options.work), "FOLDER")
        facts = about("related") | {"command": command, "threads": options.threads}
        lines = ["# The packer `related` by number of documents", "", f"`{command}`", "", *table(rows)]
        save("related", facts | {"rows": rows}, "\n".join(lines))


if __name__ == "__main__":
    main()
