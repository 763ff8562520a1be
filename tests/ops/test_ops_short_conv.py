"""The short convolution: equal to the sum that defines it, in pieces, packed and token by token."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from longlode.core.errors import ConfigError
from longlode.ops.short_conv import short_conv, short_conv_step

small = settings(max_examples=20, deadline=None, derandomize=True)


def make(B, T, D, W, N=None, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    shapes = ((B, T, D), (D, W), (N or B, D, W - 1))
    return [torch.randn(*shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes]


def by_definition(x, weight, state, ahead=0):
    """The sum over taps, token by token; `ahead` = 1 reads one token too far: a wrong variant."""
    W = weight.shape[1]
    inputs = torch.cat((state.transpose(1, 2), x, torch.zeros_like(x[:, :1])), 1)
    y = torch.stack(
        [sum(inputs[:, t + i + ahead] * weight[:, i] for i in range(W)) for t in range(x.shape[1])], 1
    )
    return y * torch.sigmoid(y)


@pytest.mark.parametrize("W", [1, 2, 4])
@pytest.mark.parametrize("T", [1, 2, 3, 4, 9])
def test_equals_the_definition(T, W):
    x, weight, state = make(2, T, 3, W)
    y, _ = short_conv(x, weight, state=state)
    torch.testing.assert_close(y, by_definition(x, weight, state), rtol=0, atol=1e-12)
    assert float((y - by_definition(x, weight, state, ahead=1)).abs().max()) > 1e-3
    y, _ = short_conv(x, weight)
    torch.testing.assert_close(y, by_definition(x, weight, torch.zeros_like(state)), rtol=0, atol=1e-12)


def test_equals_torch_convolution():
    x, weight, _ = make(2, 20, 5, 4)
    expected = torch.nn.functional.conv1d(x.transpose(1, 2), weight[:, None], padding=3, groups=5)[..., :20]
    y, _ = short_conv(x, weight, activation=None)
    torch.testing.assert_close(y, expected.transpose(1, 2), rtol=0, atol=1e-12)


@small
@given(T=st.integers(2, 12), cut=st.floats(0, 1), W=st.sampled_from([1, 2, 4]), seed=st.integers(0, 99))
def test_pieces_equal_whole(T, cut, W, seed):
    x, weight, state = make(2, T, 3, W, seed=seed)
    t = 1 + int(cut * (T - 2))
    y, final = short_conv(x, weight, state=state)
    y_1, middle = short_conv(x[:, :t], weight, state=state)
    y_2, end = short_conv(x[:, t:], weight, state=middle)
    torch.testing.assert_close(torch.cat((y_1, y_2), 1), y, rtol=0, atol=1e-12)
    assert torch.equal(end, final)


@small
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    with_state=st.booleans(),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
)
def test_packed_gives_the_bits_of_separate_in_narrow_dtypes(lengths, with_state, dtype):
    x, weight, state = make(1, sum(lengths), 40, 4, N=len(lengths), dtype=dtype)
    offsets = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    y, final = short_conv(x, weight, state=state if with_state else None, cu_seqlens=torch.tensor(offsets))
    for n, start in enumerate(offsets[:-1]):
        tokens = slice(start, offsets[n + 1])
        y_n, final_n = short_conv(x[:, tokens], weight, state=state[n : n + 1] if with_state else None)
        assert torch.equal(y[:, tokens], y_n)
        assert torch.equal(final[n : n + 1], final_n)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("activation", ["silu", None])
def test_low_precision_is_rounded_once(dtype, activation):
    x, weight, state = make(2, 60, 40, 4, dtype=dtype)
    wide = [t.float() for t in (x, weight, state)]
    exact, _ = short_conv(*wide[:2], state=wide[2], activation=activation)
    y, _ = short_conv(x, weight, state=state, activation=activation)
    assert torch.equal(y, exact.to(dtype))
    y_t, _ = short_conv_step(x[:, 0], weight, state=state, activation=activation)
    exact_t, _ = short_conv_step(wide[0][:, 0], wide[1], state=wide[2], activation=activation)
    assert torch.equal(y_t, exact_t.to(dtype))


@small
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    W=st.sampled_from([1, 2, 4]),
    with_state=st.booleans(),
)
def test_packed_equals_separate(lengths, W, with_state):
    x, weight, state = make(1, sum(lengths), 3, W, N=len(lengths))
    offsets = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    y, final = short_conv(x, weight, state=state if with_state else None, cu_seqlens=torch.tensor(offsets))
    for n, start in enumerate(offsets[:-1]):
        tokens = slice(start, offsets[n + 1])
        y_n, final_n = short_conv(x[:, tokens], weight, state=state[n : n + 1] if with_state else None)
        torch.testing.assert_close(y[:, tokens], y_n, rtol=0, atol=1e-12)
        assert torch.equal(final[n : n + 1], final_n)


def test_steps_equal_whole():
    x, weight, state = make(2, 9, 3, 4)
    y, final = short_conv(x, weight, state=state)
    for t in range(9):
        y_t, state = short_conv_step(x[:, t], weight, state=state)
        torch.testing.assert_close(y_t, y[:, t], rtol=0, atol=1e-12)
    assert torch.equal(state, final)


@pytest.mark.parametrize("offsets", [None, [0, 1, 3, 7]])
def test_gradcheck(offsets):
    tensors = make(1, 7, 2, 4, N=1 if offsets is None else 3)
    offsets = None if offsets is None else torch.tensor(offsets)

    def run(x, weight, state):
        return short_conv(x, weight, state=state, cu_seqlens=offsets)

    assert torch.autograd.gradcheck(run, [t.requires_grad_() for t in tensors])


def test_a_document_never_sees_another():
    x, weight, _ = make(1, 12, 3, 4)
    x[:, 4:6] = float("nan")
    y, final = short_conv(x, weight, cu_seqlens=torch.tensor([0, 4, 6, 12]))
    assert bool(y[:, :4].isfinite().all())
    assert bool(y[:, 6:].isfinite().all())
    assert final.isnan().any(dim=(1, 2)).tolist() == [False, True, False]


def test_dtype_is_kept():
    x, weight, state = make(2, 5, 3, 4, dtype=torch.bfloat16)
    y, final = short_conv(x, weight.float(), state=state.float())
    assert y.dtype == final.dtype == torch.bfloat16
    y, new = short_conv_step(x[:, 0], weight, state=state)
    assert y.dtype == new.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.zeros(4, 4)}, r"weight has shape \[4, 4\]; expected \[D=3, W\]"),
        ({"state": torch.zeros(2, 3, 4)}, r"state has shape \[2, 3, 4\]; expected \[N=2, D=3, P=3\]"),
        ({"activation": "relu"}, "activation is 'relu'; expected 'silu' or None"),
        ({"cu_seqlens": torch.tensor([0, 5])}, "expected B = 1"),
        ({"x": torch.zeros(2, 0, 3)}, "T = 0 tokens"),
        ({"x": torch.zeros(0, 5, 3)}, "B = 0 rows"),
    ],
)
def test_refused_arguments(change, message):
    with pytest.raises(ConfigError, match=message):
        short_conv(**({"x": torch.zeros(2, 5, 3), "weight": torch.zeros(3, 4)} | change))
