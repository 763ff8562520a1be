"""Classes of texts and of tokens, on the backbone of a language model."""

import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from longlode.models import (
    LonglodeConfig,
    LonglodeForCausalLM,
    LonglodeForSequenceClassification,
    LonglodeForTokenClassification,
    load,
    starter_folder,
)

HEADS = {
    AutoModelForSequenceClassification: LonglodeForSequenceClassification,
    AutoModelForTokenClassification: LonglodeForTokenClassification,
}


def config(**fields):
    sizes = {"vocab_size": 40, "hidden_size": 24, "num_heads": 4, "intermediate_size": 48, "mixers": "DA"}
    return LonglodeConfig(**{**sizes, "pad_token_id": 0, "num_labels": 3, **fields})


def tokens(rows=2, length=9, seed=1):
    return torch.randint(1, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("auto", HEADS)
def test_a_head_on_a_language_models_backbone(auto, tmp_path):
    torch.manual_seed(0)
    language_model = LonglodeForCausalLM(config())
    language_model.save_pretrained(tmp_path / "lm")
    model, info = auto.from_pretrained(tmp_path / "lm", num_labels=5, output_loading_info=True)
    assert type(model) is HEADS[auto]
    assert {name.split(".")[0] for name in info["missing_keys"]} == {"score"}
    x, mask = tokens(), torch.ones(2, 9)
    x[0, 6:], mask[0, 6:] = 0, 0
    hidden = language_model.eval().model(x, attention_mask=mask).last_hidden_state
    want = model.eval().score(hidden)
    got = model(x, attention_mask=mask).logits
    if auto is AutoModelForSequenceClassification:
        want = want[torch.arange(2), torch.tensor([5, 8])]
    torch.testing.assert_close(got, want)
    model.save_pretrained(tmp_path / "head")
    torch.testing.assert_close(auto.from_pretrained(tmp_path / "head")(x, attention_mask=mask).logits, got)


@pytest.mark.parametrize("auto", HEADS)
def test_a_head_trains(auto, tmp_path):
    """The class is whether token 7 has been read: of the text, or at each token up to it."""
    torch.manual_seed(0)
    x = tokens(64)
    seen = (x == 7).cumsum(1) > 0
    x[::2, 4], seen = 7, (x == 7).cumsum(1) > 0
    labels = seen[:, -1].long() if auto is AutoModelForSequenceClassification else seen.long()
    rows = [{"input_ids": row, "labels": label} for row, label in zip(x, labels, strict=True)]
    model = auto.from_config(config(num_labels=2))
    options = {"per_device_train_batch_size": 16, "learning_rate": 1e-2, "max_steps": 30}
    arguments = TrainingArguments(
        tmp_path, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True, **options
    )
    trainer = Trainer(model, arguments, train_dataset=rows, eval_dataset=rows)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.5 * before


def test_a_pipeline_of_classes():
    model = AutoModelForSequenceClassification.from_pretrained(starter_folder(), num_labels=2)
    classify = pipeline("text-classification", model=model, tokenizer=load(starter_folder())[1])
    found = classify(["one text", "and another, which is longer"])
    assert {row["label"] for row in found} <= {"LABEL_0", "LABEL_1"}
