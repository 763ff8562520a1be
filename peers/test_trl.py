"""TRL: supervised fine-tuning by its defaults, packed, padding-free, wrapped, by path, with LoRA; DPO; GRPO."""

import math

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from peers import tiny
from peers.processes import fresh

PACKAGES = ("trl", "peft", "accelerate", "datasets", "transformers")
SHORT = {
    "max_steps": 3,
    "logging_steps": 1,
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "save_strategy": "no",
}


def texts():
    return Dataset.from_dict({"text": tiny.texts(24)})


def losses(trainer):
    """The losses of a run, which have to be numbers."""
    trainer.train()
    found = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(found) == 3
    assert all(math.isfinite(loss) for loss in found)
    return found


def supervised(out, *, model=None, dataset=None, peft_config=None, **settings):
    return SFTTrainer(
        model=model or tiny.model(),
        args=SFTConfig(output_dir=str(out), **{**SHORT, "learning_rate": 1e-2, **settings}),
        train_dataset=dataset or texts(),
        processing_class=tiny.tokenizer(),
        peft_config=peft_config,
    )


def test_the_defaults_in_a_fresh_process(model_folder, tmp_path):
    result = fresh("sft_defaults", model_folder, tmp_path)
    assert result["checkpointing"], "TRL's default; what makes this test worth its time"
    assert len(result["losses"]) == 3
    assert all(0 < value < 10 for value in result["losses"])
    assert all(0 < value < 1e3 for value in result["gradient_norms"])


@pytest.mark.parametrize(
    "settings",
    [
        {"packing": True, "packing_strategy": "bfd", "max_length": 256},
        {"packing": True, "packing_strategy": "wrapped", "max_length": 256},
        {"padding_free": True, "max_length": None},
        {"padding_free": True, "max_length": None, "loss_type": "chunked_nll"},
        {"assistant_only_loss": False, "completion_only_loss": False, "bf16": True},
        {"gradient_checkpointing": False, "neftune_noise_alpha": 5},
    ],
    ids=["bfd", "wrapped", "padding_free", "chunked_nll", "bf16", "neftune"],
)
@pytest.mark.parametrize("mixers", ["DS", "GA"])
def test_supervised_fine_tuning_learns(mixers, settings, tmp_path):
    found = losses(supervised(tmp_path, model=tiny.model(mixers), **settings))
    assert found[-1] < found[0]


@pytest.mark.parametrize("mixers", ["DS", "GA", "ML"])
def test_padding_free_is_padded(mixers, tmp_path):
    found = [
        losses(
            supervised(
                tmp_path, model=tiny.model(mixers), padding_free=flat, max_length=None, learning_rate=1e-3
            )
        )
        for flat in (True, False)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_packed_documents_stay_apart(tmp_path):
    """A packed row has the loss of its documents, each by itself."""
    documents = tiny.texts(3)
    rows = Dataset.from_dict({"text": documents})
    packed = supervised(
        tmp_path,
        dataset=rows,
        packing=True,
        packing_strategy="bfd",
        max_length=2048,
        max_steps=1,
        learning_rate=0.0,
        per_device_train_batch_size=1,
    )
    packed.train()
    model, words = tiny.model(), tiny.tokenizer()
    total, count = 0.0, 0
    for document in documents:
        ids = torch.tensor([[*words(document)["input_ids"], words.eos_token_id]])
        with torch.no_grad():
            total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    (logged,) = [entry["loss"] for entry in packed.state.log_history if "loss" in entry]
    assert logged == pytest.approx(total / count, abs=1e-3)


def test_by_path_with_lora(model_folder, tmp_path):
    trainer = supervised(
        tmp_path,
        model=str(model_folder),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"),
    )
    found = losses(trainer)
    assert found[-1] < found[0]
    trainer.save_model(str(tmp_path / "adapter"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_prompt_and_completion_with_evaluation(tmp_path):
    rows = [text.split(" ", 3) for text in tiny.texts(24)]
    dataset = Dataset.from_dict(
        {"prompt": [" ".join(row[:3]) for row in rows], "completion": [" " + row[3] for row in rows]}
    )
    trainer = supervised(tmp_path, dataset=dataset)
    trainer.eval_dataset = trainer.train_dataset
    before = trainer.evaluate()["eval_loss"]
    losses(trainer)
    assert trainer.evaluate()["eval_loss"] < before


def preferences():
    good, bad = tiny.texts(16, seed=1), tiny.texts(16, seed=2)
    prompts = tiny.sentences(16)
    return Dataset.from_dict(
        {
            "prompt": prompts,
            "chosen": [f" {text}" for text in good],
            "rejected": [" " + text[::-1] for text in bad],
        }
    )


@pytest.mark.parametrize("by", ["path", "model", "lora"])
def test_direct_preference_optimisation(by, model_folder, tmp_path):
    model = str(model_folder) if by == "path" else AutoModelForCausalLM.from_pretrained(model_folder)
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(tmp_path), **SHORT, learning_rate=1e-2),
        train_dataset=preferences(),
        processing_class=tiny.tokenizer(),
        peft_config=LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear") if by == "lora" else None,
    )
    found = losses(trainer)
    assert found[0] == pytest.approx(math.log(2), abs=1e-3), "policy and reference are one model at first"
    assert found[-1] < found[0]


def test_group_relative_policy_optimisation(tmp_path):
    trainer = GRPOTrainer(
        model=tiny.model(),
        reward_funcs=lambda completions, **_: [float(text.count("e")) for text in completions],
        args=GRPOConfig(
            output_dir=str(tmp_path),
            **SHORT,
            per_device_train_batch_size=4,
            num_generations=4,
            max_completion_length=8,
        ),
        train_dataset=Dataset.from_dict({"prompt": tiny.sentences(8)}),
        processing_class=tiny.tokenizer(),
    )
    trainer.train()
    assert trainer.state.global_step == 3
