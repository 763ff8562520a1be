"""Growth of the cost of a training step with the length of the text, for every mixer, beside what it claims.

    python -m benchmarks.mixer_slopes --work DIR [--mixers NAME,...] [--lengths 1024,4096,16384] [--rounds 3] [--save]

One layer of width 128, float32, one thread; forward and backward of one row. Times are CPU time of this process, which
other processes on the machine change little; in every round all lengths are measured in turn, and a figure is the best
of the rounds. `slope` is the exponent by which the time grows between the first length and the last (1: linear, 2:
quadratic), `last slope` that of the last two lengths; `claimed` is the same of the operations that the mixer claims
(`Mixer.flops_per_token`). Mixers in DIR that are measured are not measured again.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.mixers import model_of
from benchmarks.saved import about, save
from longlode.core.records import read_json, write_json
from longlode.mixers import LETTERS, MIXERS
from longlode.models import LonglodeModel


def step_cpu_seconds(model: LonglodeModel, length: int) -> float:
    """CPU seconds of a forward and a backward of one row."""
    tokens = torch.randint(256, (1, length), generator=torch.Generator().manual_seed(1))
    started = time.process_time()
    model(input_ids=tokens, use_cache=False).last_hidden_state.square().mean().backward()
    spent = time.process_time() - started
    model.zero_grad(set_to_none=True)
    return spent


def exponent(values: dict[int, float], first: int, last: int) -> float:
    """Exponent by which values grow from one length to another."""
    return math.log(values[last] / values[first]) / math.log(last / first)


def measure(name: str, lengths: list[int], rounds: int) -> dict[str, Any]:
    """Best seconds and claimed operations of a step by length, and the exponents."""
    model = model_of(name).train()
    mixer: Any = model.layers[0].attn
    step_cpu_seconds(model, lengths[0])  # the first call compiles and allocates
    best = dict.fromkeys(lengths, math.inf)
    for _ in range(rounds):
        for length in lengths:
            best[length] = min(best[length], step_cpu_seconds(model, length))
    claimed = {length: length * float(mixer.flops_per_token(length)) for length in lengths}
    return {
        "seconds": best,
        "slope": exponent(best, lengths[0], lengths[-1]),
        "last_slope": exponent(best, lengths[-2], lengths[-1]),
        "claimed": exponent(claimed, lengths[0], lengths[-1]),
        "constant_state": mixer.traits.constant_state,
    }


def table(found: dict[str, dict[str, Any]], lengths: list[int]) -> str:
    """The result as Markdown, the flattest first."""
    heads = [f"ms per 1,000 tokens at {length:,}" for length in lengths]
    lines = ["| mixer | state | slope | last slope | claimed | " + " | ".join(heads) + " |"]
    lines.append("|" + "---|" * (len(heads) + 5))
    for name, one in sorted(found.items(), key=lambda item: item[1]["slope"]):
        cells = ["constant" if one["constant_state"] else "grows"]
        cells += [f"{one[key]:.2f}" for key in ("slope", "last_slope", "claimed")]
        seconds = {int(length): value for length, value in one["seconds"].items()}
        cells += [f"{1e6 * seconds[length] / length:.1f}" for length in lengths]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--mixers", default=",".join(MIXERS.names()))
    parser.add_argument("--lengths", default="1024,4096,16384")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    lengths = [int(one) for one in options.lengths.split(",")]
    if len(lengths) < 2:
        parser.error("--lengths needs two or more")
    names = [LETTERS.get(one, one) for one in options.mixers.split(",")]
    options.work.mkdir(parents=True, exist_ok=True)
    found = {}
    for name in names:
        path = options.work / f"{name}-{'-'.join(map(str, lengths))}-{options.rounds}.json"
        if not path.is_file():
            write_json(
                path,
                {
                    key: ({str(k): v for k, v in value.items()} if isinstance(value, dict) else value)
                    for key, value in measure(name, lengths, options.rounds).items()
                },
            )
        found[name] = read_json(path)
        print(name, found[name], flush=True)
    text = table(found, lengths)
    print(text)
    if options.save:
        result = {**about("mixer_slopes"), "lengths": lengths, "rounds": options.rounds, "mixers": found}
        head = "# Cost of a training step by the length of the text\n\n"
        head += "One layer of width 128, one row, CPU time of one thread, best of the rounds.\n\n"
        save("mixer-slopes", result, f"{head}`{result['command']}`, {result['machine']}.\n\n{text}")


if __name__ == "__main__":
    main()
