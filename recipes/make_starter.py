"""Make the starter model from text: tokenizer, shards, training in two stages, and a folder with a model card.

    python -m recipes.make_starter INPUT... --work WORK -o FOLDER [--about FILE] [--set run.steps=100]... [--resume]
        [--first FOLDER] [--set-far run.steps=100]...

The first stage, `starter.toml`, trains a plain stack on short rows. The second, `starter_far.toml`, adds n-gram heads,
which start as layers that do nothing, and goes on with longer rows. With `--first` the first stage is a model made
before, with its tokenizer.

FOLDER loads with `longlode score --model FOLDER` and with transformers' Auto classes. Weights are stored in bfloat16.
Every step leaves its result in `--work`, and a rerun goes on where the last one stopped (`--resume` for the training).
"""

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from longlode.core.records import read_record
from longlode.corpus import Document, Tokenizer, Unreadable, in_heldout, read, train_bpe
from longlode.models import LonglodeConfig, LonglodeForCausalLM, load
from longlode.packing import batches, open_shards, pack
from longlode.train import Recipe, TrainSummary, build_model, train

RECIPE = Path(__file__).with_name("starter.toml")
FAR_RECIPE = Path(__file__).with_name("starter_far.toml")
VOCAB_SIZE = 4096
MAX_TOKENIZER_CHARS = 1_000_000
"""Characters of one document that the tokenizer learns from, so that one huge book does not choose the words."""
PASSAGE_CHARS = 500
"""About a segment of tokens: the size of the passages of a shuffled copy."""


def main() -> None:
    """Run all steps that are not done yet."""
    arguments = parse()
    first, far = Recipe.load(RECIPE, arguments.set), Recipe.load(FAR_RECIPE, arguments.set_far)
    fraction = first.data.heldout_fraction
    tokenizer_folder = arguments.first or arguments.work / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").is_file():
        train_bpe(training_texts(arguments.inputs, fraction), VOCAB_SIZE).save(tokenizer_folder)
    tokenizer = Tokenizer.load(tokenizer_folder)
    shards_folder = arguments.work / f"shards-{arguments.shuffled_copies}-copies"
    if not (shards_folder / "record.json").is_file():
        documents = with_shuffled_copies(read(arguments.inputs), arguments.shuffled_copies, fraction)
        print(pack(documents, tokenizer, shards_folder, length=first.data.length))
    begun = arguments.first
    if begun is None:
        fresh = build_model(first, tokenizer.vocab_size, eos_token_id=tokenizer.eos_id)
        begun = finished(run_training(fresh, first, shards_folder, arguments, "run"))
    model, _ = load(begun)
    summary = run_training(with_new_layers(model, far), far, shards_folder, arguments, "far-run")
    print(summary)
    export(far, summary, shards_folder, arguments)


def finished(summary: TrainSummary) -> Path:
    """The folder of the trained model; leaves the program if the run was stopped early."""
    if summary.model_folder is None:
        raise SystemExit(f"The training run stopped early ({summary.status}); run again with --resume.")
    return summary.model_folder


def with_new_layers(model: LonglodeForCausalLM, recipe: Recipe) -> LonglodeForCausalLM:
    """A model by `recipe` that computes what `model` does, in float32.

    Layers of the mixers that `model` has take over its weights, in their order; all others must stand in blocks of the
    mixer alone, and begin with zeros in their linear maps, so that they add nothing yet.
    """
    grown = build_model(recipe, model.config.vocab_size, eos_token_id=model.config.eos_token_id)
    old = list(model.model.layers)
    names = {layer.name for layer in model.config.layer_configs}
    for layer, block in zip(grown.config.layer_configs, grown.model.layers, strict=True):
        if layer.name in names and old:
            block.load_state_dict(old.pop(0).state_dict())
        else:
            assert layer.block == "mixer", "a SwiGLU of random weights would not add nothing"
            for module in block.attn.modules():
                if isinstance(module, torch.nn.Linear):
                    torch.nn.init.zeros_(module.weight)
    assert not old, "the recipe leaves out layers of the model"
    for part in ("embeddings", "norm"):
        getattr(grown.model, part).load_state_dict(getattr(model.model, part).state_dict())
    return grown


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files, folders or globs of text")
    parser.add_argument("--work", type=Path, required=True, help="folder for tokenizer, shards and the run")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the finished model")
    parser.add_argument("--about", type=Path, help="text for the model card: what the corpus is, whose it is")
    parser.add_argument(
        "--shuffled-copies", type=int, default=1, help="of each document trained on, beside it"
    )
    parser.add_argument("--set", action="append", default=[], help="SECTION.KEY=VALUE, as in longlode train")
    parser.add_argument("--set-far", action="append", default=[], help="the same for the second stage")
    parser.add_argument("--first", type=Path, help="model of the first stage, which is then not trained")
    parser.add_argument("--resume", action="store_true", help="go on with a stopped training run")
    return parser.parse_args()


def training_texts(inputs: list[str], fraction: float) -> Iterator[str]:
    """Texts on the training side of the split."""
    for item in read(inputs):
        if isinstance(item, Document) and not in_heldout(item.id, fraction):
            yield item.text[:MAX_TOKENIZER_CHARS]


def with_shuffled_copies(
    items: Iterator[Document | Unreadable], copies: int, fraction: float
) -> Iterator[Document | Unreadable]:
    """Each document, and after it, on the training side, copies of its passages in random order, under the same id.

    A model reads pairs of segments that do not follow each other, and in running text the near past foretells what
    the far past could: the copies are where it learns to take from a passage what holds all through the document.
    """
    for item in items:
        yield item
        if isinstance(item, Document) and not in_heldout(item.id, fraction):
            for copy in range(copies):
                yield replace(item, text=shuffled_passages(item.text, random.Random(f"{item.id}/{copy}")))


def shuffled_passages(text: str, rng: random.Random) -> str:
    """The text in passages of about PASSAGE_CHARS characters, cut where a word ends, in random order."""
    passages: list[str] = []
    start = 0
    while start < len(text):
        end = min(start + PASSAGE_CHARS, len(text))
        while end < len(text) and not text[end].isspace():
            end += 1
        passages.append(text[start:end].strip())
        start = end
    rng.shuffle(passages)
    return "\n".join(passages)


def run_training(
    model: LonglodeForCausalLM,
    recipe: Recipe,
    shards_folder: Path,
    arguments: argparse.Namespace,
    name: str,
) -> TrainSummary:
    """Train on the training side, watching the loss on the held-out side; in the folder `name` of the work."""
    shards = open_shards(shards_folder)
    data, fraction = recipe.data, recipe.data.heldout_fraction

    def stream(split: str, start_step: int = 0) -> Iterator:
        return batches(
            shards,
            length=data.length,
            batch_size=data.batch_size,
            seed=recipe.run.seed,
            start_step=start_step,
            packed=data.packed,
            heldout_fraction=fraction,
            split=split,
        )

    def show(row: dict) -> None:
        if row["step"] % 10 == 0:
            print(
                f"step {row['step']:5d}  loss {row['loss']:.3f}  {row['tokens_per_second']:,.0f} tokens/s",
                flush=True,
            )

    run_folder = arguments.work / name
    return train(
        model,
        lambda step: stream("train", step),
        recipe,
        run_folder,
        data_fingerprint=shards.fingerprint,
        resume=arguments.resume and (run_folder / "record.json").is_file(),
        heldout=lambda: stream("heldout"),
        tokenizer_folder=arguments.first or arguments.work / "tokenizer",
        on_step=show,
    )


def export(recipe: Recipe, summary: TrainSummary, shards_folder: Path, arguments: argparse.Namespace) -> None:
    """Write the finished folder: bfloat16 weights, tokenizer, model card."""
    model, _ = load(finished(summary))
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    Tokenizer.load(arguments.first or arguments.work / "tokenizer").save(arguments.out)
    (arguments.out / "README.md").write_text(model_card(recipe, summary, shards_folder, arguments))
    print(
        f"The model is in {arguments.out}; use it with: longlode score INPUT -o OUT --model {arguments.out}"
    )


def stack_of(recipe: Recipe) -> str:
    """The stack of a recipe's model in a row."""
    return LonglodeConfig(**recipe.model.model_dump(exclude_none=True)).stack


def model_card(
    recipe: Recipe, summary: TrainSummary, shards_folder: Path, arguments: argparse.Namespace
) -> str:
    """What the model was trained on, how well it does, and what it is not good for."""
    first, fraction = Recipe.load(RECIPE, arguments.set), recipe.data.heldout_fraction
    rows = "\n".join(input_row(name, fraction) for name in arguments.inputs)
    about = arguments.about.read_text(encoding="utf-8").strip() if arguments.about else "Not described."
    num_tokens = read_record(shards_folder, "shards").get("num_tokens", "?")
    return CARD.format(
        mixers=stack_of(recipe),
        first_mixers=stack_of(first),
        first_steps=first.num_steps,
        first_tokens=f"{first.num_steps * first.data.batch_size * first.data.length:,}",
        first_length=first.data.length,
        hidden=recipe.model.hidden_size,
        heads=recipe.model.num_heads,
        vocab=VOCAB_SIZE,
        length=recipe.data.length,
        steps=summary.step,
        tokens=f"{summary.tokens:,}",
        loss=f"{summary.eval_loss:.3f}" if summary.eval_loss is not None else "not measured",
        hours=f"{summary.seconds / 3600:.1f}",
        fraction=fraction,
        rows=rows,
        about=about,
        corpus_tokens=f"{num_tokens:,}" if isinstance(num_tokens, int) else num_tokens,
        copies=COPIES.format(copies=arguments.shuffled_copies, chars=PASSAGE_CHARS),
    )


def input_row(name: str, fraction: float) -> str:
    """A line of the card's table: documents of one input on both sides of the split."""
    sides = Counter(in_heldout(item.id, fraction) for item in read([name]) if isinstance(item, Document))
    return f"| {Path(name).name} | {sides[False]} | {sides[True]} |"


COPIES = """Shuffled copies of each document, beside it: {copies} (its passages of about {chars} characters in random
order), so that the model learns to take from a passage what holds all through a document."""

CARD = """---
license: apache-2.0
tags: [longlode, deltanet]
---
# The starter model

A small DeltaNet language model with n-gram heads (stack `{mixers}`, width {hidden}, {heads} heads, {vocab} byte-level
BPE entries; bfloat16 weights) that `longlode score` uses when no other model is named. Made by
`recipes/make_starter.py` from `recipes/starter.toml` and `recipes/starter_far.toml`.

## What it was trained on

First the stack `{first_mixers}` of `starter.toml`: {first_steps} steps, {first_tokens} tokens in sequences of
{first_length}. Then, with the n-gram heads, {steps} steps, {tokens} tokens in sequences of {length}, {hours} hours
on one CPU thread. No document is cut shorter than a sequence. Loss on held-out documents: {loss} nats a token. The
corpus has {corpus_tokens} tokens, both sides of the split and the copies counted.
{copies}
Documents whose id hashes below {fraction} (`longlode.corpus.in_heldout`) were left out of the tokenizer and the
training; benchmarks score only those.

| input | documents trained on | left out |
|---|---|---|
{rows}

{about}

## What it is good for

Comparing documents of one corpus with each other: what `longlode score` does. It is fast and always there.
Its n-gram heads find what followed the last one to three tokens wherever they stood before, so it uses context of
thousands of tokens (docs/experiments/starter.md); their state grows with the text.

## What it is not good for

- Generating text, answering questions, or any judgement of content: it has read about as much as a child's bookshelf.
- Languages and kinds of text that are not in the table above: it reads them as bytes it hardly knows. Take another
  model (`--model FOLDER` or a hub id), or rerun the recipe on your text.
- Absolute statements: perplexities of this model are far above those of a model of useful size.
- It repeats the biases of its texts.
"""


if __name__ == "__main__":
    main()
