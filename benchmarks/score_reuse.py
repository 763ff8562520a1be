"""Scoring with kept prefix states against the procedure of the ProLong release: same model, same pairs, float32.

    python -m benchmarks.score_reuse [--models opt starter] [--threads 1 2] [--rounds 3] [--quick] [--save]

The release's procedure, written anew from its description: one document at a time, every segment alone, then every
pair [s_j; s_i] from its first token; logits for all positions, copied to drop the last; cross entropy on all of
them, the last 127 of a pair used; one PPL fetched a pair. It runs twice: with its own batch of 256 rows (or as many
as keep one copy of the logits under 1 GB), and with batches of as many tokens as ours, where a CPU is faster.

First all scores are compared, to 1e-4 nats a token; if they differ, no time is printed. Then the contenders take
turns, round after round, in this one process; a figure is the best round, in seconds of wall time and of CPU time
(which other programs on the machine disturb less). "Arithmetic" is the ratio of tokens read.

opt: OPT-350M divided by 64 in the arithmetic of body and head and in the size of its logits, random weights, with
the projection before its head. starter: the stack of the scorer that ships with longlode, random weights.
"""

import argparse
import datetime
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch.nn import functional
from transformers import OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from benchmarks.delta_rule import RESULTS, machine
from longlode.core.records import versions, write_json
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.scorer import LMScorer

LENGTH = 128
RELEASE_ROWS = 256
RELEASE_LOGIT_BYTES = 1 << 30
TOLERANCE_NATS = 1e-4
ROUNDS = 3
FULL = {"500 pairs of 256 segments": (256, 500), "all pairs of 48 segments": (48, 48 * 47 // 2)}
QUICK = {"24 pairs of 12 segments": (12, 24), "all pairs of 5 segments": (5, 10)}

Scores = tuple[np.ndarray, np.ndarray]
Row = dict[str, str | int | float]


def opt(num_layers: int) -> Any:
    config = OPTConfig(
        vocab_size=768,
        hidden_size=256,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        ffn_dim=1024,
        word_embed_proj_dim=512,
        max_position_embeddings=2 * LENGTH,
    )
    return OPTForCausalLM(config)


def starter(num_layers: int) -> Any:
    config = LonglodeConfig(
        vocab_size=8192,
        hidden_size=256,
        num_heads=4,
        mixers=f"D*{min(num_layers, 4)}",
        intermediate_size=768,
        tie_word_embeddings=True,
        initializer_range=0.06,
    )
    return LonglodeForCausalLM(config)


MODELS: dict[str, Callable[[int], Any]] = {"opt": opt, "starter": starter}


def sample_pairs(num_segments: int, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources, targets) of `num_pairs` of the pairs j < i, drawn without replacement, in reading order."""
    targets, sources = np.tril_indices(num_segments, -1)
    chosen = np.sort(np.random.default_rng(0).choice(len(targets), num_pairs, replace=False))
    return sources[chosen], targets[chosen]


@torch.inference_mode()
def release(model: Any, segments: np.ndarray, sources: np.ndarray, targets: np.ndarray, rows: int) -> Scores:
    """The release's procedure: NLL `[n, 127]` alone and `[p, 127]` given."""
    tokens = torch.from_numpy(segments)
    texts = [tokens, torch.cat([tokens[torch.from_numpy(sources)], tokens[torch.from_numpy(targets)]], dim=1)]
    scores = []
    for text in texts:
        parts = []
        for start in range(0, len(text), rows):
            batch = text[start : start + rows]
            logits = model(input_ids=batch).logits[:, :-1].contiguous()
            nll = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
            parts.append(nll.view(len(batch), -1)[:, 1 - LENGTH :])
            ppl = [row.mean().exp().item() for row in parts[-1]]
            assert len(ppl) == len(batch)
        scores.append(torch.cat(parts).numpy())
    return scores[0], scores[1]


def longlode(scorer: LMScorer, segments: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> Scores:
    alone, states = scorer.alone(segments)
    return alone, scorer.given(states, sources, segments[targets])


def measure(
    name: str, scorer: LMScorer, size: tuple[int, int], threads: list[int], rounds: int
) -> list[Row] | str:
    """Rows of figures, or what is wrong."""
    segments = np.random.default_rng(0).integers(0, scorer.model.config.vocab_size, (size[0], LENGTH))
    sources, targets = sample_pairs(*size)
    logit_bytes = 2 * LENGTH * scorer.model.config.vocab_size * 4
    large = min(RELEASE_ROWS, RELEASE_LOGIT_BYTES // logit_bytes)
    small = max(1, scorer.batch_tokens // LENGTH)
    contenders: dict[str, Callable[[], Scores]] = {
        "longlode": lambda: longlode(scorer, segments, sources, targets),
        f"release, {large} rows": lambda: release(scorer.model, segments, sources, targets, large),
        f"release, {small} rows": lambda: release(scorer.model, segments, sources, targets, small),
    }
    reference = contenders[f"release, {small} rows"]()
    ours = contenders["longlode"]()
    error = max(float(np.abs(a - b).max()) for a, b in zip(ours, reference, strict=True))
    if not error <= TOLERANCE_NATS:
        return f"{name}: scores differ by {error:.1e} nats"
    read = size[0] * LENGTH + size[1] * (LENGTH - 1), size[0] * LENGTH + size[1] * 2 * LENGTH
    found = []
    for count in threads:
        torch.set_num_threads(count)
        best = {contender: (float("inf"), float("inf")) for contender in contenders}
        for _ in range(rounds):
            for contender, run in contenders.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                spent = time.perf_counter() - wall, time.process_time() - cpu
                best[contender] = min(best[contender][0], spent[0]), min(best[contender][1], spent[1])
        for contender, (wall, cpu) in best.items():
            row: Row = {"case": name, "threads": count, "contender": contender}
            row |= {"wall_seconds": wall, "cpu_seconds": cpu, "largest_difference_nats": error}
            row |= {"speed_up_wall": wall / best["longlode"][0], "speed_up_cpu": cpu / best["longlode"][1]}
            found.append({**row, "arithmetic": 1.0 if contender == "longlode" else read[1] / read[0]})
    return found


def table(rows: list[Row]) -> str:
    lines = [
        "| case | threads | contender | wall s | CPU s | longlode is faster by (wall, CPU) | arithmetic |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row['wall_seconds']:.2f} | {row['cpu_seconds']:.2f} | {row['speed_up_wall']:.2f}, "
        figures += f"{row['speed_up_cpu']:.2f} | {row['arithmetic']:.2f}"
        lines.append(f"| {row['case']} | {row['threads']} | {row['contender']} | {figures} |")
    return "\n".join(lines)


def save(rows: list[Row], text: str, load: float) -> None:
    now = datetime.datetime.now(datetime.UTC)
    stem = RESULTS / f"{now:%Y-%m-%d}-score-reuse"
    facts = {
        "benchmark": "score_reuse",
        "time": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "command": "python -m benchmarks.score_reuse " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "load_average_before": load,
        "versions": versions(),
    }
    write_json(stem.with_suffix(".json"), {**facts, "rows": rows})
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    stem.with_suffix(".md").write_text(f"# Reuse of prefix states in scoring\n\n{listed}\n\n{text}\n")
    print(f"saved {stem}.json and .md")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--threads", type=int, nargs="+", default=None, help="1 2; with --quick 1")
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="few segments, small models: does it run")
    parser.add_argument("--save", action="store_true", help=f"write a dated result to {RESULTS}")
    args = parser.parse_args()
    threads = args.threads or ([1] if args.quick else [1, 2])
    load = os.getloadavg()[0]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    rows: list[Row] = []
    for model_name in args.models:
        torch.manual_seed(0)
        scorer = LMScorer(MODELS[model_name](2 if args.quick else 6), tokenizer, segment=LENGTH)
        for case, size in (QUICK if args.quick else FULL).items():
            rounds = args.rounds or (1 if args.quick else ROUNDS)
            found = measure(f"{model_name}: {case}", scorer, size, threads, rounds)
            if isinstance(found, str):
                print(f"{found}; no times are printed")
                return 1
            print(
                f"{model_name}: {case}: scores equal to {found[0]['largest_difference_nats']:.1e} nats a token"
            )
            rows += found
    text = table(rows)
    print(f"\n{text}\n\nload average before: {load:.2f}")
    if args.save:
        save(rows, text, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
