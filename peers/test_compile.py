"""torch: `torch.compile` of model and op, forward and backward, and `torch.export`, saved and loaded."""

import pytest
import torch

from longlode.ops.delta_rule import delta_rule
from peers import tiny

PACKAGES = ("torch",)


# aot_eager traces and differentiates as inductor does, and skips the minutes of C++ that come after.
FAST = "aot_eager"


@pytest.fixture(autouse=True)
def _forget_compiled():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def gradients(model, ids):
    """Loss and gradients of a step."""
    loss = model(input_ids=ids, labels=ids).loss
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return loss, torch.autograd.grad(loss, weights)


@pytest.mark.parametrize("mixers", ["D", "GA", "ML", "CS"])
def test_a_compiled_model_trains_as_the_plain_one(mixers):
    model, ids = tiny.model(mixers).train(), tiny.token_rows(4, 131)
    compiled = torch.compile(model, backend=FAST)
    torch.testing.assert_close(gradients(compiled, ids), gradients(model, ids), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("mixers", ["D", "GA"])
def test_a_compiled_model_reads_as_the_plain_one(mixers):
    model = tiny.model(mixers)
    compiled = torch.compile(model, backend=FAST)
    with torch.no_grad():
        for num_rows, num_tokens in ((4, 128), (1, 97)):
            ids = tiny.token_rows(num_rows, num_tokens)
            torch.testing.assert_close(compiled(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-5)


# (B, T, H, D), whether gated, backend: one and many rows, whole chunks and a rest.
CALLS = [
    ((1, 131, 4, 16), False, FAST),
    ((4, 97, 4, 16), True, FAST),
    ((4, 128, 4, 16), False, FAST),
    ((4, 131, 4, 16), True, FAST),
    ((8, 200, 2, 16), False, FAST),
    ((4, 128, 4, 16), True, "inductor"),
]


@pytest.mark.parametrize(("shape", "gated", "backend"), CALLS, ids=str)
def test_the_compiled_op_is_the_op(shape, gated, backend):
    q, k, v = (torch.randn(shape, requires_grad=True) for _ in range(3))
    beta = torch.rand(shape[:3], requires_grad=True)
    g = (-torch.rand(shape[:3])).requires_grad_() if gated else None

    def read(q, k, v, beta, g):
        k = torch.nn.functional.normalize(k, dim=-1)
        return delta_rule(q, k, v, beta, g=g)[0]

    inputs = [q, k, v, beta, *([g] if gated else [])]
    results = []
    for function in (read, torch.compile(read, backend=backend)):
        o = function(q, k, v, beta, g)
        results.append([o, *torch.autograd.grad(o.square().sum(), inputs)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mixers", ["DS", "GA", "ML", "C"])
def test_an_exported_model_is_the_model(mixers, strict, tmp_path):
    model, ids = tiny.model(mixers), tiny.token_rows(2, 70)
    with torch.no_grad():
        program = torch.export.export(model, (ids,), {"use_cache": False}, strict=strict)
        torch.export.save(program, tmp_path / "model.pt2")
        loaded = torch.export.load(tmp_path / "model.pt2").module()
        torch.testing.assert_close(
            loaded(ids, use_cache=False).logits, model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-5
        )
