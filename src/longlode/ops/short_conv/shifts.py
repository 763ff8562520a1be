"""The convolution as W shifted products, over whole rows or packed documents."""

import torch
import torch.nn.functional as F


def convolve(
    x: torch.Tensor, weight: torch.Tensor, state: torch.Tensor | None, offsets: list[int] | None
) -> torch.Tensor:
    """y before the activation; arguments as in `longlode.ops.short_conv.short_conv`, offsets checked.

    One shifted multiply-add a tap: a few streaming passes over memory, where a grouped convolution on `[B, D, T]` would
    need two transposes.
    """
    W = weight.shape[1]
    past = _rows_before(x, W - 1, state if offsets is None else None)
    padded = torch.cat((past, x), dim=1)
    T = x.shape[1]
    y = padded[:, W - 1 :] * weight[:, W - 1]
    for lag in range(1, W):
        shifted = padded[:, W - 1 - lag : W - 1 - lag + T]
        if offsets is not None:
            shifted = shifted * _has_past(offsets, lag, x)
        y = y + shifted * weight[:, W - 1 - lag]
    if offsets is not None and state is not None:
        y = y + _from_states(weight, state.to(x.dtype), offsets, T)
    return y.to(x.dtype)


def last_inputs(
    x: torch.Tensor, num_inputs: int, state: torch.Tensor | None, offsets: list[int] | None
) -> torch.Tensor:
    """The last `num_inputs` inputs of each document, oldest first, `[N, D, num_inputs]`."""
    if offsets is None:
        T = x.shape[1]
        if num_inputs <= T:
            return x[:, T - num_inputs :].transpose(1, 2).contiguous()
        past = _rows_before(x, num_inputs, state)
        return torch.cat((past, x), dim=1)[:, T:].transpose(1, 2).contiguous()
    N, D = len(offsets) - 1, x.shape[2]
    before = x.new_zeros(N, D, num_inputs) if state is None else state.to(x.dtype)
    starts, ends = (torch.tensor(part, device=x.device) for part in (offsets[:-1], offsets[1:]))
    token = ends[:, None] - num_inputs + torch.arange(num_inputs, device=x.device)
    inside = token >= starts[:, None]
    from_x = x[0][token.clamp_min(0)].transpose(1, 2)
    # Input -1 - p before the document is the state's entry num_inputs - 1 - p.
    index = (token - starts[:, None] + num_inputs).clamp(0, num_inputs - 1) if num_inputs else token
    from_state = before.gather(2, index[:, None].expand(N, D, num_inputs))
    return torch.where(inside[:, None], from_x, from_state)


def _rows_before(x: torch.Tensor, num_inputs: int, state: torch.Tensor | None) -> torch.Tensor:
    if state is None:
        return x.new_zeros(x.shape[0], num_inputs, x.shape[2])
    return state.to(x.dtype).transpose(1, 2)


def _has_past(offsets: list[int], lag: int, x: torch.Tensor) -> torch.Tensor:
    """`[T, 1]`: 1 where the token `lag` places back is in the same document."""
    mask = torch.ones(offsets[-1], 1, dtype=x.dtype)
    for start in range(lag):
        first = torch.tensor(offsets[:-1]) + start
        mask[first[first < offsets[-1]]] = 0
    return mask.to(x.device)


def _from_states(weight: torch.Tensor, state: torch.Tensor, offsets: list[int], T: int) -> torch.Tensor:
    """What the states `[N, D, W - 1]` add to the first W - 1 outputs of each document, as `[1, T, D]`."""
    W = weight.shape[1]
    lengths = [end - start for start, end in zip(offsets, offsets[1:], strict=False)]
    reads = F.pad(state, (0, W - 1)).unfold(2, W, 1)  # [N, D, W - 1, W]: window of output t, future as zeros
    added = torch.einsum("ndtw,dw->ntd", reads[:, :, : W - 1], weight.to(state.dtype))
    within = torch.arange(W - 1) < torch.tensor(lengths)[:, None]
    token = (torch.tensor(offsets[:-1])[:, None] + torch.arange(W - 1))[within].to(state.device)
    total = state.new_zeros(T, state.shape[1])
    return total.index_put((token,), added[within.to(state.device)])[None]
