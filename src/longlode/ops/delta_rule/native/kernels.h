/* Forward and backward over one document and head, chunk after chunk. Included once for each instruction set, with
 * KERNELS the name of the table to define and INSTRUCTION_SET what it is called. */
#include "backward.h"
#include "matches.h"
#include "norms.h"
#include "short_conv.h"
#include "token.h"

/* Cuts `bytes` off the workspace at `used`, on a cache line's boundary. With base 0 it only counts. */
static void *cut(char *base, int64_t *used, int64_t bytes) {
    void *result = base ? base + *used : 0;
    *used += (bytes + 63) / 64 * 64;
    return result;
}

/* A slot for V columns of values, with dX and dS where it has its own. Statement by statement: threads that share a slot
 * must all lay it out in this order, and a list of initial values has none. */
static Slot cut_slot(const Call *call, int64_t V, int own_gradients, char *base, int64_t *used) {
    const int64_t C = call->chunk, matrix = call->K * (V + PAD), f = sizeof(float), values = C * (V + PAD) * f;
    Slot slot = {0};
    slot.S = cut(base, used, matrix * f);
    slot.R = cut(base, used, values);
    slot.F = cut(base, used, values);
    slot.P = cut(base, used, C * C * f);
    slot.D = cut(base, used, C * C * f);
    slot.M = cut(base, used, C * C * 2 * f);
    slot.beta = cut(base, used, C * f);
    slot.e = cut(base, used, C * f);
    slot.w = cut(base, used, C * f);
    slot.total = cut(base, used, f);
    if (own_gradients) {
        slot.dX = cut(base, used, values);
        slot.dS = cut(base, used, matrix * f);
    }
    return slot;
}

/* V: the columns of values at work, at most call->V. */
static int64_t lay_out(const Call *call, int64_t V, Way way, char *base, Work *w) {
    const int64_t C = call->chunk, K = call->K, K_step = K + PAD, V_step = V + PAD, f = sizeof(float);
    int64_t used = 0;
    *w = (Work){.call = call, .K = K, .V = V, .K_step = K_step, .V_step = V_step, .gated = call->g.data != 0};
    const int64_t num_slots = way == FORWARD ? 1 : way == BACKWARD ? call->interval : 0;
    for (int64_t i = 0; i < num_slots; i++) w->slots[i] = cut_slot(call, V, 0, base, &used);
    w->L = cut(base, &used, 2 * C * K_step * f);
    w->keys = cut(base, &used, K * C * f);
    w->wide = cut(base, &used, K * C * 2 * f);
    w->reads = cut(base, &used, 2 * C * V_step * f);
    w->scaled = cut(base, &used, 2 * C * V_step * f);
    w->values = cut(base, &used, call->v.narrow ? C * V_step * f : 0);
    w->zeros = cut(base, &used, MAX_SIZE * f);
    if (way != FORWARD) {
        w->N = cut(base, &used, 2 * C * V_step * f);
        w->dR = cut(base, &used, C * V_step * f);
        w->R_t = cut(base, &used, V * C * f);
        w->S_t = cut(base, &used, V * K_step * f);
        w->dscores = cut(base, &used, 2 * C * C * f);
        w->pairs = cut(base, &used, C * C * f);
        w->dL = cut(base, &used, 2 * C * K_step * f);
        w->dK = cut(base, &used, C * K_step * f);
    }
    if (way == BACKWARD) { /* one chunk at a time: its gradients may lie where the last one's lay */
        float *dX = cut(base, &used, C * V_step * f), *dS = cut(base, &used, K * V_step * f);
        for (int64_t i = 0; i < num_slots; i++) w->slots[i].dX = dX, w->slots[i].dS = dS;
    }
    if (base) memset(w->zeros, 0, MAX_SIZE * f);
    return used;
}

static int64_t workspace_bytes(const Call *call, Way way) {
    Work w;
    return lay_out(call, call->V, way, 0, &w);
}

static int64_t slot_bytes(const Call *call) {
    int64_t used = 0;
    cut_slot(call, call->V, 1, 0, &used);
    return used;
}

/* Moves to chunk `index` of the document and asks for the tokens of chunk `next`, none if it is below 0: q, k and,
 * for a chunk whose gradients come next, the gradient of o, else v. */
static void go_to(Work *w, const int64_t *document, int64_t index, int64_t next, int with_o) {
    const Call *call = w->call;
    const int64_t C = call->chunk, length = document[2];
    w->row = document[0];
    w->token = document[1] + index * C;
    w->size = length - index * C < C ? length - index * C : C;
    w->num = (w->size + 15) / 16 * 16;
    int64_t num = next < 0 ? 0 : length - next * C < C ? length - next * C : C, token = document[1] + next * C;
    if (num <= 0) return;
    prefetch(w, &call->q, w->K, token, num);
    prefetch(w, &call->k, w->K, token, num);
    prefetch(w, with_o ? &call->o : &call->v, w->V, token, num);
}

/* Columns of values do not meet in the forward: some of them can be computed alone, with the same bits, at the cost of
 * what needs no values (keys, scores, decays) computed again. */
static void forward(const Call *whole, int64_t number, int64_t head, int64_t first_column, int64_t num_columns,
                    void *workspace) {
    Call part = *whole;
    skip_columns(&part.v, first_column);
    skip_columns(&part.o, first_column);
    const Call *call = &part;
    Work w;
    lay_out(call, num_columns, FORWARD, workspace, &w);
    w.head = head;
    Slot *slot = w.slots;
    const int64_t *document = call->documents + 4 * number, row = call->V, matrix = w.K * row;
    const int64_t at_state = (number * call->H + head) * matrix + first_column;
    const int64_t num_chunks = (document[2] + call->chunk - 1) / call->chunk;
    copy_matrix(w.K, w.V, call->state ? call->state + at_state : 0, row, slot->S, w.V_step);
    for (int64_t i = 0; i < num_chunks; i++) {
        if (call->kept && i % call->interval == 0)
            copy_matrix(w.K, w.V, slot->S, w.V_step,
                        call->kept + ((document[3] + i / call->interval) * call->H + head) * matrix + first_column,
                        row);
        go_to(&w, document, i, i + 1, 0);
        prepare(&w, slot);
        correct(&w, slot, 1);
        product((Product){.m = w.num, .n = w.V, .k = w.num, .left = slot->P, .left_step = w.num, .right = slot->R,
                          .right_step = w.V_step, .add = w.reads, .add_step = w.V_step,
                          .factor = w.gated ? slot->e : 0, .factor_step = 1, .out = w.reads,
                          .out_step = w.V_step, .shape = LOWER});
        scatter(&w, &call->o, w.V, 1, w.reads, w.V_step);
        advance(&w, slot, slot->S);
    }
    copy_matrix(w.K, w.V, slot->S, w.V_step, call->final_state + at_state, row);
}

static void backward(const Call *call, int64_t number, int64_t head, void *workspace) {
    Work w;
    lay_out(call, call->V, BACKWARD, workspace, &w);
    w.head = head;
    const int64_t *document = call->documents + 4 * number, matrix = w.K * w.V, at_state = number * call->H + head;
    const int64_t num_chunks = (document[2] + call->chunk - 1) / call->chunk, interval = call->interval;
    copy_matrix(w.K, w.V, call->dfinal_state ? call->dfinal_state + at_state * matrix : 0, w.V, w.slots[0].dS,
                w.V_step);
    for (int64_t first = (num_chunks - 1) / interval * interval; first >= 0; first -= interval) {
        const int64_t end = first + interval < num_chunks ? first + interval : num_chunks;
        copy_matrix(w.K, w.V, call->kept + ((document[3] + first / interval) * call->H + head) * matrix, w.V,
                    w.slots[0].S, w.V_step);
        for (int64_t i = first; i < end; i++) {
            Slot *slot = &w.slots[i - first];
            go_to(&w, document, i, i + 1 < end ? i + 1 : i, i + 1 == end);
            prepare(&w, slot);
            correct(&w, slot, 0);
            if (i + 1 < end) advance(&w, slot, slot[1].S);
        }
        for (int64_t i = end - 1; i >= first; i--) {
            go_to(&w, document, i, i > first ? i - 1 : first - interval, i > first);
            Slot *slot = &w.slots[i - first];
            gather_queries_and_keys(&w);
            gradient_of_values(&w, slot);
            gradients_of_sums(&w, slot);
            retreat(&w, slot, slot->dS, w.V_step);
        }
    }
    if (call->dstate) copy_matrix(w.K, w.V, w.slots[0].dS, w.V_step, call->dstate + at_state * matrix, w.V);
}

#include "split.h"

const Kernels KERNELS = {
    INSTRUCTION_SET, workspace_bytes, slot_bytes, forward, backward, prepare_chunk, scan_window, finish_chunk, token,
    {conv_forward, conv_backward, norm_forward, norm_backward, swiglu_forward, swiglu_backward, cross_entropy,
     match_forward, match_backward},
};
