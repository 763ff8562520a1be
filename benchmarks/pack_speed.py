"""Megabytes of text that `longlode pack` takes in per second of CPU, on one thread from a warm start.

    python -m benchmarks.pack_speed [--inputs FOLDER] [--rounds 3] [--save]

Reading, encoding, hashes and columns, and putting the shards together, each round into a new folder; the first, which
also loads the tokenizer, is not counted. Reported: the best and the slowest round.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import longlode
from benchmarks.labelled import data_folder
from benchmarks.saved import about, save
from longlode.corpus import find_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack some times and print the speed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=Path, help="default: the books of the development corpus")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    options = parser.parse_args(arguments)
    inputs = options.inputs or data_folder() / "books"
    megabytes = sum(Path(file.path).stat().st_size for file in find_files([inputs])) / 1e6
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.rounds + 1):
            started = time.process_time()
            summary = longlode.pack(inputs, Path(folder) / str(number))
            rates.append(megabytes / (time.process_time() - started))
    best, slowest = max(rates[1:]), min(rates[1:])
    text = (
        f"{megabytes:.1f} MB, {summary['num_tokens']:,} tokens: {best:.1f} MB per second of CPU ({slowest:.1f} in the "
        "slowest round)"
    )
    print(text)
    if options.save:
        facts = about("pack_speed") | {"megabytes": megabytes, "rates": rates[1:]}
        save("pack-speed", facts, f"# Speed of pack\n\n`{facts['command']}`\n\n{text}.")


if __name__ == "__main__":
    main()
