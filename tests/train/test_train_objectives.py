"""Objectives: weights count as they say, however a batch is cut; any causal model can be trained."""

import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError, LonglodeError
from longlode.core.records import read_jsonl
from longlode.train import train
from longlode.train.loop import micro_batches, training_step
from longlode.train.objectives import OBJECTIVES, Losses, NextToken, Objective, make_objective
from longlode.train.objectives.far_tokens import FarTokens

EDGES = [0, 9, 13, 40, 64]


def llama():
    """A tiny model of transformers' own."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=24, **sizes, initializer_range=0.2))


@pytest.fixture(params=["ours", "llama"])
def model(request, tiny):
    return (tiny.model(tiny.recipe()) if request.param == "ours" else llama()).double()


def packed_batch(tiny, weighted=False):
    batch = tiny.batch(0, packed=True)
    weights = np.random.default_rng(1).random(batch.tokens.shape).astype(np.float32) if weighted else None
    return replace(batch, weights=weights)


def documents(batch):
    """The documents of a packed row, each a batch of its own."""
    for start, end in zip(batch.cu_seqlens[:-1], batch.cu_seqlens[1:], strict=True):
        weights = None if batch.weights is None else batch.weights[:, start:end]
        yield Batch(batch.tokens[:, start:end], batch.labels[:, start:end], weights=weights)


def loss(model, batch, objective=None):
    objective = objective or NextToken()
    return objective.losses(model, batch).summed / objective.weight(batch)


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_the_whole_model_see_every_batch(model, tiny, training):
    batch, seen = packed_batch(tiny, weighted=True), []
    expected = NextToken().losses(model.train(training), batch).summed
    model.register_forward_pre_hook(lambda *_: seen.append("before"))
    model.register_forward_hook(lambda _, __, output: seen.append(output.logits))
    assert torch.equal(NextToken().losses(model, batch).summed, expected)
    assert len(seen) == 2
    if not isinstance(model, LlamaForCausalLM):
        # Our loss never holds the logits of a whole batch.
        assert seen[1] is None if training else seen[1].shape[1] == 1


@pytest.mark.parametrize("weighted", [False, True])
def test_a_packed_row_is_its_documents(model, tiny, weighted):
    batch = packed_batch(tiny, weighted)
    alone = [NextToken().losses(model, one).summed for one in documents(batch)]
    torch.testing.assert_close(NextToken().losses(model, batch).summed, sum(alone), rtol=1e-6, atol=1e-6)
    assert NextToken().weight(batch) == pytest.approx(sum(map(NextToken().weight, documents(batch))))


def test_weights_of_one_over_the_labels_give_every_document_its_mean(model, tiny):
    batch = packed_batch(tiny)
    weights = np.zeros(batch.tokens.shape, dtype=np.float32)
    for start, end in itertools.pairwise(EDGES):
        num_labels = (batch.labels[0, start:end] != -100).sum()
        weights[0, start:end] = 1 / max(1, num_labels)
    means = [loss(model, one) for one in documents(batch) if one.num_tokens]
    found = loss(model, replace(batch, weights=weights))
    torch.testing.assert_close(found, torch.stack(means).mean(), rtol=1e-6, atol=1e-6)
    assert not torch.isclose(found, loss(model, batch), atol=1e-5)  # plain packing is another number


def test_weights_are_in_the_gradient_as_in_the_loss(model, tiny):
    """Against weights applied to losses of single labels."""
    batch = packed_batch(tiny, weighted=True)
    parameter = next(model.parameters())
    (found,) = torch.autograd.grad(loss(model, batch), parameter)
    expected = torch.zeros_like(parameter)
    for place in np.flatnonzero(batch.labels[0] != -100):
        labels = np.full_like(batch.labels, -100)
        labels[0, place] = batch.labels[0, place]
        one = Batch(batch.tokens, labels, batch.cu_seqlens)
        (gradient,) = torch.autograd.grad(loss(model, one), parameter)
        expected += float(batch.weights[0, place]) / batch.total_weight * gradient
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("objective", [NextToken(), FarTokens(min_context=6, near_weight=0.25)])
@pytest.mark.parametrize("packed", [False, True])
def test_micro_batches_change_nothing(tiny, objective, packed):
    batch = tiny.batch(0, packed)
    batch = replace(batch, weights=np.random.default_rng(1).random(batch.tokens.shape).astype(np.float32))

    def gradients(*overrides):
        recipe = tiny.recipe("optim.clip_norm=none", *overrides)
        model = tiny.model(recipe).double()
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        result = training_step(model, batch, optimizer, 1.0, recipe, objective)
        return result.loss, list(model.parameters())

    whole, split = gradients(), gradients("data.micro_batch_size=1")
    assert whole[0] == pytest.approx(split[0], rel=1e-12)
    for one, other in zip(whole[1], split[1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_parts_of_rows_hold_as_many_tokens_whatever_their_length():
    tokens = np.zeros((8, 8), dtype=np.int64)
    batch = Batch(tokens, tokens.copy(), weights=np.arange(64, dtype=np.float32).reshape(8, 8))
    parts = list(micro_batches(batch, 2, 16))
    assert [part.tokens.shape for part in parts] == [(4, 8), (4, 8)]
    assert np.array_equal(np.concatenate([part.weights for part in parts]), batch.weights)
    long = Batch(tokens.reshape(2, 32), tokens.reshape(2, 32))
    assert [part.tokens.shape for part in micro_batches(long, 1, 16)] == [(1, 32), (1, 32)]


@pytest.mark.parametrize("packed", [False, True])
def test_far_tokens_lower_labels_with_little_context(model, tiny, packed):
    batch = tiny.batch(0, packed)
    objective = FarTokens(min_context=5, near_weight=0.1)
    places = np.tile(np.arange(16), (4, 1)) if not packed else None
    if packed:
        places = np.concatenate([np.arange(end - start) for start, end in itertools.pairwise(EDGES)])[None]
    weights = np.where(places + 1 >= 5, 1, 0.1).astype(np.float32)
    expected = loss(model, replace(batch, weights=weights))
    torch.testing.assert_close(loss(model, batch, objective), expected)
    assert objective.weight(batch) == pytest.approx(weights[batch.labels != -100].sum())


@pytest.mark.parametrize("packed", [False, True])
def test_a_model_of_transformers_is_trained_and_resumed_bit_for_bit(tiny, tmp_path, packed):
    def run(folder, steps, resume=False):
        model = llama()
        recipe = tiny.recipe(f"run.steps={steps}", "optim.schedule=constant")
        batches = tiny.packed_batches if packed else tiny.batches
        train(model, batches, recipe, folder, data_fingerprint="d", resume=resume, heldout=tiny.heldout)
        return model

    straight = run(tmp_path / "straight", 10)
    run(tmp_path / "broken", 5)
    resumed = run(tmp_path / "broken", 10, resume=True)
    for (name, one), (_, other) in zip(
        straight.state_dict().items(), resumed.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    rows = [row for row in read_jsonl(tmp_path / "straight/metrics.jsonl") if "loss" in row]
    assert rows[-1]["loss"] < rows[0]["loss"]
    saved = LlamaForCausalLM.from_pretrained(tmp_path / "straight/model")
    assert torch.equal(saved.lm_head.weight, straight.lm_head.weight)


@dataclass(frozen=True, kw_only=True)
class WithPenalty(Objective):
    """One from outside: next token and the size of the embeddings, which it reports."""

    name: ClassVar[str] = "with_penalty"
    scale: float = 0.5

    def weight(self, batch):
        return batch.total_weight

    def losses(self, model, batch):
        inner = NextToken().losses(model, batch)
        size = model.get_input_embeddings().weight.square().mean()
        return Losses(inner.summed + batch.total_weight * self.scale * size, {"size": size.detach()})


def test_objectives_from_elsewhere_are_used_and_what_they_say_is_logged(tiny, tmp_path):
    address = f"{__name__}:WithPenalty"
    recipe = tiny.recipe(
        "run.steps=2",
        f"optim.objective={address}",
        "optim.objective_options={scale = 2.0}",
        "data.micro_batch_size=1",
    )
    model = tiny.model(recipe)
    size = float(model.get_input_embeddings().weight.detach().square().mean())
    train(model, tiny.batches, recipe, tmp_path / "run", data_fingerprint="d")
    rows = read_jsonl(tmp_path / "run/metrics.jsonl")
    plain = tiny.recipe("run.steps=2")
    train(tiny.model(plain), tiny.batches, plain, tmp_path / "plain", data_fingerprint="d")
    first = read_jsonl(tmp_path / "plain/metrics.jsonl")[0]
    assert rows[0]["size"] == pytest.approx(size)
    assert rows[0]["loss"] == pytest.approx(first["loss"] + 2.0 * size)


class Balanced(LlamaForCausalLM):
    """A stand-in for a mixture of experts: its output has an auxiliary loss and a metric."""

    def forward(self, *args, **options):
        output = super().forward(*args, **options)
        output["aux_loss"] = self.lm_head.weight.square().sum()
        output["metrics"] = {"layer_0.load": torch.tensor(0.25)}
        return output


@pytest.mark.parametrize("coefficient", [None, 0.125])
def test_what_a_model_says_besides_is_minimised_and_logged_apart(tiny, tmp_path, coefficient):
    recipe, config = tiny.recipe("run.steps=2"), llama().config
    if coefficient is not None:
        config.router_aux_loss_coef = coefficient

    def run(kind, folder):
        torch.manual_seed(0)
        model = kind(config)
        size = float(model.lm_head.weight.detach().square().sum())
        train(model, tiny.batches, recipe, folder, data_fingerprint="d")
        rows = [row for row in read_jsonl(folder / "metrics.jsonl") if "loss" in row]
        return size, rows, model.lm_head.weight.detach()

    size, (row, *_), weight = run(Balanced, tmp_path / "run")
    _, (plain, *_), plain_weight = run(LlamaForCausalLM, tmp_path / "plain")
    assert row["loss"] == plain["loss"]
    assert row["aux_loss"] == pytest.approx(size * (coefficient or 1.0))
    assert row["layer_0.load"] == 0.25
    assert row["grad_norm"] != pytest.approx(plain["grad_norm"], rel=1e-3)
    assert not torch.equal(weight, plain_weight)


def mixture(tiny, aux_weight, *overrides):
    layer = f"{{mixer = 'mixture_of_memories', num_active = 1, aux_weight = {aux_weight}}}"
    return tiny.recipe("model.mixers=none", f"model.layers=[{layer}, {layer}]", "run.log_every=2", *overrides)


@pytest.mark.parametrize("packed", [False, True])
def test_a_mixture_of_memories_in_a_run(tiny, tmp_path, packed):
    """Its auxiliary losses add up in aux_loss, the loss is that of the next token, held-out text has neither."""

    def run(aux_weight):
        folder, recipe = tmp_path / f"{aux_weight}", mixture(tiny, aux_weight)
        model = tiny.model(recipe)
        batches = tiny.packed_batches if packed else tiny.batches
        train(model, batches, recipe, folder, data_fingerprint="d", heldout=tiny.heldout)
        return read_jsonl(folder / "metrics.jsonl"), model

    rows, model = run(0.5)
    logged = [row for row in rows if "loss" in row]
    assert [row["step"] for row in logged] == [2, 4, 6, 8, 10]
    for row in logged:
        parts = [row[f"layer_{n}.load_balance"] for n in (0, 1)]
        assert row["aux_loss"] == pytest.approx(sum(parts), rel=1e-5)
        assert all(part > 0 for part in parts)
        assert all(0.25 <= row[f"layer_{n}.largest_load"] <= 1 for n in (0, 1))
    (heldout,) = [row for row in rows if "eval_loss" in row]
    summed = sum(NextToken().losses(model, batch).summed.item() for batch in tiny.heldout())
    assert heldout["eval_loss"] == pytest.approx(summed / heldout["eval_tokens"], rel=1e-5)
    assert not any(name.startswith(("aux", "layer_")) for name in heldout)
    without, plain = run(0.0)
    assert without[0]["aux_loss"] == 0
    assert any(not torch.equal(*pair) for pair in zip(model.parameters(), plain.parameters(), strict=True))


def test_the_logged_loss_of_a_mixture_is_that_of_the_next_token(tiny):
    """Before the first step it does not depend on the weight of the auxiliary loss; the gradient does."""
    results = []
    for weight, *overrides in ((0.5,), (0.5, "data.micro_batch_size=1"), (0.0,)):
        recipe = mixture(tiny, weight, *overrides)
        model = tiny.model(recipe)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        results.append(training_step(model, tiny.batch(0), optimizer, 0.0, recipe))
    balanced, in_parts, plain = results
    assert balanced.loss == plain.loss == pytest.approx(in_parts.loss, rel=1e-6)
    assert balanced.grad_norm != pytest.approx(plain.grad_norm, rel=1e-4)
    assert float(balanced.metrics["aux_loss"]) > 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_an_auxiliary_loss_counts_by_the_weight_of_the_labels(tiny, weighted):
    """Its gradient is that of the mean loss and it together."""
    recipe = mixture(tiny, 0.5)
    model = tiny.model(recipe).train()
    batch = packed_batch(tiny, weighted)
    parameter = model.model.layers[0].attn.router.weight
    found = NextToken().losses(model, batch)
    (got,) = torch.autograd.grad((found.summed + found.auxiliary) / batch.total_weight, parameter)
    options = {"cu_seqlens": torch.from_numpy(batch.cu_seqlens), "use_cache": False}
    output = model.model(torch.from_numpy(batch.tokens), **options)
    nats = torch.nn.functional.cross_entropy(
        model.lm_head(output.last_hidden_state)[0], torch.from_numpy(batch.labels[0]), reduction="none"
    )
    counts = torch.ones_like(nats) if batch.weights is None else torch.from_numpy(batch.weights[0])
    mean = (nats * counts).sum() / batch.total_weight
    (want,) = torch.autograd.grad(mean + output.aux_loss, parameter)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


@dataclass(frozen=True, kw_only=True)
class Endless(NextToken):
    """An auxiliary loss without a gradient, and not finite."""

    name: ClassVar[str] = "endless"

    def losses(self, model, batch):
        return replace(super().losses(model, batch), auxiliary=torch.tensor(float("inf")))


def test_an_auxiliary_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    recipe = tiny.recipe(f"optim.objective={__name__}:Endless")
    with pytest.raises(LonglodeError, match=r"Step 1 .*, auxiliary loss inf and gradient norm"):
        train(tiny.model(recipe), tiny.batches, recipe, tmp_path / "run", data_fingerprint="d")


def test_names_and_options_are_checked():
    assert [name for name in OBJECTIVES.names() if OBJECTIVES.provider(name) == "longlode"] == [
        "distill",
        "far_tokens",
        "long_ce",
        "masked_lm",
        "next_token",
        "prefix_lm",
    ]
    for name, options, fact in (
        ("next_tokens", {}, "next_token"),
        ("next_token", {"x": 1}, "no option 'x'"),
        ("far_tokens", {"near_weight": 0}, "near_weight is 0"),
        ("far_tokens", {"min_context": "far"}, "min_context is 'far'"),
    ):
        with pytest.raises(ConfigError, match=fact):
            make_objective(name, options)
