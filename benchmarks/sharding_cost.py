"""The cost model of a recipe: what a step takes on groups of 1, 2, ... ranks of this machine, fitted and written.

    python -m benchmarks.sharding_cost RECIPE.toml COST.json [--set SECTION.KEY=VALUE] [--ranks 1,2,4]
        [--lengths 1024,4096] [--rounds 3] [--vocab-size N] [--device cuda]

COST.json is what `parallel.cost` of the recipe takes, so that `parallel.groups = "fitted"` plans with the times of this
model on this machine. Measured are forward and backward passes of the recipe's model, with its dtype, checkpointing and
exchanges, on one document of each length, and on rows of documents of long-tailed lengths; of every case the best round
of the slowest rank (`benchmarks.sharding`). The fit is by least squares of relative errors. The largest of these is
printed: where it is large, something else ran, or the lengths are so short that the time does not depend on them. Ranks
are processes of this machine, a device each with --device cuda.
"""

import argparse
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks import sharding
from benchmarks.saved import about
from longlode.models import LonglodeForCausalLM
from longlode.parallel.cost_file import MeasuredCost
from longlode.train import Recipe, build_model
from longlode.train.fitted_cost import step_facts
from longlode.train.step import autocast

SCHEME = "recipe"
"""What the cases call mixer and scheme: both are the recipe's."""


class RecipeRank(sharding.Rank):
    """A rank with the model of the recipe `facts["recipe"]`, and its exchanges."""

    def __init__(self, facts: dict[str, Any]) -> None:
        """Join the process group, and read the recipe."""
        super().__init__(facts)
        self.recipe = Recipe.parse(facts["recipe"], [f"run.device={self.device}"])
        self.num_tokens = facts["vocab_size"]

    def model(self, mixer: str) -> LonglodeForCausalLM:
        """See `Rank.model`: that of the recipe."""
        if mixer not in self.models:
            model = build_model(self.recipe, self.num_tokens).train()
            if self.recipe.run.gradient_checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
            self.models[mixer] = model
        return self.models[mixer]

    def exchanges(self, case: sharding.Case) -> dict[str, Any]:
        """See `Rank.exchanges`: those of the recipe."""
        return {"states": self.recipe.parallel.states, "attention": self.recipe.parallel.attention}

    def loss(self, model: LonglodeForCausalLM, inputs: dict[str, Any]) -> torch.Tensor:
        """See `Rank.loss`: in the recipe's dtype."""
        with autocast(model, self.recipe.run.dtype):
            return super().loss(model, inputs)


def cases(lengths: list[int]) -> Iterator[sharding.Case]:
    """One document, and packed documents, of every length."""
    return (
        sharding.Case(SCHEME, SCHEME, mask, length) for length in lengths for mask in ("causal", "packed")
    )


def vocab_size(recipe: Recipe) -> int:
    """Return the number of tokens of the recipe's shards. Raises: SystemExit if it names none."""
    from longlode.packing import open_shards

    if recipe.data.shards is None:
        raise SystemExit("The recipe names no shards; add --set data.shards=FOLDER, or --vocab-size N.")
    named = recipe.data.shards
    return open_shards([named] if isinstance(named, str) else named).vocab_size


def fitted(recipe: Recipe, num_tokens: int, counts: list[int], settings: dict[str, Any]) -> MeasuredCost:
    """Measure on each number of ranks, and fit."""
    todo = list(cases(settings["lengths"]))
    given = {**settings, "recipe": recipe.resolved(), "vocab_size": num_tokens}
    rows = [row for ranks in counts for row in sharding.run(ranks, given, todo, RecipeRank)]
    facts = step_facts(recipe, build_model(recipe, num_tokens))
    times = [(row["ranks"], row["documents"], row["seconds"]) for row in rows]
    return MeasuredCost.fit(times, facts, about("sharding_cost"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("cost")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--ranks", default="1,2,4")
    parser.add_argument("--lengths", default="1024,4096")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vocab-size", type=int)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args(arguments)
    recipe = Recipe.load(args.recipe, [*args.set, f"run.device={args.device}"])
    lengths = sorted(int(part) for part in args.lengths.split(","))
    settings = {"lengths": lengths, "rounds": args.rounds, "device": args.device}
    counts = sorted({int(part) for part in args.ranks.split(",")})
    found = fitted(recipe, args.vocab_size or vocab_size(recipe), counts, settings)
    found.write(args.cost)
    for one in found.measured:
        told = found.cost.seconds(one.ranks, one.lengths)
        print(
            f"{one.ranks} rank(s), {len(one.lengths)} document(s), {sum(one.lengths):,} tokens: {one.seconds:.3f} s, "
            f"fitted {told:.3f} s"
        )
    print(f"saved {args.cost}: {found.cost}; fitted to within {found.largest_error:.0%} of every time")


if __name__ == "__main__":
    main()
