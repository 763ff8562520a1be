/* RMSNorm, SwiGLU and cross entropy: a piece of work is a block of rows. */
#include "rows.h"

INLINE int64_t end_of_block(int64_t first, int64_t D, int64_t num_rows) {
    return first + rows_of_block(D) < num_rows ? first + rows_of_block(D) : num_rows;
}

/* 1 / sqrt(mean(x^2) + eps) of a row, which goes to `to` as floats. whole: D is a multiple of LANES. */
INLINE float inverse_length(const NormCall *call, const char *x, int whole, float *to) {
    Floats squares = {0};
    for (int64_t i = 0; i < call->D; i += LANES) {
        Floats value = fetch(x, call->x.narrow, i, limit(whole, i, call->D));
        store(to + i, value);
        squares += value * value;
    }
    return 1.0f / __builtin_sqrtf(sum_lanes(squares) / (float)call->D + call->eps);
}

/* The calls come by value: what their pointers lead to may be written without their fields being read again. */
INLINE void norm_forward_rows(NormCall call, int64_t item, int whole, float *memory) {
    const int64_t D = call.D, first = item * rows_of_block(D), end = end_of_block(first, D, call.num_rows);
    for (int64_t row = first; row < end; row++) {
        const float factor = inverse_length(&call, place(&call.x, 0, row, 0), whole, memory);
        char *to = place(&call.y, 0, row, 0);
        for (int64_t i = 0; i < D; i += LANES) {
            const int64_t count = limit(whole, i, D);
            put(to, call.y.narrow, i, count, load(memory + i) * factor * fetch((const char *)call.weight, 0, i, count));
        }
    }
}

static void norm_forward(const void *pointer, int64_t item, float *memory, float *part) {
    const NormCall *call = pointer;
    (void)part;
    if (call->D % LANES)
        norm_forward_rows(*call, item, 0, memory);
    else
        norm_forward_rows(*call, item, 1, memory);
}

/* With n = x r, r = 1 / sqrt(mean(x^2) + eps), h = dy weight:  dweight += dy n;  dx = r (h - n mean(h n)). */
INLINE void norm_backward_rows(NormCall call, int64_t item, int whole, float *memory, float *part) {
    const int64_t D = call.D, first = item * rows_of_block(D), end = end_of_block(first, D, call.num_rows);
    float *n = memory, *h = n + padded(D), *sums = h + padded(D);
    for (int64_t row = first; row < end; row++) {
        /* Sums of a few rows each are summed: that loses less than one long sum. */
        if ((row - first) % TILE == 0) memset(sums, 0, (size_t)padded(D) * sizeof *sums);
        const float factor = inverse_length(&call, place(&call.x, 0, row, 0), whole, n);
        const char *dy = place(&call.dy, 0, row, 0);
        Floats dot = {0};
        for (int64_t i = 0; i < D; i += LANES) {
            const int64_t count = limit(whole, i, D);
            Floats value = load(n + i) * factor, slope = fetch(dy, call.dy.narrow, i, count);
            store(sums + i, load(sums + i) + slope * value);
            slope *= fetch((const char *)call.weight, 0, i, count);
            store(n + i, value);
            store(h + i, slope);
            dot += slope * value;
        }
        const float mean = sum_lanes(dot) / (float)D;
        char *to = place(&call.dx, 0, row, 0);
        for (int64_t i = 0; i < D; i += LANES)
            put(to, call.dx.narrow, i, limit(whole, i, D), (load(h + i) - load(n + i) * mean) * factor);
        if ((row - first) % TILE == TILE - 1 || row == end - 1)
            for (int64_t i = 0; i < D; i += LANES) store(part + i, load(part + i) + load(sums + i));
    }
}

static void norm_backward(const void *pointer, int64_t item, float *memory, float *part) {
    const NormCall *call = pointer;
    if (call->D % LANES)
        norm_backward_rows(*call, item, 0, memory, part);
    else
        norm_backward_rows(*call, item, 1, memory, part);
}

INLINE void swiglu_forward_rows(SwigluCall call, int64_t item, int whole) {
    const int64_t D = call.D, first = item * rows_of_block(D), end = end_of_block(first, D, call.num_rows);
    for (int64_t row = first; row < end; row++) {
        const char *gate = place(&call.gate, 0, row, 0), *up = place(&call.up, 0, row, 0);
        char *y = place(&call.y, 0, row, 0);
        for (int64_t i = 0; i < D; i += LANES) {
            const int64_t count = limit(whole, i, D);
            Floats g = fetch(gate, call.gate.narrow, i, count);
            put(y, call.y.narrow, i, count, g * sigmoid(g) * fetch(up, call.up.narrow, i, count));
        }
    }
}

static void swiglu_forward(const void *pointer, int64_t item, float *memory, float *part) {
    const SwigluCall *call = pointer;
    (void)memory, (void)part;
    if (call->D % LANES)
        swiglu_forward_rows(*call, item, 0);
    else
        swiglu_forward_rows(*call, item, 1);
}

INLINE void swiglu_backward_rows(SwigluCall call, int64_t item, int whole) {
    const int64_t D = call.D, first = item * rows_of_block(D), end = end_of_block(first, D, call.num_rows);
    for (int64_t row = first; row < end; row++) {
        const char *gate = place(&call.gate, 0, row, 0), *up = place(&call.up, 0, row, 0), *dy = place(&call.dy, 0, row, 0);
        char *dgate = place(&call.dgate, 0, row, 0), *dup = place(&call.dup, 0, row, 0);
        for (int64_t i = 0; i < D; i += LANES) {
            const int64_t count = limit(whole, i, D);
            Floats g = fetch(gate, call.gate.narrow, i, count), s = sigmoid(g);
            Floats slope = fetch(dy, call.dy.narrow, i, count);
            put(dup, call.dup.narrow, i, count, slope * g * s);
            slope *= fetch(up, call.up.narrow, i, count);
            put(dgate, call.dgate.narrow, i, count, slope * s * (1.0f + g * (1.0f - s)));
        }
    }
}

static void swiglu_backward(const void *pointer, int64_t item, float *memory, float *part) {
    const SwigluCall *call = pointer;
    (void)memory, (void)part;
    if (call->D % LANES)
        swiglu_backward_rows(*call, item, 0);
    else
        swiglu_backward_rows(*call, item, 1);
}

/* Largest number of a row, NaN passed over; the row goes to `to` as floats, lanes beyond it as the smallest. */
INLINE float largest(const LossCall *call, const char *x, int whole, float *to) {
    const float lowest = -3.4028235e38f;
    Floats most = all(lowest);
    for (int64_t i = 0; i < call->D; i += LANES) {
        Floats value = fetch(x, call->logits.narrow, i, limit(whole, i, call->D));
        if (!whole && i + LANES > call->D) {
            Ints there = lane_numbers() < (int32_t)(call->D - i);
            value = (Floats)(((Ints)value & there) | ((Ints)all(lowest) & ~there));
        }
        store(to + i, value);
        most = larger(value, most);
    }
    float lanes[LANES], found = lowest;
    store(lanes, most);
    for (int lane = 0; lane < LANES; lane++) found = lanes[lane] > found ? lanes[lane] : found;
    return found;
}

INLINE void cross_entropy_rows(LossCall call, int64_t item, int whole, float *memory) {
    const int64_t D = call.D, first = item * rows_of_block(D), end = end_of_block(first, D, call.num_rows);
    for (int64_t row = first; row < end; row++) {
        char *x = place(&call.logits, 0, row, 0);
        const float most = largest(&call, x, whole, memory), weight = call.weights ? call.weights[row] : 1.0f;
        const int64_t target = call.targets[row];
        const float asked = memory[target] - most;
        Doubles sums = {0};
        for (int64_t i = 0; i < D; i += LANES) {
            Floats e = exponential_float(load(memory + i) - most);
            if (!whole) e = keep_below(e, i, D);
            store(memory + i, e);
            sums += load_wide(memory + i) + load_wide(memory + i + HALF);
        }
        double sum = 0;
        for (int lane = 0; lane < HALF; lane++) sum += sums[lane];
        /* The largest number adds 1; where all are -inf there is none, and no distribution. */
        if (sum < 0.5) sum = __builtin_nan("");
        call.losses[row] = weight * (float)(__builtin_log(sum) - (double)asked);
        if (!call.slope) continue;
        memory[target] -= (float)sum;
        const float factor = (float)(weight / sum);
        for (int64_t i = 0; i < D; i += LANES)
            put(x, call.logits.narrow, i, limit(whole, i, D), load(memory + i) * factor);
    }
}

static void cross_entropy(const void *pointer, int64_t item, float *memory, float *part) {
    const LossCall *call = pointer;
    (void)part;
    if (call->D % LANES)
        cross_entropy_rows(*call, item, 0, memory);
    else
        cross_entropy_rows(*call, item, 1, memory);
}
