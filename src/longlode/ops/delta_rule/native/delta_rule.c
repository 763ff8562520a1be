/* The library's entry: checks the call, chooses the instruction set, and spreads the work over threads.
 *
 * Threads live as long as a call. A pool would save some 20 microseconds a call, and would not survive a fork, which
 * data loaders do. A piece of work is a document and head. Where there are fewer of those than threads, the forward cuts
 * them into columns of values, and the backward goes through windows of chunks, by turns chunk by chunk and in columns
 * (split.h). Every number is summed by one thread in one order, whoever that is, so that results do not depend on how
 * many threads there are. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "delta_rule.h"
#include "queue.h"

/* Multiply-adds that are worth starting a thread for: about 50 microseconds. */
#define WORK_PER_THREAD 5e6
/* Below, a register tile of every instruction set has columns to spare. */
#define FEWEST_COLUMNS 32
/* Slots of all windows of a round. With more documents and heads, each is one piece of work. */
#define MOST_SLOT_BYTES (16 << 20)

int longlode_abi(void) { return LONGLODE_ABI; }

const Kernels *longlode_find(const char *name) {
#if defined(__x86_64__)
    if (!strcmp(name, "avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &longlode_avx512;
    if (!strcmp(name, "avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &longlode_avx2;
#endif
    return strcmp(name, "baseline") ? 0 : &longlode_baseline;
}

const char *longlode_instruction_sets(void) {
    if (longlode_find("avx512")) return "avx512,avx2,baseline";
    return longlode_find("avx2") ? "avx2,baseline" : "baseline";
}

typedef struct {
    const Call *call;
    const Kernels *kernels;
    Way way;
    const int64_t *order; /* documents, longest first: the last items to be handed out are short */
    int64_t num_pairs;    /* documents times heads */
    int64_t num_columns;  /* of values in a piece of work, a multiple of 16 */
    int64_t num_pieces;   /* per document and head */
    char *slots;          /* SPLIT_BACKWARD: of a window per document and head, and after them what windows carry */
    Queue queue;
} Job;

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }

/* The window of a document and head in a round, the last chunks first; 0 where the document has no more. */
static int find_window(const Job *job, int64_t pair, int64_t round, Window *window) {
    const Call *call = job->call;
    const int64_t document = job->order[pair / call->H];
    const int64_t num_chunks = parts_of(call->documents[4 * document + 2], call->chunk);
    const int64_t number = parts_of(num_chunks, call->interval) - 1 - round;
    const int64_t bytes = call->interval * job->kernels->slot_bytes(call);
    char *carries = job->slots + job->num_pairs * bytes;
    *window = (Window){.document = document, .head = pair % call->H, .first = number * call->interval,
                       .end = least(num_chunks, (number + 1) * call->interval), .slots = job->slots + pair * bytes,
                       .carry = (float *)carries + pair * call->K * call->V};
    return round >= 0 && number >= 0;
}

/* Even phases: a chunk of the last round is finished, and one of this round prepared in its slot. Odd ones: scan. */
static void split_backward(const Job *job, int64_t phase, int64_t item, void *workspace) {
    const int64_t round = phase / 2;
    Window window;
    if (phase % 2) {
        const int64_t first_column = item % job->num_pieces * job->num_columns;
        if (find_window(job, item / job->num_pieces, round, &window))
            job->kernels->scan_window(job->call, &window, first_column,
                                      least(job->num_columns, job->call->V - first_column), workspace);
        return;
    }
    const int64_t pair = item / job->call->interval, index = item % job->call->interval;
    if (find_window(job, pair, round - 1, &window) && window.first + index < window.end)
        job->kernels->finish_chunk(job->call, &window, window.first + index, workspace);
    if (find_window(job, pair, round, &window) && window.first + index < window.end)
        job->kernels->prepare_chunk(job->call, &window, window.first + index, workspace);
}

static void do_item(const Job *job, int64_t phase, int64_t item, void *workspace) {
    const Call *call = job->call;
    if (job->way == SPLIT_BACKWARD) {
        split_backward(job, phase, item, workspace);
        return;
    }
    const int64_t pair = item / job->num_pieces, first_column = item % job->num_pieces * job->num_columns;
    const int64_t document = job->order[pair / call->H], head = pair % call->H;
    if (job->way == BACKWARD)
        job->kernels->backward(call, document, head, workspace);
    else
        job->kernels->forward(call, document, head, first_column, least(job->num_columns, call->V - first_column),
                              workspace);
}

static void *work(void *argument) {
    Job *job = argument;
    void *workspace = 0;
    /* Without memory a thread leaves its work to the others; `run` sees whether any was left over. */
    if (posix_memalign(&workspace, 64, (size_t)job->kernels->workspace_bytes(job->call, job->way))) return 0;
    for (int64_t phase, item; take(&job->queue, &phase, &item); done(&job->queue))
        do_item(job, phase, item, workspace);
    free(workspace);
    return 0;
}

typedef struct {
    int64_t length, document;
} Entry;

static int longer_first(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->length != y->length) return x->length < y->length ? 1 : -1;
    return x->document < y->document ? -1 : 1;
}

static int64_t *by_length(const Call *call) {
    const size_t count = (size_t)call->num_documents;
    Entry *entries = malloc(count * sizeof *entries);
    int64_t *order = malloc(count * sizeof *order);
    if (entries && order) {
        for (int64_t n = 0; n < call->num_documents; n++) entries[n] = (Entry){call->documents[4 * n + 2], n};
        qsort(entries, count, sizeof *entries, longer_first);
        for (int64_t n = 0; n < call->num_documents; n++) order[n] = entries[n].document;
    } else {
        free(order);
        order = 0;
    }
    free(entries);
    return order;
}

/* Asks for large pages under large output. Above 32 MB malloc takes fresh memory from the system at each call, and
 * faulting that in by 4 KB took up to a third of the time (T = 65,536); below, it is mostly used again, and large pages
 * gained nothing. */
static void ask_for_large_pages(char *data, int64_t size) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)1 << 21;
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = (uintptr_t)(data + size) / page * page;
    if (data && size >= 32 << 20) madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)data, (void)size;
#endif
}

static void prepare_output(const Call *call, int backward) {
    const Tensor *outputs[] = {backward ? &call->dq : &call->o, &call->dk, &call->dv};
    for (int64_t n = 0; n < call->num_documents; n++) {
        const int64_t *document = call->documents + 4 * n;
        for (int i = 0; i < (backward ? 3 : 1); i++) {
            const Tensor *x = outputs[i];
            const int64_t bytes = x->narrow ? 2 : 4;
            ask_for_large_pages((char *)x->data + (document[0] * x->row + document[1] * x->token) * bytes,
                                document[2] * x->token * bytes);
        }
    }
}

/* How many threads the call is worth, at most `allowed`. */
static int64_t useful_threads(const Call *call, int allowed) {
    double tokens = 0;
    for (int64_t n = 0; n < call->num_documents; n++) tokens += (double)call->documents[4 * n + 2];
    double useful = 1 + tokens * (double)(call->H * call->K * call->V) * 3 / WORK_PER_THREAD;
    int64_t most = allowed < 1 ? 1 : allowed < MAX_THREADS ? allowed : MAX_THREADS;
    return useful < (double)most ? (int64_t)useful : most;
}

/* In how many pieces a document and head should be cut, so that the longest is done as soon as all the others. */
static int64_t wanted_pieces(const Call *call, int64_t num_threads) {
    int64_t longest = 0, tokens = 0;
    for (int64_t n = 0; n < call->num_documents; n++) {
        const int64_t length = call->documents[4 * n + 2];
        tokens += length;
        if (length > longest) longest = length;
    }
    return parts_of(longest * num_threads, tokens * call->H);
}

/* Columns of values in a piece of work: all, unless threads would have nothing to do. */
static int64_t columns_at_once(const Call *call, int64_t wanted) {
    int64_t columns = parts_of(parts_of(call->V, wanted), FEWEST_COLUMNS) * FEWEST_COLUMNS;
    return least(columns, call->V);
}

static int bad_sizes(int64_t K, int64_t V) {
    return K < 16 || K > MAX_SIZE || K % 16 || V < 16 || V > MAX_SIZE || V % 16;
}

/* Whether the kernels would leave their buffers, or read where nothing is. */
static int bad_call(const Call *call, int backward) {
    if (bad_sizes(call->K, call->V) || call->H < 1 || call->num_documents < 1 || !call->documents) return 1;
    if (call->chunk != 16 && call->chunk != 32 && call->chunk != 64) return 1;
    if (call->interval < 1 || call->interval > MAX_INTERVAL) return 1;
    if (!call->q.data || !call->k.data || !call->v.data || !call->beta.data) return 1;
    if (!backward && (!call->o.data || !call->final_state)) return 1;
    if (backward && (!call->dq.data || !call->dk.data || !call->dv.data || !call->dbeta.data || !call->kept)) return 1;
    if (backward && call->g.data && !call->dg.data) return 1;
    if (call->beta.narrow || call->g.narrow || call->dbeta.narrow || call->dg.narrow || call->dv.narrow) return 1;
    for (int64_t n = 0; n < call->num_documents; n++) {
        const int64_t *document = call->documents + 4 * n;
        if (document[0] < 0 || document[1] < 0 || document[2] < 1 || document[3] < 0) return 1;
    }
    return 0;
}

/* Turns a backward into one in windows, if its memory can be allocated. A window is the chunks of one interval, as many
 * as the L2 cache holds at work. Longer windows wait for one another less often, and cost 10 to 40 % more arithmetic
 * time. */
static void split(Job *job) {
    const Call *call = job->call;
    const int64_t bytes = job->num_pairs * call->interval * job->kernels->slot_bytes(call);
    const int64_t carries = job->num_pairs * call->K * call->V * (int64_t)sizeof(float);
    void *slots = 0;
    if (bytes > MOST_SLOT_BYTES || posix_memalign(&slots, 64, (size_t)(bytes + carries))) return;
    job->slots = slots;
    job->way = SPLIT_BACKWARD;
    const int64_t num_chunks = parts_of(call->documents[4 * job->order[0] + 2], call->chunk);
    job->queue.num_phases = 2 * parts_of(num_chunks, call->interval) + 1;
    job->queue.num_items[0] = job->num_pairs * call->interval;
    job->queue.num_items[1] = job->num_pairs * job->num_pieces;
}

static int64_t most_items(const Queue *queue) {
    const int64_t *num = queue->num_items;
    return queue->num_phases == 1 || num[0] > num[1] ? num[0] : num[1];
}

static int run(const Call *call, const char *instruction_set, int num_threads, Way way) {
    Job job = {.call = call, .kernels = longlode_find(instruction_set), .way = way};
    if (!job.kernels) return LONGLODE_NO_INSTRUCTION_SET;
    if (bad_call(call, way == BACKWARD)) return LONGLODE_BAD_CALL;
    int64_t *order = by_length(call);
    if (!order) return LONGLODE_NO_MEMORY;
    int64_t useful = useful_threads(call, num_threads), wanted = wanted_pieces(call, useful);
    job.order = order;
    job.num_pairs = call->num_documents * call->H;
    job.num_columns = columns_at_once(call, wanted);
    job.num_pieces = parts_of(call->V, job.num_columns);
    open_queue(&job.queue, job.num_pairs * (way == BACKWARD ? 1 : job.num_pieces));
    if (way == BACKWARD && wanted > 1) split(&job);
    if (job.way == BACKWARD) job.num_pieces = 1;
    useful = least(useful, most_items(&job.queue));
    prepare_output(call, way == BACKWARD);
    on_threads(useful, work, &job);
    free(order);
    free(job.slots);
    /* Whoever had memory went on until nothing was left. */
    return close_queue(&job.queue) ? LONGLODE_DONE : LONGLODE_NO_MEMORY;
}

int longlode_forward(const Call *call, const char *instruction_set, int num_threads) {
    return run(call, instruction_set, num_threads, FORWARD);
}

int longlode_backward(const Call *call, const char *instruction_set, int num_threads) {
    return run(call, instruction_set, num_threads, BACKWARD);
}

int longlode_token(const Token *call, const char *instruction_set) {
    const Kernels *kernels = longlode_find(instruction_set);
    if (!kernels) return LONGLODE_NO_INSTRUCTION_SET;
    if (bad_sizes(call->K, call->V) || call->num_heads < 0 || !call->q || !call->k || !call->v || !call->beta ||
        !call->state || !call->o || !call->new_state)
        return LONGLODE_BAD_CALL;
    kernels->token(call);
    return LONGLODE_DONE;
}
