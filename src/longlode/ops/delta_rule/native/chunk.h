/* One chunk of one head: everything up to its corrections R. Letters as in README.md, section 7. */
#ifndef LONGLODE_CHUNK_H
#define LONGLODE_CHUNK_H

#include "delta_rule.h"
#include "product.h"
#include "rows.h"
#include "solve.h"

/* Rows a power of two apart fall into few sets of the first cache and push one another out. */
#define PAD 16

/* What the backward needs of a chunk; the forward has one, used again and again. */
typedef struct {
    float *S;    /* [K, V]: the state before the chunk */
    float *F;    /* [C, V]: the error v - S^T k of each token, before beta (equation 14) */
    float *R;    /* [C, V]: beta F, what each token writes along its key */
    float *P;    /* [C, C]: D * (scale Q K^T), zero above the diagonal: what queries read of R */
    float *D;    /* [C, C]: e^{G_i - G_j} on and below the diagonal; with decay only */
    double *M;   /* [C, C]: D * (K K^T), below the diagonal: the triangular system of (14) and (15) */
    float *beta; /* [C] */
    float *e;    /* [C]: e^{G_i} */
    float *w;    /* [C]: e^{G_C - G_j} */
    float *total; /* [1]: e^{G_C} */
    float *dX;   /* [C, V]: gradient of the right side of (14), by equation (15); backward only */
    float *dS;   /* [K, V]: gradient of the state after the chunk; backward only */
} Slot;

typedef struct {
    const Call *call;
    int64_t K, V, K_step, V_step, head; /* V: the columns at work, all or some; steps of rows in the buffers */
    int gated;
    int64_t row, size, num; /* batch row of the document; tokens of the chunk, and that rounded up to 16 */
    int64_t token;          /* first token of the chunk, in the tensors */
    Slot slots[MAX_INTERVAL + 1];
    float *L;         /* [2C, K]: [scale Q; K] */
    float *keys;      /* [K, C]: K^T */
    double *wide;     /* [K, C]: K^T */
    float *reads;     /* [2C, V]: L S; then the outputs */
    float *scaled;    /* [2C, V] */
    float *N;         /* [2C, V]: [dO; -U], U = dV = beta dX */
    float *dR;        /* [C, V]: gradient of R */
    float *R_t;       /* [V, C]: R^T */
    float *S_t;       /* [V, K]: S^T or dS^T */
    float *dscores;   /* [2C, C]: gradient of [P; M] before D */
    float *pairs;     /* [C, C]: terms of dg that two tokens share */
    float *dL;        /* [2C, K]: gradient of L */
    float *dK;        /* [C, K]: gradient of the keys but for the lower half of dL */
    float *values;    /* [C, V]: the chunk's v, where it is not float in memory */
    float *zeros;     /* [max(K, V)]: the rows of tokens after the end */
} Work;

INLINE char *address(const Tensor *x, int64_t row, int64_t token, int64_t head) {
    return (char *)x->data + (row * x->row + token * x->token + head * x->head) * (x->narrow ? 2 : 4);
}

INLINE char *row_at(const Tensor *x, const Work *w, int64_t token) { return address(x, w->row, token, w->head); }

/* Of a tensor of floats. */
INLINE float *at(const Tensor *x, const Work *w, int64_t token) { return (float *)row_at(x, w, token); }

INLINE void skip_columns(Tensor *x, int64_t count) {
    if (x->data) x->data = (char *)x->data + count * (x->narrow ? 2 : 4);
}

INLINE void scale_row(const float *from, float factor, int64_t size, float *to) {
    for (int64_t i = 0; i < size; i += LANES) store(to + i, factor * load(from + i));
}

/* to [num, size] = the chunk's tokens of x, times factor; rows after the document's end are zero. */
NOINLINE void gather(const Work *w, const Tensor *x, int64_t size, float factor, float *to, int64_t to_step) {
    for (int64_t i = 0; i < w->num; i++) {
        const char *from = x->data && i < w->size ? row_at(x, w, w->token + i) : (const char *)w->zeros;
        if (x->narrow)
            for (int64_t j = 0; j < size; j += LANES)
                store(to + i * to_step + j, factor * load_half((const uint16_t *)from + j));
        else
            scale_row((const float *)from, factor, size, to + i * to_step);
    }
}

/* Rows of v of the chunk's tokens as floats, those after the document's end zero. */
INLINE void rows_of_values(const Work *w, const float *rows[MAX_CHUNK]) {
    const Tensor *v = &w->call->v;
    if (v->narrow) gather(w, v, w->V, 1, w->values, w->V_step);
    for (int64_t i = 0; i < w->num; i++)
        rows[i] = v->narrow ? w->values + i * w->V_step : i < w->size ? at(v, w, w->token + i) : w->zeros;
}

/* The chunk's tokens of x = factor * from [num, size]. */
NOINLINE void scatter(const Work *w, const Tensor *x, int64_t size, float factor, const float *from,
                      int64_t from_step) {
    for (int64_t i = 0; i < w->size; i++) {
        char *to = row_at(x, w, w->token + i);
        if (x->narrow)
            for (int64_t j = 0; j < size; j += LANES)
                store_half((uint16_t *)to + j, factor * load(from + i * from_step + j));
        else
            scale_row(from + i * from_step, factor, size, (float *)to);
    }
}

/* to [num, size] = factors [num] times rows of from */
NOINLINE void scale_rows(int64_t num, int64_t size, const float *factors, const float *from, float *to,
                         int64_t step) {
    for (int64_t i = 0; i < num; i++) scale_row(from + i * step, factors[i], size, to + i * step);
}

/* Asks for rows that are needed soon; a row's lines are far from the next row's, and the hardware does not guess.
 * Inline: as a function of its own it does nothing that a compiler can see, and calls of it vanish. */
INLINE void prefetch(const Work *w, const Tensor *x, int64_t size, int64_t token, int64_t num) {
    if (!x->data) return;
    for (int64_t i = 0; i < num; i++) {
        const char *row = row_at(x, w, token + i);
        for (int64_t j = 0; j < size * (x->narrow ? 2 : 4); j += 64) __builtin_prefetch(row + j, 0, 2);
    }
}

NOINLINE void copy_matrix(int64_t rows, int64_t columns, const float *from, int64_t from_step, float *to,
                          int64_t to_step) {
    for (int64_t i = 0; i < rows; i++)
        if (from)
            memcpy(to + i * to_step, from + i * from_step, columns * sizeof(float));
        else
            memset(to + i * to_step, 0, columns * sizeof(float));
}

/* e, w, total, and D times M and D.  G is summed in float64: its differences must not lose the small terms to the
 * large ones.  -inf is cut to -1e4, whose exponential is 0 as well, so that no difference is inf - inf. */
NOINLINE void decays(const Work *w, Slot *slot) {
    double G[MAX_CHUNK], sum = 0, exponents[2 * MAX_CHUNK + LANES] = {0};
    const int64_t num = w->num;
    for (int64_t i = 0; i < num; i++) {
        double g = i < w->size ? *at(&w->call->g, w, w->token + i) : 0;
        sum += g < -1e4 ? -1e4 : g;
        G[i] = sum;
    }
    for (int64_t i = 0; i < num; i++) exponents[i] = G[i], exponents[num + i] = sum - G[i];
    exponents[2 * num] = sum;
    for (int64_t i = 0; i <= 2 * num; i += HALF)
        store_doubles(exponents + i, exponential(load_doubles(exponents + i)));
    for (int64_t i = 0; i < num; i++) slot->e[i] = exponents[i], slot->w[i] = exponents[num + i];
    *slot->total = exponents[2 * num];
    for (int64_t i = 0; i < num; i++)
        for (int64_t j = 0; j <= i; j += HALF) { /* beyond the diagonal the exponent may be large: never used */
            Doubles D = exponential(G[i] - load_doubles(G + j));
            store_narrow(slot->D + i * num + j, D);
            store_doubles(slot->M + i * num + j, D * load_doubles(slot->M + i * num + j));
        }
}

/* L = [scale Q; K] */
INLINE void gather_queries_and_keys(Work *w) {
    gather(w, &w->call->q, w->K, w->call->scale, w->L, w->K_step);
    gather(w, &w->call->k, w->K, 1, w->L + w->num * w->K_step, w->K_step);
}

/* Brings a chunk's keys and queries in and computes what needs no state: L, K^T, M, P and the decays. */
NOINLINE void prepare(Work *w, Slot *slot) {
    const int64_t num = w->num, K = w->K;
    gather_queries_and_keys(w);
    for (int64_t i = 0; i < num; i++) slot->beta[i] = i < w->size ? *at(&w->call->beta, w, w->token + i) : 0;
    transpose(num, K, w->L + num * w->K_step, w->K_step, w->keys, num);
    for (int64_t i = 0; i < K * num; i += HALF) store_doubles(w->wide + i, load_wide(w->keys + i));
    gram(num, K, w->wide, slot->M);
    product((Product){.m = num, .n = num, .k = K, .left = w->L, .left_step = w->K_step, .right = w->keys,
                      .right_step = num, .out = slot->P, .out_step = num, .lower_out = 1});
    if (w->gated) decays(w, slot);
    for (int64_t i = 0; i < num; i++)
        for (int64_t j = 0; j < num; j += LANES) {
            float *P = slot->P + i * num + j;
            Floats scores = load(P);
            if (w->gated) scores *= load(slot->D + i * num + j);
            store(P, keep_below(scores, j, i + 1));
        }
}

/* F and R of a prepared chunk.  queries: whether reads[0:C], scale Q S, is wanted too. */
NOINLINE void correct(Work *w, Slot *slot, int queries) {
    const int64_t num = w->num, first = queries ? 0 : num;
    product((Product){.m = 2 * num - first, .n = w->V, .k = w->K, .left = w->L + first * w->K_step,
                      .left_step = w->K_step, .right = slot->S, .right_step = w->V_step,
                      .out = w->reads + first * w->V_step, .out_step = w->V_step});
    const float *rows[MAX_CHUNK];
    rows_of_values(w, rows);
    solve_down(&(System){.size = num, .V = w->V, .M = slot->M, .beta = slot->beta, .rows = rows,
                         .minus = w->reads + num * w->V_step, .minus_step = w->V_step,
                         .decay = w->gated ? slot->e : 0, .solution = slot->F, .weighted = slot->R, .sign = 1,
                         .step = w->V_step});
}

/* next = e^{G_C} S + (e^{G_C - G} K)^T R; next may be S itself. */
NOINLINE void advance(Work *w, Slot *slot, float *next) {
    const float *R = slot->R;
    if (w->gated) {
        scale_rows(w->num, w->V, slot->w, R, w->scaled, w->V_step);
        R = w->scaled;
    }
    product_of_transpose((Product){.m = w->K, .n = w->V, .k = w->num, .left = w->L + w->num * w->K_step,
                                   .left_step = w->K_step, .right = R, .right_step = w->V_step, .add = slot->S,
                                   .add_step = w->V_step, .factor = w->gated ? slot->total : 0, .out = next,
                                   .out_step = w->V_step});
}

#endif
