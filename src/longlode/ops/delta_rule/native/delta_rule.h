/* The C interface of the delta rule's CPU kernel: what native.py fills in, field by field, with ctypes. */
#ifndef LONGLODE_DELTA_RULE_H
#define LONGLODE_DELTA_RULE_H

#include <stdint.h>

#include "rowwise.h"

/* Raised whenever what native.py sees of this file changes (structs, functions, limits, the meaning of a field), which
 * refuses a library of another version. */
#define LONGLODE_ABI 4

/* Limits of a call; one that breaks them is refused with LONGLODE_BAD_CALL. K and V are multiples of 16. */
#define MAX_SIZE 256    /* K and V */
#define MAX_CHUNK 64    /* C: 16, 32 or 64 */
#define MAX_INTERVAL 16 /* chunks between two kept states */

/* A tensor [B, T, H, size], its last dimension contiguous; beta and g are [B, T, H], size 1. Arithmetic is in float;
 * q, k, v, o, dq and dk may be bfloat16 in memory. dv may not: several threads read it back. */
typedef struct {
    void *data;     /* NULL: absent */
    int64_t row;    /* steps in numbers from one batch row, token and head to the next */
    int64_t token;
    int64_t head;
    int64_t narrow; /* 1: bfloat16, 0: float */
} Tensor;

typedef struct {
    Tensor q, k, v, beta, g;      /* inputs; g may be absent */
    Tensor o;                     /* forward: output.  backward: gradient of the output, may be absent */
    Tensor dq, dk, dv, dbeta, dg; /* backward: gradients; dg absent with g */
    float *state;                 /* [N, H, K, V] before the first token; NULL is zero (forward only) */
    float *final_state;           /* forward: the state after the last token */
    float *dfinal_state;          /* backward: its gradient; NULL is zero */
    float *dstate;                /* backward: gradient of state; NULL: not wanted */
    float *kept;                  /* [number of intervals, H, K, V], the state before each interval; NULL: don't keep */
    const int64_t *documents;     /* [N, 4]: batch row, first token, number of tokens, first interval */
    int64_t num_documents;
    int64_t H, K, V; /* K and V: multiples of 16 up to MAX_SIZE */
    int64_t chunk;    /* C: 16, 32 or 64 */
    int64_t interval; /* chunks between two kept states, 1 to MAX_INTERVAL */
    float scale;
} Call;

/* One token: q, k [num_heads, K], v, o [num_heads, V], beta, g [num_heads], states [num_heads, K, V], contiguous. */
typedef struct {
    const float *q, *k, *v, *beta, *g, *state; /* g: NULL is no decay */
    float *o, *new_state;
    int64_t num_heads, K, V; /* K and V: multiples of 16 up to MAX_SIZE */
    float scale;
} Token;

int longlode_abi(void);
/* Instruction sets compiled in that this CPU has, best first, as a comma-separated list. */
const char *longlode_instruction_sets(void);
typedef enum {
    LONGLODE_DONE = 0,
    LONGLODE_NO_MEMORY = 1,
    LONGLODE_NO_INSTRUCTION_SET = 2,
    LONGLODE_BAD_CALL = 3, /* a size beyond the limits above, or a pointer that must not be NULL */
} Status;

/* Each returns a Status.  num_threads includes the calling one. */
int longlode_forward(const Call *call, const char *instruction_set, int num_threads);
int longlode_backward(const Call *call, const char *instruction_set, int num_threads);
int longlode_token(const Token *call, const char *instruction_set);

/* From here on nothing that native.py sees. */
typedef enum { FORWARD, BACKWARD, SPLIT_BACKWARD } Way;

/* The chunks between two kept states of one document and head, whose backward several threads share. */
typedef struct {
    int64_t document, head;
    int64_t first, end; /* chunks */
    char *slots;        /* slot_bytes(call) a chunk, on a cache line's boundary */
    float *carry;       /* [K, V]: gradient of the state between two windows, the later one computed first */
} Window;

/* One instruction set's kernels; `workspace` has workspace_bytes(call, way) bytes on a cache line's boundary. */
typedef struct {
    const char *name;
    int64_t (*workspace_bytes)(const Call *call, Way way);
    int64_t (*slot_bytes)(const Call *call);
    /* forward: columns first_column to first_column + num_columns of v, o and the states. */
    void (*forward)(const Call *call, int64_t document, int64_t head, int64_t first_column, int64_t num_columns,
                    void *workspace);
    void (*backward)(const Call *call, int64_t document, int64_t head, void *workspace);
    /* The same backward in three parts: each chunk prepared, then the window scanned, some columns of v, dv, the
     * states and their gradients in one go, then each chunk finished.  Chunks, and columns, are independent. */
    void (*prepare_chunk)(const Call *call, const Window *window, int64_t chunk, void *workspace);
    void (*scan_window)(const Call *call, const Window *window, int64_t first_column, int64_t num_columns,
                        void *workspace);
    void (*finish_chunk)(const Call *call, const Window *window, int64_t chunk, void *workspace);
    void (*token)(const Token *call);
    RowFunction rows[NUM_ROW_KERNELS];
} Kernels;

/* The kernels of an instruction set that this CPU has, else 0. */
__attribute__((visibility("hidden"))) const Kernels *longlode_find(const char *name);

#if defined(__x86_64__)
extern const Kernels longlode_avx512, longlode_avx2;
#endif
extern const Kernels longlode_baseline;

#endif
