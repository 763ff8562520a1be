"""Skill-It against equal shares on LEGO, at equal tokens: does choosing shares by held-out losses help?

    python -m benchmarks.skill_it --work FOLDER --seeds 4 --steps 600 [--most-seconds 300] [--save]

Skills are groups of a mixture; only answers have a loss, as in `longlode pack --chat`. The graph is estimated by short
runs on each group alone, from a model that has read all of them. Both arms are runs of `longlode.train` that differ in
`data.skill_it.rate` alone (0: shares stay equal). Reported: held-out loss of the answers at the end, nats per token,
mean over groups and per group, and the difference per seed with its 95 % interval (Student's t). With --work finished
runs are not repeated and a run that was stopped goes on; --most-seconds ends before the first run that would begin
later than that.
"""

import argparse
import contextlib
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import longlode
from benchmarks.saved import save
from longlode.core.records import read_jsonl
from longlode.corpus import train_bpe
from longlode.synthetic.lego import lego
from longlode.train import Recipe
from longlode.train.skill_it import graph_from_losses

TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'user' %} {% endif %}{% endfor %}"
LENGTH, BATCH = 768, 4
"""Held-out rows are of `concat`, which splits what stands at a row's end: one document of 18 tokens in 40."""
MODEL = {
    "mixers": "DA",
    "hidden_size": 64,
    "num_heads": 2,
    "tie_word_embeddings": True,
    "initializer_range": 0.1,
}
"""With the default 0.02 the attention of this width has not learned the first skill after 900 steps."""
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}


def write_shards(folder: Path, num_variables: int, per_skill: int, seed: int) -> Path:
    """Generate the task, a group per skill, and pack it with a loss on the answers alone."""
    draw = random.Random(seed)
    rows = []
    for skill in range(num_variables):
        for number in range(per_skill):
            question, answer = lego(draw, num_variables, skill)
            messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            rows.append({"id": f"{skill}-{number}", "source": f"skill{skill}", "messages": messages})
    if (folder / "shards" / "record.json").is_file():
        return folder / "shards"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lego.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train_bpe([row["messages"][0]["content"] for row in rows[:200]], 257).save(folder / "tokenizer")
    (folder / "template.jinja").write_text(TEMPLATE)
    how = {"tokenizer": folder / "tokenizer", "length": LENGTH, "chat": "messages"}
    longlode.pack(folder / "lego.jsonl", folder / "shards", chat_template=folder / "template.jinja", **how)
    return folder / "shards"


def run(
    shards: Path,
    out: Path,
    shares: dict[str, float],
    skill_it: dict[str, Any],
    steps: int,
    seed: int,
    start: Path | None = None,
) -> list[Any]:
    """Train once, or go on where a run was stopped; return the rows of held-out losses by group.

    Args: start, a model to continue.
    """
    recipe: dict[str, Any] = {
        "data": {
            "shards": str(shards),
            "length": LENGTH,
            "batch_size": BATCH,
            "packer": "best_fit",
            "heldout_fraction": 0.1,
            "mix": shares,
            "skill_it": skill_it,
        },
        "optim": {"lr": 3e-3, "warmup_steps": 20, "weight_decay": 0.01},
        "run": {
            "steps": steps,
            "seed": seed,
            "device": "cpu",
            "threads": 1,
            "checkpoint_every": 200,
            "eval_batches": 1,
        },
    }
    if start is None:
        recipe["model"] = MODEL
    else:
        recipe["run"]["start"] = str(start)
    if not (out / "finished").is_file():
        summary = longlode.train(Recipe.parse(recipe), out, verify=False, resume=out.exists())
        if summary.status != "finished":
            raise SystemExit(f"{out.name}: {summary.status}; the same command with --work goes on.")
        (out / "finished").touch()
    return [row for row in read_jsonl(out / "metrics.jsonl") if "heldout_losses" in row]


def estimate_graph(
    shards: Path, folder: Path, names: list[str], base_steps: int, steps: int, seed: int
) -> list[list[float]]:
    """Continue a model that has read all groups for some time on each group alone, for a short time.

    From new weights all groups would help each other alike: first of all a run learns which tokens an answer can have.
    """
    equal = dict.fromkeys(names, 1.0)
    settings = {"rate": 0.0, "batches": 4}
    rows = run(shards, folder / "graph-base", equal, {"every": base_steps, **settings}, base_steps, seed)
    before = [rows[-1]["heldout_losses"][name] for name in names]
    after = []
    for name in names:
        shares = {other: float(other == name) for other in names}
        own = folder / f"graph-{name}"
        rows = run(
            shards, own, shares, {"every": steps, **settings}, steps, seed, folder / "graph-base" / "model"
        )
        after.append([rows[-1]["heldout_losses"][other] for other in names])
    return graph_from_losses(before, after)


def compare(args: argparse.Namespace, folder: Path) -> dict[str, Any] | None:
    """Run both arms for every seed; None when the time is over before that."""
    started = time.monotonic()
    shards = write_shards(folder / f"{args.variables}-{args.per_skill}", args.variables, args.per_skill, 0)
    folder = folder / "-".join(map(str, (args.steps, args.base_steps, args.graph_steps, args.every)))
    folder = folder / f"{args.variables}-{args.per_skill}-rate-{args.rate}"
    names = [f"skill{skill}" for skill in range(args.variables)]
    graph = estimate_graph(shards, folder, names, args.base_steps, args.graph_steps, 1000)
    equal, found = dict.fromkeys(names, 1.0), []
    for seed in range(args.seeds):
        arms = {}
        for arm, rate in (("equal", 0.0), ("skill_it", args.rate)):
            if args.most_seconds is not None and time.monotonic() - started > args.most_seconds:
                print("the time is over; the same command goes on", flush=True)
                return None
            settings = {"every": args.every, "rate": rate, "batches": 4, "graph": graph}
            rows = run(shards, folder / f"{arm}-{seed}", equal, settings, args.steps, seed)
            arms[arm] = {"losses": rows[-1]["heldout_losses"], "shares": [row["shares"] for row in rows]}
            print(arm, seed, {name: round(loss, 3) for name, loss in arms[arm]["losses"].items()}, flush=True)
        found.append(arms)
    means = {
        arm: [float(np.mean(list(one[arm]["losses"].values()))) for one in found]
        for arm in ("equal", "skill_it")
    }
    differences = np.subtract(means["skill_it"], means["equal"])
    half = (
        T_95.get(len(found), 2.0) * float(differences.std(ddof=1)) / math.sqrt(len(found))
        if len(found) > 1
        else math.nan
    )
    return {
        "settings": {
            key: value for key, value in vars(args).items() if key not in ("save", "work", "most_seconds")
        },
        "graph": graph,
        "mean_loss": means,
        "difference": {"mean": float(differences.mean()), "half_of_interval_95": half},
        "runs": found,
    }


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("seeds", 3), ("steps", 600), ("variables", 3), ("per-skill", 4000), ("every", 50)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--base-steps", type=int, default=300, help="of the model that the graph is estimated from"
    )
    parser.add_argument("--graph-steps", type=int, default=100, help="of the run on each skill")
    parser.add_argument("--rate", type=float, default=0.5)
    parser.add_argument("--work", type=Path, help="folder of runs, kept; default: a temporary one")
    parser.add_argument("--most-seconds", type=float, help="begin no run after so long")
    parser.add_argument("--save", action="store_true", help="write a dated file to benchmarks/results/")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, contextlib.suppress(KeyboardInterrupt):
        if (result := compare(args, args.work or Path(name))) is None:
            return
        print(json.dumps({key: result[key] for key in ("graph", "mean_loss", "difference")}, indent=1))
        if args.save:
            save("skill-it", result)


if __name__ == "__main__":
    main()
