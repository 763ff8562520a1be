"""Long generation: time a token and memory after 1k, 16k, 128k tokens of context, DeltaNet beside a Llama.

    python -m benchmarks.generate [--contexts 1024 16384 131072] [--threads 1] [--rounds 3] [--quick] [--save]

All models have the same width, depth and vocabulary (benchmarks/peers.py), random weights, float32, one sequence.
First each model's token-by-token logits are compared with its one full forward; if they differ, no time is printed.
Then the context is read in pieces of 2048 tokens ("read"; a Llama's beyond 16k is not read but filled in with
random keys and values, which cost the same to use), and the models take turns, round after round, at writing 16
tokens; a figure is the best round's mean. A Llama has transformers' default cache. "State" is what the cache holds.
"""

import argparse
import os
import sys
import time
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.peers import (
    FULL,
    LLAMA,
    NAMES,
    QUICK,
    Row,
    Size,
    as_table,
    build,
    millions,
    relative_error,
    save,
)
from longlode.models import LonglodeCache

CONTEXTS = [1024, 16384, 131072]
PIECE = 2048
LLAMA_READS = 16384
NEW_TOKENS = 16
COLUMNS = {
    "model": "",
    "params_millions": ".1f",
    "context": ",",
    "read_tokens_per_second": ",.0f",
    "ms_per_token": ".2f",
    "state_mb": ".2f",
    "slower_than_first_context": ".2f",
}


def new_cache(model: Any) -> Any:
    return LonglodeCache(len(model.model.layers)) if hasattr(model.config, "mixers") else DynamicCache()


def copy_of(cache: Any) -> Any:
    """A cache to write into; a Llama's is concatenated anew at every token, so its tensors can be shared."""
    if isinstance(cache, LonglodeCache):
        return cache.copy()
    other = DynamicCache()
    for number, layer in enumerate(cache.layers):
        other.update(layer.keys, layer.values, number)
    return other


def state_bytes(cache: Any) -> int:
    if isinstance(cache, LonglodeCache):
        return cache.num_bytes
    return sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)


def read(model: Any, context: int, vocab_size: int) -> tuple[Any, float | None]:
    """(cache after `context` tokens, seconds it took, None if it was filled in)."""
    cache = new_cache(model)
    generator = torch.Generator().manual_seed(context)
    if not isinstance(cache, LonglodeCache) and context > LLAMA_READS:
        config = model.config
        shape = (1, config.num_key_value_heads, context, config.head_dim)
        for number in range(config.num_hidden_layers):
            cache.update(*(torch.randn(shape, generator=generator) for _ in range(2)), number)
        return cache, None
    tokens = torch.randint(vocab_size, (1, context), generator=generator)
    started = time.perf_counter()
    for start in range(0, context, PIECE):
        model.model(tokens[:, start : start + PIECE], past_key_values=cache, use_cache=True)
    return cache, time.perf_counter() - started


def seconds_per_token(model: Any, cache: Any) -> float:
    cache, token = copy_of(cache), torch.zeros(1, 1, dtype=torch.int64)
    started = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
    return (time.perf_counter() - started) / NEW_TOKENS


def error_of(model: Any, vocab_size: int) -> float:
    tokens = torch.randint(vocab_size, (1, 80), generator=torch.Generator().manual_seed(0))
    want = model(tokens, use_cache=False).logits
    cache = new_cache(model)
    steps = [model(tokens[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(80)]
    return relative_error(torch.cat(steps, 1), want)


def measure(models: dict[str, Any], contexts: list[int], rounds: int, size: Size) -> list[Row]:
    rows: list[Row] = []
    for context in contexts:
        caches, reading = {}, {}
        for name, model in models.items():
            caches[name], reading[name] = read(model, context, size.vocab_size)
        best = dict.fromkeys(models, float("inf"))
        for _ in range(rounds):
            for name, model in models.items():
                best[name] = min(best[name], seconds_per_token(model, caches[name]))
        for name, model in models.items():
            row: Row = {
                "model": name,
                "params_millions": millions(model),
                "context": context,
                "ms_per_token": 1000 * best[name],
                "state_mb": state_bytes(caches[name]) / 1e6,
            }
            seconds = reading[name]
            if seconds is not None:
                row["read_tokens_per_second"] = context / seconds
            first = next((float(r["ms_per_token"]) for r in rows if r["model"] == name), row["ms_per_token"])
            row["slower_than_first_context"] = float(row["ms_per_token"]) / float(first)
            rows.append(row)
        print(f"context {context:,} done", file=sys.stderr)
    return sorted(rows, key=lambda row: (NAMES.index(str(row["model"])), row["context"]))


def verdict(rows: list[Row]) -> str:
    last = max(int(row["context"]) for row in rows)
    at = {str(row["model"]): row for row in rows if row["context"] == last}
    ours, llama = at[NAMES[0]], at[LLAMA]
    faster = float(llama["ms_per_token"]) / float(ours["ms_per_token"])
    smaller = float(llama["state_mb"]) / float(ours["state_mb"])
    return (
        f"After {last:,} tokens DeltaNet writes a token {faster:.1f} times as fast as the Llama, from a state "
        f"{smaller:,.0f} times smaller; its own time a token is {ours['slower_than_first_context']:.2f} times that "
        "after the first context."
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--contexts", type=int, nargs="+", default=None)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--quick", action="store_true", help="small models, short contexts: does it run")
    parser.add_argument("--save", action="store_true", help="write a dated result")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    load, size = os.getloadavg()[0], QUICK if args.quick else FULL
    contexts = args.contexts or ([64, 256] if args.quick else CONTEXTS)
    with torch.inference_mode():
        models = {name: build(name, size).eval() for name in NAMES}
        errors = {name: error_of(model, size.vocab_size) for name, model in models.items()}
        print(
            "largest relative error of the steps:", {name: f"{error:.1e}" for name, error in errors.items()}
        )
        if max(errors.values()) > 1e-3:
            print("steps differ from the full forward; no times are printed")
            return 1
        rows = measure(models, sorted(contexts), args.rounds or (1 if args.quick else 3), size)
    text = f"{as_table(rows, COLUMNS)}\n\n{verdict(rows)}"
    print(f"\n{text}\n\nload average before: {load:.2f}")
    if args.save:
        save("generate", "Long generation on CPU", __doc__ or "", rows, text, load)
    return 0


if __name__ == "__main__":
    sys.exit(main())
