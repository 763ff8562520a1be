"""Mixture of memories: against plain loops; its router, its auxiliary loss, and what they do in a model."""

import math

import pytest
import torch
from mixer_laws import LAWS, SHARED, D, T, build, inputs

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, SequenceContext
from longlode.models import LonglodeConfig, LonglodeForCausalLM

KIND = MIXERS.get("mixture_of_memories")
CONFIG = KIND.from_settings({"num_memories": 3, "num_active": 2}, {**SHARED, "num_heads": 2})


def by_hand(mixer, x):
    """y of one document x `[T, D]`, and the memories that each token chose."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    H, K, M = mixer.config.num_heads, mixer.config.head_dim, mixer.config.num_memories

    def unit(u):
        return u / math.sqrt(float(u @ u) + 1e-6)

    S = torch.zeros(M + 1, H, K, K, dtype=torch.float64)
    rows, choices = [], []
    for t in range(len(x)):
        chances = (w["router.weight"] @ x[t]).softmax(0)
        chosen = sorted(range(M), key=lambda m: -float(chances[m]))[: mixer.config.num_active]
        total = sum(float(chances[m]) for m in chosen)
        heads = []
        for h in range(H):
            q = unit((w["q_proj.weight"] @ x[t])[h * K : (h + 1) * K])
            o = torch.zeros(K, dtype=torch.float64)
            for m in [0, *(m + 1 for m in chosen)]:
                at = m * H + h
                k = unit((w["k_proj.weight"] @ x[t])[at * K : (at + 1) * K])
                v = (w["v_proj.weight"] @ x[t])[at * K : (at + 1) * K]
                beta = 1 / (1 + math.exp(-float(w["b_proj.weight"][at] @ x[t])))
                S[m, h] = S[m, h] + beta * torch.outer(k, v - S[m, h].T @ k)
                o = o + (1.0 if m == 0 else float(chances[m - 1]) / total) * (S[m, h].T @ q) / math.sqrt(K)
            heads.append(o / math.sqrt(float(o @ o) / K + mixer.config.norm_eps) * w["o_norm.weight"])
        rows.append(w["o_proj.weight"] @ torch.cat(heads))
        choices.append(chosen)
    return torch.stack(rows), choices


def test_against_plain_loops():
    mixer, x = build(CONFIG), inputs(1)
    want, choices = by_hand(mixer, x[0])
    output = mixer(x)
    torch.testing.assert_close(output.y[0], want, rtol=0, atol=1e-11)
    load = [sum(m in chosen for chosen in choices) / (2 * T) for m in range(3)]
    assert output.metrics["largest_load"].item() == pytest.approx(max(load))
    chances = (x[0] @ mixer.router.weight.T).softmax(-1).mean(0).tolist()
    loss = 0.01 * 3 * sum(f * p for f, p in zip(load, chances, strict=True))
    assert output.aux_losses["load_balance"].item() == pytest.approx(loss)


@pytest.mark.parametrize("law", LAWS)
def test_the_laws_with_other_numbers_of_memories(law):
    law(build(CONFIG))


def test_a_memory_that_is_not_chosen_stays_as_it_is():
    mixer, x = build(CONFIG), inputs(1, 1)
    memory = torch.randn(1, 8, 6, 6, dtype=torch.float64)
    after = mixer(x, {"memory": memory}).state["memory"]
    moved = (after != memory).flatten(2).any(-1)[0].view(4, 2).any(1).tolist()
    _, ((first, second),) = by_hand(mixer, x[0])
    assert moved == [True, *(m in (first, second) for m in range(3))]


def test_padding_does_not_count_in_the_load():
    mixer, x = build(CONFIG), inputs(2)
    mask = torch.arange(T) < torch.tensor([[T], [6]])
    got = mixer(x, None, SequenceContext.of(x, mask=mask)).aux_losses["load_balance"]
    real = torch.cat((x[0], x[1, :6]))[None]
    torch.testing.assert_close(got, mixer(real).aux_losses["load_balance"])


def test_operations_per_token():
    """Per head of 3 memories and the shared one: 6 K V of the delta rule, and a weighted sum of their outputs."""
    mixer = build(CONFIG)
    dense = sum(2 * m.weight.numel() for m in mixer.modules() if isinstance(m, torch.nn.Linear))
    assert mixer.flops_per_token(T) == pytest.approx(dense + 4 * 2 * (6 * 36 + 2 * 6))


def test_too_many_active_memories_are_refused():
    with pytest.raises(ConfigError, match="num_active is 5"):
        KIND.from_settings({"num_active": 5}, SHARED)


def test_the_auxiliary_loss_evens_the_load_in_training():
    torch.manual_seed(0)
    layers = [
        {"mixer": "mixture_of_memories", "num_active": 1, "aux_weight": weight} for weight in (0.0, 1.0)
    ]
    config = LonglodeConfig(vocab_size=30, hidden_size=D, num_heads=2, layers=layers, intermediate_size=24)
    model = LonglodeForCausalLM(config)
    with torch.no_grad():
        for block in model.model.layers:  # a router that prefers one memory
            block.attn.router.weight.copy_(torch.randn(4, D) * 0.1)
            block.attn.router.weight[0] += 0.3
            block.attn_norm.weight.copy_(torch.rand(D) + 0.5)
    model.model.embeddings.weight.data.add_(0.3)
    x = torch.randint(0, 30, (8, 32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    first = model.train()(x, labels=x).metrics
    for _ in range(40):
        out = model(x, labels=x)
        out.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert first["layer_1.largest_load"] > 0.7
    assert out.metrics["layer_1.largest_load"] < 0.5
    assert out.metrics["layer_1.load_balance"] < first["layer_1.load_balance"]
