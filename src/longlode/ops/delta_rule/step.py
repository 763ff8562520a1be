"""One token of the delta rule, fused: the state is read once for the key and the query together."""

import torch

from longlode.ops.chunking.precision import state_dtype


def fused_step(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advance by one token; shapes as in `longlode.ops.delta_rule.delta_rule_step`. Differentiable by autograd.

    With r = beta (v - S^T k), the read after the write is S'^T q = S^T q + (k . q) r, so S^T [k q] is one
    product and S is written once.
    """
    dtype = state_dtype(q.dtype)
    B, H, K, V = state.shape
    S = state.to(dtype)
    if g is not None:
        S = g.to(dtype).exp()[..., None, None] * S
    S = S.reshape(B * H, K, V)
    kq = torch.stack((k, q), dim=2).to(dtype).reshape(B * H, 2, K)
    reads = torch.bmm(kq, S)
    r = beta.to(dtype).reshape(B * H, 1) * (v.to(dtype).reshape(B * H, V) - reads[:, 0])
    k_dot_q = (kq[:, 0] * kq[:, 1]).sum(-1, keepdim=True)
    o = scale * (reads[:, 1] + k_dot_q * r)
    new_state = torch.baddbmm(S, kq[:, :1].transpose(1, 2), r[:, None])
    return o.to(q.dtype).view(B, H, V), new_state.view(B, H, K, V)
