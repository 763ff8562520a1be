"""Scoring with kept prefix states against the procedure of the ProLong release: same model, same pairs, same run.

    python -m benchmarks.score_reuse [--models opt starter] [--threads 1] [--rounds 2] [--quick] [--save]
    python -m benchmarks.score_reuse --device cuda --save          OPT-350M's own size, random weights

The release's procedure, written anew from its description: one document at a time, every segment alone, then every
pair [s_j; s_i] from its first token; logits for all positions, copied to drop the last; cross entropy on all of
them, the last 127 of a pair used; one PPL fetched a pair. It runs twice: with its own batch of 256 rows (or as many
as keep one copy of the logits within bounds), and with batches of as many tokens as ours, where a CPU is faster.

First all scores are compared, to 1e-4 nats a token in float32; if they differ, no time is printed. Then the contenders
take turns, round after round, in this one process; a figure is the best round, in seconds of wall time and of CPU time
(which other programs on the machine disturb less). "Arithmetic" is the ratio of tokens read.

On a CPU the release would need most of an hour for its own setting, 500 pairs of 256 segments, so all contenders are
timed on a quarter of it: 125 pairs of 64 segments, the same pairs for each and as many a segment. The last table is the
whole setting, 32,768 tokens, by longlode alone. longlode in bfloat16 is timed beside; it is not the same arithmetic, so
what its scores differ by stands there too, and no target refers to it.

opt: OPT-350M divided by 64 in the arithmetic of body and head and in the size of its logits, random weights, with
the projection before its head. starter: the stack of the reader that ships with longlode, random weights. opt350m:
the size of OPT-350M, for a GPU.
"""

import argparse
import copy
import datetime
import os
import sys
import time
from collections.abc import Callable
from functools import partial
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
from longlode.readers.dtype import fastest_dtype
from longlode.readers.lm import LMReader

LENGTH = 128
RELEASE_ROWS = 256
RELEASE_LOGIT_BYTES = {"cpu": 1 << 30, "cuda": 16 << 30}
TOLERANCE_NATS = {"float32": 1e-4, "bfloat16": 0.25}
"""Largest difference of a token's score; bfloat16 has eight bits."""
ROUNDS = 2
WHOLE = (256, 500)
"""Segments and pairs of the release's setting: one document of 32,768 tokens."""
FULL = {"a quarter of 500 pairs of 256 segments": (64, 125), "all pairs of 24 segments": (24, 24 * 23 // 2)}
GPU = {"500 pairs of 256 segments": WHOLE, "all pairs of 48 segments": (48, 48 * 47 // 2)}
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


def opt350m(num_layers: int) -> Any:
    config = OPTConfig(
        vocab_size=50272,
        hidden_size=1024,
        num_hidden_layers=4 * num_layers,
        num_attention_heads=16,
        ffn_dim=4096,
        word_embed_proj_dim=512,
        do_layer_norm_before=False,
        max_position_embeddings=2048,
    )
    return OPTForCausalLM(config)


MODELS: dict[str, Callable[[int], Any]] = {"opt": opt, "starter": starter, "opt350m": opt350m}


def sample_pairs(num_segments: int, num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """(sources, targets) of `num_pairs` of the pairs j < i, drawn without replacement, in reading order."""
    targets, sources = np.tril_indices(num_segments, -1)
    chosen = np.sort(np.random.default_rng(0).choice(len(targets), num_pairs, replace=False))
    return sources[chosen], targets[chosen]


@torch.inference_mode()
def release(model: Any, segments: np.ndarray, sources: np.ndarray, targets: np.ndarray, rows: int) -> Scores:
    """The release's procedure: NLL `[n, 127]` alone and `[p, 127]` given."""
    tokens = torch.from_numpy(segments).to(model.device)
    texts = [tokens, torch.cat([tokens[torch.from_numpy(sources)], tokens[torch.from_numpy(targets)]], dim=1)]
    scores = []
    for text in texts:
        parts = []
        for start in range(0, len(text), rows):
            batch = text[start : start + rows]
            logits = model(input_ids=batch).logits[:, :-1].contiguous()
            nll = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none")
            parts.append(nll.view(len(batch), -1)[:, 1 - LENGTH :].float())
            ppl = [row.mean().exp().item() for row in parts[-1]]
            assert len(ppl) == len(batch)
        scores.append(torch.cat(parts).cpu().numpy())
    return scores[0], scores[1]


def longlode(reader: LMReader, segments: np.ndarray, sources: np.ndarray, targets: np.ndarray) -> Scores:
    alone, states = reader.alone(segments)
    return alone, reader.given(states, sources, segments[targets])


def measure(
    name: str, readers: dict[str, LMReader], size: tuple[int, int], threads: list[int], rounds: int
) -> list[Row] | str:
    """Rows of figures, or what is wrong. Args: readers, one model by dtype; the first is compared with the release."""
    exact, reader = next(iter(readers.items()))
    vocabulary = reader.model.config.vocab_size
    segments = np.random.default_rng(0).integers(0, vocabulary, (size[0], LENGTH))
    sources, targets = sample_pairs(*size)
    logit_bytes = 2 * LENGTH * vocabulary * reader.dtype.itemsize
    large = min(RELEASE_ROWS, RELEASE_LOGIT_BYTES[reader.device.type] // logit_bytes)
    small = max(1, reader.batch_tokens // LENGTH)
    contenders: dict[str, Callable[[], Scores]] = {
        f"longlode, {dtype}": partial(longlode, one, segments, sources, targets)
        for dtype, one in readers.items()
    }
    for rows in sorted({large, small}, reverse=True):
        run = partial(release, reader.model, segments, sources, targets, rows)
        contenders[f"release, {exact}, {rows} rows"] = run
    reference = run()
    errors = {
        contender: difference(contenders[contender](), reference)
        for contender in list(contenders)[: len(readers)]
    }
    for dtype, error in zip(readers, errors.values(), strict=True):
        if not error <= TOLERANCE_NATS[dtype]:
            return f"{name}: scores in {dtype} differ by {error:.1e} nats"
    read = size[0] * LENGTH + size[1] * (LENGTH - 1), size[0] * LENGTH + size[1] * 2 * LENGTH
    found = []
    for count in threads:
        torch.set_num_threads(count)
        best = fastest(contenders, rounds)
        ours = best[f"longlode, {exact}"]
        for contender, (wall, cpu) in best.items():
            row: Row = {"case": name, "threads": count, "contender": contender}
            row |= {"wall_seconds": wall, "cpu_seconds": cpu}
            row |= {"largest_difference_nats": errors.get(contender, 0.0)}
            row |= {"speed_up_wall": wall / ours[0], "speed_up_cpu": cpu / ours[1]}
            found.append({**row, "arithmetic": 1.0 if contender in errors else read[1] / read[0]})
    return found


def difference(scores: Scores, reference: Scores) -> float:
    """Largest difference of a token's score, nats."""
    return max(float(np.abs(a - b).max()) for a, b in zip(scores, reference, strict=True))


def fastest(contenders: dict[str, Callable[[], Scores]], rounds: int) -> dict[str, tuple[float, float]]:
    """Best wall and CPU seconds of each; they take turns."""
    best = {contender: (float("inf"), float("inf")) for contender in contenders}
    for _ in range(rounds):
        for contender, run in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run()
            spent = time.perf_counter() - wall, time.process_time() - cpu
            best[contender] = min(best[contender][0], spent[0]), min(best[contender][1], spent[1])
    return best


def whole_document(name: str, readers: dict[str, LMReader], threads: int) -> list[Row]:
    """The release's setting by longlode, once: documents of 32,768 tokens a second."""
    torch.set_num_threads(threads)
    sources, targets = sample_pairs(*WHOLE)
    found: list[Row] = []
    for dtype, reader in readers.items():
        segments = np.random.default_rng(0).integers(0, reader.model.config.vocab_size, (WHOLE[0], LENGTH))
        wall, cpu = fastest({"": partial(longlode, reader, segments, sources, targets)}, 1)[""]
        found.append(
            {"model": name, "dtype": dtype, "threads": threads, "wall_seconds": wall, "cpu_seconds": cpu}
        )
    return found


def whole_table(rows: list[Row]) -> str:
    lines = [
        "| longlode, 32,768 tokens, 500 pairs | dtype | threads | wall s | docs a second of CPU time |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        rate = 1 / max(float(row["cpu_seconds"]), 1e-9)
        lines.append(
            f"| {row['model']} | {row['dtype']} | {row['threads']} | {row['wall_seconds']:.2f} | {rate:.3f} |"
        )
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    lines = [
        "| case | threads | contender | wall s | CPU s | times the first row (wall, CPU) | arithmetic "
        "| off by, nats |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        figures = f"{row['wall_seconds']:.2f} | {row['cpu_seconds']:.2f} | {row['speed_up_wall']:.2f}, "
        figures += (
            f"{row['speed_up_cpu']:.2f} | {row['arithmetic']:.2f} | {row['largest_difference_nats']:.1e}"
        )
        lines.append(f"| {row['case']} | {row['threads']} | {row['contender']} | {figures} |")
    return "\n".join(lines)


def save(rows: list[Row], whole: list[Row], text: str, load: float) -> None:
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
    write_json(stem.with_suffix(".json"), {**facts, "rows": rows, "whole_documents": whole})
    listed = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    stem.with_suffix(".md").write_text(f"# Reuse of prefix states in scoring\n\n{listed}\n\n{text}\n")
    print(f"saved {stem}.json and .md")


def main() -> int:
    args = parse()
    on_gpu = args.device.startswith("cuda")
    cases = QUICK if args.quick else GPU if on_gpu else FULL
    rounds = args.rounds or (1 if args.quick else 5 if on_gpu else ROUNDS)
    load = os.getloadavg()[0]
    rows: list[Row] = []
    whole: list[Row] = []
    for model_name in args.models or (["opt350m"] if on_gpu else ["opt", "starter"]):
        readers = make_readers(model_name, args.device, 2 if args.quick else 6)
        # On a GPU bfloat16 has a release of its own beside it: there it is what one would run.
        for turn in [readers, dict(reversed(readers.items()))] if on_gpu else [readers]:
            compared = dict(list(turn.items())[:1]) if on_gpu else turn
            for case, size in cases.items():
                found = measure(f"{model_name}: {case}", compared, size, args.threads, rounds)
                if isinstance(found, str):
                    print(f"{found}; no times are printed")
                    return 1
                rows += found
                print(table(found), flush=True)
        if not args.quick:
            whole += whole_document(model_name, readers, args.threads[0])
    text = f"{table(rows)}\n\n{whole_table(whole)}" if whole else table(rows)
    print(f"\n{text}\n\nload average before: {load:.2f}")
    if args.save:
        save(rows, whole, text, load)
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), help="opt starter; on a GPU opt350m")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda: the release's whole setting")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="few segments, small models: does it run")
    parser.add_argument("--save", action="store_true", help=f"write a dated result to {RESULTS}")
    return parser.parse_args()


def make_readers(name: str, device: str, num_layers: int) -> dict[str, LMReader]:
    """One model in float32 and in bfloat16; on a CPU the latter only where it is faster."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    torch.manual_seed(0)
    model = MODELS[name](num_layers).to(device)
    readers = {"float32": LMReader(model, tokenizer, segment=LENGTH)}
    if fastest_dtype(device)[0] == "bfloat16":
        readers["bfloat16"] = LMReader(copy.deepcopy(model).to(torch.bfloat16), tokenizer, segment=LENGTH)
    return readers


if __name__ == "__main__":
    sys.exit(main())
