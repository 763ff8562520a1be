"""What mixers cost: seconds and memory of a training step and of a decoded token, at a short and at a long length."""

import gc
import json
import math
import os
import resource
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from longlode.core.errors import InputError
from longlode.core.records import read_json, write_json
from longlode.models import LonglodeCache, LonglodeConfig, LonglodeModel

_WIDTH = 128
_NEW_TOKENS = 16
_MOST_BYTES = 8 * 2**30  # a step that needs more is not timed
COSTS_NAME = "costs.json"


def model_of(mixer: str) -> LonglodeModel:
    """One layer of width 128, no MLP, random weights."""
    torch.manual_seed(0)
    config = LonglodeConfig(
        vocab_size=256,
        hidden_size=_WIDTH,
        num_heads=2,
        layers=[{"mixer": mixer, "block": "mixer"}],
        window=512,
    )
    return LonglodeModel(config)


def step_seconds(model: LonglodeModel, length: int) -> float:
    """Seconds of a forward and a backward of one row."""
    tokens = torch.randint(256, (1, length), generator=torch.Generator().manual_seed(1))
    model.train()
    started = time.perf_counter()
    model(input_ids=tokens, use_cache=False).last_hidden_state.square().mean().backward()
    spent = time.perf_counter() - started
    model.zero_grad(set_to_none=True)
    return spent


def prompt_cache(model: LonglodeModel, length: int) -> LonglodeCache:
    """The cache after `length` random tokens."""
    tokens = torch.randint(256, (1, length), generator=torch.Generator().manual_seed(2))
    cache = LonglodeCache(1)
    model.eval()
    with torch.inference_mode():
        model(input_ids=tokens, cache=cache, use_cache=True)
    return cache


def decode_seconds(model: LonglodeModel, cache: LonglodeCache) -> float:
    """Seconds per token that is decoded after what the cache has read."""
    tokens = torch.randint(256, (1, _NEW_TOKENS), generator=torch.Generator().manual_seed(3))
    model.eval()
    started = time.perf_counter()
    with torch.inference_mode():
        for t in range(_NEW_TOKENS):
            model(input_ids=tokens[:, t : t + 1], cache=cache, use_cache=True)
    return (time.perf_counter() - started) / _NEW_TOKENS


def _memory(name: str) -> int:
    """VmRSS (now) or VmHWM (peak) of this process, bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise InputError(f"/proc/self/status has no {name}; memory is measured on Linux alone.")


def _grown(work: Any) -> int:
    """Bytes by which the peak of this process rises above what stands, while `work` runs."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _memory("VmRSS")
    work()
    return _memory("VmHWM") - before


def peaks(mixer: str, length: int) -> dict[str, int | None]:
    """Peak bytes of a step and of decoding, and the bytes of the state, each in a process of its own.

    Decoding counts what the cache holds and what a token needs beside it. None: more than 8 GiB.
    """

    def training() -> dict[str, int]:
        model = model_of(mixer)
        return {f"train_{length}": _grown(lambda: step_seconds(model, length))}

    def decoding() -> dict[str, int]:
        model = model_of(mixer)
        cache = prompt_cache(model, length)
        grown = _grown(lambda: decode_seconds(model, cache))
        return {f"state_{length}": cache.num_bytes, f"decode_{length}": cache.num_bytes + grown}

    found: dict[str, int | None] = {f"{what}_{length}": None for what in ("train", "decode", "state")}
    return found | _in_child(training) | _in_child(decoding)


def _in_child(work: Callable[[], dict[str, int]]) -> dict[str, int]:
    """What `work` returns in a fresh process, whose heap holds nothing freed; {} where memory did not suffice."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + _MOST_BYTES,) * 2)
            os.write(write_end, json.dumps(work()).encode())
        except (MemoryError, RuntimeError) as error:
            print(str(error).splitlines()[0], flush=True)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        told = stream.read()
    os.waitpid(child, 0)
    return dict(json.loads(told)) if told else {}


def measure(options: Namespace) -> None:
    """Fill what is missing in the record of costs: memory first, then rounds in which the mixers take turns.

    Every measurement is kept at once, so that a run can be stopped at any time and go on.
    """
    path = options.work / COSTS_NAME
    known = costs(options)
    for name in options.mixers:
        one = known.setdefault(name, {"rounds": {}})
        for length in options.lengths:
            if f"train_{length}" not in one:
                one |= peaks(name, length)
                write_json(path, known)
                print(f"memory of {name} at {length:,}", flush=True)
    for turn in range(options.rounds):
        for name in options.mixers:
            for length in options.lengths:
                key = f"{turn}_{length}"
                if key in known[name]["rounds"] or known[name].get(f"train_{length}") is None:
                    continue
                model = model_of(name)
                seconds = decode_seconds(model, prompt_cache(model, length))
                known[name]["rounds"][key] = {"decode_token": seconds, "step": step_seconds(model, length)}
                write_json(path, known)
                print(f"timed {name} at {length:,}, round {turn}", flush=True)


def costs(options: Namespace) -> dict[str, dict[str, Any]]:
    """Mixer -> its measurements so far."""
    path = options.work / COSTS_NAME
    return read_json(path) if path.is_file() else {}


def best(one: dict[str, Any], what: str, length: int) -> float | None:
    """The least seconds over the rounds, of a `step` or a `decode_token`; None: not timed."""
    rounds = [found[what] for key, found in one["rounds"].items() if key.endswith(f"_{length}")]
    return min(rounds, default=None)


def slope(one: dict[str, Any], lengths: list[int]) -> float | None:
    """The exponent by which a step's time grows between the least and the greatest length."""
    times = [best(one, "step", length) for length in (lengths[0], lengths[-1])]
    if None in times or lengths[0] == lengths[-1]:
        return None
    return math.log(times[1] / times[0]) / math.log(lengths[-1] / lengths[0])  # type: ignore[operator]
