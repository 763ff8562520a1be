/* The gradients of one chunk, from the gradient of its output and of the state after it: README.md, sections 4, 7. */
#ifndef LONGLODE_BACKWARD_H
#define LONGLODE_BACKWARD_H

#include "chunk.h"

INLINE float dot(const float *x, const float *y, int64_t size) {
    Floats sum = {0};
    for (int64_t i = 0; i < size; i += LANES) sum += load(x + i) * load(y + i);
    return sum_lanes(sum);
}

/* dR, then dX and N = [dO; -U], with the gradient of v.  Columns of values do not meet here. */
NOINLINE void gradient_of_values(Work *w, Slot *slot) {
    const Call *call = w->call;
    const int64_t num = w->num;
    gather(w, &call->o, w->V, 1, w->N, w->V_step);
    product((Product){.m = num, .n = w->V, .k = w->K, .left = w->L + num * w->K_step, .left_step = w->K_step,
                      .right = slot->dS, .right_step = w->V_step, .out = w->dR, .out_step = w->V_step});
    product_of_transpose((Product){.m = num, .n = w->V, .k = num, .left = slot->P, .left_step = num, .right = w->N,
                                   .right_step = w->V_step, .add = w->dR, .add_step = w->V_step,
                                   .factor = w->gated ? slot->w : 0, .factor_step = 1, .out = w->dR,
                                   .out_step = w->V_step, .shape = UPPER});
    const float *rows[MAX_CHUNK];
    for (int64_t i = 0; i < num; i++) rows[i] = w->dR + i * w->V_step;
    float *U = w->N + num * w->V_step;
    solve_up(&(System){.size = num, .V = w->V, .M = slot->M, .beta = slot->beta, .rows = rows, .solution = slot->dX,
                       .weighted = U, .sign = -1, .step = w->V_step});
    scatter(w, &call->dv, w->V, -1, U, w->V_step);
}

/* before = e^{G_C} dS + (e^G L)^T N: the gradient of the state before the chunk, rows `step` apart; may be dS itself.
 * Columns of values do not meet here. */
NOINLINE void retreat(Work *w, const Slot *slot, float *before, int64_t step) {
    const int64_t num = w->num;
    const float *N = w->N;
    if (w->gated) {
        scale_rows(num, w->V, slot->e, N, w->scaled, w->V_step);
        scale_rows(num, w->V, slot->e, N + num * w->V_step, w->scaled + num * w->V_step, w->V_step);
        N = w->scaled;
    }
    product_of_transpose((Product){.m = w->K, .n = w->V, .k = 2 * num, .left = w->L, .left_step = w->K_step,
                                   .right = N, .right_step = w->V_step, .add = slot->dS, .add_step = w->V_step,
                                   .factor = w->gated ? slot->total : 0, .out = before, .out_step = step});
}

NOINLINE void gradient_of_beta(Work *w, const Slot *slot) {
    for (int64_t i = 0; i < w->size; i++)
        *at(&w->call->dbeta, w, w->token + i) = dot(slot->dX + i * w->V_step, slot->F + i * w->V_step, w->V);
}

/* dscores = D * (N R^T), and with decay the terms (N R^T * [P; M]) of dg, both halves added. */
NOINLINE void gradient_of_scores(Work *w, Slot *slot) {
    const int64_t num = w->num;
    transpose(num, w->V, slot->R, w->V_step, w->R_t, num);
    for (int half = 0; half < 2; half++)
        product((Product){.m = num, .n = num, .k = w->V, .left = w->N + half * num * w->V_step,
                          .left_step = w->V_step, .right = w->R_t, .right_step = num,
                          .out = w->dscores + half * num * num, .out_step = num, .lower_out = 1});
    for (int64_t i = 0; i < num; i++)
        for (int64_t j = 0; j < num; j += LANES) {
            float *top = w->dscores + i * num + j, *bottom = top + num * num;
            Floats reads = load(top), writes = load(bottom);
            if (w->gated) {
                float M[LANES];
                UNROLL for (int h = 0; h < LANES; h += HALF)
                    store_narrow(M + h, load_doubles(slot->M + i * num + j + h));
                Floats pairs = reads * load(slot->P + i * num + j) + writes * load(M);
                store(w->pairs + i * num + j, keep_below(pairs, j, i));
                Floats D = load(slot->D + i * num + j);
                reads *= D;
                writes *= D;
            }
            store(top, keep_below(reads, j, i + 1));
            store(bottom, keep_below(writes, j, i));
        }
}

/* dg of the chunk: for each place where g_t occurs the terms that it covers, none added only to be taken away again.
 * reads [C]: sum of e^G L (N S^T); writes [C]: e^{G_C - G} K (R dS^T). */
NOINLINE void gradient_of_decay(Work *w, Slot *slot, const float *reads, const float *writes) {
    const int64_t num = w->num;
    Floats inner = {0};
    for (int64_t i = 0; i < w->K; i++)
        for (int64_t j = 0; j < w->V; j += LANES)
            inner += load(slot->dS + i * w->V_step + j) * load(slot->S + i * w->V_step + j);
    double state = (double)*slot->total * sum_lanes(inner), later_reads = 0, earlier_writes[MAX_CHUNK], sum = 0;
    for (int64_t t = 0; t < num; t++) earlier_writes[t] = sum, sum += writes[t];
    float columns[MAX_CHUNK] __attribute__((aligned(64))) = {0}; /* of pairs, summed over rows i >= t */
    for (int64_t t = num - 1; t >= 0; t--) {
        Floats spanning = {0};
        for (int64_t j = 0; j < num; j += LANES) {
            Floats column = load(columns + j) + load(w->pairs + t * num + j);
            store(columns + j, column);
            spanning += keep_below(column, j, t);
        }
        later_reads += reads[t];
        if (t < w->size)
            *at(&w->call->dg, w, w->token + t) = sum_lanes(spanning) + later_reads + earlier_writes[t] + state;
    }
}

/* dL and dK: the gradients of q and k, and what g needs of them. */
NOINLINE void gradient_of_keys(Work *w, Slot *slot) {
    const int64_t num = w->num, K = w->K, step = w->K_step;
    float reads[MAX_CHUNK] = {0}, writes[MAX_CHUNK] = {0};
    transpose(K, w->V, slot->dS, w->V_step, w->S_t, step);
    product((Product){.m = num, .n = K, .k = w->V, .left = slot->R, .left_step = w->V_step, .right = w->S_t,
                      .right_step = step, .out = w->dK, .out_step = step});
    transpose(K, w->V, slot->S, w->V_step, w->S_t, step);
    product((Product){.m = 2 * num, .n = K, .k = w->V, .left = w->N, .left_step = w->V_step, .right = w->S_t,
                      .right_step = step, .out = w->dL, .out_step = step});
    const float *keys = w->L + num * step;
    if (w->gated) {
        for (int64_t i = 0; i < num; i++) {
            float top = dot(w->L + i * step, w->dL + i * step, K);
            reads[i] = slot->e[i] * (top + dot(keys + i * step, w->dL + (num + i) * step, K));
            writes[i] = slot->w[i] * dot(keys + i * step, w->dK + i * step, K);
        }
        gradient_of_decay(w, slot, reads, writes);
    }
    for (int half = 0; half < 2; half++) {
        const float *dscores = w->dscores + half * num * num;
        float *dL = w->dL + half * num * step;
        product((Product){.m = num, .n = K, .k = num, .left = dscores, .left_step = num, .right = keys,
                          .right_step = step, .add = dL, .add_step = step, .factor = w->gated ? slot->e : 0,
                          .factor_step = 1, .out = dL, .out_step = step, .shape = LOWER});
        product_of_transpose((Product){.m = num, .n = K, .k = num, .left = dscores, .left_step = num,
                                       .right = w->L + half * num * step, .right_step = step, .add = w->dK,
                                       .add_step = step, .factor = w->gated && !half ? slot->w : 0,
                                       .factor_step = 1, .out = w->dK, .out_step = step, .shape = UPPER});
    }
    scatter(w, &w->call->dq, K, w->call->scale, w->dL, step);
    for (int64_t i = 0; i < w->size; i++) {
        char *dk = row_at(&w->call->dk, w, w->token + i);
        for (int64_t j = 0; j < K; j += LANES)
            put(dk, w->call->dk.narrow, j, K, load(w->dK + i * step + j) + load(w->dL + (num + i) * step + j));
    }
}

/* The gradients of a chunk that sum over all values, from its slot, L and N. */
INLINE void gradients_of_sums(Work *w, Slot *slot) {
    gradient_of_beta(w, slot);
    gradient_of_scores(w, slot);
    gradient_of_keys(w, slot);
}

#endif
