"""TRL's SFTTrainer by its defaults, first thing in a process: `python -m peers.fresh.sft_defaults FOLDER OUT`."""

import json
import sys

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from peers import tiny


def main(folder: str, out: str) -> None:
    """Three steps on texts, the model given by its path; only the output, the steps and the device are set."""
    rows = Dataset.from_dict({"text": tiny.texts(24)})
    settings = SFTConfig(
        output_dir=out, max_steps=3, logging_steps=1, report_to="none", use_cpu=True, bf16=False
    )
    trainer = SFTTrainer(model=folder, args=settings, train_dataset=rows)
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    print(
        json.dumps(
            {
                "checkpointing": settings.gradient_checkpointing,
                "losses": [entry["loss"] for entry in logged],
                "gradient_norms": [float(entry["grad_norm"]) for entry in logged],
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
