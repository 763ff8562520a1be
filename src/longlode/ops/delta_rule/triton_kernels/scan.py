"""The scans over chunks: forward with outputs, forward again for the states, and back.

Each program propagates one `[K, BV]` tile of one head's state through a document, or through a part of it. The tiles
of one head share q, k and T, so they are neighbours in the grid and share the L2 cache.
"""

import triton
import triton.language as tl

from longlode.ops.delta_rule.triton_kernels.tiles import (
    chunk_decays,
    chunk_rows,
    load_column,
    load_tile,
    pair_decay,
    pair_decay_transposed,
    product,
    rounded,
    store_tile,
)


@triton.jit
def state_place(
    states: tl.tensor, index: tl.tensor, h: tl.tensor, H: tl.tensor, K: tl.constexpr, V: tl.constexpr
) -> tl.tensor:
    """Return the offset of state `index` of head h in `[X, H, K, V]`."""
    return states + (index.to(tl.int64) * H + h) * K * V


@triton.jit
def times_inverse(
    inverses: tl.tensor,
    chunk: tl.tensor,
    h: tl.tensor,
    H: tl.tensor,
    x: tl.tensor,
    C: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Compute T x, or T^T x, of a chunk; x `[C, BV]` float32.

    bfloat16 T is stored in two parts, T = high + low. One alone is not enough: with equal keys and beta = 2 all its
    entries are near 2 in size and round in the same direction, as if the keys had another length. Without decay,
    outputs were then off by up to 160 % after 256 tokens; by all other roundings together, 9 %.
    """
    dtype = inverses.dtype.element_ty
    i = tl.arange(0, C)
    parts: tl.constexpr = 2 if dtype == tl.bfloat16 else 1
    place = inverses + (chunk.to(tl.int64) * H + h) * (parts * C * C) + (i[:, None] * C + i[None, :])
    x_low = rounded(x, dtype)
    T = tl.load(place)
    result = product(tl.trans(T) if TRANSPOSED else T, x_low, PRECISION)
    if parts == 2:
        rest = tl.load(place + C * C)
        result += product(tl.trans(rest) if TRANSPOSED else rest, x_low, PRECISION)
    return result


@triton.jit
def corrections_of_chunk(
    keys: tl.tensor,
    values: tl.tensor,
    S_low: tl.tensor,
    beta_i: tl.tensor,
    from_start: tl.tensor,
    inverses: tl.tensor,
    chunk: tl.tensor,
    h: tl.tensor,
    H: tl.tensor,
    C: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Compute R = T diag(beta) (V - e^G K S) `[C, BV]`."""
    recalled = product(keys, S_low, PRECISION)
    if GATED:
        recalled *= from_start
    X = beta_i[:, None] * (values.to(tl.float32) - recalled)
    return times_inverse(inverses, chunk, h, H, X, C, False, PRECISION)


@triton.jit
def state_after_chunk(
    S: tl.tensor,
    keys: tl.tensor,
    R: tl.tensor,
    to_end: tl.tensor,
    through: tl.tensor,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Compute S' = e^{G_C} S + (e^{G_C - G} K)^T R; the decay multiplies R, so that the keys stay as loaded."""
    if GATED:
        S *= through
        R *= to_end
    return S + product(tl.trans(keys), rounded(R, keys.dtype), PRECISION)


@triton.jit(do_not_specialize=["H", "scale"])
def forward_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    beta: tl.tensor,
    g: tl.tensor,
    inverses: tl.tensor,
    state: tl.tensor,
    o: tl.tensor,
    final_state: tl.tensor,
    checkpoints: tl.tensor,
    documents: tl.tensor,
    scale: tl.tensor,
    H: tl.tensor,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    INTERVAL: tl.constexpr,
    GATED: tl.constexpr,
    SAVE: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Program (tile of V, document * H + head): outputs, final state, and with SAVE the state every INTERVAL chunks."""
    first_v, n, h = tl.program_id(0) * BV, tl.program_id(1) // H, tl.program_id(1) % H
    start, end = tl.load(documents + 3 * n), tl.load(documents + 3 * n + 3)
    chunk, segment = tl.load(documents + 3 * n + 1), tl.load(documents + 3 * n + 2)
    d, i = tl.arange(0, BK), tl.arange(0, C)
    S = load_tile(state_place(state, n, h, H, K, V), 0, d, d < K, first_v, V, BV)
    for step in range((tl.load(documents + 3 * n + 4) - chunk).to(tl.int32)):
        if SAVE:
            # Predicated, not branched: a branch in the loop would prevent pipelining of the loads.
            place = state_place(checkpoints, segment + step // INTERVAL, h, H, K, V)
            store_tile(place, S, 0, d, (d < K) & (step % INTERVAL == 0), first_v, V, BV)
        row, rows, inside = chunk_rows(start + step * C, end, h, H, C)
        keys = load_tile(k, row, rows, inside, 0, K, BK)
        queries = load_tile(q, row, rows, inside, 0, K, BK)
        values = load_tile(v, row, rows, inside, first_v, V, BV)
        beta_i = load_column(beta, row, rows, inside)
        G, from_start, to_end, through = chunk_decays(g, row, rows, inside, GATED)
        S_low = rounded(S, keys.dtype)
        R = corrections_of_chunk(
            keys, values, S_low, beta_i, from_start, inverses, chunk + step, h, H, C, GATED, PRECISION
        )
        outputs = product(queries, S_low, PRECISION)
        P = product(queries, tl.trans(keys), PRECISION)
        if GATED:
            outputs *= from_start
            P *= pair_decay(G)
        P = tl.where(i[:, None] >= i[None, :], P, 0.0)
        outputs += product(rounded(P, keys.dtype), rounded(R, keys.dtype), PRECISION)
        store_tile(o, scale * outputs, row, rows, inside, first_v, V, BV)
        S = state_after_chunk(S, keys, R, to_end, through, GATED, PRECISION)
    store_tile(state_place(final_state, n, h, H, K, V), S, 0, d, d < K, first_v, V, BV)


@triton.jit(do_not_specialize=["H"])
def states_kernel(
    k: tl.tensor,
    v: tl.tensor,
    beta: tl.tensor,
    g: tl.tensor,
    inverses: tl.tensor,
    checkpoints: tl.tensor,
    states: tl.tensor,
    corrections: tl.tensor,
    documents: tl.tensor,
    owners: tl.tensor,
    H: tl.tensor,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    INTERVAL: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Program (tile of V, segment, head): from its checkpoint, the state before each of INTERVAL chunks, and R."""
    first_v, segment, h = tl.program_id(0) * BV, tl.program_id(1), tl.program_id(2)
    n = tl.load(owners + segment)
    end, done = tl.load(documents + 3 * n + 3), (segment - tl.load(documents + 3 * n + 2)) * INTERVAL
    start, chunk = tl.load(documents + 3 * n) + done * C, tl.load(documents + 3 * n + 1) + done
    num_chunks = tl.minimum(INTERVAL, tl.load(documents + 3 * n + 4) - chunk).to(tl.int32)
    d = tl.arange(0, BK)
    S = load_tile(state_place(checkpoints, segment, h, H, K, V), 0, d, d < K, first_v, V, BV)
    for step in range(num_chunks):
        store_tile(state_place(states, chunk + step, h, H, K, V), S, 0, d, d < K, first_v, V, BV)
        row, rows, inside = chunk_rows(start + step * C, end, h, H, C)
        keys = load_tile(k, row, rows, inside, 0, K, BK)
        values = load_tile(v, row, rows, inside, first_v, V, BV)
        beta_i = load_column(beta, row, rows, inside)
        _, from_start, to_end, through = chunk_decays(g, row, rows, inside, GATED)
        S_low = rounded(S, keys.dtype)
        R = corrections_of_chunk(
            keys, values, S_low, beta_i, from_start, inverses, chunk + step, h, H, C, GATED, PRECISION
        )
        store_tile(corrections, R, row, rows, inside, first_v, V, BV)
        S = state_after_chunk(S, keys, R, to_end, through, GATED, PRECISION)


@triton.jit(do_not_specialize=["H", "scale"])
def backward_kernel(
    q: tl.tensor,
    k: tl.tensor,
    beta: tl.tensor,
    g: tl.tensor,
    inverses: tl.tensor,
    do: tl.tensor,
    dfinal_state: tl.tensor,
    dX: tl.tensor,
    dstates: tl.tensor,
    dstate: tl.tensor,
    documents: tl.tensor,
    scale: tl.tensor,
    H: tl.tensor,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    GATED: tl.constexpr,
    PRECISION: tl.constexpr,
) -> None:
    """Program (tile of V, document * H + head): dX, the gradient of the state after each chunk, and dstate.

    `scale` is a number at run time, never folded into the code: with scale = 1 folded, ptxas 12.8 has compiled
    a kernel of this shape wrongly on Hopper.
    """
    first_v, n, h = tl.program_id(0) * BV, tl.program_id(1) // H, tl.program_id(1) % H
    start, end = tl.load(documents + 3 * n), tl.load(documents + 3 * n + 3)
    chunk = tl.load(documents + 3 * n + 1)
    num_chunks = (tl.load(documents + 3 * n + 4) - chunk).to(tl.int32)
    d, i = tl.arange(0, BK), tl.arange(0, C)
    dS = load_tile(state_place(dfinal_state, n, h, H, K, V), 0, d, d < K, first_v, V, BV)
    for back in range(num_chunks):
        step = num_chunks - 1 - back
        store_tile(state_place(dstates, chunk + step, h, H, K, V), dS, 0, d, d < K, first_v, V, BV)
        row, rows, inside = chunk_rows(start + step * C, end, h, H, C)
        keys = load_tile(k, row, rows, inside, 0, K, BK)
        queries = load_tile(q, row, rows, inside, 0, K, BK)
        dO = load_tile(do, row, rows, inside, first_v, V, BV)
        minus_beta = -load_column(beta, row, rows, inside)[:, None]
        G, from_start, to_end, through = chunk_decays(g, row, rows, inside, GATED)
        dR = product(keys, rounded(dS, keys.dtype), PRECISION)
        P_transposed = scale * product(keys, tl.trans(queries), PRECISION)
        reads = scale * dO.to(tl.float32)
        if GATED:
            dR *= to_end
            P_transposed *= pair_decay_transposed(G)
            reads *= from_start
            minus_beta *= from_start
            dS *= through
        P_transposed = tl.where(i[:, None] <= i[None, :], P_transposed, 0.0)
        dR += product(rounded(P_transposed, keys.dtype), dO, PRECISION)
        dX_i = times_inverse(inverses, chunk + step, h, H, dR, C, True, PRECISION)
        store_tile(dX, dX_i, row, rows, inside, first_v, V, BV)
        dS += product(tl.trans(queries), rounded(reads, keys.dtype), PRECISION)
        dS += product(tl.trans(keys), rounded(minus_beta * dX_i, keys.dtype), PRECISION)
    store_tile(state_place(dstate, n, h, H, K, V), dS, 0, d, d < K, first_v, V, BV)
