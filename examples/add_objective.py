"""Add a training objective of your own: cross entropy with smoothed labels.

To use it in a recipe, put the class into a module that Python can import and name it there:

    [optim]
    objective = "my_module:SmoothedLabels"
    objective_options = { share = 0.1 }
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional
from transformers import PreTrainedModel

from longlode.core.batch import Batch
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.train import Recipe, train
from longlode.train.objectives import OBJECTIVES, Losses, Objective


@OBJECTIVES.register
@dataclass(frozen=True, kw_only=True)
class SmoothedLabels(Objective):
    """Cross entropy against targets that leave `share` of the probability to all tokens alike."""

    name = "smoothed_labels"
    share: float = 0.1

    def weight(self, batch: Batch) -> float:
        """Divide the sum of losses by the number of labels."""
        return batch.num_tokens

    def losses(self, model: PreTrainedModel, batch: Batch) -> Losses:
        """Sum the losses of a part of the batch, and log the plain loss beside it."""
        device = next(model.parameters()).device
        tokens, labels = (torch.from_numpy(part).to(device) for part in (batch.tokens, batch.labels))
        more = {}
        if batch.cu_seqlens is not None:
            more["cu_seqlens"] = torch.from_numpy(batch.cu_seqlens).to(device)
        logits = model(input_ids=tokens, **more).logits.flatten(0, 1).float()
        smoothed = functional.cross_entropy(
            logits, labels.flatten(), reduction="sum", ignore_index=-100, label_smoothing=self.share
        )
        plain = functional.cross_entropy(logits.detach(), labels.flatten(), ignore_index=-100)
        return Losses(smoothed, {"plain_loss": plain})


def batches(step: int) -> Iterator[Batch]:
    """Yield batches from `step` on: rows that say the same 16 tokens four times."""
    while True:
        rng = np.random.default_rng(step)
        tokens = np.tile(rng.integers(0, 64, (4, 16)), 4).astype(np.int64)
        labels = np.full_like(tokens, -100)
        labels[:, :-1] = tokens[:, 1:]
        yield Batch(tokens, labels)
        step += 1


if __name__ == "__main__":
    recipe = Recipe.model_validate(
        {
            "model": {"mixers": "D*2", "hidden_size": 64, "num_heads": 2},
            "data": {"length": 64, "batch_size": 4},
            "optim": {"objective": "smoothed_labels", "objective_options": {"share": 0.1}, "lr": 4e-3},
            "run": {"steps": 20, "device": "cpu"},
        }
    )
    config = LonglodeConfig(mixers="D*2", hidden_size=64, num_heads=2, vocab_size=64)
    summary = train(LonglodeForCausalLM(config), batches, recipe, "run", data_fingerprint="repeated rows")
    print(summary)
