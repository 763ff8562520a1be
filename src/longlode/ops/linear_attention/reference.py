"""Linear attention as defined: the recurrence, one token per step. The reference of all tests."""

import itertools

import torch

from longlode.ops.chunking.precision import state_dtype


def advance(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance by one token: q, k `[B, H, K]`, v `[B, H, V]`, g `[B, H]` or `[B, H, K]` -> o, next state."""
    dtype = state_dtype(q.dtype)
    q, k, v, S = (x.to(dtype) for x in (q, k, v, state))
    if g is not None:
        decay = g.to(dtype).exp()
        S = (decay[..., None] if g.dim() == 3 else decay[..., None, None]) * S
    S = S + k[..., :, None] * v[..., None, :]
    return scale * torch.einsum("bhkv,bhk->bhv", S, q), S


def linear_attention_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the recurrence over every document; autograd differentiates it.

    Arguments and results as in `longlode.ops.linear_attention.linear_attention`; `offsets` is the checked `cu_seqlens`;
    `chunk` changes nothing.
    Cost: O(T K V) time in T sequential steps; autograd keeps every state.
    """
    B, T, H, K = q.shape
    if offsets is None:
        pieces = [(slice(0, B), 0, T)]
    else:
        pieces = [(slice(n, n + 1), *edges) for n, edges in enumerate(itertools.pairwise(offsets))]
    if state is None:
        num_documents = B if offsets is None else len(pieces)
        state = q.new_zeros(num_documents, H, K, v.shape[-1], dtype=state_dtype(q.dtype))
    outputs, states = [], []
    for documents, start, end in pieces:
        S = state[documents]
        for t in range(start, end):
            o, S = advance(q[:, t], k[:, t], v[:, t], None if g is None else g[:, t], scale, S)
            outputs.append(o)
        states.append(S)
    return torch.stack(outputs, dim=1).to(q.dtype), torch.cat(states)
