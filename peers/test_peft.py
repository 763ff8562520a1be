"""PEFT: LoRA on every projection and on the head, DoRA, modules to save, saving, loading, merging."""

import copy

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model

from peers import tiny
from peers.processes import fresh

PACKAGES = ("peft", "transformers")
STACKS = ["DS", "GA", "CL", "MD"]
KINDS = {
    "projections": {"target_modules": ["q_proj", "v_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "head": {"target_modules": ["o_proj", "lm_head"]},
    "dora": {"target_modules": "all-linear", "use_dora": True},
    "modules_to_save": {"target_modules": ["o_proj"], "modules_to_save": ["lm_head"]},
}
# M has no q_proj; its in-projection is one matrix.
CASES = [(mixers, kind) for mixers in STACKS for kind in KINDS if (mixers, kind) != ("MD", "projections")]


def adapted(mixers, kind):
    """A tiny model with an adapter that is trained for three steps, and the losses of those steps."""
    torch.manual_seed(0)
    model = get_peft_model(tiny.model(mixers), LoraConfig(task_type="CAUSAL_LM", r=4, **KINDS[kind])).train()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    losses = []
    for _ in range(3):
        loss = model(input_ids=tiny.token_rows(), labels=tiny.token_rows()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=tiny.token_rows()).logits


@pytest.mark.parametrize(("mixers", "kind"), CASES)
def test_every_adapter_learns(mixers, kind):
    model, losses = adapted(mixers, kind)
    assert losses[0] > losses[1] > losses[2]
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize(("mixers", "kind"), CASES)
def test_the_loss_is_that_of_the_logits(mixers, kind):
    """An adapter on the head must be in the loss: the block-wise loss may not go past the wrapped module."""
    model, _ = adapted(mixers, kind)
    ids = tiny.token_rows()
    expected = torch.nn.functional.cross_entropy(logits(model)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    with torch.no_grad():
        in_eval = model.eval()(input_ids=ids, labels=ids).loss
        in_training = model.train()(input_ids=ids, labels=ids).loss
    torch.testing.assert_close(in_eval, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(in_training, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("mixers", "kind"), CASES)
def test_saved_loaded_and_merged(mixers, kind, tmp_path):
    model, _ = adapted(mixers, kind)
    wanted = logits(model)
    assert not torch.allclose(wanted, logits(tiny.model(mixers))), "three steps change the answers"
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(tiny.model(mixers), tmp_path)
    assert torch.equal(logits(again), wanted)
    merged = copy.deepcopy(again).merge_and_unload()
    torch.testing.assert_close(logits(merged), wanted, rtol=1e-4, atol=1e-5)
    with again.disable_adapter():
        torch.testing.assert_close(logits(again), logits(tiny.model(mixers)), rtol=1e-5, atol=1e-6)


def test_loading_by_path_and_generating(tmp_path):
    base = tiny.folder(tmp_path / "base")
    model = get_peft_model(
        type(tiny.model()).from_pretrained(base),
        LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"),
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_pretrained(tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert torch.equal(logits(again), logits(model))
    settings = {"input_ids": tiny.token_rows(), "max_new_tokens": 8, "do_sample": False, "pad_token_id": 1}
    assert torch.equal(again.generate(**settings), model.generate(**settings))


@pytest.mark.parametrize("mixers", ["D", "GA"])
def test_gradient_checkpointing_in_a_fresh_process(mixers):
    result = fresh("lora_checkpointed", mixers)
    assert result["losses"][0] > result["losses"][-1]
    assert result["untrained"] == []
    assert result["difference_of_gradients"] < 1e-5
