"""Ten steps are five, a kill and five more, bit for bit, through every packer, mixed and not."""

import json

import numpy as np
import pytest
import torch
from document_words import WORDS
from safetensors.torch import load_file

import longlode
from longlode.core.records import read_jsonl
from longlode.packing import open_shards
from longlode.packing.packers import PACKERS
from longlode.train import Recipe

OPTIONS = {"decompose": {"min_length": 4}, "landmark": {"token": 7, "block_size": 8}}


class Killed(BaseException):
    """Stands for kill -9: nothing that follows in the process runs."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """So few documents that an epoch ends within ten steps."""
    folder, rng = tmp_path_factory.mktemp("packers"), np.random.default_rng()
    rows = [
        {
            "id": str(number),
            "source": "ab"[number % 2],
            "text": " ".join(rng.choice(WORDS, rng.integers(4, 40))),
        }
        for number in range(10)
    ]
    (folder / "docs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    longlode.pack(folder / "docs.jsonl", folder / "shards", length=32)
    assert open_shards(folder / "shards").num_tokens < 8 * 4 * 32
    return folder / "shards"


def recipe(shards, packer, mix):
    data = {"shards": str(shards), "length": 32, "batch_size": 4, "packer": packer, "mix": mix}
    data |= {"packed": packer != "related", "packer_options": OPTIONS.get(packer, {})}
    return Recipe.parse(
        {
            "model": {"mixers": "D", "hidden_size": 16, "num_heads": 2, "intermediate_size": 32},
            "data": data,
            "optim": {"lr": 0.01},
            "run": {"steps": 10, "device": "cpu", "threads": 1, "checkpoint_every": 5},
        }
    )


def result(folder):
    rows = [(row["step"], row["tokens"], row["loss"]) for row in read_jsonl(folder / "metrics.jsonl")]
    moments = folder / "checkpoints" / "step-00000010" / "optim.safetensors"
    return rows, load_file(folder / "model" / "model.safetensors") | load_file(moments)


@pytest.mark.parametrize(
    ("packer", "mix"),
    [*((name, None) for name in sorted(PACKERS.names())), ("best_fit", "a=1,b=2"), ("decompose", "a=1,b=2")],
)
def test_ten_steps_are_five_a_kill_and_five(shards, tmp_path, packer, mix):
    def kill(row):
        if row["step"] == 7:
            raise Killed

    chosen = recipe(shards, packer, mix)
    longlode.train(chosen, tmp_path / "straight")
    with pytest.raises(Killed):
        longlode.train(chosen, tmp_path / "broken", on_step=kill)
    assert longlode.train(None, tmp_path / "broken", resume=True).resumed_from == 5
    (rows, tensors), (again, restored) = result(tmp_path / "straight"), result(tmp_path / "broken")
    assert again == rows
    assert [step for step, *_ in rows] == list(range(1, 11))
    assert restored.keys() == tensors.keys()
    assert all(torch.equal(tensor, restored[name]) for name, tensor in tensors.items())
