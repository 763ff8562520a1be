"""State size against the length at which a passkey is still recalled, for recurrent mixers trained on short rows.

    python -m benchmarks.state_capacity --work DIR [--mixers D,G,M,L] [--heads 16,8,4,2] [--width 64]
        [--seeds 1] [--steps 300] [--lr 0.003] [--batch-size 16] [--test-rows 16] [--save]

After Stuffed Mamba (arXiv 2410.07145): models of growing state are trained on passkeys in short rows of noise that
repeats, and are tested on longer ones. The width stays as it is; the number of heads sets the size of the state,
width^2 / heads numbers per layer (half of that for GLA), with about equal parameters. Different from the paper: symbols
instead of text, models of two layers, every digit after a symbol of its own, few steps. Finished models in DIR are not
trained again, so that a run can be stopped and be extended.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.saved import about, save
from longlode.evaluate.bench import BenchSettings, RowTask, train_model
from longlode.evaluate.bench.row_tasks import NOT_ASKED
from longlode.mixers import LETTERS

_DIGITS = 5
_NOISE = 16
_RECALLED = 0.95


class PasskeyRows(RowTask):
    """Five digits, each after a symbol for its place, said once in noise that repeats, and asked for at the end."""

    name = "passkey"
    about = "five digits that were said once in repeating noise"
    vocabulary = 10 + _DIGITS + _NOISE
    chance = 1 / 10
    train_lengths = (48, 64, 96, 128)
    test_lengths = (64, 128, 256, 512, 1024, 2048, 4096)
    source = "Stuffed Mamba (arXiv 2410.07145), in symbols"

    def row(self, rng: np.random.Generator, length: int) -> tuple[np.ndarray, ...]:
        """One row: noise, the pairs (place, digit) at a depth drawn evenly, noise, the pairs again."""
        pairs = np.stack([10 + np.arange(_DIGITS), rng.integers(10, size=_DIGITS)], axis=1).reshape(-1)
        room = length - 2 * len(pairs)
        noise = 10 + _DIGITS + np.arange(room) % _NOISE
        depth = int(rng.integers(room + 1))
        tokens = np.concatenate([noise[:depth], pairs, noise[depth:], pairs]).astype(np.int64)
        labels = np.full(length, NOT_ASKED, np.int64)
        labels[length - len(pairs) :: 2] = pairs[1::2]
        return tokens, labels


def sweep(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per mixer, number of heads and test length: the mean over seeds. Finished models are read from DIR."""
    found = []
    for heads in options.heads:
        settings = BenchSettings(
            hidden_size=options.width,
            num_heads=heads,
            steps=options.steps,
            lr=options.lr,
            batch_size=options.batch_size,
            test_rows=options.test_rows,
            tie_embeddings=False,
        )
        for mixer in options.mixers:
            models = []
            for seed in range(options.seeds):
                models.append(train_model(options.work, PasskeyRows(), mixer, seed, settings))
                shown = [round(row["accuracy"], 2) for row in models[-1]]
                print(f"{mixer}, {heads} heads, seed {seed}: {shown}", flush=True)
            numbers = options.width**2 // heads // (2 if mixer == "gated_linear_attention" else 1)
            for rows in zip(*models, strict=True):
                mean = float(np.mean([row["accuracy"] for row in rows]))
                found.append(
                    {
                        "mixer": mixer,
                        "heads": heads,
                        "state_numbers": numbers,
                        "length": rows[0]["length"],
                        "accuracy": mean,
                    }
                )
    return found


def recalled_lengths(rows: list[dict[str, Any]]) -> dict[tuple[str, int], int]:
    """(mixer, numbers of a state) -> the longest tested length up to which 95 % of digits are right; 0: none."""
    found: dict[tuple[str, int], int] = {}
    for mixer, size in dict.fromkeys((row["mixer"], row["state_numbers"]) for row in rows):
        longest = 0
        for row in rows:
            if (row["mixer"], row["state_numbers"]) == (mixer, size):
                if row["accuracy"] < _RECALLED:
                    break
                longest = row["length"]
        found[mixer, size] = longest
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The result as Markdown."""
    lengths = list(dict.fromkeys(row["length"] for row in rows))
    recalled = recalled_lengths(rows)
    heads = [*(f"{length:,}" for length in lengths), f"longest with {_RECALLED:.2f}"]
    lines = ["| mixer | numbers of state per layer | " + " | ".join(heads) + " |"]
    lines.append("|" + "---|" * (len(heads) + 2))
    for (mixer, size), longest in sorted(recalled.items()):
        part = [row for row in rows if (row["mixer"], row["state_numbers"]) == (mixer, size)]
        cells = [f"{row['accuracy']:.2f}" for row in part]
        lines.append(f"| `{mixer}` | {size:,} | " + " | ".join(cells) + f" | {longest:,} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mixers", default="D,G,M,L")
    parser.add_argument("--heads", default="16,8,4,2")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--test-rows", type=int, default=16)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.mixers = [LETTERS.get(one, one) for one in options.mixers.split(",")]
    options.heads = [int(one) for one in options.heads.split(",")]
    options.work.mkdir(parents=True, exist_ok=True)
    rows = sweep(options)
    text = table(rows)
    print(text)
    if options.save:
        result = {**about("state_capacity"), "rows": rows, "steps": options.steps, "seeds": options.seeds}
        head = f"# State size and passkeys: seeds per model: {options.seeds}, steps: {options.steps}\n\n"
        head += "Share of digits right by test length; training rows have 48 to 128 tokens, two layers of "
        head += f"width {options.width}.\n"
        head += f"\n`{result['command']}`, {result['machine']}.\n\n"
        save("state-capacity", result, head + text)


if __name__ == "__main__":
    main()
