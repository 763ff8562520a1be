/* The short convolution with its activation and normalisation, forward and backward: a piece of work is a segment of a
 * document and a group of channels, taken in tiles of tokens that stay in the first cache. The backward computes the
 * convolution again, and the gradient of the W - 1 tokens after its own, so that pieces need nothing of one another. */
#include "rows.h"

/* It and the call in it are copies whose address goes nowhere: a compiler need not read them again after each store. */
typedef struct {
    ConvCall call;
    int64_t batch, document, start, end, first, last; /* the document's tokens, and the segment's */
    int64_t column, count, width;                     /* first channel, channels, and those padded to whole vectors */
    int64_t part_width;                               /* of a row of the partial sums */
    int normed;
    float *weight; /* [W, width] */
    float *x;      /* [W - 1 + TILE + W - 1, width]: inputs from W - 1 tokens before the tile on */
    float *y;      /* [TILE + W - 1, width]: after the activation; backward: dz, the gradient before it */
    float *slope;  /* [width], derivative of the activation */
    float *dy;     /* [width] */
} ConvWork;

/* What is known of a call at compile time, or read from it. whole: its channels are whole vectors. */
typedef struct {
    int64_t W;
    int silu, whole;
} Form;

INLINE ConvWork conv_work(const ConvCall *call, int64_t item, float *memory) {
    const int64_t num_groups = (call->D + call->group - 1) / call->group, W = call->W;
    const int64_t *segment = call->segments + 6 * (item / num_groups);
    ConvWork w = {.call = *call, .batch = segment[0], .document = segment[1], .start = segment[2], .end = segment[3],
                  .first = segment[4], .last = segment[5], .column = item % num_groups * call->group};
    w.count = call->D - w.column < call->group ? call->D - w.column : call->group;
    w.width = padded(w.count);
    w.part_width = whole_vectors(call->group < call->D ? call->group : call->D);
    w.normed = w.column < call->num_normed;
    w.weight = memory;
    w.x = w.weight + W * w.width;
    w.y = w.x + (TILE + 2 * W - 2) * w.width;
    w.slope = w.y + (TILE + W - 1) * w.width;
    w.dy = w.slope + w.width;
    for (int64_t i = 0; i < W; i++)
        fetch_row((const char *)(call->weight + i * call->D + w.column), 0, w.count, 0, w.weight + i * w.width);
    return w;
}

/* Inputs of tokens `from` to `to`, the first of them at row 0; before the document its state, or zeros. */
INLINE void gather_inputs(const ConvWork *w, int64_t from, int64_t to, Form form) {
    const ConvCall *call = &w->call;
    for (int64_t t = from; t < to; t++) {
        float *x = w->x + (t - from) * w->width;
        if (t >= w->start)
            fetch_row(place(&call->x, w->batch, t, w->column), call->x.narrow, w->count, form.whole, x);
        else if (call->state)
            fetch_row((const char *)(call->state +
                                     (w->document * (call->W - 1) + t - w->start + call->W - 1) * call->D + w->column),
                      0, w->count, form.whole, x);
        else
            memset(x, 0, (size_t)w->width * sizeof *x);
    }
}

/* Sum of the taps at the window that begins with `x`. */
INLINE Floats convolved(const ConvWork *w, const float *x, int64_t i, int64_t W) {
    Floats z = load(w->weight + (W - 1) * w->width + i) * load(x + (W - 1) * w->width + i);
    for (int64_t tap = W - 2; tap >= 0; tap--) z += load(w->weight + tap * w->width + i) * load(x + tap * w->width + i);
    return z;
}

/* y of the window that begins with `x`, and the activation's derivative if it is wanted; returns the sum of squares. */
INLINE float activate(const ConvWork *w, const float *x, float *y, float *slope, Form form) {
    Floats squares = {0};
    for (int64_t i = 0; i < w->width; i += LANES) {
        Floats z = convolved(w, x, i, form.W), value = z, derivative = all(1.0f);
        if (form.silu) {
            Floats s = sigmoid(z);
            value = z * s;
            derivative = s + value * (1.0f - s);
        }
        store(y + i, value);
        if (slope) store(slope + i, derivative);
        squares += value * value;
    }
    return w->normed ? sum_lanes(squares) : 0;
}

INLINE void conv_forward_taps(const ConvWork *w, Form form) {
    const ConvCall *call = &w->call;
    const int64_t W = form.W;
    for (int64_t first = w->first; first < w->last; first += TILE) {
        const int64_t end = first + TILE < w->last ? first + TILE : w->last;
        gather_inputs(w, first - W + 1, end, form);
        for (int64_t t = first; t < end; t++) {
            float squares = activate(w, w->x + (t - first) * w->width, w->y, 0, form);
            float factor = w->normed ? 1.0f / __builtin_sqrtf(squares + call->eps) : 1.0f;
            char *to = place(&call->y, w->batch, t, w->column);
            for (int64_t i = 0; i < w->width; i += LANES)
                put(to, call->y.narrow, i, limit(form.whole, i, w->count), load(w->y + i) * factor);
        }
    }
}

/* dz of token `t` into row `t - first` of y.  With o = y / |y|:  dy = (do - o (o . do)) / |y|. */
INLINE void gradient_before_activation(const ConvWork *w, int64_t t, int64_t first, Form form) {
    const ConvCall *call = &w->call;
    float *y = w->y + (t - first) * w->width;
    const float squares = activate(w, w->x + (t - first) * w->width, y, w->slope, form);
    fetch_row(place(&call->dy, w->batch, t, w->column), call->dy.narrow, w->count, form.whole, w->dy);
    float factor = 1.0f, along = 0.0f;
    if (w->normed) {
        Floats dot = {0};
        for (int64_t i = 0; i < w->width; i += LANES) dot += load(y + i) * load(w->dy + i);
        factor = 1.0f / __builtin_sqrtf(squares + call->eps);
        along = sum_lanes(dot) * factor * factor;
    }
    for (int64_t i = 0; i < w->width; i += LANES)
        store(y + i, (load(w->dy + i) - load(y + i) * along) * factor * load(w->slope + i));
}

/* Gradient of the input at a token whose own dz would be at row `row`: the sum over the windows that it is in. */
INLINE Floats gradient_of_input(const ConvWork *w, int64_t row, int64_t i, int64_t num_rows, int64_t W) {
    Floats sum = {0};
    for (int64_t tap = W - 1; tap >= 0; tap--) {
        const int64_t from = row + W - 1 - tap;
        if (from >= 0 && from < num_rows) sum += load(w->weight + tap * w->width + i) * load(w->y + from * w->width + i);
    }
    return sum;
}

INLINE void conv_backward_taps(const ConvWork *w, Form form, float *part) {
    const ConvCall *call = &w->call;
    const int64_t W = form.W;
    for (int64_t first = w->first; first < w->last; first += TILE) {
        const int64_t end = first + TILE < w->last ? first + TILE : w->last;
        const int64_t ahead = end + W - 1 < w->end ? end + W - 1 : w->end, num_rows = ahead - first;
        gather_inputs(w, first - W + 1, ahead, form);
        for (int64_t t = first; t < ahead; t++) gradient_before_activation(w, t, first, form);
        /* Beyond the document nothing depends on it: zeros stand for windows that do not exist. */
        memset(w->y + num_rows * w->width, 0, (size_t)(end + W - 1 - ahead) * (size_t)w->width * sizeof *w->y);
        for (int64_t i = 0; i < w->width; i += LANES) {
            Floats sums[MAX_TAPS] = {{0}}; /* of the tile: a sum of sums loses less than one long sum */
            Floats weights[MAX_TAPS];
            for (int64_t tap = 0; tap < W; tap++) weights[tap] = load(w->weight + tap * w->width + i);
            for (int64_t t = first; t < end; t++) {
                const int64_t row = t - first;
                Floats dz = load(w->y + row * w->width + i), dx = {0};
                for (int64_t tap = 0; tap < W; tap++) {
                    sums[tap] += dz * load(w->x + (row + tap) * w->width + i);
                    dx += weights[tap] * load(w->y + (row + W - 1 - tap) * w->width + i);
                }
                if (call->dx.data)
                    put(place(&call->dx, w->batch, t, w->column), call->dx.narrow, i, limit(form.whole, i, w->count), dx);
            }
            for (int64_t tap = 0; tap < W; tap++) {
                float *sum = part + tap * w->part_width + i;
                store(sum, load(sum) + sums[tap]);
            }
        }
        if (first == w->start && call->dstate)
            for (int64_t before = 0; before < W - 1; before++) {
                float *to = call->dstate + (w->document * (W - 1) + before) * call->D + w->column;
                for (int64_t i = 0; i < w->width; i += LANES)
                    put((char *)to, 0, i, w->count, gradient_of_input(w, before - W + 1, i, num_rows, W));
            }
    }
}

/* The usual form is compiled by itself. */
INLINE int is_usual(const ConvWork *w) { return w->call.W == 4 && w->call.silu && w->count == w->width; }
#define USUAL (Form){.W = 4, .silu = 1, .whole = 1}
INLINE Form form_of(const ConvCall *call) { return (Form){.W = call->W, .silu = call->silu != 0}; }

static void conv_forward(const void *pointer, int64_t item, float *memory, float *part) {
    ConvWork w = conv_work(pointer, item, memory);
    (void)part;
    if (is_usual(&w))
        conv_forward_taps(&w, USUAL);
    else
        conv_forward_taps(&w, form_of(&w.call));
}

/* part: [W, part_width], 0 before. */
static void conv_backward(const void *pointer, int64_t item, float *memory, float *part) {
    ConvWork w = conv_work(pointer, item, memory);
    if (is_usual(&w))
        conv_backward_taps(&w, USUAL, part);
    else
        conv_backward_taps(&w, form_of(&w.call), part);
}
