"""Linear attention in chunks: matrix products inside a chunk, a scan over chunks, one tile in memory at a time.

For a chunk with incoming state S, and a_{i<-j} = exp(sum of g over the tokens after j up to i) (1 without g):

    o_i = scale * ( S^T (a_{i<-start} q_i)  +  sum_{j <= i} (q_i . a_{i<-j} k_j) v_j )
    S'  = diag(a_{end<-start}) S + sum_j (a_{end<-j} k_j) v_j^T

Every decay is the exponential of a sum that is formed directly, never a difference of two: sums are <= 0, so
nothing overflows, and g = -inf clears the state without a NaN. With one decay per head the a_{i<-j} are a C x C
matrix. With one per channel they are a C x C x K cube, which is never formed: cut the chunk in halves; between a
token i of the right and j of the left, a_{i<-j} = a_{i<-middle} a_{middle<-j}, one factor on the query and one on
the key, and the scores of the quadrant are one matrix product. Both diagonal quadrants are cut again (arXiv
2312.06635 section 4.3 has the first such cut, into sub-chunks).

The backward keeps the inputs and one state per tile; it computes a tile again and lets autograd differentiate it. For
second derivatives autograd differentiates the whole forward instead.
"""

from typing import Any, NamedTuple

import torch

from longlode.ops.chunking.layout import Mover, Plan, Tile, make_plan, order_on
from longlode.ops.chunking.precision import state_dtype
from longlode.ops.surroundings import fixed_sizes

# Small chunks do less arithmetic, large ones fewer steps; a step costs more on a GPU.
_CPU_CHUNK = 32
_GPU_CHUNK = 64


def linear_attention_chunkwise(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    g: torch.Tensor | None,
    scale: float,
    state: torch.Tensor | None,
    offsets: tuple[int, ...] | None,
    chunk: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the chunk form; arguments and results as in `longlode.ops.linear_attention.linear_attention`.

    `offsets` is the checked `cu_seqlens`; `chunk` is a power of two. Differentiable any number of times.
    """
    B, T, H, K = fixed_sizes(q)
    on_gpu = q.device.type != "cpu"
    chunk = chunk or (_GPU_CHUNK if on_gpu else _CPU_CHUNK)
    plan = make_plan(offsets, B, T, H, chunk, on_gpu)
    if state is None:
        state = q.new_zeros(len(plan.order), H, K, v.shape[-1], dtype=state_dtype(q.dtype))
    inputs = (q, k, v, g, state)
    differentiate = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    # A compiler differentiates the forward itself; it cannot trace this hand-written backward.
    if differentiate and not torch.compiler.is_compiling():
        o, final_state = _LinearAttention.apply(*inputs, scale, plan)
        return o, final_state
    return _forward(_Chunks(q, k, v, g), state, scale, plan)


class _Chunks(NamedTuple):
    """The tokens of a tile: q, k `[m, H, C, K]`, v `[m, H, C, V]`, g `[m, H, C]`, `[m, H, C, K]` or None."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    g: torch.Tensor | None


class _LinearAttention(torch.autograd.Function):
    """Forward and backward over the tiles of a plan."""

    @staticmethod
    def forward(
        ctx: Any,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        g: torch.Tensor | None,
        state: torch.Tensor,
        scale: float,
        plan: Plan,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        kept: list[torch.Tensor] = []
        o, final_state = _forward(_Chunks(q, k, v, g), state, scale, plan, kept)
        ctx.save_for_backward(q, k, v, g, state, *kept)
        ctx.scale, ctx.plan = scale, plan
        return o, final_state

    @staticmethod
    def backward(ctx: Any, do: torch.Tensor, dfinal: torch.Tensor) -> tuple[Any, ...]:
        # Gradients are enabled here if autograd needs a graph of the gradients (create_graph=True).
        run = _differentiable_gradients if torch.is_grad_enabled() else _gradients
        with torch.autocast(do.device.type, enabled=False):
            return *run(ctx, do, dfinal), None, None


def _forward(
    inputs: _Chunks, state: torch.Tensor, scale: float, plan: Plan, kept: list[torch.Tensor] | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute outputs and final states; `kept` receives the states before each tile. Differentiable by autograd."""
    q, v = inputs.q, inputs.v
    order = order_on(plan.order, q.device)
    states = state[order].to(state_dtype(q.dtype))
    o = torch.empty_like(v)
    for tile in plan.tiles:
        mover, rows = Mover(plan, tile), slice(tile.rows, tile.rows + tile.counts[0])
        before = states[rows].clone()
        if kept is not None:
            kept.append(before)
        outputs, states[rows] = _tile(_pull_all(mover, plan, tile, inputs), before, scale, tile)
        mover.push(outputs, o)
    return o, torch.empty_like(states).index_copy_(0, order, states)


def _gradients(ctx: Any, do: torch.Tensor, dfinal: torch.Tensor) -> list[torch.Tensor | None]:
    """Compute gradients of q, k, v, g and state, tile by tile from the last."""
    q, k, v, g, initial, *kept = ctx.saved_tensors
    plan: Plan = ctx.plan
    order = order_on(plan.order, q.device)
    dstates = dfinal[order]
    grads = [None if x is None else torch.empty_like(x) for x in (q, k, v, g)]
    for tile, state in zip(reversed(plan.tiles), reversed(kept), strict=True):
        mover, rows = Mover(plan, tile), slice(tile.rows, tile.rows + tile.counts[0])
        inputs = _pull_all(mover, plan, tile, _Chunks(q, k, v, g))
        leaves = [x for x in (*inputs, state.detach()) if x is not None]
        with torch.enable_grad():
            for leaf in leaves:
                leaf.requires_grad_()
            results = _tile(inputs, leaves[-1], ctx.scale, tile)
        doutputs = _pull(mover, plan, tile, do)
        *parts, dstates[rows] = torch.autograd.grad(results, leaves, (doutputs, dstates[rows]))
        for part, grad in zip(parts, (grad for grad in grads if grad is not None), strict=True):
            mover.push(part, grad)
    return [*grads, torch.empty_like(dstates).index_copy_(0, order, dstates).to(initial.dtype)]


def _differentiable_gradients(ctx: Any, do: torch.Tensor, dfinal: torch.Tensor) -> list[torch.Tensor | None]:
    """Compute the gradients with a graph to the inputs and to the incoming gradients."""
    # Views, because inputs may depend on one another (k = f(q)): only the op itself is differentiated here.
    views = [None if x is None else x.view_as(x) for x in ctx.saved_tensors[:5]]
    q, k, v, g, state = views
    assert q is not None
    assert k is not None
    assert v is not None
    assert state is not None
    results = _forward(_Chunks(q, k, v, g), state, ctx.scale, ctx.plan)
    wanted = [x for x in views if x is not None and x.requires_grad]
    found = iter(torch.autograd.grad(results, wanted, (do, dfinal), create_graph=True))
    return [next(found) if x is not None and x.requires_grad else None for x in views]


def _pull_all(mover: Mover, plan: Plan, tile: Tile, tensors: _Chunks) -> _Chunks:
    q, k, v = (_pull(mover, plan, tile, x) for x in tensors[:3])
    return _Chunks(q, k, v, None if tensors.g is None else _pull(mover, plan, tile, tensors.g))


def _pull(mover: Mover, plan: Plan, tile: Tile, x: torch.Tensor) -> torch.Tensor:
    """Copy the tile's tokens of x `[B, T, H, ...]` into chunks `[m, H, C, ...]`, in the dtype of the arithmetic."""
    shape = (tile.num_chunks, x.shape[2], plan.chunk, *x.shape[3:])
    return mover.pull(x, torch.empty(shape, dtype=state_dtype(x.dtype), device=x.device))


def _tile(
    inputs: _Chunks, state: torch.Tensor, scale: float, tile: Tile
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute outputs `[m, H, C, V]`, and the states `[rows, H, K, V]` after the tile's last step."""
    q, k, v, g = inputs
    g = None if g is None else g.to(q.dtype)
    scores = _scores(q, k, g)
    totals = None
    if g is not None:
        # Padding at the end of a document has g = 0 and k = 0: it neither decays the state nor writes.
        per_channel = g if g.dim() == 4 else g[..., None]
        to_here = per_channel.cumsum(2).exp()
        q, k, totals = q * to_here, k * _sum_after(per_channel).exp(), to_here[:, :, -1, :, None]
    writes = k.transpose(2, 3) @ v
    states, after = _scan(state, writes, totals, tile.counts)
    return scale * (scores @ v + q @ states), after


def _scan(
    state: torch.Tensor, writes: torch.Tensor, totals: torch.Tensor | None, counts: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute states before each chunk `[m, H, K, V]`, and after each document's last chunk `[rows, H, K, V]`."""
    before, finished = [], []
    fades: Any = [None] * len(counts) if totals is None else totals.split(counts)
    for count, write, fade in zip(counts, writes.split(counts), fades, strict=True):
        if count < state.shape[0]:
            finished.append(state[count:])
            state = state[:count]
        before.append(state)
        state = write + (state if fade is None else fade * state)
    return torch.cat(before), torch.cat([state, *reversed(finished)])


def _scores(q: torch.Tensor, k: torch.Tensor, g: torch.Tensor | None) -> torch.Tensor:
    """Compute q_i . a_{i<-j} k_j for j <= i, else 0: `[m, H, C, C]`."""
    if g is None:
        return (q @ k.transpose(2, 3)).tril()
    if g.dim() == 3:
        # Row i of column j sums the tokens after j up to i.
        sums = g[..., None].expand(*g.shape, g.shape[-1]).tril(-1).cumsum(2)
        return (q @ k.transpose(2, 3) * sums.exp()).tril()
    return _scores_per_channel(q, k, g)


def _scores_per_channel(q: torch.Tensor, k: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Compute `_scores` with one decay per channel: blocks on the diagonal, doubled until one is the whole chunk."""
    C = q.shape[2]
    blocks = (q * k).sum(-1)[..., None, None]
    half = 1
    while half < C:
        (left_k, _), (_, right_q) = (x.unflatten(2, (-1, 2, half)).unbind(3) for x in (k, q))
        left_g, right_g = g.unflatten(2, (-1, 2, half)).unbind(3)
        reads, writes = right_q * right_g.cumsum(3).exp(), left_k * _sum_after(left_g, 3).exp()
        quadrant = reads @ writes.transpose(3, 4)
        upper, lower = blocks.unflatten(2, (-1, 2)).unbind(3)
        top, bottom = torch.cat((upper, torch.zeros_like(quadrant)), 4), torch.cat((quadrant, lower), 4)
        blocks = torch.cat((top, bottom), 3)
        half *= 2
    return blocks[:, :, 0]


def _sum_after(g: torch.Tensor, dim: int = 2) -> torch.Tensor:
    """Sum the entries after each along `dim`, itself excluded (not subtracted: -inf - -inf is NaN)."""
    later = g.narrow(dim, 1, g.shape[dim] - 1).flip(dim).cumsum(dim).flip(dim)
    return torch.cat((later, torch.zeros_like(g.narrow(dim, 0, 1))), dim)
