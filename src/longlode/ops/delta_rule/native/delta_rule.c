/* The library's entry: checks the call, chooses the instruction set, and spreads the work over threads.
 *
 * Threads live as long as a call. A pool would save some 20 microseconds a call, and would not survive a fork, which
 * data loaders do. A piece of work is a document and head, and in the forward, where there are fewer of those than
 * threads, some columns of its values. It is computed by one thread in one order, and a column in the same order however
 * many stand beside it, so that results do not depend on how many threads there are. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "delta_rule.h"

#define MAX_THREADS 256
/* Multiply-adds that are worth starting a thread for: about 50 microseconds. */
#define WORK_PER_THREAD 5e6
/* Below, a register tile of every instruction set has columns to spare. */
#define FEWEST_COLUMNS 32

int longlode_abi(void) { return LONGLODE_ABI; }

static const Kernels *find(const char *name) {
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
    if (find("avx512")) return "avx512,avx2,baseline";
    return find("avx2") ? "avx2,baseline" : "baseline";
}

typedef struct {
    const Call *call;
    const Kernels *kernels;
    int backward;
    const int64_t *order; /* documents, longest first: the last items to be handed out are short */
    int64_t num_columns;  /* of values in a piece of work, a multiple of 16 */
    int64_t num_pieces;   /* per document and head */
    int64_t num_items;    /* pieces of all documents and heads */
    atomic_llong next;
} Job;

static void *work(void *argument) {
    Job *job = argument;
    const Call *call = job->call;
    void *workspace = 0;
    /* Without memory a thread leaves its work to the others; `run` sees whether any was left over. */
    if (posix_memalign(&workspace, 64, (size_t)job->kernels->workspace_bytes(call, job->backward))) return 0;
    for (;;) {
        int64_t item = atomic_fetch_add(&job->next, 1);
        if (item >= job->num_items) break;
        int64_t piece = item % job->num_pieces, pair = item / job->num_pieces;
        int64_t document = job->order[pair / call->H], head = pair % call->H;
        if (job->backward) {
            job->kernels->backward(call, document, head, workspace);
        } else {
            int64_t first = piece * job->num_columns, rest = call->V - first;
            job->kernels->forward(call, document, head, first, rest < job->num_columns ? rest : job->num_columns,
                                  workspace);
        }
    }
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
static void ask_for_large_pages(float *data, int64_t size) {
#ifdef MADV_HUGEPAGE
    const uintptr_t page = (uintptr_t)1 << 21;
    uintptr_t first = ((uintptr_t)data + page - 1) / page * page;
    uintptr_t end = (uintptr_t)(data + size) / page * page;
    if (data && size * (int64_t)sizeof(float) >= 32 << 20) madvise((void *)first, end - first, MADV_HUGEPAGE);
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
            ask_for_large_pages(x->data + document[0] * x->row + document[1] * x->token, document[2] * x->token);
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

/* Columns of values in a piece of the forward's work: all, unless threads would have nothing to do. */
static int64_t columns_at_once(const Call *call, int64_t num_threads) {
    int64_t pairs = call->num_documents * call->H, wanted = (num_threads + pairs - 1) / pairs;
    int64_t columns = (call->V + wanted - 1) / wanted;
    columns = (columns + FEWEST_COLUMNS - 1) / FEWEST_COLUMNS * FEWEST_COLUMNS;
    return columns < call->V ? columns : call->V;
}

static int bad_sizes(int64_t K, int64_t V) {
    return K < 16 || K > MAX_SIZE || K % 16 || V < 16 || V > MAX_SIZE || V % 16;
}

/* Whether the kernels would leave their buffers, or read where nothing is. */
static int bad_call(const Call *call, int backward) {
    if (bad_sizes(call->K, call->V) || call->H < 1 || call->num_documents < 1 || !call->documents) return 1;
    if (call->chunk != 16 && call->chunk != 32 && call->chunk != 64) return 1;
    if (call->span < 1 || call->span > MAX_SPAN) return 1;
    if (!call->q.data || !call->k.data || !call->v.data || !call->beta.data) return 1;
    if (!backward && (!call->o.data || !call->final_state)) return 1;
    if (backward && (!call->dq.data || !call->dk.data || !call->dv.data || !call->dbeta.data || !call->kept)) return 1;
    if (backward && call->g.data && !call->dg.data) return 1;
    for (int64_t n = 0; n < call->num_documents; n++) {
        const int64_t *document = call->documents + 4 * n;
        if (document[0] < 0 || document[1] < 0 || document[2] < 1 || document[3] < 0) return 1;
    }
    return 0;
}

static int run(const Call *call, const char *instruction_set, int num_threads, int backward) {
    Job job = {.call = call, .kernels = find(instruction_set), .backward = backward};
    if (!job.kernels) return LONGLODE_NO_INSTRUCTION_SET;
    if (bad_call(call, backward)) return LONGLODE_BAD_CALL;
    int64_t *order = by_length(call);
    if (!order) return LONGLODE_NO_MEMORY;
    int64_t useful = useful_threads(call, num_threads);
    job.order = order;
    job.num_columns = backward ? call->V : columns_at_once(call, useful);
    job.num_pieces = (call->V + job.num_columns - 1) / job.num_columns;
    job.num_items = call->num_documents * call->H * job.num_pieces;
    if (job.num_items < useful) useful = job.num_items;
    prepare_output(call, backward);
    pthread_t threads[MAX_THREADS];
    int started = 0;
    /* Where no thread can be had, those there are do the work. */
    while (started < useful - 1 && !pthread_create(&threads[started], 0, work, &job)) started++;
    work(&job);
    while (started) pthread_join(threads[--started], 0);
    free(order);
    /* Whoever had memory went on until nothing was left. */
    return atomic_load(&job.next) < job.num_items ? LONGLODE_NO_MEMORY : LONGLODE_DONE;
}

int longlode_forward(const Call *call, const char *instruction_set, int num_threads) {
    return run(call, instruction_set, num_threads, 0);
}

int longlode_backward(const Call *call, const char *instruction_set, int num_threads) {
    return run(call, instruction_set, num_threads, 1);
}

int longlode_token(const Token *call, const char *instruction_set) {
    const Kernels *kernels = find(instruction_set);
    if (!kernels) return LONGLODE_NO_INSTRUCTION_SET;
    if (bad_sizes(call->K, call->V) || call->num_heads < 0 || !call->q || !call->k || !call->v || !call->beta ||
        !call->state || !call->o || !call->new_state)
        return LONGLODE_BAD_CALL;
    kernels->token(call);
    return LONGLODE_DONE;
}
