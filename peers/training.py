"""transformers' Trainer on a tiny model and texts made on the spot, and what a run logged."""

from pathlib import Path
from typing import Any

from transformers import DataCollatorForLanguageModeling, PreTrainedModel, Trainer, TrainingArguments

from peers import tiny


def rows(num: int = 24, *, seed: int = 0) -> list[dict[str, list[int]]]:
    """Tokenised texts of several lengths."""
    words = tiny.tokenizer()
    return [{"input_ids": words(text)["input_ids"]} for text in tiny.texts(num, seed=seed)]


def trainer(
    model: PreTrainedModel, out: str | Path, *, data_collator: Any = None, **settings: Any
) -> Trainer:
    """A Trainer of three steps of four texts; padded rows unless `data_collator` says otherwise."""
    defaults = {
        "max_steps": 3,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "report_to": "none",
        "use_cpu": True,
        "save_strategy": "no",
    }
    return Trainer(
        model=model,
        args=TrainingArguments(output_dir=str(out), **{**defaults, **settings}),
        train_dataset=rows(),
        eval_dataset=rows(8, seed=9),
        data_collator=data_collator or DataCollatorForLanguageModeling(tiny.tokenizer(), mlm=False),
    )


def logged(run: Trainer) -> list[list[float]]:
    """Train; return `[loss, gradient norm]` of every step."""
    run.train()
    return [
        [entry["loss"], float(entry["grad_norm"])] for entry in run.state.log_history if "grad_norm" in entry
    ]
