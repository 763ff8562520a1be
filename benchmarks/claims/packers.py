"""Claims: rows of whole documents by length (Dataset Decomposition) and of related documents (In-Context Pretraining).

python -m benchmarks.claims.packers --work DIR --texts FOLDER [--seeds 1] [--save]
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import longlode
from benchmarks.claims.frame import Claim, Finding, all_of, ordered, run
from benchmarks.claims.trained import cell
from benchmarks.mixers_accuracy import text_files
from longlode.core.records import read_json, write_json
from longlode.corpus import Tokenizer
from longlode.models import load, starter_folder
from longlode.train import Recipe

CLAIM = Claim(
    "packers",
    "Packers: documents by length, related documents, against plain concatenation",
    "Dataset Decomposition reaches the same loss 2 to 3 times as fast at 160M to 1.3B parameters and gains on long "
    "contexts (arXiv 2405.13226); In-Context Pretraining gains 8 % on in-context learning and 15 % on reading "
    "comprehension at 0.3B to 7B parameters, and lower loss on long documents (arXiv 2310.10638).",
    "Files cut into documents of 200 to 8,000 bytes, shuffled; two DeltaNet layers of width 128, 80 steps of 8 rows of "
    "512 tokens of the packaged tokenizer for each packer: `concat` (documents of a row see each other), `decompose`, "
    "`related`. Loss of held-out files, windows of 1,024 tokens, nats per token, over the first and the last quarter.",
    "330,000 tokens, a thousandth of a percent of the papers'. Cut files are related by the file they come from, more "
    "closely than pages of the web are.",
)
PACKERS = ("concat", "decompose", "related")
_WINDOW, _NUM_WINDOWS = 1024, 24
_QUARTERS = ("first", "last")


def heldout_and_rest(folder: Path) -> tuple[list[str], list[str]]:
    """Texts of every fifth file, and of the others."""
    texts = [one.decode("utf-8", errors="replace") for one in text_files(folder)]
    return texts[::5], [one for number, one in enumerate(texts) if number % 5]


def write_shards(texts: list[str], folder: Path) -> Path:
    """Cut the texts into documents of many lengths and pack them; what an earlier run packed stays."""
    shards = folder / "shards"
    if not (shards / "record.json").is_file():
        draw = random.Random(0)
        documents = []
        for text in texts:
            start = 0
            while start < min(len(text), 60_000):
                size = int(200 * 40 ** draw.random())
                documents.append(text[start : start + size])
                start += size
        draw.shuffle(documents)
        folder.mkdir(parents=True, exist_ok=True)
        lines = (json.dumps({"id": str(number), "text": text}) for number, text in enumerate(documents))
        (folder / "documents.jsonl").write_text("\n".join(lines), encoding="utf-8")
        longlode.pack(folder / "documents.jsonl", shards, length=512)
    return shards


def train(shards: Path, out: Path, packer: str, seed: int) -> Path:
    """Train with a packer, or go on where a run was stopped. Raises: SystemExit when it was interrupted."""
    recipe = {
        "model": {"mixers": "D*2", "hidden_size": 128, "num_heads": 2, "tie_word_embeddings": True},
        "data": {
            "shards": str(shards),
            "length": 512,
            "batch_size": 8,
            "packer": packer,
            "packed": packer == "decompose",
        },
        "optim": {"lr": 4e-3, "warmup_steps": 8},
        "run": {"steps": 80, "seed": seed, "device": "cpu", "threads": 1, "checkpoint_every": 40},
    }
    if not (out / "finished").is_file():
        summary = longlode.train(Recipe.parse(recipe), out, verify=False, resume=out.exists())
        if summary.status != "finished":
            raise SystemExit(f"{out.name}: {summary.status}; the same command goes on.")
        (out / "finished").touch()
    return out


def losses(model_folder: Path, texts: list[str]) -> dict[str, float]:
    """Mean nats per token over the first and the last quarter of windows of the texts."""
    model, _ = load(str(model_folder))
    tokenizer = Tokenizer.load(starter_folder())
    windows = []
    for text in texts:
        (ids,) = tokenizer.encode([text[: 8 * _WINDOW]])
        windows += [ids[: _WINDOW + 1]] if len(ids) > _WINDOW else []
    rows = torch.tensor(np.array(windows[:_NUM_WINDOWS], dtype=np.int64))
    quarter = _WINDOW // 4
    with torch.inference_mode():
        nats = torch.stack(
            [
                F.cross_entropy(model.float()(input_ids=row[None, :-1]).logits[0], row[1:], reduction="none")
                for row in rows
            ]
        )
    return {"first": float(nats[:, :quarter].mean()), "last": float(nats[:, -quarter:].mean())}


def find(options: argparse.Namespace) -> Finding:
    """Every packer and seed. Raises: SystemExit without --texts."""
    if options.texts is None:
        raise SystemExit("This claim needs --texts FOLDER, a folder of text files.")
    heldout, rest = heldout_and_rest(options.texts)
    folder = options.work / "packers"
    found: dict[str, list[dict[str, float]]] = {packer: [] for packer in PACKERS}
    for seed in range(options.seeds):
        for packer in PACKERS:
            record = folder / f"{packer}-{seed}.json"
            if not record.is_file() and not options.only_records:
                shards = write_shards(rest, folder)
                write_json(record, losses(train(shards, folder / f"{packer}-{seed}", packer, seed), heldout))
            if record.is_file():
                found[packer].append(read_json(record))
    by = {(packer, part): [one[part] for one in found[packer]] for packer in PACKERS for part in _QUARTERS}
    verdicts = {
        f"`{packer}` over `concat`, {part} quarter": ordered(
            [-one for one in by[packer, part]], [-one for one in by["concat", part]]
        )
        for packer in PACKERS[1:]
        for part in _QUARTERS
    }
    seen = "; ".join(f"{what}: {verdict}" for what, verdict in verdicts.items())
    rows = [[f"`{packer}`", *(cell(by[packer, part], 3) for part in _QUARTERS)] for packer in PACKERS]
    figures = {f"{packer} {part}": numbers for (packer, part), numbers in by.items()}
    heads = ("packer", "first quarter", "last quarter")
    return Finding(heads, rows, all_of(list(verdicts.values())), f"{seen}.", options.seeds, figures)


if __name__ == "__main__":
    run(CLAIM, find)
