"""A training step on packed rows asks the device nothing: on the meta device, which has no numbers, it would fail."""

import contextlib

import pytest
import torch

from longlode.core.errors import ConfigError
from longlode.ops.packed import Offsets
from longlode.train.loop import training_step
from longlode.train.objectives import NextToken
from longlode.train.objectives.inputs import label_places


@pytest.fixture(autouse=True)
def no_autocast(monkeypatch):
    """torch.autocast knows no meta device; all here is float32."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **options: contextlib.nullcontext())


MIXERS = ["D", "G", "S", "A", "L", "C", "M"]


@pytest.mark.parametrize("mixers", MIXERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_forward_and_backward_wait_for_no_number(tiny, mixers, weighted):
    model = tiny.model(tiny.recipe(mixers=mixers)).to("meta").train()
    batch = tiny.batch(0, packed=True)
    if weighted:
        weights = torch.rand(batch.tokens.shape).numpy()
        batch = type(batch)(batch.tokens, batch.labels, batch.cu_seqlens, weights)
    loss = NextToken().losses(model, batch).summed
    loss.backward()
    assert loss.is_meta
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_meta_device_notices_a_question(tiny):
    """The wrong variants: offsets that only the device knows, labels that it has to count."""
    model = tiny.model(tiny.recipe(mixers="D")).to("meta").train()
    batch = tiny.batch(0, packed=True)
    tokens, labels = (torch.from_numpy(array).to("meta") for array in (batch.tokens, batch.labels))
    edges = Offsets.send(batch.cu_seqlens.tolist(), torch.device("meta"))
    places = label_places(batch, torch.device("meta"))
    options = {"shift_labels": labels, "num_items_in_batch": 1, "logits_to_keep": 1}
    model(tokens, cu_seqlens=edges, label_places=places, **options).loss.backward()
    with pytest.raises((NotImplementedError, RuntimeError)):
        model(tokens, cu_seqlens=edges, **options)
    with pytest.raises((NotImplementedError, RuntimeError)):
        model(tokens, cu_seqlens=edges.clone(), label_places=places, **options)


def test_offsets_sent_are_those_read():
    sent = Offsets.send([0, 3, 7], torch.device("cpu"))
    assert sent.dtype == torch.int32
    assert Offsets.read(sent).host == (0, 3, 7)
    sent[1] = 5  # changed since: read anew
    assert Offsets.read(sent).host == (0, 5, 7)
    with pytest.raises(ConfigError, match="strictly increasing"):
        Offsets.send([0, 3, 3], torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_waits_once_per_step_at_its_end(tiny):
    model = tiny.model(tiny.recipe("run.device=cuda", mixers="D"))
    batch = tiny.batch(0, packed=True)
    recipe = tiny.recipe()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    training_step(model, batch, optimizer, 0.0, recipe)  # kernels are compiled, caches are filled
    torch.cuda.set_sync_debug_mode("error")
    try:
        NextToken().losses(model, batch).summed.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
