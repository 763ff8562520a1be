/* Matrix products of a chunk: operands lie in the first or second cache already, so the only blocking is by
 * registers, and by panels of 2 vectors of columns, whose rows of the right factor then stay in the first cache. */
#ifndef LONGLODE_PRODUCT_H
#define LONGLODE_PRODUCT_H

#include "vector.h"

/* Which terms a row block sums.  The left factor is lower triangular (row i needs terms up to i), or the transpose
 * of one (row i needs terms from i on), or full. */
typedef enum { FULL, LOWER, UPPER } Shape;

typedef struct {
    int64_t m, n, k;    /* output m x n, k terms; multiples of 16 */
    const float *left;  /* m x k, or k x m where the product is with its transpose */
    int64_t left_step;  /* floats from one row in memory to the next */
    const float *right; /* k x n */
    int64_t right_step;
    const float *add;   /* m x n, added to the product; NULL is zero; may be `out` */
    int64_t add_step;
    const float *factor; /* m factors on the rows of `add`; NULL is 1 */
    int64_t factor_step; /* 0: one factor for all rows */
    float *out;          /* m x n */
    int64_t out_step;
    Shape shape;
    int lower_out; /* columns above the diagonal of `out` are not needed (what is written there means nothing) */
} Product;

/* ROWS x (num * LANES) of the output: terms `from` to `to`. */
INLINE void product_tile(const Product *p, int64_t row, int64_t column, int64_t from, int64_t to, const int num,
                         const int transposed) {
    const int64_t left_step = p->left_step, right_step = p->right_step;
    const float *left = transposed ? p->left + from * left_step + row : p->left + row * left_step + from;
    const float *right = p->right + from * right_step + column;
    Floats sums[ROWS][2];
    UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < num; j++) sums[i][j] = (Floats){0};
    for (int64_t count = to - from; count; count--) {
        Floats values[2];
        UNROLL for (int j = 0; j < num; j++) values[j] = load(right + j * LANES);
        UNROLL for (int i = 0; i < ROWS; i++) {
            Floats factor = all(transposed ? left[i] : left[i * left_step]);
            UNROLL for (int j = 0; j < num; j++) sums[i][j] += factor * values[j];
        }
        left += transposed ? left_step : 1;
        right += right_step;
    }
    const float *factor = p->factor ? p->factor + row * p->factor_step : 0;
    UNROLL for (int i = 0; i < ROWS; i++) {
        float *out = p->out + (row + i) * p->out_step + column;
        if (p->add) {
            const float *add = p->add + (row + i) * p->add_step + column;
            Floats scale = all(factor ? factor[i * p->factor_step] : 1.0f);
            UNROLL for (int j = 0; j < num; j++) sums[i][j] += scale * load(add + j * LANES);
        }
        UNROLL for (int j = 0; j < num; j++) store(out + j * LANES, sums[i][j]);
    }
}

INLINE void product_panel(const Product *p, int64_t column, const int num, const int transposed) {
    for (int64_t row = 0; row < p->m; row += ROWS) {
        if (p->lower_out && column >= row + ROWS) continue;
        int64_t from = p->shape == UPPER ? row : 0, to = p->shape == LOWER ? row + ROWS : p->k;
        product_tile(p, row, column, from, to, num, transposed);
    }
}

/* out = factor * add + left right */
NOINLINE void product(Product p) {
    int64_t column = 0;
    for (; column + 2 * LANES <= p.n; column += 2 * LANES) product_panel(&p, column, 2, 0);
    for (; column < p.n; column += LANES) product_panel(&p, column, 1, 0);
}

/* out = factor * add + left^T right */
NOINLINE void product_of_transpose(Product p) {
    int64_t column = 0;
    for (; column + 2 * LANES <= p.n; column += 2 * LANES) product_panel(&p, column, 2, 1);
    for (; column < p.n; column += LANES) product_panel(&p, column, 1, 1);
}

/* The lower triangle of keys^T keys (size x size) for keys [k, size], in float64; entries above it mean nothing.
 * In float32 one rounding of k . k would be used for every pair of equal keys: see README.md, section 7. */
NOINLINE void gram(int64_t size, int64_t k, const double *keys, double *out) {
    for (int64_t column = 0; column < size; column += 2 * HALF)
        for (int64_t row = column - column % ROWS; row < size; row += ROWS) {
            Doubles sums[ROWS][2];
            UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < 2; j++) sums[i][j] = (Doubles){0};
            const double *x = keys;
            for (int64_t count = k; count; count--) {
                Doubles values[2] = {load_doubles(x + column), load_doubles(x + column + HALF)};
                UNROLL for (int i = 0; i < ROWS; i++) {
                    Doubles factor = all_doubles(x[row + i]);
                    UNROLL for (int j = 0; j < 2; j++) sums[i][j] += factor * values[j];
                }
                x += size;
            }
            UNROLL for (int i = 0; i < ROWS; i++) UNROLL for (int j = 0; j < 2; j++)
                store_doubles(out + (row + i) * size + column + j * HALF, sums[i][j]);
        }
}

#endif
