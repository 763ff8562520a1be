"""Packed chats under `next_token`: the loss of a step is that of the answers, and of nothing else."""

import json
import random

import pytest
import torch
from document_words import WORDS
from safetensors.torch import load_file

import longlode
from longlode.core.records import read_jsonl
from longlode.packing import open_shards
from longlode.train import Recipe, build_model

TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Chats of one to three questions, of fresh random words."""
    folder, rng = tmp_path_factory.mktemp("chats"), random.Random()
    rows = []
    for number in range(12):
        messages = [
            {"role": role, "content": " ".join(rng.choices(WORDS, k=rng.randrange(1, 9)))}
            for role in ("user", "assistant") * rng.randrange(1, 4)
        ]
        rows.append(json.dumps({"id": f"c{number}", "messages": messages}))
    (folder / "chats.jsonl").write_text("\n".join(rows))
    (folder / "template.jinja").write_text(TEMPLATE)
    how = {"chat": "messages", "chat_template": folder / "template.jinja"}
    longlode.pack(folder / "chats.jsonl", folder / "shards", length=64, **how)
    return folder


def losses_by_loops(model, shards):
    """Per chat the nats of each token that has a loss, and those of the others; each chat read alone, in float64."""
    answers, others = [], []
    for number in range(shards.num_documents):
        ids = torch.from_numpy(shards.tokens(number).astype("int64"))
        logits = model(input_ids=ids[None]).logits[0].detach()
        kinds = ([], [])
        for t in range(1, len(ids)):
            nats = float(torch.logsumexp(logits[t - 1], 0) - logits[t - 1, ids[t]])
            kinds[not shards.has_loss(number)[t]].append(nats)
        answers.append(kinds[0])
        others.append(kinds[1])
    return answers, others


@pytest.mark.parametrize("packer", ["best_fit", "masked"])
def test_a_step_minimises_the_answers_alone(folder, tmp_path, packer):
    shards = open_shards(folder / "shards")
    recipe = {
        "model": {"mixers": "DA", "hidden_size": 16, "num_heads": 2, "initializer_range": 0.3},
        "data": {
            "shards": str(folder / "shards"),
            "length": shards.num_tokens,
            "batch_size": 1,
            "packer": packer,
        },
        "optim": {"lr": 0.05, "warmup_steps": 0, "schedule": "constant", "weight_decay": 0.0},
        "run": {"steps": 3, "device": "cpu", "threads": 1, "checkpoint_every": 1, "keep": 3},
    }
    longlode.train(Recipe.parse(recipe), tmp_path / "run")
    logged = [row["loss"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    # The second step's loss is of the weights after the first.
    model = build_model(Recipe.parse(recipe), shards.vocab_size, eos_token_id=shards.eos_id)
    saved = load_file(tmp_path / "run" / "checkpoints" / "step-00000001" / "model.safetensors")
    model.load_state_dict(saved, strict=False)
    answers, others = losses_by_loops(model.double(), shards)
    if packer == "masked":  # every chat counts the same
        expected = sum(sum(nats) / len(nats) for nats in answers) / len(answers)
    else:
        expected = sum(map(sum, answers)) / sum(map(len, answers))
    assert logged[1] == pytest.approx(expected, rel=1e-5)
    everything = (sum(map(sum, answers)) + sum(map(sum, others))) / sum(map(len, answers + others))
    assert everything != pytest.approx(expected, rel=2e-5)
    assert logged[2] < logged[0]
