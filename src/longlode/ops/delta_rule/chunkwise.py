"""The delta rule in chunks: matrix products inside a chunk, a scan over chunks, and its own backward.

Symbols as in `README.md`, which derives every line. Per chunk, with L = [scale Q; beta K] (2C rows):
    [P; A] = mask * (L K^T),  T = (I + A)^-1,  R = T (beta V - e^G beta K S),  O = e^G scale Q S + P R,
    S' = e^{G_C} S + (e^{G_C - G} K)^T R.
The backward keeps the inputs, T where it is small, and one state per tile; it recomputes the rest of a tile and scans
in reverse.
"""

from dataclasses import dataclass
from typing import Any

import torch

from longlode.ops.chunking.layout import Mover, Plan, Tile, make_plan, order_on
from longlode.ops.chunking.precision import state_dtype
from longlode.ops.chunking.scratch import Scratch
from longlode.ops.chunking.triangular import unit_lower_inverse
from longlode.ops.delta_rule.first_order import first_order
from longlode.ops.surroundings import fixed_sizes

# Small chunks do less arithmetic, large ones fewer steps; a step costs more on a GPU.
_CPU_CHUNK = 32
_GPU_CHUNK = 64


def delta_rule_chunkwise(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    beta: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    chunk: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the chunk form; arguments and results as in `longlode.ops.delta_rule.delta_rule`.

    `offsets` is the checked `cu_seqlens`; `chunk` is a power of two, None for the fastest on the
    device. Differentiable once.
    """
    B, T, H, _ = fixed_sizes(q)
    on_cpu = q.device.type == "cpu"
    chunk = chunk or (_CPU_CHUNK if on_cpu else _GPU_CHUNK)
    plan = make_plan(offsets, B, T, H, chunk, not on_cpu)
    inputs = (q, k, v, beta, g, state)
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        o, final_state = _DeltaRule.apply(*inputs, scale, plan)
        return o, final_state
    # Without gradients autograd.Function is avoided, as exporters would trace its backward too.
    return _forward(_Call(q, k, v, beta, g, scale, plan), state, None)


class _Call:
    """Data shared by all tiles of one forward or backward call."""

    def __init__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        beta: torch.Tensor,
        g: torch.Tensor | None,
        scale: float,
        plan: Plan,
    ) -> None:
        self.q, self.k, self.v, self.beta, self.g, self.plan = q, k, v, beta, g, plan
        self.H, self.K = fixed_sizes(q)[2:]
        self.V, self.C = fixed_sizes(v)[3], plan.chunk
        self.scratch = Scratch(state_dtype(q.dtype), q.device)
        # As a tensor, so that a product with a bfloat16 input is formed, and kept, in float32.
        self.scale = torch.full((1, 1, 1, 1), scale, dtype=self.scratch.dtype, device=q.device)
        ones = torch.ones(self.C, self.C, dtype=self.scratch.dtype, device=q.device)
        self.causal = torch.stack((ones.tril(), ones.tril(-1)))
        self.order = order_on(plan.order, q.device)

    def sorted_states(self, states: torch.Tensor | None) -> torch.Tensor:
        """Copy `[N, H, K, V]` states into the plan's order of documents; zeros for None."""
        if states is None:
            shape = (len(self.plan.order), self.H, self.K, self.V)
            return torch.zeros(shape, dtype=self.scratch.dtype, device=self.q.device)
        return states[self.order].to(self.scratch.dtype).contiguous()

    def callers_states(self, states: torch.Tensor) -> torch.Tensor:
        """Copy sorted states into the caller's order of documents."""
        result = torch.empty_like(states)
        result[self.order] = states
        return result

    def tile_states(self, states: torch.Tensor, tile: Tile) -> torch.Tensor:
        """Return the view `[rows * H, K, V]` of the states of the tile's documents."""
        return states[tile.rows : tile.rows + tile.counts[0]].view(-1, self.K, self.V)


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
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor | None] = []
        o, final_state = _forward(_Call(q, k, v, beta, g, scale, plan), state, kept)
        ctx.save_for_backward(q, k, v, beta, g, *kept)
        ctx.scale, ctx.plan = scale, plan
        ctx.state_dtype = None if state is None else state.dtype
        ctx.set_materialize_grads(False)
        return o, final_state

    @staticmethod
    def backward(
        ctx: Any, do: torch.Tensor | None, dfinal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        return first_order("chunkwise", _DeltaRule._backward, ctx, do, dfinal)

    @staticmethod
    def _backward(
        ctx: Any, do: torch.Tensor | None, dfinal: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, ...]:
        q, k, v, beta, g, *kept = ctx.saved_tensors
        plan: Plan = ctx.plan
        with torch.autocast(q.device.type, enabled=False):
            call = _Call(q, k, v, beta, g, ctx.scale, plan)
            dstates = call.sorted_states(dfinal)
            inputs = (q, k, v, beta) if g is None else (q, k, v, beta, g)
            grads = [torch.empty_like(x, memory_format=torch.contiguous_format) for x in inputs]
            entering, inverses = kept[0::2], kept[1::2]
            for i in reversed(range(len(plan.tiles))):
                tile = plan.tiles[i]
                mover = Mover(plan, tile)
                chunks = _chunks_of(call, tile, mover, inverse=inverses[i])
                _tile_backward(
                    call, chunks, entering[i], call.tile_states(dstates, tile), do, tile, mover, grads
                )
            dstate = None if ctx.state_dtype is None else call.callers_states(dstates).to(ctx.state_dtype)
        return (*grads[:4], None if g is None else grads[4], dstate, None, None)


def _forward(
    call: _Call, state: torch.Tensor | None, kept: list[torch.Tensor | None] | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute outputs and final states; `kept` receives, for each tile, the states before it and T (or None)."""
    states = call.sorted_states(state)
    o = torch.empty(call.v.shape, dtype=call.q.dtype, device=call.q.device)
    # Then T is no larger than K, and it is the most expensive part to compute again.
    keep_inverse = kept is not None and call.C <= call.K
    for tile in call.plan.tiles:
        S = call.tile_states(states, tile)
        mover = Mover(call.plan, tile)
        inverse = S.new_empty(tile.num_chunks * call.H, call.C, call.C) if keep_inverse else None
        chunks = _chunks_of(call, tile, mover, store=inverse)
        if kept is not None:
            kept += [S.clone(), inverse]
        reads = call.scratch.take("reads", *chunks.X.shape)
        R = _scan(call, chunks, S, tile, reads=reads)
        reads.baddbmm_(chunks.scores[:, : call.C], R)
        mover.push(reads.view(-1, call.H, call.C, call.V), o)
    return o, call.callers_states(states)


@dataclass
class _Decay:
    """e^G of rows `[m, C, 1]`, e^{G_C - G} of columns `[m, C, 1]`, e^{G_C} of the state `[m, 1, 1]`."""

    rows: torch.Tensor
    columns: torch.Tensor
    total: torch.Tensor


@dataclass
class _Chunks:
    """A tile's chunks, as far as they do not depend on states; `m` is chunks times heads.

    left: L = [scale Q; beta K] `[m, 2C, K]`; left_decayed = e^G L (L itself without decay).
    keys: K `[m, C, K]`; keys_decayed = e^{G_C - G} K (K itself without decay).
    X: beta V `[m, C, V]`.  beta: `[m, C, 1]`.  decay: None for plain DeltaNet.
    mask: causal masks times e^{G_i - G_j}, `[m, 2C, C]` (`[1, 2C, C]` without decay).
    scores: [P; A] = mask * (L K^T) `[m, 2C, C]`.  inverse: T `[m, C, C]`.
    """

    left: torch.Tensor
    left_decayed: torch.Tensor
    keys: torch.Tensor
    keys_decayed: torch.Tensor
    X: torch.Tensor
    beta: torch.Tensor
    decay: _Decay | None
    mask: torch.Tensor
    scores: torch.Tensor
    inverse: torch.Tensor

    @property
    def total_decay(self) -> torch.Tensor | None:
        """e^{G_C} `[m, 1, 1]`, or None."""
        return None if self.decay is None else self.decay.total


def _chunks_of(
    call: _Call,
    tile: Tile,
    mover: Mover,
    *,
    inverse: torch.Tensor | None = None,
    store: torch.Tensor | None = None,
) -> _Chunks:
    """Copy a tile into chunks and compute all that does not depend on states.

    inverse: T `[m, C, C]` if already known.  store: output for it if not; None is a buffer of the call.
    """
    H, K, V, C, take = call.H, call.K, call.V, call.C, call.scratch.take
    num = tile.num_chunks
    m = num * H
    beta = mover.pull(call.beta, take("beta", num, H, C))[..., None]
    left = take("left", num, H, 2 * C, K)
    mover.pull(call.q, left[:, :, :C], call.scale.expand_as(beta))
    mover.pull(call.k, left[:, :, C:], beta)
    keys = mover.pull(call.k, take("keys", num, H, C, K)).view(m, C, K)
    X = mover.pull(call.v, take("X", num, H, C, V), beta).view(m, C, V)
    left, beta = left.view(m, 2 * C, K), beta.view(m, C, 1)
    scores = torch.bmm(left, keys.transpose(1, 2), out=take("scores", m, 2 * C, C))
    left_decayed, keys_decayed, decay = left, keys, None
    mask = call.causal.view(1, 2 * C, C)
    if call.g is not None:
        mask, decay = _decays(call, mover.pull(call.g, take("g", num, H, C)).view(m, C))
        halves = torch.mul(left.view(m, 2, C, K), decay.rows[:, None], out=take("left_decayed", m, 2, C, K))
        left_decayed = halves.view(m, 2 * C, K)
        keys_decayed = torch.mul(keys, decay.columns, out=take("keys_decayed", m, C, K))
    scores.mul_(mask)
    if inverse is None:
        out = take("inverse", m, C, C) if store is None else store
        inverse = unit_lower_inverse(scores[:, C:], out=out)
    return _Chunks(left, left_decayed, keys, keys_decayed, X, beta, decay, mask, scores, inverse)


def _decays(call: _Call, g: torch.Tensor) -> tuple[torch.Tensor, _Decay]:
    """Compute the masks times e^{G_i - G_j} `[m, 2C, C]` and the other decays, from g `[m, C]`.

    G is summed in float64 (MPS has none): its differences must keep small terms beside large ones.
    -inf is cut to -1e4, whose exponential is 0 in every dtype, so that no difference is inf - inf. Above the
    diagonal the exponent is positive and may overflow: it is set to -inf before the exponential, not masked
    after it.
    """
    m, C = g.shape
    G = (g if g.device.type == "mps" else g.double()).clamp_min(-1e4).cumsum(-1)
    future = torch.full((C, C), float("-inf"), dtype=g.dtype, device=g.device).triu_(1)
    D = call.scratch.take("decay", m, 1, C, C).copy_((G[:, :, None] - G[:, None, :])[:, None])
    D.add_(future).exp_()
    mask = torch.mul(D, call.causal, out=call.scratch.take("mask", m, 2, C, C))
    exponents = (G[:, :, None], (G[:, -1:] - G)[:, :, None], G[:, -1:, None])
    return mask.view(m, 2 * C, C), _Decay(*(x.exp().to(g.dtype) for x in exponents))


def _scan(
    call: _Call,
    chunks: _Chunks,
    S: torch.Tensor,
    tile: Tile,
    *,
    reads: torch.Tensor | None = None,
    states: torch.Tensor | None = None,
) -> torch.Tensor:
    """Propagate the state through the tile's steps; `S` `[rows * H, K, V]` and `chunks.X` are updated in place.

    Returns R `[m, C, V]`. Fills, where given, reads = e^G scale Q S `[m, C, V]` and the state before each
    chunk, states `[m, K, V]`.
    """
    steps = _Steps(tile, call.H)
    R = call.scratch.take("R", *chunks.X.shape)
    left, inverses, keys = (steps.of(x) for x in (chunks.left_decayed, chunks.inverse, chunks.keys_decayed))
    Xs, Rs, totals = steps.of(chunks.X), steps.of(R), steps.of(chunks.total_decay)
    each_reads, each_states = steps.of(reads), steps.of(states)
    C = call.C
    for i, num in enumerate(steps.sizes):
        running = S[:num]
        if reads is not None:
            torch.bmm(left[i][:, :C], running, out=each_reads[i])
        if states is not None:
            each_states[i].copy_(running)
        Xs[i].baddbmm_(left[i][:, C:], running, alpha=-1)
        torch.bmm(inverses[i], Xs[i], out=Rs[i])
        if chunks.decay is not None:
            running.mul_(totals[i])
        running.baddbmm_(keys[i].transpose(1, 2), Rs[i])
    return R


class _Steps:
    """Splits tensors whose first dimension is chunks times heads into the steps of the scan."""

    def __init__(self, tile: Tile, H: int) -> None:
        self.sizes = [count * H for count in tile.counts]

    def of(self, x: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Return one view per step; an empty tuple for None."""
        return () if x is None else x.split(self.sizes)


def _tile_backward(
    call: _Call,
    chunks: _Chunks,
    S: torch.Tensor,
    dS: torch.Tensor,
    do: torch.Tensor | None,
    tile: Tile,
    mover: Mover,
    grads: list[torch.Tensor],
) -> None:
    """Write the tile's part of `grads` (of q, k, v, beta, g) and propagate `dS` back in place.

    S: the states before the tile.     N = [dO; -dX] pairs with L = [scale Q; beta K]: both halves are multiplied
      with the state and the scores in the same way.
    """
    H, K, V, C, take = call.H, call.K, call.V, call.C, call.scratch.take
    m = tile.num_chunks * H
    states = take("states", m, K, V)
    R = _scan(call, chunks, take("S", *S.shape).copy_(S), tile, states=states)
    N = take("N", m, 2 * C, V)
    if do is None:
        N[:, :C].zero_()
    else:
        mover.pull(do, N.view(-1, H, 2 * C, V)[:, :, :C])
    dX, dkeys, dtotal = _scan_back(call, chunks, N, R, states, dS, tile)
    dscores = torch.bmm(N, R.transpose(1, 2), out=take("dscores", m, 2 * C, C))
    dleft = torch.bmm(N, states.transpose(1, 2), out=take("dleft", m, 2 * C, K))
    dg = None
    if chunks.decay is not None:
        dg = _decay_gradient(chunks, dscores, dleft, dkeys, dtotal)
        dleft.view(m, 2, C, K).mul_(chunks.decay.rows[:, None])
        dkeys.mul_(chunks.decay.columns)
    dscores.mul_(chunks.mask)
    dleft.baddbmm_(dscores, chunks.keys)
    dkeys.baddbmm_(dscores.transpose(1, 2), chunks.left)
    Z = dleft[:, C:]
    values = mover.pull(call.v, take("X", tile.num_chunks, H, C, V)).view(m, C, V)
    dbeta = torch.mul(dX, values, out=values).sum(-1)
    dbeta += torch.mul(Z, chunks.keys, out=take("product", m, C, K)).sum(-1)
    dkeys.addcmul_(Z, chunks.beta)
    beta4 = chunks.beta.view(-1, H, C, 1)
    mover.push(dleft.view(-1, H, 2 * C, K)[:, :, :C], grads[0], call.scale.expand_as(beta4))
    mover.push(dkeys.view(-1, H, C, K), grads[1])
    mover.push(dX.view(-1, H, C, V), grads[2], beta4)
    mover.push(dbeta.view(-1, H, C), grads[3])
    if dg is not None:
        mover.push(dg.view(-1, H, C), grads[4])


def _scan_back(
    call: _Call,
    chunks: _Chunks,
    N: torch.Tensor,
    R: torch.Tensor,
    states: torch.Tensor,
    dS: torch.Tensor,
    tile: Tile,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Propagate the state's gradient back through the tile's steps: updates `dS`, writes -dX into `N`.

    Returns dX `[m, C, V]`, the gradient R dS^T of the decayed keys `[m, C, K]`, and e^{G_C} <dS, S> `[m]`
    (with decay).
    """
    steps, take, C = _Steps(tile, call.H), call.scratch.take, call.C
    dR = torch.bmm(chunks.scores[:, :C].transpose(1, 2), N[:, :C], out=take("dR", *R.shape))
    dX, dkeys, dtotal = take("dX", *R.shape), take("dkeys", *chunks.keys.shape), take("dtotal", R.shape[0])
    left, inverses, keys = (steps.of(x) for x in (chunks.left_decayed, chunks.inverse, chunks.keys_decayed))
    Rs, dRs, dXs, Ns, each_dkeys = (steps.of(x) for x in (R, dR, dX, N, dkeys))
    totals, dtotals = steps.of(chunks.total_decay), steps.of(dtotal)
    each_states = steps.of(states)
    for i in reversed(range(len(steps.sizes))):
        running = dS[: steps.sizes[i]]
        torch.bmm(Rs[i], running.transpose(1, 2), out=each_dkeys[i])
        torch.bmm(inverses[i].transpose(1, 2), dRs[i].baddbmm_(keys[i], running), out=dXs[i])
        Ns[i][:, C:].copy_(dXs[i]).neg_()  # not `out=`, which compilers require to be contiguous
        if chunks.decay is not None:
            running.mul_(totals[i])
            torch.sum(running * each_states[i], dim=(1, 2), out=dtotals[i])
        running.baddbmm_(left[i].transpose(1, 2), Ns[i])
    return dX, dkeys, dtotal


def _decay_gradient(
    chunks: _Chunks,
    dscores: torch.Tensor,
    dleft_decayed: torch.Tensor,
    dkeys_decayed: torch.Tensor,
    dtotal: torch.Tensor,
) -> torch.Tensor:
    """Compute dg `[m, C]`: the sum of all terms whose decay covers token t.

    Terms that do not cover it are left out, not added and cancelled: dg may be far smaller than they are.
    g_t occurs in e^{G_i - G_j} for j < t <= i, in e^{G_i} for t <= i, in e^{G_C - G_j} for j < t, and in
    e^{G_C}.
    """
    m, C, _ = chunks.keys.shape
    pairs = (dscores * chunks.scores).view(m, 2, C, C).sum(1)
    from_here = torch.ones(C, C, dtype=pairs.dtype, device=pairs.device).triu()
    covering = torch.matmul(from_here, pairs).tril_(-1).sum(-1)
    reads = (chunks.left_decayed * dleft_decayed).sum(-1).view(m, 2, C).sum(1)
    writes = (chunks.keys_decayed * dkeys_decayed).sum(-1)
    later_reads = reads.flip(-1).cumsum(-1).flip(-1)
    # Shifted, not `cumsum - writes`: the newest write is not decayed, and cancelling it would lose the others' digits.
    earlier_writes = torch.nn.functional.pad(writes[:, :-1].cumsum(-1), (1, 0))
    return covering + later_reads + earlier_writes + dtotal[:, None]
