"""Slices with a gradient of their own: the numbers of plain slices, at a cost that grows with the length."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from longlode.ops.attention import attention
from longlode.ops.slices import Slices

PLACES = ((0, 3), (2, 7), (7, 7), (1, 9), (0, 9), (4, 5))


def weighted_sum(parts: list[torch.Tensor]) -> torch.Tensor:
    return sum((n + 1) * part.pow(3).sum() for n, part in enumerate(parts))


def both(x: torch.Tensor, dim: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same function of slices taken here, and of plain ones."""
    taken = Slices(x, dim)
    ours = weighted_sum([taken.take(*place) for place in PLACES])
    plain = weighted_sum([x.narrow(dim, start, end - start) for start, end in PLACES])
    return ours, plain


@pytest.mark.parametrize("dim", [0, 1])
def test_slices_have_the_gradient_of_plain_slices(dim: int) -> None:
    leaf = torch.randn(9, 9, dtype=torch.float64, requires_grad=True)
    ours, plain = both(leaf, dim)
    (got,), (expected,) = torch.autograd.grad(ours, leaf), torch.autograd.grad(plain, leaf)
    torch.testing.assert_close(got, expected)


def test_slices_have_the_second_derivatives_of_plain_slices() -> None:
    leaf = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    found = []
    for result in both(leaf, 0):
        (gradient,) = torch.autograd.grad(result, leaf, create_graph=True)
        found.append(torch.autograd.grad(gradient.pow(2).sum(), leaf)[0])
    torch.testing.assert_close(found[0], found[1])


def test_a_slice_that_nothing_reads_adds_nothing() -> None:
    leaf = torch.randn(6, requires_grad=True)
    taken = Slices(leaf, 0)
    taken.take(0, 2)
    read = taken.take(1, 4)
    taken.take(3, 6)
    read.sum().backward()
    assert leaf.grad.tolist() == [0, 1, 1, 1, 0, 0]


def test_a_slice_taken_without_gradients_leaves_those_of_the_others() -> None:
    leaf = torch.randn(6, requires_grad=True)
    taken = Slices(leaf, 0)
    first = taken.take(0, 2)
    with torch.no_grad():
        taken.take(1, 5)
    (first.sum() + 3 * taken.take(1, 4).sum()).backward()
    assert leaf.grad.tolist() == [1, 4, 3, 3, 0, 0]


def test_slices_work_under_transforms() -> None:
    x = torch.randn(9, 9, dtype=torch.float64)
    ours = torch.func.grad(lambda u: both(u, 0)[0])(x)
    torch.testing.assert_close(ours, torch.func.grad(lambda u: both(u, 0)[1])(x))


class CountedElements(TorchDispatchMode):
    """Count the elements of all results of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        flat = result if isinstance(result, tuple | list) else (result,)
        # Views cost nothing.
        if not func._schema.returns or func._schema.returns[0].alias_info is None:
            self.count += sum(x.numel() for x in flat if isinstance(x, torch.Tensor))
        return result


@pytest.mark.parametrize("packed", [False, True])
def test_the_backward_of_attention_costs_per_token_the_same_at_any_length(packed: bool) -> None:
    counts = []
    for length in (2048, 8192):
        q, k, v = (torch.randn(1, length, 1, 4, requires_grad=True) for _ in range(3))
        limits = {"cu_seqlens": torch.arange(0, length + 1, 256)} if packed else {"window": 256}
        o = attention(q, k, v, **limits).sum()
        with CountedElements() as counted:
            o.backward()
        counts.append(counted.count)
    assert counts[1] < 4.5 * counts[0]
