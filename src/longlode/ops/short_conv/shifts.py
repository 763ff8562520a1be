"""The convolution as W shifted products, over whole rows or packed documents."""

import functools
import itertools
from collections.abc import Iterable
from typing import NamedTuple

import torch

from longlode.ops.dtypes import at_least_float32
from longlode.ops.packed import kept


def convolve(
    x: torch.Tensor, weight: torch.Tensor, state: torch.Tensor | None, offsets: tuple[int, ...] | None
) -> torch.Tensor:
    """Compute y before the activation, in the dtype of the sums; arguments as in `short_conv`, offsets checked.

    One shifted multiply-add per tap is a few streaming passes over memory; a grouped convolution needs `[B, D,
    T]`, which costs two transposes each way (measured at one thread: 1.2 to 2.5 times slower, forward and
    backward).
    """
    W = weight.shape[1]
    T = x.shape[1]
    narrow, x, weight = (
        x.dtype != at_least_float32(x[:0]).dtype,
        at_least_float32(x),
        at_least_float32(weight),
    )
    past = _rows_before(x, W - 1, state if offsets is None else None)
    padded = torch.cat((past, x), dim=1)
    y = sum_of_taps((padded[:, i : i + T] for i in reversed(range(W))), weight)
    if offsets is not None and W > 1:
        y = _restart_documents(y, x, weight, state, offsets, narrow)
    return y


def activated(y: torch.Tensor, activation: str | None, unit_norm: int | None, eps: float) -> torch.Tensor:
    """Apply the activation, then divide each `unit_norm` channels of y by the root of their squared length plus eps."""
    y = torch.nn.functional.silu(y) if activation == "silu" else y
    if unit_norm is None:
        return y
    heads = y.unflatten(-1, (-1, unit_norm))
    return (heads * torch.rsqrt(heads.square().sum(-1, keepdim=True) + eps)).flatten(-2)


def sum_of_taps(inputs: Iterable[torch.Tensor], weight: torch.Tensor) -> torch.Tensor:
    """Sum weight[:, i] * input_i over i, for inputs given newest first: i = W - 1 down to 0."""
    taps = reversed(range(weight.shape[1]))
    return functools.reduce(torch.add, (x * weight[:, i] for x, i in zip(inputs, taps, strict=True)))


def last_inputs(
    x: torch.Tensor, num_inputs: int, state: torch.Tensor | None, offsets: tuple[int, ...] | None
) -> torch.Tensor:
    """Return the last `num_inputs` inputs of each document, oldest first, `[N, D, num_inputs]`."""
    if offsets is None:
        recent = x[:, max(0, x.shape[1] - num_inputs) :]
        missing = num_inputs - recent.shape[1]
        if missing:
            past = _rows_before(x, num_inputs, state)
            recent = torch.cat((past[:, num_inputs - missing :], recent), dim=1)
    else:
        recent = _inputs_at(x, _last_places(offsets, num_inputs, x.device), state)
    return recent.transpose(1, 2).contiguous()


def _rows_before(x: torch.Tensor, num_inputs: int, state: torch.Tensor | None) -> torch.Tensor:
    """Return the state, or zeros, as inputs before x: `[B, num_inputs, D]`."""
    if state is None:
        return x.new_zeros(x.shape[0], num_inputs, x.shape[2])
    return state.to(x.dtype).transpose(1, 2)


def _restart_documents(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    state: torch.Tensor | None,
    offsets: tuple[int, ...],
    narrow: bool,
) -> torch.Tensor:
    """Replace the outputs that depend on the previous document: the first W - 1 of each document.

    narrow: True if y will be rounded to a narrower dtype. Then the terms are summed in the order of an unpacked row, to
    give the same bits; otherwise a faster order is used, which may differ in the last bit.
    """
    W = weight.shape[1]
    windows = _inputs_at(x, _first_places(offsets, W, x.device), state).unfold(1, W, 1)  # [N, W - 1, D, W]
    restarted = sum_of_taps(reversed(windows.unbind(-1)), weight) if narrow else (windows * weight).sum(-1)
    token, which = _first_tokens(offsets, W, x.device)
    return y.index_copy(1, token, restarted.flatten(0, 1)[which][None].to(y.dtype))


class _Places(NamedTuple):
    """Locations of inputs of documents: positions `[N, P]` counted from each document's start, and their tokens.

    token: `[N, P]` index in the packed row, clamped to its ends.  before: `[N, P]`, True before the document's start.
    from_end: `[N, P]` int, for these the distance from the end of the document's state, 1 for its newest entry.
    """

    token: torch.Tensor
    before: torch.Tensor
    from_end: torch.Tensor


def _places(offsets: tuple[int, ...], position: torch.Tensor, device: torch.device) -> _Places:
    starts = torch.tensor(offsets[:-1], device="cpu")[:, None]
    token = (starts + position).clamp(0, offsets[-1] - 1)
    return _Places(*(x.to(device) for x in (token, position < 0, -position)))


@kept
def _last_places(offsets: tuple[int, ...], num_inputs: int, device: torch.device) -> _Places:
    """Locate the last `num_inputs` positions of each document, negative where it is shorter."""
    lengths = torch.tensor([end - start for start, end in itertools.pairwise(offsets)], device="cpu")
    position = lengths[:, None] - num_inputs + torch.arange(num_inputs, device="cpu")
    return _places(offsets, position, device)


@kept
def _first_places(offsets: tuple[int, ...], W: int, device: torch.device) -> _Places:
    """Locate the 2 W - 2 positions in the windows of a document's first W - 1 tokens."""
    position = torch.arange(1 - W, W - 1, device="cpu").expand(len(offsets) - 1, -1)
    return _places(offsets, position, device)


@kept
def _first_tokens(
    offsets: tuple[int, ...], W: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Locate the first W - 1 tokens of each document that exist, and their places among N (W - 1)."""
    starts, ends = (torch.tensor(x, device="cpu")[:, None] for x in (offsets[:-1], offsets[1:]))
    token = starts + torch.arange(W - 1, device="cpu")
    exists = token < ends
    # Indices and not a mask, whose number of places a device would have to be asked for.
    return token[exists].to(device), exists.flatten().nonzero()[:, 0].to(device)


def _inputs_at(x: torch.Tensor, places: _Places, state: torch.Tensor | None) -> torch.Tensor:
    """Gather inputs `[N, P, D]` of packed x `[1, T, D]` at `places`.

    Inputs before a document come from its state `[N, D, W - 1]`, or are zero without one; those beyond its end are
    arbitrary, and the caller drops them.
    """
    inputs = x[0][places.token]
    if state is None:
        return inputs.masked_fill(places.before[:, :, None], 0.0)
    # Clamped, because gather also reads (and `where` then drops) the index at positions inside the document.
    index = (state.shape[2] - places.from_end.clamp(1, state.shape[2]))[:, None]
    from_state = state.to(x.dtype).gather(2, index.expand(-1, state.shape[1], -1)).transpose(1, 2)
    return torch.where(places.before[:, :, None], from_state, inputs)
