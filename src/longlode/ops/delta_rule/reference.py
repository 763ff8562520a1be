"""The delta rule as defined: the recurrence, one token per step. The reference of all tests."""

import itertools

import torch

from longlode.ops.chunking.precision import state_dtype


def delta_rule_reference(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the recurrence over every document; differentiable by autograd any number of times.

    Arguments and results as in `longlode.ops.delta_rule.delta_rule`; `offsets` is the checked `cu_seqlens`;
    `chunk` changes nothing.
    Cost: O(T K V) time in T sequential steps; autograd keeps every state, O(T K V) memory.
    """
    if offsets is None:
        return _one_document_a_row(q, k, v, beta, g, scale, state)
    outputs, states = [], []
    for n, (start, end) in enumerate(itertools.pairwise(offsets)):
        tokens = slice(start, end)
        o, final = _one_document_a_row(
            q[:, tokens],
            k[:, tokens],
            v[:, tokens],
            beta[:, tokens],
            None if g is None else g[:, tokens],
            scale,
            None if state is None else state[n : n + 1],
        )
        outputs.append(o)
        states.append(final)
    return torch.cat(outputs, dim=1), torch.cat(states)


def _one_document_a_row(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    dtype = state_dtype(q.dtype)
    B, T, H, K = q.shape
    S = q.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if state is None else state.to(dtype)
    outputs = []
    for t in range(T):
        q_t, k_t, v_t, beta_t = (x[:, t].to(dtype) for x in (q, k, v, beta))
        if g is not None:
            S = g[:, t].to(dtype).exp()[..., None, None] * S
        error = v_t - torch.einsum("bhkv,bhk->bhv", S, k_t)
        S = S + torch.einsum("bhk,bhv->bhkv", k_t, beta_t[..., None] * error)
        outputs.append(scale * torch.einsum("bhkv,bhk->bhv", S, q_t))
    return torch.stack(outputs, dim=1).to(q.dtype), S
