"""The delta rule in chunks: matrix products inside a chunk, a scan over chunks, and its own backward.

Letters as in `README.md`, which derives every line. Per chunk, with L = [scale Q; beta K] (2C rows) and decay d:
    [P; A] = mask * d * (L K^T),  T = (I + A)^-1,  R = T (beta V - e^G (beta K) S),  O = e^G (scale Q) S + P R,
    S' = e^{G_C} S + (e^{G_C - G} K)^T R.
Nothing but the inputs and one state a tile is kept for the backward; it recomputes the tile and scans in reverse.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from longlode.ops.delta_rule.layout import Mover, Plan, Tile, make_plan
from longlode.ops.delta_rule.precision import state_dtype
from longlode.ops.delta_rule.triangular import unit_lower_inverse


def delta_rule_chunkwise(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: list[int] | None,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the chunk form; arguments and results as in `longlode.ops.delta_rule.delta_rule`.

    `offsets` is the checked `cu_seqlens`, `chunk` a power of two. Differentiable once.
    """
    B, T, H, _ = q.shape
    plan = make_plan(None if offsets is None else tuple(offsets), B, T, H, chunk, q.device.type != "cpu")
    inputs = (q, k, v, beta, g, state)
    differentiate = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    o, final_state = _DeltaRule.apply(*inputs, scale, plan, differentiate)
    return o, final_state


@dataclass
class _Decay:
    """e^G of the rows `[m, C, 1]`, e^{G_C - G} of the columns `[m, C, 1]`, e^{G_C} of the state `[m, 1, 1]`."""

    rows: torch.Tensor
    columns: torch.Tensor
    total: torch.Tensor


@dataclass
class _Intra:
    """What a tile's chunks are before any state comes in; `m` is chunks times heads.

    left: L = [scale Q; beta K] `[m, 2C, K]`; left_decayed = e^G L (L itself without decay).
    keys: K `[m, C, K]`; keys_decayed = e^{G_C - G} K (K itself without decay).
    values: V `[m, C, V]`.  beta: `[m, C, 1]`.  decay: None for plain DeltaNet.
    mask: causal masks times e^{G_i - G_j}, `[m, 2C, C]` (`[1, 2C, C]` without decay).
    scores: [P; A] = mask * (L K^T) `[m, 2C, C]`.  inverse: T `[m, C, C]`.
    """

    left: torch.Tensor
    left_decayed: torch.Tensor
    keys: torch.Tensor
    keys_decayed: torch.Tensor
    values: torch.Tensor
    beta: torch.Tensor
    decay: _Decay | None
    mask: torch.Tensor
    scores: torch.Tensor
    inverse: torch.Tensor


class _DeltaRule(torch.autograd.Function):
    """Forward and backward over the tiles of a plan."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        beta: torch.Tensor,
        g: torch.Tensor | None,
        state: torch.Tensor | None,
        scale: float,
        plan: Plan,
        differentiate: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        H, K, V = q.shape[2], q.shape[3], v.shape[3]
        order = torch.tensor(plan.order, device=q.device)
        shape, dtype = (len(plan.order), H, K, V), state_dtype(q.dtype)
        S_all = q.new_zeros(shape, dtype=dtype) if state is None else state[order].to(dtype).contiguous()
        o = torch.empty_like(v, dtype=q.dtype, memory_format=torch.contiguous_format)
        entering = []
        for tile in plan.tiles:
            S = S_all[tile.rows : tile.rows + tile.counts[0]].view(-1, K, V)
            if differentiate:
                entering.append(S.clone())
            mover = Mover(plan, tile, q.device)
            intra = _intra_chunk(q, k, v, beta, g, scale, plan, tile, mover)
            R, reads, _ = _scan(intra, S, tile, H)
            C = plan.chunk
            o_tile = torch.baddbmm(reads[:, :C], intra.scores[:, :C], R)
            mover.push(o_tile.view(-1, H, C, V), o)
        if differentiate:
            ctx.save_for_backward(q, k, v, beta, g, *entering)
            ctx.scale, ctx.plan = scale, plan
            ctx.state_like = None if state is None else state.dtype
            ctx.set_materialize_grads(False)
        final_state = torch.empty_like(S_all)
        final_state[order] = S_all
        return o, final_state

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, do: torch.Tensor | None, dfinal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        q, k, v, beta, g, *entering = ctx.saved_tensors
        plan: Plan = ctx.plan
        H, K, V = q.shape[2], q.shape[3], v.shape[3]
        with torch.autocast(q.device.type, enabled=False):
            order = torch.tensor(plan.order, device=q.device)
            shape, dtype = (len(plan.order), H, K, V), state_dtype(q.dtype)
            dS_all = (
                q.new_zeros(shape, dtype=dtype) if dfinal is None else dfinal[order].to(dtype).contiguous()
            )
            grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, beta)]
            dg = None if g is None else torch.empty_like(g, memory_format=torch.contiguous_format)
            for tile, S_in in zip(reversed(plan.tiles), reversed(entering), strict=True):
                mover = Mover(plan, tile, q.device)
                intra = _intra_chunk(q, k, v, beta, g, ctx.scale, plan, tile, mover)
                dS = dS_all[tile.rows : tile.rows + tile.counts[0]].view(-1, K, V)
                pieces = _tile_backward(intra, S_in, dS, do, ctx.scale, plan, tile, mover)
                for piece, grad in zip(pieces, (*grads, dg), strict=True):
                    if grad is not None:
                        mover.push(piece.view(-1, H, plan.chunk, *piece.shape[2:]), grad)
            dstate = None
            if ctx.state_like is not None:
                dstate = torch.empty_like(dS_all)
                dstate[order] = dS_all
                dstate = dstate.to(ctx.state_like)
        return (*grads, dg, dstate, None, None, None)


def _intra_chunk(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    plan: Plan,
    tile: Tile,
    mover: Mover,
) -> _Intra:
    """Bring a tile into chunks and compute all that needs no state."""
    H, K, V, C = q.shape[2], q.shape[3], v.shape[3], plan.chunk
    num, dtype = tile.num_chunks, state_dtype(q.dtype)
    left4 = q.new_empty(num, H, 2 * C, K, dtype=dtype)
    keys4 = q.new_empty(num, H, C, K, dtype=dtype)
    values = mover.pull(v, q.new_empty(num, H, C, V, dtype=dtype)).view(-1, C, V)
    beta_ = mover.pull(beta, q.new_empty(num, H, C, dtype=dtype)).view(-1, C, 1)
    mover.pull(q, left4[:, :, :C]).mul_(scale)
    keys = mover.pull(k, keys4).view(-1, C, K)
    left = left4.view(-1, 2 * C, K)
    torch.mul(keys, beta_, out=left[:, C:])
    scores = torch.bmm(left, keys.transpose(1, 2))
    left_decayed, keys_decayed, decay = left, keys, None
    if g is None:
        mask = _causal_masks(C, dtype, q.device)
    else:
        G = _cumulative(mover.pull(g, q.new_empty(num, H, C, dtype=dtype)).view(-1, C))
        mask = _decay_masks(G, dtype)
        decay = _Decay(
            *(x.exp().to(dtype) for x in (G[:, :, None], (G[:, -1:] - G)[:, :, None], G[:, -1:, None]))
        )
        left_decayed = (left.view(-1, 2, C, K) * decay.rows[:, None]).view(-1, 2 * C, K)
        keys_decayed = keys * decay.columns
    scores.mul_(mask)
    inverse = unit_lower_inverse(scores[:, C:])
    return _Intra(left, left_decayed, keys, keys_decayed, values, beta_, decay, mask, scores, inverse)


def _causal_masks(C: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Rows of P see themselves and the past, rows of A the past alone: `[1, 2C, C]` of ones and zeros."""
    ones = torch.ones(C, C, dtype=dtype, device=device)
    return torch.cat((ones.tril(), ones.tril(-1)))[None]


def _cumulative(g: torch.Tensor) -> torch.Tensor:
    """G, the running sum of g within a chunk, in float64: differences of G must not lose the small terms to large ones.

    -inf is cut to -1e4, whose exponential is 0 in every dtype, so that G_i - G_j is never inf - inf.
    """
    wide = g if g.device.type == "mps" else g.double()
    return wide.clamp_min(-1e4).cumsum(-1)


def _decay_masks(G: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The masks times e^{G_i - G_j}, `[m, 2C, C]`. Masked before exp: above the diagonal the exponent is positive."""
    C = G.shape[-1]
    future = torch.ones(C, C, dtype=torch.bool, device=G.device).triu(1)
    D = (G[:, :, None] - G[:, None, :]).to(dtype).masked_fill_(future, float("-inf")).exp_()
    return torch.cat((D, D.tril(-1)), dim=1)


def _scan(
    intra: _Intra, S: torch.Tensor, tile: Tile, H: int, keep_states: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Carry the state through the tile's steps; `S` `[rows * H, K, V]` is updated in place.

    Returns R `[m, C, V]`, the reads e^G L S `[m, 2C, V]` and, when asked, the state before each chunk `[m, K, V]`.
    """
    m, C, V = intra.values.shape
    R = torch.empty_like(intra.values)
    X = intra.values * intra.beta
    reads = X.new_empty(m, 2 * C, V)
    states = S.new_empty(m, *S.shape[1:]) if keep_states else None
    start = 0
    for count in tile.counts:
        step = slice(start, start + count * H)
        start = step.stop
        running = S[: count * H]
        if states is not None:
            states[step] = running
        torch.bmm(intra.left_decayed[step], running, out=reads[step])
        torch.bmm(intra.inverse[step], X[step].sub_(reads[step, C:]), out=R[step])
        if intra.decay is not None:
            running.mul_(intra.decay.total[step])
        running.baddbmm_(intra.keys_decayed[step].transpose(1, 2), R[step])
    return R, reads, states


def _tile_backward(
    intra: _Intra,
    S_in: torch.Tensor,
    dS: torch.Tensor,
    do: torch.Tensor | None,
    scale: float,
    plan: Plan,
    tile: Tile,
    mover: Mover,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Gradients of one tile: dq, dk `[m, C, K]`, dv `[m, C, V]`, dbeta, dg `[m, C]`. `dS` is carried back in place.

    N = [dO; -dX] pairs with L = [scale Q; beta K]: both halves enter the state and the scores in the same way.
    """
    m, C, V = intra.values.shape
    H = m // tile.num_chunks
    R, _, states = _scan(intra, S_in, tile, H, keep_states=True)
    assert states is not None
    N = R.new_zeros(m, 2 * C, V)
    if do is not None:
        mover.pull(do, N.view(-1, H, 2 * C, V)[:, :, :C])
    dkeys, dtotal = _scan_back(intra, N, R, states, dS, tile, H)
    dscores = torch.bmm(N, R.transpose(1, 2))
    dleft = torch.bmm(N, states.transpose(1, 2))
    dg = None
    if intra.decay is not None:
        dg = _decay_gradient(intra, dscores, dleft, dkeys, dtotal)
        dleft.view(m, 2, C, -1).mul_(intra.decay.rows[:, None])
        dkeys.mul_(intra.decay.columns)
    dscores.mul_(intra.mask)
    dleft.baddbmm_(dscores, intra.keys)
    dkeys.baddbmm_(dscores.transpose(1, 2), intra.left)
    dX, Z = N[:, C:].neg_(), dleft[:, C:]
    dbeta = torch.linalg.vecdot(dX, intra.values) + torch.linalg.vecdot(Z, intra.keys)
    dkeys.addcmul_(Z, intra.beta)
    return dleft[:, :C].mul_(scale), dkeys, dX.mul_(intra.beta), dbeta, dg


def _scan_back(
    intra: _Intra,
    N: torch.Tensor,
    R: torch.Tensor,
    states: torch.Tensor,
    dS: torch.Tensor,
    tile: Tile,
    H: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Carry the state's gradient back through the tile's steps; `dS` is updated in place, -dX is written into `N`.

    Returns the gradient of the decayed keys, R dS^T `[m, C, K]`, and (with decay) e^{G_C} <dS, S> `[m]`.
    """
    C = R.shape[1]
    dR = torch.bmm(intra.scores[:, :C].transpose(1, 2), N[:, :C])
    dkeys_decayed = torch.empty_like(intra.keys)
    dtotal = R.new_empty(R.shape[0])
    end = R.shape[0]
    for count in reversed(tile.counts):
        step = slice(end - count * H, end)
        end = step.start
        running = dS[: count * H]
        torch.bmm(R[step], running.transpose(1, 2), out=dkeys_decayed[step])
        dR[step].baddbmm_(intra.keys_decayed[step], running)
        N[step, C:] = torch.bmm(intra.inverse[step].transpose(1, 2), dR[step]).neg_()
        if intra.decay is not None:
            running.mul_(intra.decay.total[step])
            torch.sum(running * states[step], dim=(1, 2), out=dtotal[step])
        running.baddbmm_(intra.left_decayed[step].transpose(1, 2), N[step])
    return dkeys_decayed, dtotal


def _decay_gradient(
    intra: _Intra,
    dscores: torch.Tensor,
    dleft_decayed: torch.Tensor,
    dkeys_decayed: torch.Tensor,
    dtotal: torch.Tensor,
) -> torch.Tensor:
    """dg `[m, C]`: the sum of every term whose decay spans token t, added up without cancelling any.

    g_t stands in e^{G_i - G_j} for j < t <= i, in e^{G_i} for t <= i, in e^{G_C - G_j} for j < t, and in e^{G_C}.
    """
    m, C, _ = intra.values.shape
    pairs = (dscores * intra.scores).view(m, 2, C, C).sum(1)
    from_here = torch.ones(C, C, dtype=pairs.dtype, device=pairs.device).triu()
    spanning = torch.matmul(from_here, pairs).tril_(-1).sum(-1)
    reads = torch.linalg.vecdot(intra.left_decayed, dleft_decayed).view(m, 2, C).sum(1)
    writes = torch.linalg.vecdot(intra.keys_decayed, dkeys_decayed)
    later_reads = reads.flip(-1).cumsum(-1).flip(-1)
    earlier_writes = writes.cumsum(-1) - writes
    return spanning + later_reads + earlier_writes + dtotal[:, None]
