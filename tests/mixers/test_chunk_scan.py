"""A scan that computes its chunks again backward: the same numbers as autograd, and only the carries are kept."""

import mixer_laws
import pytest
import torch

from longlode.mixers import MIXERS, chunk_scan
from longlode.mixers.chunk_scan import scan_chunks

# Chunks of 3, 3 and 1 of seven tokens; the second input reads two tokens further back, so that chunks overlap.
SPANS = [[(0, 3), (0, 5)], [(3, 6), (3, 8)], [(6, 7), (6, 9)]]
SHAPES = [(2, 2, 7, 4), (2, 2, 9, 4)], [(2, 2, 4, 4), (2, 4)]


def drawn():
    generator = torch.Generator().manual_seed(0)
    inputs, carry = (
        [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
        for shapes in SHAPES
    )
    return inputs, carry


def step(at, part, carry):
    """A chunk whose output and carry depend on both inputs and on both tensors of the carry."""
    near, wide = part
    matrix, gate = carry
    o = (near @ matrix).tanh() * gate[:, None, None] + wide.mean(2, keepdim=True) * (at + 1)
    return o, [matrix * 0.9 + wide.mT @ wide * 0.1, gate * matrix.mean((1, 2)).sigmoid()]


def plain(inputs, carry):
    outputs = []
    for at, span in enumerate(SPANS):
        part = [x[:, :, start:stop] for x, (start, stop) in zip(inputs, span, strict=True)]
        o, carry = step(at, part, carry)
        outputs.append(o)
    return torch.cat(outputs, 2), *carry


@pytest.mark.parametrize("used", [(0, 1, 2), (0,), (1,), (2,)], ids=["all", "outputs", "matrix", "gate"])
def test_values_and_gradients_are_those_of_a_plain_loop(used):
    """`used`: the results that the loss depends on; the others have no gradient."""
    inputs, carry = drawn()
    o, last = scan_chunks(step, SPANS, inputs, carry)
    got, want = (o, *last), plain(inputs, carry)
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    losses = [sum((results[i] ** 2).sum() for i in used) for results in (got, want)]
    gradients = [
        torch.autograd.grad(loss, [*inputs, *carry], materialize_grads=True, retain_graph=True)
        for loss in losses
    ]
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-12)
    assert any(gradient.abs().max() > 0 for gradient in gradients[0])


def refused(*_):
    raise AssertionError("The scan keeps its carries for a backward pass.")


def test_without_gradients_nothing_is_kept(monkeypatch):
    monkeypatch.setattr(chunk_scan._Scan, "apply", refused)
    inputs, carry = drawn()
    with torch.no_grad():
        o, last = scan_chunks(step, SPANS, inputs, carry)
    assert not o.requires_grad
    torch.testing.assert_close((o, *last), plain(inputs, carry), rtol=0, atol=0)


def test_an_input_without_gradient_is_allowed():
    inputs, carry = drawn()
    inputs[1] = inputs[1].detach()
    o, _ = scan_chunks(step, SPANS, inputs, carry)
    o.sum().backward()
    assert inputs[0].grad is not None
    assert carry[0].grad is not None


def test_a_carry_that_depends_on_nothing_is_allowed():
    def forgets(at, part, carry):
        o, (matrix, gate) = step(at, part, carry)
        return o, [matrix, torch.ones_like(gate)]

    inputs, carry = drawn()
    o, _ = scan_chunks(forgets, SPANS, inputs, carry)
    gradients = torch.autograd.grad(o.sum(), [*inputs, *carry])
    first = scan_chunks(forgets, SPANS[:1], inputs, carry)[0]
    (of_gate,) = torch.autograd.grad(first.sum(), carry[1])
    torch.testing.assert_close(gradients[3], of_gate, rtol=0, atol=1e-12)
    assert gradients[2].abs().max() > 0


def test_tensors_without_gradients_are_scanned_as_without_a_backward_pass(monkeypatch):
    monkeypatch.setattr(chunk_scan._Scan, "apply", refused)
    inputs, carry = ([one.detach() for one in tensors] for tensors in drawn())
    o, _ = scan_chunks(step, SPANS, inputs, carry)
    assert not o.requires_grad
    torch.testing.assert_close(o, plain(inputs, carry)[0], rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
def test_atlas_works_under_transforms(optimizer):
    """Gradients by torch.func are those by autograd."""
    settings = {"chunk_size": 4, "optimizer": optimizer}
    mixer = mixer_laws.build(MIXERS.get("atlas").from_settings(settings, mixer_laws.SHARED))
    x = mixer_laws.inputs(1, 9)
    got = torch.func.grad(lambda u: mixer(u).y.square().sum())(x)
    x.requires_grad_()
    (want,) = torch.autograd.grad(mixer(x).y.square().sum(), x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)


def test_a_chunk_of_atlas_keeps_its_memory_and_no_matrix_per_token():
    """Muon has a matrix per token; what a training step keeps must be counted in chunks."""
    config = MIXERS.get("atlas").from_settings({"chunk_size": 8}, {"num_heads": 2, "head_dim": 16})
    mixer = config.build(32)

    def kept_bytes(num_tokens):
        stored = {}

        def pack(x):
            stored[x.untyped_storage().data_ptr()] = x.untyped_storage()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            state = mixer(torch.randn(1, num_tokens, 32)).state
        # The state is no view of the chunk's matrices.
        for name in ("memory_0", "memory_1", "momentum_0", "momentum_1"):
            assert state[name].untyped_storage().nbytes() == state[name].nbytes
        return sum(one.nbytes() for one in stored.values())

    per_chunk = (kept_bytes(256) - kept_bytes(128)) / 16
    # Two heads; weights, momentum and anchor of 16 x 32 and 32 x 16; float32.
    memory = 2 * 3 * (16 * 32 + 32 * 16) * 4
    activations = 8 * 32 * 4 * 40
    assert memory < per_chunk < memory + activations
    assert memory + activations < 2 * 8 * memory / 3, "a matrix per token would not be seen"
