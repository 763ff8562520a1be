"""Language models of one size for benchmarks that compare stacks: DeltaNet, its hybrids, and transformers' Llama.

All have the same width, depth, heads, SwiGLU and vocabulary, random weights, float32; the Llama has transformers'
`sdpa` attention, its fastest on a CPU. `Comparison` is what the benchmarks over them share: arguments, the check
before the times, the table. Nothing runs here by itself.
"""

import argparse
import datetime
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.delta_rule import RESULTS, machine
from longlode.core.records import versions, write_json
from longlode.models import LonglodeConfig, LonglodeForCausalLM

Row = dict[str, str | int | float]


@dataclass(frozen=True)
class Size:
    """Width, layers, heads, tokens of the vocabulary, window of sliding attention."""

    hidden_size: int
    num_layers: int
    num_heads: int
    vocab_size: int
    window: int


FULL = Size(hidden_size=256, num_layers=4, num_heads=4, vocab_size=2048, window=1024)
QUICK = Size(hidden_size=64, num_layers=2, num_heads=2, vocab_size=256, window=32)
STACKS = {"DeltaNet (D)": "D", "hybrid (DS)": "DS", "hybrid (DA)": "DA"}
LLAMA = "Llama (transformers)"
NAMES = [*STACKS, LLAMA]


def build(name: str, size: Size) -> Any:
    """The model called `name`, with seeded weights. Its positions have no limit."""
    torch.manual_seed(0)
    ours = LonglodeConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        num_heads=size.num_heads,
        window=size.window,
        mixers=(STACKS.get(name, "A") * size.num_layers)[: size.num_layers],
    )
    if name in STACKS:
        return LonglodeForCausalLM(ours)
    config = LlamaConfig(
        vocab_size=size.vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=ours.intermediate_size,
        num_hidden_layers=size.num_layers,
        num_attention_heads=size.num_heads,
        max_position_embeddings=1 << 20,
        rms_norm_eps=ours.norm_eps,
        attn_implementation="sdpa",
    )
    return LlamaForCausalLM(config)


def millions(model: Any) -> float:
    """Parameters, in millions."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest difference relative to the largest entry of `want`."""
    return float((got.double() - want.double()).abs().max() / want.double().abs().max())


def as_table(rows: list[Row], columns: dict[str, str]) -> str:
    """Rows as Markdown; columns: key -> format."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [format(row[key], form) if key in row else "-" for key, form in columns.items()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def save(name: str, title: str, method: str, rows: list[Row], text: str, load: float) -> None:
    """Write a dated result, as JSON and as Markdown, to benchmarks/results."""
    now = datetime.datetime.now(datetime.UTC)
    stem = RESULTS / f"{now:%Y-%m-%d}-{name.replace('_', '-')}"
    facts = {
        "benchmark": name,
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "command": f"python -m benchmarks.{name} " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "load_average_before": load,
        "load_average_after": os.getloadavg()[0],
        "versions": versions(),
        "method": " ".join(method.split("\n\n", 2)[-1].split()),
    }
    write_json(stem.with_suffix(".json"), {**facts, "rows": rows})
    listed = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    stem.with_suffix(".md").write_text(f"# {title}\n\n{listed}\n\n{text}\n")
    print(f"saved {stem}.json and .md")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A benchmark of all peers over a list of points (lengths, contexts), and its command."""

    name: str
    """Of the module in benchmarks/."""
    title: str
    method: str
    """The module's docstring: two paragraphs of usage, then how it is measured."""
    points_name: str
    """How the points are called on the command line, e.g. "lengths"."""
    points: list[int]
    quick_points: list[int]
    rounds: int
    columns: dict[str, str]
    """Column -> format."""
    checked: str
    """What is compared before anything is timed."""
    error_of: Callable[[Any, Size], float]
    """(model, size) -> its relative error; above 1e-3 no time is printed."""
    measure: Callable[[dict[str, Any], list[int], int, Size], list[Row]]
    """(models by name, points, rounds, size) -> rows."""
    verdict: Callable[[list[Row]], str]

    def main(self) -> int:
        """Read the command line, check, measure, print, and save if asked; the exit status."""
        args = self._parser().parse_args()
        torch.set_num_threads(args.threads)
        load, size = os.getloadavg()[0], QUICK if args.quick else FULL
        points = sorted(args.points or (self.quick_points if args.quick else self.points))
        models = {name: build(name, size) for name in NAMES}
        errors = {name: self.error_of(model, size) for name, model in models.items()}
        print(f"largest relative error, {self.checked}:", {name: f"{e:.1e}" for name, e in errors.items()})
        if max(errors.values()) > 1e-3:
            print("too large; no times are printed")
            return 1
        rows = self.measure(models, points, args.rounds or (1 if args.quick else self.rounds), size)
        rows = sorted(rows, key=lambda row: NAMES.index(str(row["model"])))
        text = f"{as_table(rows, self.columns)}\n\n{self.verdict(rows)}"
        print(f"\n{text}\n\nload average before: {load:.2f}")
        if args.save:
            save(self.name, self.title, self.method, rows, text, load)
        return 0

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            description=self.method, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument(f"--{self.points_name}", dest="points", type=int, nargs="+", default=None)
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--rounds", type=int, default=None)
        parser.add_argument("--quick", action="store_true", help="small models, few tokens: does it run")
        parser.add_argument("--save", action="store_true", help="write a dated result")
        return parser
