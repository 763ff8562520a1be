/* Means of what followed earlier occurrences of n-grams, forward and backward: see ops/ngram_means. Tokens come sorted by
 * n-gram, those of one n-gram in their order in the text; a piece of work is some channels of all of them, since an
 * n-gram's sum goes on from one token to the next. Sums are in float64. */
#include "rows.h"

typedef struct {
    const MatchCall *call;
    int64_t column, count; /* first channel, and channels */
    double *sums;          /* [MATCH_CHANNELS] */
    int64_t first;         /* index of the n-gram's first token in the sorted list */
} MatchWork;

static MatchWork match_work(const MatchCall *call, int64_t item, float *memory) {
    MatchWork w = {.call = call, .column = item * MATCH_CHANNELS, .sums = (double *)memory};
    w.count = call->D - w.column < MATCH_CHANNELS ? call->D - w.column : MATCH_CHANNELS;
    return w;
}

INLINE int same_ngram(const MatchCall *call, int64_t index) { return call->group[index] == call->group[index - 1]; }

/* An occurrence that ends one token before is followed by the token itself, which is no match. */
INLINE int64_t end_of_matches(const MatchCall *call, int64_t index, int64_t first) {
    return index > first && call->order[index - 1] + 1 == call->order[index] ? index - 1 : index;
}

INLINE int64_t first_of_matches(const MatchCall *call, int64_t end, int64_t first) {
    return call->matches && end - call->matches > first ? end - call->matches : first;
}

/* Row of the output of the token at an index of the sorted list, or -1 where none is wanted. */
INLINE int64_t output_row(const MatchCall *call, int64_t index) {
    const int64_t token = call->order[index], row = token / call->length;
    const int64_t place = token - row * call->length - (call->length - call->asked);
    return place < 0 ? -1 : row * call->asked + place;
}

INLINE void clear(const MatchWork *w) { memset(w->sums, 0, MATCH_CHANNELS * sizeof *w->sums); }

/* sums += factor * row. */
INLINE void add_row(const MatchWork *w, const char *row, int64_t narrow, double factor) {
    for (int64_t i = 0; i < w->count; i += LANES) {
        float lanes[LANES];
        store(lanes, fetch(row, narrow, i, w->count));
        for (int half = 0; half < 2; half++) {
            double *sum = w->sums + i + half * HALF;
            store_doubles(sum, load_doubles(sum) + factor * load_wide(lanes + half * HALF));
        }
    }
}

INLINE Floats scaled(const double *sums, double factor) {
    float lanes[LANES];
    for (int half = 0; half < 2; half++) store_narrow(lanes + half * HALF, factor * load_doubles(sums + half * HALF));
    return load(lanes);
}

/* What followed the occurrence at an index of the sorted list: the next token of its row, which every match has. */
INLINE char *follower(const MatchWork *w, const Rows *values, int64_t index) {
    const int64_t row = w->call->order[index] / w->call->length;
    return place(values, row, w->call->order[index] + 1 - row * w->call->length, w->column);
}

static void match_forward(const void *pointer, int64_t item, float *memory, float *part) {
    const MatchCall *call = pointer;
    MatchWork w = match_work(call, item, memory);
    int64_t added = 0; /* the occurrences in the sums are those from the n-gram's first to before this one */
    (void)part;
    for (int64_t index = 0; index < call->num_tokens; index++) {
        if (!index || !same_ngram(call, index)) {
            w.first = added = index;
            clear(&w);
        }
        const int64_t row = output_row(call, index), end = end_of_matches(call, index, w.first);
        const int64_t from = first_of_matches(call, end, w.first);
        if (call->matches && row >= 0 && end > from) {
            clear(&w);
            added = from;
        }
        if (!call->matches || row >= 0)
            for (; added < end; added++) add_row(&w, follower(&w, &call->values, added), call->values.narrow, 1);
        if (row < 0) continue;
        char *to = place(&call->y, 0, row, w.column);
        const double share = end > from ? 1.0 / (double)(end - from) : 0;
        for (int64_t i = 0; i < w.count; i += LANES)
            put(to, call->y.narrow, i, w.count, share ? scaled(w.sums + i, share) : (Floats){0});
    }
}

/* The gradient of the mean at an index, shared among its matches, into the sums; `first`: of its n-gram. */
INLINE void add_share(const MatchWork *w, int64_t index, int64_t first) {
    const MatchCall *call = w->call;
    const int64_t row = output_row(call, index), end = end_of_matches(call, index, first);
    const int64_t count = end - first_of_matches(call, end, first);
    if (row >= 0 && count > 0) add_row(w, place(&call->dy, 0, row, w->column), call->dy.narrow, 1.0 / (double)count);
}

INLINE int is_match(const MatchCall *call, int64_t earlier, int64_t index, int64_t first) {
    const int64_t end = end_of_matches(call, index, first);
    return earlier < end && earlier >= first_of_matches(call, end, first);
}

/* Backwards through the list: the gradient of what followed an occurrence is the sum of the shares of later ones. */
static void match_backward(const void *pointer, int64_t item, float *memory, float *part) {
    const MatchCall *call = pointer;
    MatchWork w = match_work(call, item, memory);
    int64_t first = call->num_tokens, end = call->num_tokens; /* of the n-gram in the sorted list */
    (void)part;
    for (int64_t index = call->num_tokens - 1; index >= 0; index--) {
        if (index < first) {
            end = index + 1;
            for (first = index; first && same_ngram(call, first);) first--;
            clear(&w);
        }
        if (index + 1 >= end) continue; /* nothing after it */
        const int64_t next = index + 1;
        const int adjacent = !is_match(call, index, next, first);
        if (call->matches) {
            clear(&w);
            const int64_t last = next + call->matches < end - 1 ? next + call->matches : end - 1;
            for (int64_t later = next; later <= last; later++)
                if (is_match(call, index, later, first)) add_share(&w, later, first);
        } else if (!adjacent) {
            add_share(&w, next, first);
        }
        char *to = follower(&w, &call->dvalues, index);
        for (int64_t i = 0; i < w.count; i += LANES)
            put(to, 0, i, w.count, fetch(to, 0, i, w.count) + scaled(w.sums + i, 1));
        if (!call->matches && adjacent) add_share(&w, next, first);
    }
}
