"""Gradients of q, k, v, beta and g: all chunks and heads at once, after both scans."""

import triton
import triton.language as tl

from longlode.ops.delta_rule.triton_kernels.scan import state_place
from longlode.ops.delta_rule.triton_kernels.tiles import (
    chunk_decays,
    chunk_of_document,
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
def sums_over_values(
    v: tl.tensor,
    do: tl.tensor,
    dX: tl.tensor,
    corrections: tl.tensor,
    states: tl.tensor,
    dstates: tl.tensor,
    dv: tl.tensor,
    row: tl.tensor,
    rows: tl.tensor,
    inside: tl.tensor,
    beta_i: tl.tensor,
    K: tl.constexpr,
    V: tl.constexpr,
    BK: tl.constexpr,
    BV: tl.constexpr,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Compute all sums over V, one tile of V at a time, and write dv.

    Returns dO R^T and its transpose, dX R^T and its transpose, dO S^T, dX S^T, R dS'^T, dX . v, <dS', S>.
    Both transposes are separate products: see rule (1) of the package.
    """
    keys_range = tl.arange(0, BK)
    in_keys = keys_range < K
    dP = tl.zeros((C, C), dtype=tl.float32)
    dP_transposed = tl.zeros((C, C), dtype=tl.float32)
    dXR = tl.zeros((C, C), dtype=tl.float32)
    dXR_transposed = tl.zeros((C, C), dtype=tl.float32)
    dO_S = tl.zeros((C, BK), dtype=tl.float32)
    dX_S = tl.zeros((C, BK), dtype=tl.float32)
    R_dS = tl.zeros((C, BK), dtype=tl.float32)
    dX_v = tl.zeros((C,), dtype=tl.float32)
    dS_S = 0.0
    for first_v in range(0, V, BV):
        dO_v = load_tile(do, row, rows, inside, first_v, V, BV)
        dX_i = load_tile(dX, row, rows, inside, first_v, V, BV)
        R = load_tile(corrections, row, rows, inside, first_v, V, BV)
        values = load_tile(v, row, rows, inside, first_v, V, BV)
        S = load_tile(states, 0, keys_range, in_keys, first_v, V, BV)
        dS = load_tile(dstates, 0, keys_range, in_keys, first_v, V, BV)
        dP += product(dO_v, tl.trans(R), PRECISION)
        dP_transposed += product(R, tl.trans(dO_v), PRECISION)
        dXR += product(dX_i, tl.trans(R), PRECISION)
        dXR_transposed += product(R, tl.trans(dX_i), PRECISION)
        dO_S += product(dO_v, tl.trans(S), PRECISION)
        dX_S += product(dX_i, tl.trans(S), PRECISION)
        R_dS += product(R, tl.trans(dS), PRECISION)
        dX_wide = dX_i.to(tl.float32)
        dX_v += tl.sum(dX_wide * values.to(tl.float32), axis=1)
        dS_S += tl.sum(dS.to(tl.float32) * S.to(tl.float32))
        store_tile(dv, beta_i[:, None] * dX_wide, row, rows, inside, first_v, V, BV)
    return dP, dP_transposed, dXR, dXR_transposed, dO_S, dX_S, R_dS, dX_v, dS_S


@triton.jit
def decay_gradient(
    keys: tl.tensor,
    queries: tl.tensor,
    beta_i: tl.tensor,
    dP: tl.tensor,
    dA: tl.tensor,
    dL_q: tl.tensor,
    dL_k: tl.tensor,
    dkeys: tl.tensor,
    total: tl.tensor,
    C: tl.constexpr,
    PRECISION: tl.constexpr,
) -> tl.tensor:
    """Compute dg `[C]`: for each token the sum of the terms whose decay covers it (README, (13)).

    The gradients include masks, decays and scale; dL_k is the negative of that of X's rows.
    """
    i = tl.arange(0, C)
    before = i[None, :] < i[:, None]
    pairs = dP * product(queries, tl.trans(keys), PRECISION)
    pairs += dA * (beta_i[:, None] * product(keys, tl.trans(keys), PRECISION))
    covering = tl.sum(tl.where(before, tl.cumsum(pairs, axis=0, reverse=True), 0.0), axis=1)
    keys_wide = keys.to(tl.float32)
    reads = tl.sum(dL_q * queries.to(tl.float32), axis=1) - beta_i * tl.sum(dL_k * keys_wide, axis=1)
    writes = tl.sum(dkeys * keys_wide, axis=1)
    later_reads = tl.sum(tl.where(before, 0.0, reads[None, :]), axis=1)
    earlier_writes = tl.sum(tl.where(before, writes[None, :], 0.0), axis=1)
    return covering + later_reads + earlier_writes + total


@triton.jit(do_not_specialize=["H", "scale"])
def gradients_kernel(
    q: tl.tensor,
    k: tl.tensor,
    v: tl.tensor,
    beta: tl.tensor,
    g: tl.tensor,
    do: tl.tensor,
    dX: tl.tensor,
    corrections: tl.tensor,
    states: tl.tensor,
    dstates: tl.tensor,
    dq: tl.tensor,
    dk: tl.tensor,
    dv: tl.tensor,
    dbeta: tl.tensor,
    dg: tl.tensor,
    documents: tl.tensor,
    owners: tl.tensor,
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
    """Program (chunk, head): the chunk's gradients; dX's terms are negative, as K S and A R are in X (README, 4)."""
    chunk, h, i = tl.program_id(0), tl.program_id(1), tl.arange(0, C)
    start, end = chunk_of_document(owners, documents, chunk, C)
    row, rows, inside = chunk_rows(start, end, h, H, C)
    beta_i = load_column(beta, row, rows, inside)
    S, dS = state_place(states, chunk, h, H, K, V), state_place(dstates, chunk, h, H, K, V)
    dP, dP_transposed, dA, dA_transposed, dL_q, dL_k, dkeys, dX_v, dS_S = sums_over_values(
        v, do, dX, corrections, S, dS, dv, row, rows, inside, beta_i, K, V, BK, BV, C, PRECISION
    )
    keys, queries = load_tile(k, row, rows, inside, 0, K, BK), load_tile(q, row, rows, inside, 0, K, BK)
    G, from_start, to_end, through = chunk_decays(g, row, rows, inside, GATED)
    if GATED:
        D, D_transposed = pair_decay(G), pair_decay_transposed(G)
        dP, dP_transposed = dP * D, dP_transposed * D_transposed
        dA, dA_transposed = dA * D, dA_transposed * D_transposed
        dL_q, dL_k, dkeys = dL_q * from_start, dL_k * from_start, dkeys * to_end
    dP = scale * tl.where(i[:, None] >= i[None, :], dP, 0.0)
    dP_transposed = scale * tl.where(i[:, None] <= i[None, :], dP_transposed, 0.0)
    dA = -tl.where(i[:, None] > i[None, :], dA, 0.0)
    dA_transposed = -tl.where(i[:, None] < i[None, :], dA_transposed, 0.0) * beta_i[None, :]
    dL_q = scale * dL_q
    if GATED:
        dg_i = decay_gradient(keys, queries, beta_i, dP, dA, dL_q, dL_k, dkeys, through * dS_S, C, PRECISION)
        tl.store(dg + row + rows, rounded(dg_i, dg.dtype.element_ty), mask=inside)
    dq_i = dL_q + product(rounded(dP, keys.dtype), keys, PRECISION)
    store_tile(dq, dq_i, row, rows, inside, 0, K, BK)
    Z = product(rounded(dA, keys.dtype), keys, PRECISION) - dL_k
    dkeys += product(rounded(dP_transposed, keys.dtype), queries, PRECISION)
    dkeys += product(rounded(dA_transposed, keys.dtype), keys, PRECISION)
    store_tile(dk, dkeys + beta_i[:, None] * Z, row, rows, inside, 0, K, BK)
    dbeta_i = dX_v + tl.sum(Z * keys.to(tl.float32), axis=1)
    tl.store(dbeta + row + rows, rounded(dbeta_i, dbeta.dtype.element_ty), mask=inside)
