"""The model card beside a saved model: it says how to load it, and what it says works."""

import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard

from longlode.models import (
    LonglodeConfig,
    LonglodeForCausalLM,
    LonglodeForSequenceClassification,
    LonglodeModel,
    load,
    starter_folder,
)

CONFIG = {"vocab_size": 4096, "hidden_size": 16, "num_heads": 2, "mixers": "DS", "intermediate_size": 16}


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        (LonglodeForCausalLM, "text-generation"),
        (LonglodeForSequenceClassification, "text-classification"),
        (LonglodeModel, "feature-extraction"),
    ],
)
def test_the_card_says_how_to_load_and_its_code_runs(kind, task, tmp_path):
    torch.manual_seed(0)
    model = kind(LonglodeConfig(**CONFIG))
    model.save_pretrained(tmp_path)
    load(starter_folder())[1].save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.pipeline_tag) == ("transformers", task)
    assert "longlode" in card.data.tags
    assert f"{model.num_parameters():,} parameters" in card.text
    code = card.text.split("```python\n")[1].split("```")[0].replace('"PATH"', repr(str(tmp_path)))
    code += "print(type(model).__name__, len(tokenizer('a word').input_ids) > 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [kind.__name__, "True"]


def test_a_card_of_the_users_is_kept(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    LonglodeForCausalLM(LonglodeConfig(**CONFIG)).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_only_the_main_process_writes(tmp_path):
    LonglodeForCausalLM(LonglodeConfig(**CONFIG)).save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / "README.md").exists()
