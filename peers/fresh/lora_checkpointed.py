"""The first step of a process is a checkpointed one, under LoRA: `python -m peers.fresh.lora_checkpointed MIXERS`."""

import json
import sys

import torch
from peft import LoraConfig, get_peft_model

from peers import tiny


def main(mixers: str) -> None:
    """Train three steps with gradient checkpointing, then compare one step's gradients with plain ones."""
    torch.manual_seed(0)
    lora = LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear")
    model = get_peft_model(tiny.model(mixers), lora).train()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable()
    trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=0.02)
    ids = tiny.token_rows(2, 70)

    def gradients() -> tuple[float, list[torch.Tensor | None]]:
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        return loss.item(), [weight.grad for weight in trained.values()]

    losses = []
    for _ in range(3):
        losses.append(gradients()[0])
        optimizer.step()
    _, checkpointed = gradients()
    model.gradient_checkpointing_disable()
    _, plain = gradients()
    pairs = zip(checkpointed, plain, strict=True)
    result = {
        "losses": losses,
        "untrained": [name for name, grad in zip(trained, checkpointed, strict=True) if grad is None],
        "difference_of_gradients": max(float((a - b).abs().max()) for a, b in pairs),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1])
