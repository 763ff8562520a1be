"""Offsets are read once, mean what a tensor means in every op, and go together with incoming states."""

import pytest
import torch
from ops_cases import make_inputs

from longlode.core.errors import ConfigError
from longlode.ops.attention import attention
from longlode.ops.delta_rule import delta_rule
from longlode.ops.linear_attention import linear_attention
from longlode.ops.packed import Offsets, kept
from longlode.ops.short_conv import short_conv

EDGES = [0, 5, 6, 30]


def run_delta_rule(x, cu_seqlens, state=None):
    return delta_rule(x["q"], x["k"], x["v"], x["beta"], g=x["g"], state=state, cu_seqlens=cu_seqlens)


def run_linear_attention(x, cu_seqlens, state=None):
    return linear_attention(x["q"], x["k"], x["v"], g=x["g"], state=state, cu_seqlens=cu_seqlens)


def run_short_conv(x, cu_seqlens, state=None):
    return short_conv(x["q"].flatten(2), x["weight"], state=state, cu_seqlens=cu_seqlens)


def run_attention(x, cu_seqlens, state=None):
    assert state is None
    return attention(x["q"], x["k"], x["v"], cu_seqlens=cu_seqlens), x["q"]


RECURRENT = [run_delta_rule, run_linear_attention, run_short_conv]


def inputs(dtype=torch.float64):
    x = make_inputs(1, 30, 2, 16, 16, gated=True, dtype=dtype)
    x["weight"] = torch.randn(32, 4, generator=torch.Generator().manual_seed(3)).to(dtype)
    return x


class Counting(torch.Tensor):
    """A tensor that counts how often it is copied to the host."""

    copies = 0

    def tolist(self):
        type(self).copies += 1
        return super().tolist()


@pytest.mark.parametrize("run", [*RECURRENT, run_attention])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_offsets_mean_what_a_tensor_means_and_are_read_once(run, dtype):
    Counting.copies = 0
    offsets = Offsets.read(torch.tensor(EDGES).as_subclass(Counting))
    assert (offsets.host, offsets.num_documents, offsets.num_tokens) == (tuple(EDGES), 3, 30)
    assert Offsets.read(offsets) is offsets
    x = inputs(dtype)
    for _ in range(2):
        for got, want in zip(run(x, offsets), run(x, torch.tensor(EDGES)), strict=True):
            assert torch.equal(got, want)
    assert Counting.copies == 1
    with pytest.raises(ConfigError, match=r"from 0 to 29"):
        run(x, Offsets.read(torch.tensor([0, 29])))


@pytest.mark.parametrize("run", RECURRENT)
@pytest.mark.parametrize("cut", [1, 5, 6, 17])
def test_a_packed_row_cut_anywhere_equals_the_whole(run, cut):
    """As two ranks read it that share a sequence: the first document of the right one continues from a state."""
    x = inputs()
    whole, final = run(x, torch.tensor(EDGES))
    left = torch.tensor([edge for edge in EDGES if edge < cut] + [cut])
    right = torch.tensor([0] + [edge - cut for edge in EDGES if edge > cut])

    def part(tokens):
        return {name: y if name in ("state", "weight") else y[:, tokens] for name, y in x.items()}

    o_1, states = run(part(slice(0, cut)), left)
    before = torch.zeros(len(right) - 1, *states.shape[1:], dtype=states.dtype)
    if cut not in EDGES:
        before[0] = states[-1]
    o_2, ends = run(part(slice(cut, 30)), right, before)
    torch.testing.assert_close(torch.cat((o_1, o_2), 1), whole, rtol=0, atol=1e-10)
    finished = len(left) - 1 if cut in EDGES else len(left) - 2
    torch.testing.assert_close(torch.cat((states[:finished], ends)), final, rtol=0, atol=1e-10)


def test_equal_numbers_are_equal_offsets():
    first, second = (Offsets.read(torch.tensor(EDGES, dtype=dtype)) for dtype in (torch.int32, torch.int64))
    assert first == second
    assert len({first, second, Offsets.read(torch.tensor([0, 30]))}) == 2
    with pytest.raises(AttributeError):
        first.host = (0, 1)


def test_kept_tensors_serve_training_whoever_asked_first():
    @kept
    def numbers(size):
        return torch.arange(size)

    with torch.inference_mode():
        first = numbers(3)
    assert not first.is_inference()
    assert numbers(3) is first
    x = inputs()
    with torch.inference_mode():
        run_short_conv(x, torch.tensor([0, 7, 30]))
    x["q"].requires_grad_()
    run_short_conv(x, torch.tensor([0, 7, 30]))[0].sum().backward()
    assert x["q"].grad is not None
