"""The convolution as W shifted products, over whole rows or packed documents."""

import functools
import itertools
from collections.abc import Iterable

import torch


def convolve(
    x: torch.Tensor, weight: torch.Tensor, state: torch.Tensor | None, offsets: list[int] | None
) -> torch.Tensor:
    """y before the activation, in the dtype of the sums; arguments as in `longlode.ops.short_conv.short_conv`, offsets
    checked.

    One shifted multiply-add a tap is a few streaming passes over memory; a grouped convolution needs `[B, D,
    T]`, which costs two transposes each way (measured at one thread: 1.2 to 2.5 times slower, forward and
    backward).
    """
    W = weight.shape[1]
    T = x.shape[1]
    narrow, x, weight = x.dtype != wide(x[:0]).dtype, wide(x), wide(weight)
    past = _rows_before(x, W - 1, state if offsets is None else None)
    padded = torch.cat((past, x), dim=1)
    y = sum_of_taps((padded[:, i : i + T] for i in reversed(range(W))), weight)
    if offsets is not None and W > 1:
        y = _restart_documents(y, x, weight, state, offsets, narrow)
    return y


def wide(x: torch.Tensor) -> torch.Tensor:
    """x in the dtype that sums are formed in: float32 for bfloat16 and float16, else its own."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def sum_of_taps(inputs: Iterable[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """sum_i weight[:, i] * input_i for inputs that come newest first: i = W - 1 down to 0."""
    taps = reversed(range(weight.shape[1]))
    return functools.reduce(torch.add, (x * weight[:, i] for x, i in zip(inputs, taps, strict=True)))


def last_inputs(
    x: torch.Tensor, num_inputs: int, state: torch.Tensor | None, offsets: list[int] | None
) -> torch.Tensor:
    """The last `num_inputs` inputs of each document, oldest first, `[N, D, num_inputs]`."""
    if offsets is None:
        recent = x[:, max(0, x.shape[1] - num_inputs) :]
        missing = num_inputs - recent.shape[1]
        if missing:
            past = _rows_before(x, num_inputs, state)
            recent = torch.cat((past[:, num_inputs - missing :], recent), dim=1)
    else:
        lengths = torch.tensor([end - start for start, end in itertools.pairwise(offsets)])
        position = lengths[:, None] - num_inputs + torch.arange(num_inputs)
        recent = _inputs_at(x, position, state, offsets)
    return recent.transpose(1, 2).contiguous()


def _rows_before(x: torch.Tensor, num_inputs: int, state: torch.Tensor | None) -> torch.Tensor:
    """The state, or zeros, as inputs in front of x: `[B, num_inputs, D]`."""
    if state is None:
        return x.new_zeros(x.shape[0], num_inputs, x.shape[2])
    return state.to(x.dtype).transpose(1, 2)


def _restart_documents(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor | None,
    offsets: list[int],
    narrow: bool,
) -> torch.Tensor:
    """Replace the outputs that looked across a document's start: the first W - 1 of each document.

    narrow: whether y will be rounded to a narrower dtype. A row of its own must then give the same bits, so its order
    of terms is kept; otherwise the quicker sum will do, a unit in the last place beside it.
    """
    W = weight.shape[1]
    N = len(offsets) - 1
    position = torch.arange(1 - W, W - 1).expand(N, -1)
    windows = _inputs_at(x, position, state, offsets).unfold(1, W, 1)  # [N, W - 1, D, W]
    restarted = sum_of_taps(reversed(windows.unbind(-1)), weight) if narrow else (windows * weight).sum(-1)
    starts, ends = torch.tensor(offsets[:-1])[:, None], torch.tensor(offsets[1:])[:, None]
    token = starts + torch.arange(W - 1)
    exists = token < ends
    return y.index_copy(1, token[exists].to(x.device), restarted[exists.to(x.device)][None].to(y.dtype))


def _inputs_at(
    x: torch.Tensor, position: torch.Tensor, state: torch.Tensor | None, offsets: list[int]
) -> torch.Tensor:
    """Inputs `[N, P, D]` of packed x `[1, T, D]` at positions `[N, P]` counted from each document's start.

    Position -1 is the newest entry of the document's state `[N, D, W - 1]`; without a state it is zero.
    Positions beyond a document's end give some other input, which the caller drops.
    """
    starts = torch.tensor(offsets[:-1])[:, None]
    token = (starts + position).clamp(0, offsets[-1] - 1).to(x.device)
    inputs = x[0][token]
    before = (position < 0).to(x.device)
    if state is None:
        return inputs.masked_fill(before[:, :, None], 0.0)
    from_end = (-position).clamp(1, state.shape[2]).to(x.device)
    index = (state.shape[2] - from_end)[:, None].expand(-1, state.shape[1], -1)
    from_state = state.to(x.dtype).gather(2, index).transpose(1, 2)
    return torch.where(before[:, :, None], from_state, inputs)
