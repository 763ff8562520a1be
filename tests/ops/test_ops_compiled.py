"""torch.compile and torch.export of the chunked ops: one graph, the numbers of eager mode, gradients too."""

import shutil

import pytest
import torch
from ops_cases import relative_error

from longlode.ops import used_backends
from longlode.ops.delta_rule import delta_rule
from longlode.ops.linear_attention import linear_attention

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning",  # dynamo's own, on any autograd.Function
    "ignore:.torch.jit:DeprecationWarning",
    "ignore::FutureWarning:torch.*",
)
UNIT = 2**-24


def arguments(shape, gated):
    B, T, H, K = shape
    q, v = (torch.randn(B, T, H, K) for _ in range(2))
    k = torch.nn.functional.normalize(torch.randn(B, T, H, K), dim=-1)
    tensors = [q, k, v, torch.rand(B, T, H), *([-torch.rand(B, T, H)] if gated else [])]
    return [x.requires_grad_() for x in tensors]


def delta(q, k, v, beta, g=None):
    return delta_rule(q, k, v, beta, g=g)


def linear(q, k, v, _, g=None):
    return linear_attention(q, k, v, g=g)


def compare(op, shape, gated, compiler):
    torch._dynamo.reset()
    leaves = arguments(shape, gated)
    compiled = torch.compile(op, backend=compiler, fullgraph=True)
    found = []
    for run in (compiled, op):
        o, final = run(*leaves)
        loss = (o**2).sum() + final.sum()
        grads = torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True)
        found.append([o.detach(), final.detach(), *grads])
    for got, want in zip(*found, strict=True):
        assert relative_error(got, want) < 100 * UNIT


@pytest.mark.slow
@pytest.mark.parametrize("op", [delta, linear])
@pytest.mark.parametrize("gated", [False, True])
def test_compiled_equals_eager(op, gated):
    compare(op, (4, 64, 4, 16), gated, "aot_eager")
    assert "chunkwise" in used_backends()["delta_rule" if op is delta else "linear_attention"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++ and needs g++")
def test_compiled_by_inductor_equals_eager():
    torch._dynamo.reset()
    tensors = [
        x.detach() for x in arguments((4, 20, 2, 16), gated=False)
    ]  # small: compiling it takes all the time
    compiled = torch.compile(delta, backend="inductor", fullgraph=True)
    for got, want in zip(compiled(*tensors), delta(*tensors), strict=True):
        assert relative_error(got, want) < 100 * UNIT


@pytest.mark.parametrize("op", [delta, linear])
@pytest.mark.parametrize("strict", [False, True])
def test_exported_equals_eager(op, strict):
    class Module(torch.nn.Module):
        def forward(self, *tensors):
            return op(*tensors)

    leaves = arguments((2, 70, 2, 16), gated=True)
    others = arguments((2, 70, 2, 16), gated=True)
    with torch.no_grad():
        program = torch.export.export(Module(), tuple(leaves), strict=strict)
        for got, want in zip(program.module()(*others), op(*others), strict=True):
            assert relative_error(got, want) < 100 * UNIT
