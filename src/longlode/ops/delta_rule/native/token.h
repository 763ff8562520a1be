/* One token of the delta rule, for decoding: the state is read twice and written once, and that is all there is to do. */
#ifndef LONGLODE_TOKEN_H
#define LONGLODE_TOKEN_H

#include "chunk.h"

/* One head: with r = beta (v - S^T k), S decayed already, the read after the write is S^T q + (k . q) r. */
static void token_of_head(const Token *t, int64_t head) {
    const int64_t K = t->K, V = t->V;
    const float *q = t->q + head * K, *k = t->k + head * K, *v = t->v + head * V, *S = t->state + head * K * V;
    float *next = t->new_state + head * K * V, decay = 1, inner = 0;
    if (t->g) {
        double g = t->g[head];
        decay = (float)exponential(all_doubles(g < -1e4 ? -1e4 : g))[0];
    }
    for (int64_t i = 0; i < K; i++) inner += k[i] * q[i];
    for (int64_t column = 0; column < V; column += LANES) {
        Floats known[4] = {{0}}, reads[4] = {{0}}; /* four sums each: one alone waits for itself */
        for (int64_t row = 0; row < K; row += 4)
            UNROLL for (int i = 0; i < 4; i++) {
                Floats values = load(S + (row + i) * V + column);
                known[i] += k[row + i] * values;
                reads[i] += q[row + i] * values;
            }
        Floats recalled = decay * ((known[0] + known[1]) + (known[2] + known[3]));
        Floats read = decay * ((reads[0] + reads[1]) + (reads[2] + reads[3]));
        Floats r = t->beta[head] * (load(v + column) - recalled);
        store(t->o + head * V + column, t->scale * (read + inner * r));
        for (int64_t row = 0; row < K; row++)
            store(next + row * V + column, decay * load(S + row * V + column) + k[row] * r);
    }
}

static void token(const Token *t) {
    for (int64_t head = 0; head < t->num_heads; head++) token_of_head(t, head);
}

#endif
