/* The backward of one document and head on several threads, in three parts: README.md, section 7. Part of kernels.h.
 *
 * A window of chunks has a slot each, in memory that all threads see. `prepare_chunk` and `finish_chunk` do what chunks
 * can do apart from one another, `scan_window` what runs through the chunks, for some columns of the values: those do
 * not meet there. Each number is summed in the order of `backward`, so the bits are the same. */

/* The slot at `memory`, its columns of values from first_column on. */
static Slot slot_from(const Call *call, char *memory, int64_t first_column) {
    int64_t used = 0;
    Slot slot = cut_slot(call, call->V, 1, memory, &used);
    slot.S += first_column, slot.R += first_column, slot.F += first_column;
    slot.dX += first_column, slot.dS += first_column;
    return slot;
}

static void prepare_chunk(const Call *call, const Window *window, int64_t chunk, void *workspace) {
    Work w;
    lay_out(call, call->V, SPLIT_BACKWARD, workspace, &w);
    w.head = window->head;
    Slot slot = slot_from(call, window->slots + (chunk - window->first) * slot_bytes(call), 0);
    go_to(&w, call->documents + 4 * window->document, chunk, -1, 0);
    prepare(&w, &slot);
}

/* Forward through the window for S, F and R, then back for dX, dv and dS. */
static void scan_window(const Call *whole, const Window *window, int64_t first_column, int64_t num_columns,
                        void *workspace) {
    Call part = *whole;
    skip_columns(&part.v, first_column);
    skip_columns(&part.dv, first_column);
    skip_columns(&part.o, first_column);
    const Call *call = &part;
    Work w;
    lay_out(call, call->V, SPLIT_BACKWARD, workspace, &w);
    w.head = window->head;
    w.V = num_columns; /* V_step stays that of the slots */
    const int64_t *document = call->documents + 4 * window->document, first = window->first, end = window->end;
    const int64_t row = call->V, matrix = w.K * row, size = slot_bytes(call);
    const int64_t at_state = (window->document * call->H + window->head) * matrix + first_column;
    Slot slot = slot_from(call, window->slots, first_column), other = slot;
    copy_matrix(w.K, w.V,
                call->kept + ((document[3] + first / call->interval) * call->H + w.head) * matrix + first_column, row,
                slot.S, w.V_step);
    for (int64_t i = first; i < end; i++, slot = other) {
        go_to(&w, document, i, i + 1 < end ? i + 1 : i, i + 1 == end);
        gather(&w, &call->k, w.K, 1, w.L + w.num * w.K_step, w.K_step);
        correct(&w, &slot, 0);
        if (i + 1 == end) break;
        other = slot_from(call, window->slots + (i + 1 - first) * size, first_column);
        advance(&w, &slot, other.S);
    }
    /* The gradient that the window after this one left, or that of the final state. */
    float *carry = window->carry + first_column;
    if (end * call->chunk < document[2])
        copy_matrix(w.K, w.V, carry, row, slot.dS, w.V_step);
    else
        copy_matrix(w.K, w.V, call->dfinal_state ? call->dfinal_state + at_state : 0, row, slot.dS, w.V_step);
    for (int64_t i = end - 1; i >= first; i--, slot = other) {
        go_to(&w, document, i, i > first ? i - 1 : -1, 1);
        gather_queries_and_keys(&w);
        gradient_of_values(&w, &slot);
        if (i == first) break;
        other = slot_from(call, window->slots + (i - 1 - first) * size, first_column);
        retreat(&w, &slot, other.dS, w.V_step);
    }
    float *before = first > 0 ? carry : call->dstate ? call->dstate + at_state : 0;
    if (before) retreat(&w, &slot, before, row);
}

static void finish_chunk(const Call *call, const Window *window, int64_t chunk, void *workspace) {
    Work w;
    lay_out(call, call->V, SPLIT_BACKWARD, workspace, &w);
    w.head = window->head;
    Slot slot = slot_from(call, window->slots + (chunk - window->first) * slot_bytes(call), 0);
    go_to(&w, call->documents + 4 * window->document, chunk, -1, 0);
    gather_queries_and_keys(&w);
    gather(&w, &call->o, w.V, 1, w.N, w.V_step);
    gather(&w, &call->dv, w.V, -1, w.N + w.num * w.V_step, w.V_step);
    gradients_of_sums(&w, &slot);
}
