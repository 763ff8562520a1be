/* Entry of the row-wise kernels: checks the call, cuts it into pieces of work that do not depend on the number of
 * threads, spreads them, and adds up in order what each leaves of a sum over rows. So the bits of every result are the
 * same on any number of threads. */
#include "rowwise.h"

#include <stdlib.h>

#include "delta_rule.h"
#include "queue.h"

/* Numbers read that are worth starting a thread for: about 50 microseconds. */
#define NUMBERS_PER_THREAD 100000

/* A call as pieces of work: how many, how many floats of workspace and of partial sums each needs, numbers in all. */
typedef struct {
    int64_t num_items, workspace, part, numbers;
} Plan;

typedef struct {
    RowFunction function;
    const void *call;
    Plan plan;
    float *parts;
    Queue queue;
} RowJob;

int longlode_rows_abi(void) { return LONGLODE_ROWS_ABI; }

static Plan plan_of_blocks(int64_t num_rows, int64_t D, int64_t workspace, int64_t part) {
    const int64_t rows = rows_of_block(D);
    return (Plan){(num_rows + rows - 1) / rows, workspace, part, num_rows * D};
}

static int plan_conv(const ConvCall *call, int backward, Plan *plan) {
    if (call->D < 1 || call->W < 1 || call->W > MAX_TAPS || call->group < 1 || call->group > MAX_GROUP) return 0;
    if (call->num_segments < 1 || !call->segments || !call->x.data || !call->weight) return 0;
    if (backward ? !call->dy.data || !call->dweight : !call->y.data) return 0;
    if (call->num_normed % call->group) return 0;
    const int64_t width = whole_vectors(call->group < call->D ? call->group : call->D);
    int64_t tokens = 0;
    for (int64_t i = 0; i < call->num_segments; i++) {
        const int64_t *s = call->segments + 6 * i;
        if (s[0] < 0 || s[1] < 0 || s[2] < 0 || s[4] < s[2] || s[5] <= s[4] || s[3] < s[5]) return 0;
        tokens += s[5] - s[4];
    }
    *plan = (Plan){call->num_segments * ((call->D + call->group - 1) / call->group),
                   width * (2 * TILE + 4 * call->W), backward ? call->W * width : 0, 4 * tokens * call->D};
    return 1;
}

static int plan_norm(const NormCall *call, int backward, Plan *plan) {
    if (call->D < 1 || call->num_rows < 1 || !call->x.data || !call->weight) return 0;
    if (backward ? !call->dy.data || !call->dweight || !call->dx.data : !call->y.data) return 0;
    const int64_t width = whole_vectors(call->D);
    *plan = plan_of_blocks(call->num_rows, call->D, 3 * width, backward ? width : 0);
    return 1;
}

static int plan_swiglu(const SwigluCall *call, int backward, Plan *plan) {
    if (call->D < 1 || call->num_rows < 1 || !call->gate.data || !call->up.data) return 0;
    if (backward ? !call->dy.data || !call->dgate.data || !call->dup.data : !call->y.data) return 0;
    *plan = plan_of_blocks(call->num_rows, call->D, 0, 0);
    return 1;
}

static int plan_loss(const LossCall *call, Plan *plan) {
    if (call->D < 1 || call->num_rows < 1 || !call->logits.data || !call->targets || !call->losses) return 0;
    for (int64_t i = 0; i < call->num_rows; i++)
        if (call->targets[i] < 0 || call->targets[i] >= call->D) return 0;
    *plan = plan_of_blocks(call->num_rows, call->D, whole_vectors(call->D), 0);
    return 1;
}

static int plan_match(const MatchCall *call, int backward, Plan *plan) {
    if (call->D < 1 || call->num_tokens < 1 || call->length < 1 || call->num_tokens % call->length) return 0;
    if (call->asked < 0 || call->asked > call->length || call->matches < 0) return 0;
    if (!call->values.data || !call->order || !call->group) return 0;
    if (backward ? !call->dy.data || !call->dvalues.data || call->dvalues.narrow : !call->y.data) return 0;
    for (int64_t i = 0; i < call->num_tokens; i++) {
        const int64_t token = call->order[i], before = i ? call->order[i - 1] : 0;
        if (token < 0 || token >= call->num_tokens) return 0;
        /* Tokens of one n-gram are of one row and ascend, so that what follows a match is in the row. */
        if (i && call->group[i] == call->group[i - 1] &&
            (token <= before || token / call->length != before / call->length))
            return 0;
    }
    *plan = (Plan){(call->D + MATCH_CHANNELS - 1) / MATCH_CHANNELS, 2 * MATCH_CHANNELS, 0, call->num_tokens * call->D};
    return 1;
}

static int plan_of(RowKernel kernel, const void *call, Plan *plan) {
    switch (kernel) {
        case CONV_FORWARD: case CONV_BACKWARD: return plan_conv(call, kernel == CONV_BACKWARD, plan);
        case NORM_FORWARD: case NORM_BACKWARD: return plan_norm(call, kernel == NORM_BACKWARD, plan);
        case SWIGLU_FORWARD: case SWIGLU_BACKWARD: return plan_swiglu(call, kernel == SWIGLU_BACKWARD, plan);
        case CROSS_ENTROPY: return plan_loss(call, plan);
        case MATCH_FORWARD: case MATCH_BACKWARD: return plan_match(call, kernel == MATCH_BACKWARD, plan);
        default: return 0;
    }
}

static void *work_on_rows(void *argument) {
    RowJob *job = argument;
    void *workspace = 0;
    /* Without memory a thread leaves its work to the others; the caller sees whether any was left over. */
    if (posix_memalign(&workspace, 64, (size_t)(job->plan.workspace + LANES_AT_MOST) * sizeof(float))) return 0;
    for (int64_t phase, item; take(&job->queue, &phase, &item); done(&job->queue))
        job->function(job->call, item, workspace, job->parts + item * job->plan.part);
    free(workspace);
    return 0;
}

/* Sums parts [num_items / num_groups, num_groups, num_rows, width] over the first into to [num_rows, D], where a group is
 * `group` columns of D. */
static void add_up(const RowJob *job, float *to, int64_t num_rows, int64_t D, int64_t group) {
    const int64_t num_groups = (D + group - 1) / group, width = job->plan.part / num_rows;
    for (int64_t row = 0; row < num_rows; row++)
        for (int64_t column = 0; column < D; column++) {
            const float *from = job->parts + column / group * job->plan.part + row * width + column % group;
            float sum = 0;
            for (int64_t i = 0; i < job->plan.num_items; i += num_groups) sum += from[i * job->plan.part];
            to[row * D + column] = sum;
        }
}

int longlode_rows(int kernel, const void *call, const char *instruction_set, int num_threads) {
    const Kernels *kernels = longlode_find(instruction_set);
    RowJob job = {.call = call};
    if (!kernels) return LONGLODE_NO_INSTRUCTION_SET;
    if (!call || !plan_of((RowKernel)kernel, call, &job.plan)) return LONGLODE_BAD_CALL;
    job.function = kernels->rows[kernel];
    job.parts = calloc((size_t)(job.plan.num_items * job.plan.part) + 1, sizeof(float));
    if (!job.parts) return LONGLODE_NO_MEMORY;
    int64_t useful = 1 + job.plan.numbers / NUMBERS_PER_THREAD;
    const int64_t most = num_threads < 1 ? 1 : num_threads < MAX_THREADS ? num_threads : MAX_THREADS;
    useful = useful < most ? useful : most;
    open_queue(&job.queue, job.plan.num_items);
    on_threads(useful < job.plan.num_items ? useful : job.plan.num_items, work_on_rows, &job);
    const int finished = close_queue(&job.queue);
    if (finished && kernel == CONV_BACKWARD) {
        const ConvCall *conv = call;
        add_up(&job, conv->dweight, conv->W, conv->D, conv->group < conv->D ? conv->group : conv->D);
    }
    if (finished && kernel == NORM_BACKWARD) {
        const NormCall *norm = call;
        add_up(&job, norm->dweight, 1, norm->D, norm->D);
    }
    free(job.parts);
    return finished ? LONGLODE_DONE : LONGLODE_NO_MEMORY;
}
