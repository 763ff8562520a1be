/* The C interface of the fused row-wise kernels (short convolution, RMSNorm, SwiGLU, cross entropy, means after
 * n-grams): what
 * ops/rowwise.py fills in, field by field, with ctypes. They live in the library of the delta rule, whose threads and
 * instruction sets they share. */
#ifndef LONGLODE_ROWWISE_H
#define LONGLODE_ROWWISE_H

#include <stdint.h>

/* Raised whenever what rowwise.py sees of this file changes; the delta rule's own number stays. */
#define LONGLODE_ROWS_ABI 2

#define MAX_TAPS 8
#define MAX_GROUP 512       /* channels that one normalisation spans */
#define MATCH_CHANNELS 128  /* channels whose means after n-grams are a piece of work */
#define TILE 32             /* tokens that the convolution takes at a time, and rows that are summed at a time */
#define BLOCK_NUMBERS 16384 /* about as many numbers in a piece of work of the others */

/* Numbers in memory are float or bfloat16 (the upper half of a float); arithmetic is in float. */
typedef struct {
    void *data;
    int64_t batch, row; /* steps in numbers from one batch row, and one row (token), to the next; the last is 1 */
    int64_t narrow;     /* 1: bfloat16 */
} Rows;

/* y = norm(silu(conv(x))): see ops/short_conv. The first `num_normed` channels are divided, `group` by `group`, by their
 * length. */
typedef struct {
    Rows x, y, dy, dx;
    const float *weight; /* [W, D], the last row on the token itself */
    const float *state;  /* [N, W - 1, D], oldest first; NULL is zero */
    float *dweight;      /* [W, D] */
    float *dstate;       /* [N, W - 1, D]; NULL: not wanted */
    const int64_t *segments; /* [num_segments, 6]: batch row, document, its first token and its end, first token and end
                              * of the segment; segments do not overlap, and cover every document */
    int64_t num_segments, D, W, group, num_normed, silu;
    float eps;
} ConvCall;

/* y = x / sqrt(mean(x^2) + eps) * weight. */
typedef struct {
    Rows x, y, dy, dx;
    const float *weight; /* [D] */
    float *dweight;      /* [D] */
    int64_t num_rows, D;
    float eps;
} NormCall;

/* y = silu(gate) * up. */
typedef struct {
    Rows gate, up, y, dy, dgate, dup;
    int64_t num_rows, D;
} SwigluCall;

/* loss = -weight * log softmax(logits)[target]; the logits give way to the gradient of the sum of losses. */
typedef struct {
    Rows logits;
    const int64_t *targets; /* [num_rows], each in [0, D) */
    const float *weights;   /* [num_rows]; NULL is 1 */
    float *losses;          /* [num_rows] */
    int64_t num_rows, D, slope; /* slope: 0 leaves the logits as they are */
} LossCall;

/* Tokens [num_tokens], in rows of `length`, sorted by the n-gram that ends at each: y = mean of the values of the tokens
 * after earlier occurrences of the same n-gram, or after the `matches` most recent ones; 0 if there are none. */
typedef struct {
    Rows values;             /* [num_tokens / length, length, D] */
    Rows y, dy;              /* [num_tokens / length * asked, D]: of the last `asked` tokens of each row */
    Rows dvalues;            /* as values, but float; the gradient is added */
    const int64_t *order;    /* [num_tokens]: token at each index of the sorted list */
    const int64_t *group;    /* [num_tokens]: number of its n-gram */
    int64_t num_tokens, D, length, asked, matches; /* matches: 0 is all */
} MatchCall;

typedef enum {
    CONV_FORWARD, CONV_BACKWARD, NORM_FORWARD, NORM_BACKWARD, SWIGLU_FORWARD, SWIGLU_BACKWARD, CROSS_ENTROPY,
    MATCH_FORWARD, MATCH_BACKWARD,
    NUM_ROW_KERNELS
} RowKernel;

int longlode_rows_abi(void);
/* Runs a kernel on a call of its type, and returns a Status. num_threads includes the calling one. */
int longlode_rows(int kernel, const void *call, const char *instruction_set, int num_threads);

/* From here on nothing that rowwise.py sees. A piece of work: its number, memory of its own on a cache line's boundary,
 * and where it leaves its part of the sum over rows (gradient of the weight), if the kernel has one. */
#define LANES_AT_MOST 16
static inline int64_t whole_vectors(int64_t count) {
    return (count + LANES_AT_MOST - 1) / LANES_AT_MOST * LANES_AT_MOST;
}
static inline int64_t rows_of_block(int64_t D) { return BLOCK_NUMBERS / D < 1 ? 1 : BLOCK_NUMBERS / D; }
typedef void (*RowFunction)(const void *call, int64_t item, float *workspace, float *part);

#endif
