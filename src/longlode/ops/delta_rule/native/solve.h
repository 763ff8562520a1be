/* The two triangular systems of a chunk, solved by substitution in float64, a panel of 2 vectors of columns at a time.
 *
 * With the errors F before beta (R = beta F) and M = D * (K K^T), strictly lower, the chunk's system is
 *     F_i = E_i - sum_{j < i} M_ij beta_j F_j,
 * and its transpose, with U = beta dX, is
 *     dX_j = dR_j - sum_{i > j} M_ij beta_i dX_i:
 * the same form in both directions, and beta never divides. No inverse is formed, and no power of M. */
#ifndef LONGLODE_SOLVE_H
#define LONGLODE_SOLVE_H

#include "delta_rule.h"
#include "vector.h"

typedef struct {
    int64_t size, V;         /* tokens of the chunk, a multiple of 16; columns */
    const double *M;         /* [size, size]; only entries below the diagonal are read */
    const float *beta;       /* [size] */
    const float *const *rows; /* right side: [size] rows of V floats */
    const float *minus;      /* [size, V], subtracted from rows; NULL is zero */
    int64_t minus_step;
    const float *decay;      /* [size], factor of minus; NULL is 1 */
    float *solution;         /* [size, V]: F, or dX */
    float *weighted;         /* [size, V]: sign times beta times the solution */
    double sign;             /* 1 or -1 */
    int64_t step;            /* of solution and weighted */
} System;

INLINE void right_side(const System *s, int64_t row, int64_t column, Doubles x[2]) {
    UNROLL for (int j = 0; j < 2; j++) {
        x[j] = load_wide(s->rows[row] + column + j * HALF);
        if (s->minus) {
            Doubles minus = load_wide(s->minus + row * s->minus_step + column + j * HALF);
            x[j] -= all_doubles(s->decay ? s->decay[row] : 1) * minus;
        }
    }
}

/* Writes row `row` of the solution and returns beta times it in x, also kept in the panel. */
INLINE void settle(const System *s, int64_t row, int64_t column, Doubles x[2], double *panel) {
    double beta = s->beta[row];
    UNROLL for (int j = 0; j < 2; j++) {
        int64_t at = row * s->step + column + j * HALF;
        store_narrow(s->solution + at, x[j]);
        x[j] = x[j] * beta;
        store_narrow(s->weighted + at, s->sign * x[j]);
        store_doubles(panel + row * LANES + j * HALF, x[j]);
    }
}

NOINLINE void solve_down(const System *s) {
    double panel[MAX_CHUNK * LANES] __attribute__((aligned(64)));
    const double *M = s->M;
    for (int64_t column = 0; column < s->V; column += LANES)
        for (int64_t block = 0; block < s->size; block += ROWS) {
            Doubles x[ROWS][2];
            UNROLL for (int i = 0; i < ROWS; i++) right_side(s, block + i, column, x[i]);
            for (int64_t t = 0; t < block; t++) {
                Doubles low = load_doubles(panel + t * LANES), high = load_doubles(panel + t * LANES + HALF);
                UNROLL for (int i = 0; i < ROWS; i++) {
                    Doubles factor = all_doubles(M[(block + i) * s->size + t]);
                    x[i][0] -= factor * low;
                    x[i][1] -= factor * high;
                }
            }
            UNROLL for (int t = 0; t < ROWS; t++) {
                settle(s, block + t, column, x[t], panel);
                UNROLL for (int i = t + 1; i < ROWS; i++) {
                    Doubles factor = all_doubles(M[(block + i) * s->size + block + t]);
                    x[i][0] -= factor * x[t][0];
                    x[i][1] -= factor * x[t][1];
                }
            }
        }
}

NOINLINE void solve_up(const System *s) {
    double panel[MAX_CHUNK * LANES] __attribute__((aligned(64)));
    const double *M = s->M;
    for (int64_t column = 0; column < s->V; column += LANES)
        for (int64_t block = s->size - ROWS; block >= 0; block -= ROWS) {
            Doubles x[ROWS][2];
            UNROLL for (int i = 0; i < ROWS; i++) right_side(s, block + i, column, x[i]);
            for (int64_t t = block + ROWS; t < s->size; t++) {
                Doubles low = load_doubles(panel + t * LANES), high = load_doubles(panel + t * LANES + HALF);
                UNROLL for (int i = 0; i < ROWS; i++) {
                    Doubles factor = all_doubles(M[t * s->size + block + i]);
                    x[i][0] -= factor * low;
                    x[i][1] -= factor * high;
                }
            }
            UNROLL for (int t = ROWS - 1; t >= 0; t--) {
                settle(s, block + t, column, x[t], panel);
                UNROLL for (int i = 0; i < t; i++) {
                    Doubles factor = all_doubles(M[(block + t) * s->size + block + i]);
                    x[i][0] -= factor * x[t][0];
                    x[i][1] -= factor * x[t][1];
                }
            }
        }
}

#endif
