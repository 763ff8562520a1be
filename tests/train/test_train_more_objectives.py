"""Objectives beside the next token: distillation, LongCE, prefixes, masked tokens, each against plain loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from longlode.core.batch import Batch
from longlode.core.errors import ConfigError
from longlode.core.records import read_jsonl
from longlode.mixers.context import SequenceContext
from longlode.models import LonglodeConfig, LonglodeForCausalLM
from longlode.models.student import student_of
from longlode.train import train
from longlode.train.loop import micro_batches
from longlode.train.objectives import make_objective
from longlode.train.objectives.denoising import MaskedLM, PrefixLM
from longlode.train.objectives.distill import Distill
from longlode.train.objectives.token_weights import LongCE
from recipes.scaled_down import scaled_down

VOCAB = 24
SIZES = {"vocab_size": VOCAB, "hidden_size": 16, "num_heads": 2, "intermediate_size": 32}


def ours(mixers="DA", **sizes):
    # Weights well above their usual size, so that models differ in what they predict.
    return LonglodeForCausalLM(
        LonglodeConfig(mixers=mixers, initializer_range=0.3, **(SIZES | sizes))
    ).double()


def llama():
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, initializer_range=0.3, **sizes)).double()


def some_batch(packed, weighted=False, length=20):
    rng = np.random.default_rng()
    tokens = rng.integers(0, VOCAB, (3, length))
    labels = np.concatenate([tokens[:, 1:], np.full((3, 1), -100)], 1)
    weights = rng.uniform(0.2, 2.0, tokens.shape).astype(np.float32) if weighted else None
    if not packed:
        labels[0, :4] = -100
        return Batch(tokens, labels, None, weights)
    edges = np.array([0, 5, 6, 31, 3 * length], dtype=np.int32)
    labels = np.append(tokens.ravel()[1:], -100)
    labels[edges[1:] - 1] = -100
    return Batch(
        tokens.reshape(1, -1), labels[None], edges, None if weights is None else weights.reshape(1, -1)
    )


def documents(batch):
    """Each document alone: (tokens, labels, weights), with its place in the batch."""
    for row in range(len(batch.tokens)):
        edges = [0, batch.tokens.shape[1]] if batch.cu_seqlens is None else batch.cu_seqlens.tolist()
        for start, end in itertools.pairwise(edges):
            part = (row, slice(start, end))
            weights = np.ones(end - start) if batch.weights is None else batch.weights[part]
            yield part, batch.tokens[part], batch.labels[part], weights


def log_probs(model, tokens):
    with torch.no_grad():
        return model(torch.from_numpy(tokens)[None], use_cache=False).logits[0].log_softmax(-1).numpy()


@pytest.fixture
def teacher(tmp_path):
    model = ours("AA")
    model.save_pretrained(tmp_path / "teacher")
    return model, str(tmp_path / "teacher")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("student", [ours, llama])
def test_distilled_predictions_by_loops(teacher, student, packed):
    model, name = teacher
    own, batch = student().eval(), some_batch(packed, weighted=True)
    objective = Distill(teacher=name, temperature=2.0, label_weight=0.5)
    expected = 0.0
    for _, tokens, labels, weights in documents(batch):
        taught = torch.from_numpy(log_probs(model, tokens) / 2).log_softmax(-1).numpy()
        guessed = log_probs(own, tokens)
        for t in np.flatnonzero(labels != -100):
            warm = torch.from_numpy(guessed[t] / 2).log_softmax(-1).numpy()
            divergence = math.fsum(np.exp(taught[t]) * (taught[t] - warm))
            expected += weights[t] * (4 * divergence - 0.5 * guessed[t][labels[t]])
    found = objective.losses(own, batch)
    assert found.summed.item() == pytest.approx(expected, rel=1e-6)  # weights are float32
    assert objective.weight(batch) == batch.total_weight
    found.summed.backward()
    assert own.lm_head.weight.grad.abs().max() > 0


@pytest.mark.parametrize("packed", [False, True])
def test_layers_by_loops(teacher, packed):
    model, name = teacher
    own, batch = ours("DA"), some_batch(packed, weighted=True)
    targets = {}
    errors = []
    for part, tokens, _, _ in documents(batch):
        stream = model.model.embeddings(torch.from_numpy(tokens)[None])
        for number, (block, right) in enumerate(zip(own.model.layers, model.model.layers, strict=True)):
            context = SequenceContext.of(stream, keeps_state=False)
            target = right(stream, context)
            targets.setdefault(number, []).append((part, block(stream, context)[0], target[0]))
            stream = target
    for found in targets.values():
        asked = [(batch.labels[part] != -100, guess, target) for part, guess, target in found]
        scale = torch.cat([target[torch.from_numpy(rows)] for rows, _, target in asked]).square().mean()
        error = 0.0
        for (part, guess, target), (rows, _, _) in zip(found, asked, strict=True):
            for t in np.flatnonzero(rows):
                error += batch.weights[part][t] * (guess[t] - target[t]).square().mean() / scale
        errors.append(error.item())
    found = Distill(teacher=name, match="layers").losses(own, batch)
    assert found.summed.item() == pytest.approx(sum(errors) / len(errors), rel=1e-6)
    assert set(found.metrics) >= {"layer_0.error", "layer_1.error"}


def test_layers_learn_apart_and_a_copy_has_nothing_to_learn(teacher):
    model, name = teacher
    objective, batch, own = Distill(teacher=name, match="layers"), some_batch(True), ours("DA")

    def gradients(block):
        own.zero_grad()
        objective.losses(own, batch).summed.backward()
        return [parameter.grad.clone() for parameter in own.model.layers[block].parameters()]

    before = gradients(1)
    with torch.no_grad():
        for parameter in own.model.layers[0].parameters():
            parameter.add_(0.1)
    assert all(torch.equal(one, other) for one, other in zip(before, gradients(1), strict=True))
    assert own.model.embeddings.weight.grad is None
    assert own.lm_head.weight.grad is None
    assert objective.losses(model, batch).summed.item() == pytest.approx(0.0, abs=1e-12)
    assert not own.model.layers[0]._forward_hooks
    assert not own.model.layers[0]._forward_pre_hooks


@pytest.mark.parametrize(
    ("match", "sizes", "word"),
    [
        ("layers", {"mixers": "D"}, "has 2 blocks and the student 1"),
        ("layers", {"hidden_size": 8}, "16 wide and the student 8"),
        ("logits", {"vocab_size": 30}, "predicts 24 tokens and the student 30"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(teacher, match, sizes, word):
    with pytest.raises(ConfigError, match=word):
        Distill(teacher=teacher[1], match=match).losses(ours(**sizes), some_batch(True))


def test_the_recipe_makes_a_transformer_linear(tiny, tmp_path):
    """`recipes/linearise.toml`: mixers alone, layer by layer; then all weights, end to end; each lowers its loss."""
    teacher = ours("AS", window=8).float()
    teacher.save_pretrained(tmp_path / "teacher")
    student = student_of(teacher)
    student.save_pretrained(tmp_path / "student")
    sizes = {"divide": 64, "tokens_per_step": 64, "steps": 18, "lr": 0.01}
    paths = {"start": str(tmp_path / "student"), "teacher": str(tmp_path / "teacher")}
    recipe = scaled_down("linearise", "unused", **sizes, **paths)
    assert [stage.num_steps for stage in recipe.stage_list] == [6, 12]
    rows, frozen = [], {n: p.detach().clone() for n, p in student.named_parameters() if ".attn." not in n}

    def on_step(row):
        rows.append(row)
        own = dict(student.named_parameters())
        unchanged = [torch.equal(own[name], weight) for name, weight in frozen.items()]
        assert all(unchanged) if len(rows) <= 6 else not any(unchanged)

    train(student, tiny.batches, recipe, tmp_path / "run", data_fingerprint="d", on_step=on_step)
    losses = [row["loss"] for row in rows]
    assert losses[5] < losses[0]
    assert losses[17] < losses[6]
    assert {"layer_0.error", "layer_1.error"} <= set(read_jsonl(tmp_path / "run" / "metrics.jsonl")[0])


def nats_alone(model, tokens, labels):
    found = log_probs(model, tokens)
    return np.array([-found[t][labels[t]] if labels[t] != -100 else 0.0 for t in range(len(tokens))])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("student", [ours, llama])
def test_long_ce_weighs_by_what_far_context_gives(student, packed):
    model, batch, half = student(), some_batch(packed), 4
    objective = LongCE(short_context=half, most=3.0)
    expected = np.ones(batch.tokens.shape)
    for part, tokens, labels, _ in documents(batch):
        whole = nats_alone(model.eval(), tokens, labels)
        for t in np.flatnonzero(labels != -100):
            if t < 2 * half:
                continue
            first = (t // half - 1) * half  # the window in whose second half t is
            short = nats_alone(model, tokens[first : first + 2 * half], labels[first : first + 2 * half])[
                t - first
            ]
            expected[part][t] = min(math.exp(short - whole[t]), 3.0)
    model.train()
    found = objective.token_weights(model, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert found.max() > 1.05
    assert found.min() < 0.95
    assert model.training
    losses = objective.losses(model, batch)
    nats = sum(
        math.fsum(nats_alone(model, tokens, labels) * expected[part])
        for part, tokens, labels, _ in documents(batch)
    )
    assert losses.summed.item() == pytest.approx(nats, rel=1e-6)
    assert float(losses.metrics["token_weight"]) == pytest.approx(
        expected[batch.labels != -100].mean(), rel=1e-6
    )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "objective", [PrefixLM(least=0.2, most=0.7), MaskedLM(mask_token=3, share=0.3), LongCE(short_context=4)]
)
def test_parts_add_up_to_the_batch(objective, packed):
    model, batch = ours("D"), some_batch(packed, weighted=True)
    parts = list(micro_batches(batch, 1, 20))
    assert len(parts) > 1
    summed = sum(objective.losses(model, part).summed.item() for part in parts)
    assert summed == pytest.approx(objective.losses(model, batch).summed.item(), rel=1e-6)
    assert sum(objective.weight(part) for part in parts) == pytest.approx(objective.weight(batch))


@pytest.mark.parametrize("packed", [False, True])
def test_prefixes_are_read_and_not_asked(packed):
    batch = some_batch(packed)
    cut, prefixes = PrefixLM(least=0.3, most=0.6)._cut(batch)
    for prefix, (part, tokens, labels, _) in zip(prefixes, documents(batch), strict=True):
        assert 0.3 * len(tokens) - 1 < prefix <= 0.6 * len(tokens)
        assert (cut.labels[part][: max(0, prefix - 1)] == -100).all()
        assert np.array_equal(cut.labels[part][max(0, prefix - 1) :], labels[max(0, prefix - 1) :])
    layers = {"mixers": None, "layers": ["prefix_linear_attention"]}
    model, objective = ours(**layers), PrefixLM(least=0.3, most=0.6)
    with torch.no_grad():
        lengths = torch.from_numpy(prefixes)
        edges = None if batch.cu_seqlens is None else torch.from_numpy(batch.cu_seqlens)
        logits = model(
            torch.from_numpy(batch.tokens), prefix_lengths=lengths, cu_seqlens=edges, use_cache=False
        ).logits
    asked = cut.labels != -100
    nats = -logits.log_softmax(-1).numpy()[asked][np.arange(asked.sum()), cut.labels[asked]]
    found = objective.losses(model, batch).summed.item()
    assert found == pytest.approx(nats.sum(), rel=1e-6)
    with pytest.raises(ConfigError, match="longlode model"):
        objective.losses(llama(), batch)


@pytest.mark.parametrize("packed", [False, True])
def test_masked_tokens_are_asked_at_their_own_place(packed):
    batch, objective = some_batch(packed, length=400), MaskedLM(mask_token=3, share=0.25)
    masked = objective._masked(batch, VOCAB)
    chosen = masked.labels != -100
    assert 0.15 < chosen.mean() < 0.35
    assert np.array_equal(masked.labels[chosen], batch.tokens[chosen])
    assert np.array_equal(masked.tokens[~chosen], batch.tokens[~chosen])
    assert 0.6 < (masked.tokens[chosen] == 3).mean() < 0.95
    assert not np.array_equal(
        chosen, MaskedLM(mask_token=3, share=0.25, seed=1)._masked(batch, VOCAB).labels != -100
    )
    with pytest.raises(ConfigError, match="mask_token is 30"):
        MaskedLM(mask_token=30).losses(ours(), batch)


def test_names_and_options():
    assert make_objective("long_ce", {"short_context": 5}) == LongCE(short_context=5)
    for name, options, word in (
        ("prefix_lm", {"least": 0.5, "most": 0.2}, "swap"),
        ("distill", {}, "teacher"),
        ("masked_lm", {}, "mask_token"),
    ):
        with pytest.raises(ConfigError, match=word):
            make_objective(name, options)
