"""Mixture of memories: against plain loops; its router, its auxiliary loss, and what they do in a model."""

import math

import pytest
import torch
from mixer_laws import LAWS, SHARED, D, T, build, cost_slope, inputs

from longlode.core.errors import ConfigError
from longlode.mixers import MIXERS, SequenceContext
from longlode.models import LonglodeConfig, LonglodeForCausalLM

KIND = MIXERS.get("mixture_of_memories")
CONFIG = KIND.from_settings({"num_memories": 3, "num_active": 2}, {**SHARED, "num_heads": 2})
# Recurrent mixers of other kinds: convolutions and decays, complex states, a loss and a window of its own.
INNER = [
    "gated_delta_net",
    "mamba2",
    "gated_linear_attention",
    "s4d",
    "atlas",
    "hax",
    "longvq",
    "linear_attention",
]


def wrapped(inner, **settings):
    return KIND.from_settings({"inner": inner, **settings}, {**SHARED, "num_heads": 2})


def by_hand(mixer, x):
    """y of one document x `[T, D]`, and the memories that each token chose."""
    w = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    H, K, M = mixer.config.num_heads, mixer.config.head_dim, mixer.config.num_memories

    def unit(u):
        return u / math.sqrt(float(u @ u) + 1e-6)

    shared = mixer.config.shared_memory
    S = torch.zeros(M + shared, H, K, K, dtype=torch.float64)
    rows, choices = [], []
    for t in range(len(x)):
        chances = (w["router.weight"] @ x[t]).softmax(0)
        chosen = sorted(range(M), key=lambda m: -float(chances[m]))[: mixer.config.num_active]
        total = sum(float(chances[m]) for m in chosen)
        heads = []
        for h in range(H):
            q = unit((w["q_proj.weight"] @ x[t])[h * K : (h + 1) * K])
            o = torch.zeros(K, dtype=torch.float64)
            for m in [*range(shared), *(m + shared for m in chosen)]:
                at = m * H + h
                k = unit((w["k_proj.weight"] @ x[t])[at * K : (at + 1) * K])
                v = (w["v_proj.weight"] @ x[t])[at * K : (at + 1) * K]
                beta = 1 / (1 + math.exp(-float(w["b_proj.weight"][at] @ x[t])))
                S[m, h] = S[m, h] + beta * torch.outer(k, v - S[m, h].T @ k)
                o = o + (1.0 if m < shared else float(chances[m - shared]) / total) * (
                    S[m, h].T @ q
                ) / math.sqrt(K)
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


@pytest.mark.parametrize("num_memories", [1, 3])
def test_without_a_shared_memory(num_memories):
    settings = {"num_memories": num_memories, "num_active": 1, "shared_memory": False}
    mixer, x = build(KIND.from_settings(settings, {**SHARED, "num_heads": 2})), inputs(1)
    torch.testing.assert_close(mixer(x).y[0], by_hand(mixer, x[0])[0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("inner", INNER)
def test_one_memory_is_the_inner_mixer(inner):
    """Bit for bit: outputs, state, gradients, and what follows."""
    one = build(wrapped(inner, num_memories=1, num_active=1, shared_memory=False))
    x, more = inputs(2).requires_grad_(), inputs(2, 3, seed=5)
    got, want = one(x), one.memory_0(x)
    assert torch.equal(got.y, want.y)
    for name, value in want.state.items():
        assert torch.equal(got.state[f"m0_{name}"], value)
    assert {f"m0_{name}" for name in want.aux_losses} == set(got.aux_losses) - {"load_balance"}
    assert torch.equal(one(more, got.state).y, one.memory_0(more, want.state).y)
    weights = [x, *one.memory_0.parameters()]
    pairs = [torch.autograd.grad(y.square().sum(), weights, allow_unused=True) for y in (got.y, want.y)]
    for mine, wanted in zip(*pairs, strict=True):
        assert (mine is None and wanted is None) or torch.equal(mine, wanted)


@pytest.mark.parametrize("inner", ["gated_delta_net", "s4d"])
def test_each_memory_reads_the_tokens_that_chose_it(inner):
    """A loop over tokens: each goes to the shared memory and to its two, by their single steps."""
    mixer, x = build(wrapped(inner, num_memories=3, num_active=2)), inputs(2)
    want = torch.zeros_like(x)
    for n in range(2):
        states = [None] * 4
        for t in range(T):
            chances = (mixer.router.weight @ x[n, t]).softmax(0).tolist()
            chosen = sorted(range(3), key=lambda m: -chances[m])[:2]
            total = sum(chances[m] for m in chosen)
            for m, weight in [(0, 1.0), *((m + 1, chances[m] / total) for m in chosen)]:
                y, states[m] = getattr(mixer, f"memory_{m}").step(x[n : n + 1, t], states[m])
                want[n, t] += weight * y[0]
    torch.testing.assert_close(mixer(x).y, want, rtol=0, atol=1e-11)


@pytest.mark.parametrize("law", [law for law in LAWS if law is not cost_slope])
def test_the_laws_around_another_mixer(law):
    law(build(wrapped("gated_delta_net", num_memories=2, num_active=1)))


def test_the_cost_is_that_of_the_memories_read():
    cost_slope(build(wrapped("gated_delta_net", num_memories=2, num_active=2)))
    inner = build(MIXERS.get("gated_delta_net").from_settings({}, {**SHARED, "num_heads": 2}))
    got = build(wrapped("gated_delta_net", num_memories=4, num_active=2)).flops_per_token(T)
    assert got == 3 * inner.flops_per_token(T) + 2 * D * 4


@pytest.mark.parametrize(
    "inner", ["attention", "sliding_window_attention", "ngram_head", "prefix_linear_attention", "routing"]
)
def test_mixers_that_are_not_recurrent_are_refused(inner):
    with pytest.raises(ConfigError, match=f"inner is '{inner}'"):
        build(wrapped(inner))


def test_a_model_of_other_memories_trains_saves_and_writes(tmp_path):
    torch.manual_seed(0)
    layers = [{"mixer": "mixture_of_memories", "inner": "mamba2", "num_memories": 2, "num_active": 1}]
    config = LonglodeConfig(vocab_size=30, hidden_size=D, num_heads=2, layers=layers, intermediate_size=24)
    model = LonglodeForCausalLM(config)
    x = torch.randint(0, 30, (2, 9))
    model.train()(x, labels=x).loss.backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())
    model.eval().save_pretrained(tmp_path)
    narrow = LonglodeForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    kept = {name.split(".", 4)[4] for name, one in narrow.named_parameters() if one.dtype == torch.float32}
    assert kept == {f"memory_{n}.{name}" for n in range(3) for name in ("A_log", "dt_bias")}
    again = LonglodeForCausalLM.from_pretrained(tmp_path)
    written = [one.generate(x, max_new_tokens=5, do_sample=False) for one in (model, again)]
    assert torch.equal(*written)


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
