"""Distillation of a transformer into convolved, normalised gated linear attention: losses before and after each stage.

    python -m benchmarks.linearise --work DIR --texts FILE [FILE ...] [--teacher-steps 200] [--steps 150] [--save]

After LAWCAT (arXiv 2509.18467), with `recipes/linearise.toml` at small size: a teacher of two attention layers is
trained on rows of 256 tokens; its student is measured as it begins, after the stage `layers`, and after the stage
`predictions`. Beside it a copy of the student at its beginning is trained on the next token for as many steps in all.
Losses are nats per token of the first text, which no run reads, at the length of the training and at four times that.
Runs in DIR that are finished are not made again, others go on.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.saved import about, save
from longlode.api.training import train_run
from longlode.core.records import read_record
from longlode.models.load import load, load_model
from longlode.models.student import student_of
from longlode.packing.by_name import pack
from longlode.train import Recipe
from recipes.scaled_down import scaled_down

_LENGTH = 256
_TOKENS_PER_STEP = 2048
_WINDOWS = 24
_CHARACTERS = 4000
_MODEL = {
    "mixers": "AA",
    "hidden_size": 64,
    "num_heads": 2,
    "intermediate_size": 128,
    "tie_word_embeddings": True,
}


def trained(recipe: Recipe, folder: Path) -> Path:
    """Run a recipe in `folder`, or go on with it, or leave it as it is when it is finished; its model."""
    done = (folder / "record.json").is_file() and read_record(folder, "run")["status"] == "finished"
    if not done:
        train_run(recipe, folder, resume=folder.is_dir() and any(folder.iterdir()), say=print)
    return folder / "model"


def plain(steps: int, shards: Path, *, seed_model: Path | None = None) -> Recipe:
    """Training on the next token: of a new teacher, or of a model to start from."""
    tree: dict[str, Any] = {
        "data": {
            "shards": str(shards),
            "length": _LENGTH,
            "batch_size": _TOKENS_PER_STEP // _LENGTH,
            "heldout_fraction": 0.1,
        },
        "optim": {"lr": 3e-3, "warmup_steps": 10},
        "run": {"steps": steps, "checkpoint_every": 50, "threads": 1, "device": "cpu"},
    }
    if seed_model is None:
        tree["model"] = _MODEL
    else:
        tree["run"]["start"] = str(seed_model)
    return Recipe.parse(tree)


def distilling(steps: int, shards: Path, teacher: Path, student: Path) -> Recipe:
    """The recipe's two stages at small size, a third of the steps for the first."""
    recipe = scaled_down(
        "linearise",
        str(shards),
        divide=1024 // _LENGTH,
        tokens_per_step=_TOKENS_PER_STEP,
        steps=steps,
        start=str(student),
        teacher=str(teacher),
        lr=3e-3,
    )
    tree = recipe.resolved()
    tree["run"]["checkpoint_every"] = 50
    return Recipe.parse(tree)


def heldout_loss(model: Any, windows: torch.Tensor) -> float:
    """Nats per token of windows `[N, T + 1]`."""
    model.eval()
    nats = 0.0
    with torch.inference_mode():
        for row in windows.split(4):
            logits = model(row[:, :-1], use_cache=False).logits.float()
            nats += float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), row[:, 1:].flatten(), reduction="sum")
            )
    return nats / (windows.numel() - len(windows))


def heldout_windows(texts: list[Path], tokenizer: Any, length: int) -> torch.Tensor:
    """Windows `[N, length + 1]` spread over texts that no run has read."""
    ids = [token for path in texts for token in tokenizer(path.read_text(encoding="utf-8"))["input_ids"]]
    stride = max(1, (len(ids) - length - 1) // (_WINDOWS - 1))
    return torch.tensor([ids[k * stride : k * stride + length + 1] for k in range(_WINDOWS)])


def _documents(texts: list[Path], path: Path) -> Path:
    """Write the texts as documents of 4,000 characters, so that a share of them can be held out."""
    with path.open("w", encoding="utf-8") as file:
        for source in texts:
            text = source.read_text(encoding="utf-8")
            for number, start in enumerate(range(0, len(text), _CHARACTERS)):
                part = text[start : start + _CHARACTERS]
                file.write(json.dumps({"id": f"{source.stem}-{number}", "text": part}) + "\n")
    return path


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per model: what it is, and its held-out losses by length."""
    work, (heldout, *texts) = options.work, options.texts
    shards = work / "shards"
    if not shards.is_dir():
        pack(_documents(texts, work / "documents.jsonl"), shards, length=_LENGTH)
    teacher = trained(plain(options.teacher_steps, shards), work / "teacher")
    start = work / "student"
    if not (start / "config.json").is_file():
        student_of(load_model(str(teacher))).save_pretrained(start)
        load(str(teacher))[1].save_pretrained(start)
    whole = distilling(options.steps, shards, teacher, start)
    first = Recipe.parse(whole.resolved() | {"stages": whole.resolved()["stages"][:1]})
    models = {
        "teacher": teacher,
        "student, not trained": start,
        "after the stage layers": trained(first, work / "layers"),
        "after the stage predictions": trained(whole, work / "predictions"),
        "student, next token alone": trained(plain(options.steps, shards, seed_model=start), work / "alone"),
    }
    tokenizer = load(str(teacher))[1]
    rows = []
    for name, folder in models.items():
        model = load_model(str(folder))
        losses = {
            length: heldout_loss(model, heldout_windows([heldout], tokenizer, length))
            for length in (_LENGTH, 4 * _LENGTH)
        }
        rows.append({"model": name, "losses": losses})
        print(name, losses, flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs="+", required=True, help="the first is held out")
    parser.add_argument("--teacher-steps", type=int, default=200)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--save", action="store_true")
    options = parser.parse_args()
    if len(options.texts) < 2:
        parser.error("--texts needs two files or more; the first is held out")
    torch.set_num_threads(1)
    options.work.mkdir(parents=True, exist_ok=True)
    rows = measure(options)
    heads = " | ".join(f"{length:,} tokens" for length in rows[0]["losses"])
    lines = [f"| model | {heads} |", "|---|---|---|"]
    lines += [
        f"| {row['model']} | " + " | ".join(f"{loss:.3f}" for loss in row["losses"].values()) + " |"
        for row in rows
    ]
    text = "\n".join(lines)
    print(text)
    if options.save:
        result = {**about("linearise"), "rows": rows}
        head = "# A transformer made linear: held-out loss in nats per token, by the length of the text\n\n"
        head += (
            f"{options.teacher_steps} steps of the teacher, {options.steps} of the student, {_TOKENS_PER_STEP:,} tokens"
            f" each, on rows of {_LENGTH}.\n\n`{result['command']}`, {result['machine']}.\n\n"
        )
        save("linearise", result, head + text)


if __name__ == "__main__":
    main()
