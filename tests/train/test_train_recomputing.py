"""Gradient checkpointing by the recipe: blocks are read twice, and every weight is that of a run without it."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longlode.core.errors import ConfigError
from longlode.core.records import read_jsonl
from longlode.train import train

ON = "run.gradient_checkpointing=true"


def llama():
    """A tiny model of transformers' own."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=24, **sizes, initializer_range=0.2))


def ran(tiny, folder, kind, *overrides, resume=False, packed=True):
    """Train; return the model and how often its first block was read in the last step."""
    recipe = tiny.recipe("run.steps=4", "optim.schedule=constant", *overrides, mixers="DA")
    model = llama() if kind == "llama" else tiny.model(recipe)
    layers, calls = model.model.layers, []
    layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(model.training))
    steps = []

    def on_step(row):
        steps.append(sum(calls))
        calls.clear()

    batches = tiny.packed_batches if packed else tiny.batches
    how = {"data_fingerprint": "d", "resume": resume, "heldout": tiny.heldout, "on_step": on_step}
    train(model, batches, recipe, folder, **how)
    return model, steps[-1]


@pytest.mark.parametrize("kind", ["ours", "llama"])
def test_nothing_changes_but_the_memory(tiny, tmp_path, kind):
    plain, once = ran(tiny, tmp_path / "plain", kind)
    spared, twice = ran(tiny, tmp_path / "spared", kind, ON)
    assert (once, twice) == (1, 2)
    assert not spared.is_gradient_checkpointing
    ran(tiny, tmp_path / "changed", kind, "run.steps=2")
    changed, _ = ran(tiny, tmp_path / "changed", kind, ON, resume=True)
    for name, tensor in plain.state_dict().items():
        assert torch.equal(tensor, spared.state_dict()[name]), name
        assert torch.equal(tensor, changed.state_dict()[name]), name
    losses = [
        [row["loss"] for row in read_jsonl(tmp_path / name / "metrics.jsonl") if "loss" in row]
        for name in ("plain", "spared")
    ]
    assert losses[0] == losses[1]


def test_a_model_that_cannot_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="LlamaForCausalLM"):
        ran(tiny, tmp_path / "run", "llama", ON)
