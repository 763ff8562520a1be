"""Long generation: time a token and memory after 1k, 16k, 128k tokens of context, DeltaNet beside a Llama.

    python -m benchmarks.generate [--contexts 1024 16384 131072] [--threads 1] [--rounds 3] [--quick] [--save]

All models have the same width, depth and vocabulary (4 layers of width 256, about 5 million parameters, so that the
full run takes about ten minutes at one thread), random weights, float32, one sequence. First each model's
token-by-token logits are compared with its one full forward; if they differ, no time is printed. Then the context is
read in pieces of 2048 tokens ("read"; beyond 16k, full attention does not read but has its cache filled in with random
keys and values, which cost the same to use), and the models take turns, round after round, at writing 16 tokens; a
figure is the best round's mean. A Llama has transformers' default cache. "State" is what the cache holds.
"""

import sys
import time
from typing import Any

import torch
from transformers import DynamicCache

from benchmarks.peers import LLAMA, NAMES, Comparison, Row, Size, millions, relative_error
from longlode.models import LonglodeCache

PIECE = 2048
READ_IN_FULL = 16384
NEW_TOKENS = 16


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
    full_attention = "A" in getattr(model.config, "stack", "A")
    filled_in = full_attention and context > READ_IN_FULL
    tokens = torch.randint(vocab_size, (1, PIECE if filled_in else context), generator=generator)
    started = time.perf_counter()
    for start in range(0, tokens.shape[1], PIECE):
        model.model(tokens[:, start : start + PIECE], past_key_values=cache, use_cache=True)
    seconds = time.perf_counter() - started
    if not filled_in:
        return cache, seconds
    shape = (1, model.config.num_key_value_heads, context, model.config.head_dim)
    if not isinstance(cache, LonglodeCache):
        cache = DynamicCache()
        for number in range(model.config.num_hidden_layers):
            cache.update(*(torch.randn(shape, generator=generator) for _ in range(2)), number)
        return cache, None
    for letter, layer in zip(model.config.stack, cache.layers, strict=True):
        if letter == "A":
            keys, values = (torch.randn(shape, generator=generator).transpose(1, 2) for _ in range(2))
            layer.state = {"k": keys, "v": values, "position": torch.tensor([context])}
    cache.num_positions = context
    return cache, None


def seconds_per_token(model: Any, cache: Any) -> float:
    cache, token = copy_of(cache), torch.zeros(1, 1, dtype=torch.int64)
    started = time.perf_counter()
    for _ in range(NEW_TOKENS):
        logits = model(token, past_key_values=cache, use_cache=True).logits
        token = logits[:, -1:].argmax(-1)
    return (time.perf_counter() - started) / NEW_TOKENS


@torch.inference_mode()
def error_of(model: Any, size: Size) -> float:
    model.eval()
    tokens = torch.randint(size.vocab_size, (1, 80), generator=torch.Generator().manual_seed(0))
    want = model(tokens, use_cache=False).logits
    cache = new_cache(model)
    steps = [model(tokens[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(80)]
    return relative_error(torch.cat(steps, 1), want)


@torch.inference_mode()
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
    return rows


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


COMPARISON = Comparison(
    name="generate",
    title="Long generation on CPU",
    method=__doc__ or "",
    points_name="contexts",
    points=[1024, 16384, 131072],
    quick_points=[64, 256],
    rounds=3,
    columns={
        "model": "",
        "params_millions": ".1f",
        "context": ",",
        "read_tokens_per_second": ",.0f",
        "ms_per_token": ".2f",
        "state_mb": ".2f",
        "slower_than_first_context": ".2f",
    },
    checked="token by token against the full forward",
    error_of=error_of,
    measure=measure,
    verdict=verdict,
)

if __name__ == "__main__":
    sys.exit(COMPARISON.main())
