"""Golden models: tiny stacks, what they lose on fixed tokens, and how four steps of the trainer change that."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from longlode.core.batch import Batch
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.train import Recipe, train

VOCAB_SIZE = 24
ROWS, LENGTH = 4, 20
STEPS = 4
EDGES = (0, 9, 13, 40, ROWS * LENGTH)
"""Where the documents of a packed row begin; one is shorter than the short convolution and the window."""

_SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 32,
    "window": 8,
    "initializer_range": 0.2,  # with the usual 0.02 a loss hardly depends on what the mixers do
}
CASES: dict[str, dict[str, Any]] = {
    **{stack: {"mixers": stack} for stack in ("D", "G", "S", "A", "L", "C", "M", "DS", "GA", "DAD")},
    "D expand_v": {"mixers": "D*2", "expand_v": 2.0},
    "D negative eigenvalues": {"mixers": "D*2", "allow_neg_eigval": True},
    "D gate": {"mixers": "D*2", "use_output_gate": True, "conv_size": 3},
    "D tied": {"mixers": "D*2", "tie_word_embeddings": True},
    "G expand_v": {"mixers": "G*2", "expand_v": 1.5},
    "G all": {"mixers": "G*2", "allow_neg_eigval": True, "use_output_gate": True, "expand_v": 2.0},
    "A grouped": {"mixers": "A*2", "num_kv_heads": 1, "qkv_bias": True},
    "A own heads": {"mixers": "A*2", "attn_num_heads": 4, "num_kv_heads": 2, "rope_theta": 500.0},
    "S own heads": {"mixers": "S*2", "attn_num_heads": 4, "attn_head_dim": 6, "window": 3},
    "L wide": {"mixers": "L*2", "head_dim": 12},
    "C wide": {"mixers": "C*2", "head_dim": 12},
    "M wide": {"mixers": "M*2", "head_dim": 12, "conv_size": 3},
    "DS tied": {"mixers": "DS*2", "tie_word_embeddings": True, "expand_v": 2.0, "num_kv_heads": 1},
    "DAD all": {
        "mixers": "DAD",
        "attn_num_heads": 4,
        "num_kv_heads": 2,
        "qkv_bias": True,
        "allow_neg_eigval": True,
        "use_output_gate": True,
    },
}
"""Settings of `LonglodeConfig` by the name of the case."""

CHECKPOINTS = {
    "delta-window": {"mixers": "DS", "expand_v": 2.0, "use_output_gate": True, "num_kv_heads": 1},
    "gated-attention": {"mixers": "GA", "attn_num_heads": 4, "qkv_bias": True, "allow_neg_eigval": True},
    "compared": {"mixers": "LCM", "tie_word_embeddings": True},
}
"""Stacks of which a whole saved folder is kept."""


def _numbers(seed: int) -> Iterator[int]:
    """Pseudo-random 31-bit numbers by a linear congruence, so that no library's generator is part of the golden."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 33


def batch(step: int, packed: bool) -> Batch:
    """The batch of a step: four in five tokens follow from the one before; some labels are left out."""
    draw = _numbers(1000 + step)
    tokens = np.zeros((ROWS, LENGTH + 1), dtype=np.int64)
    for row in tokens:
        row[0] = next(draw) % VOCAB_SIZE
        for t in range(LENGTH):
            row[t + 1] = (5 * row[t] + 1) % VOCAB_SIZE if next(draw) % 5 else next(draw) % VOCAB_SIZE
    labels = tokens[:, 1:].copy()
    labels[0, : LENGTH // 2 + step % 3] = -100
    if not packed:
        return Batch(tokens[:, :-1].copy(), labels)
    labels = labels.reshape(1, -1)
    edges = np.array(EDGES, dtype=np.int32)
    labels[0, edges[1:] - 1] = -100
    return Batch(tokens[:, :-1].reshape(1, -1).copy(), labels, edges)


def config(case: dict[str, Any]) -> LonglodeConfig:
    """The configuration of a case."""
    return LonglodeConfig(**(_SIZES | case))


def model(case: dict[str, Any]) -> LonglodeForCausalLM:
    """The model of a case with weights drawn from seed 0."""
    torch.manual_seed(0)
    return LonglodeForCausalLM(config(case))


def saved_config(case: dict[str, Any]) -> dict[str, Any]:
    """What config.json of a saved model of the case holds."""
    settings: dict[str, Any] = config(case).to_dict()
    return {name: value for name, value in settings.items() if name != "transformers_version"}


def parameters(network: LonglodeForCausalLM) -> dict[str, list[int]]:
    """Shape of every tensor of the state, by name."""
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


def losses(case: dict[str, Any]) -> dict[str, Any]:
    """What a case gives: `pass_once` and `train_steps`, on plain rows and on packed documents."""
    return {
        name: {"once": pass_once(model(case), packed), "trained": train_steps(case, packed)}
        for name, packed in (("rows", False), ("packed", True))
    }


def pass_once(network: LonglodeForCausalLM, packed: bool) -> dict[str, float]:
    """Loss (nats per label token) of one batch, and norms of its gradient: of all, and of the embeddings."""
    read = batch(0, packed)
    inputs = {"input_ids": torch.from_numpy(read.tokens), "shift_labels": torch.from_numpy(read.labels)}
    if read.cu_seqlens is not None:
        inputs["cu_seqlens"] = torch.from_numpy(read.cu_seqlens)
    loss = network(**inputs, use_cache=False).loss
    wanted = list(network.parameters())
    gradients = torch.autograd.grad(loss, wanted)
    norms = [float(gradient.norm()) for gradient in gradients]
    embeddings = network.get_input_embeddings().weight
    of_embeddings = next(norm for tensor, norm in zip(wanted, norms, strict=True) if tensor is embeddings)
    return {
        "loss": loss.item(),
        "gradient_norm": float(torch.tensor(norms, dtype=torch.float64).norm()),
        "gradient_norm_embeddings": of_embeddings,
    }


def train_steps(case: dict[str, Any], packed: bool) -> dict[str, Any]:
    """Losses and gradient norms of STEPS steps of the real trainer, and the held-out loss after them."""
    recipe = Recipe.parse(
        {
            "model": {"mixers": case["mixers"], "hidden_size": 16, "num_heads": 2},
            "data": {"length": LENGTH, "batch_size": ROWS, "micro_batch_size": 3, "packed": packed},
            "optim": {"lr": 0.01, "warmup_steps": 2},
            "run": {"steps": STEPS, "checkpoint_every": STEPS, "threads": 1, "device": "cpu"},
        }
    )
    rows: list[dict[str, Any]] = []

    def batches(step: int) -> Iterator[Batch]:
        while True:
            yield batch(step, packed)
            step += 1

    with tempfile.TemporaryDirectory() as folder:
        summary = train(
            model(case),
            batches,
            recipe,
            Path(folder) / "run",
            data_fingerprint="golden",
            heldout=lambda: [batch(10_000, packed)],
            on_step=rows.append,
        )
    return {
        "loss": [row["loss"] for row in rows],
        "gradient_norm": [row["grad_norm"] for row in rows],
        "heldout_loss": summary.eval_loss,
    }
