/* The library's entry: chooses the instruction set, and spreads documents and heads over threads.
 *
 * Threads live as long as a call. A pool would save some 20 microseconds a call, and would not survive a fork, which
 * data loaders do. Each (document, head) is computed by one thread in one order, so that results do not depend on
 * how many threads there are. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "delta_rule.h"

#define MAX_THREADS 256
/* Multiply-adds that are worth starting a thread for: about 50 microseconds. */
#define WORK_PER_THREAD 5e6

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
    atomic_llong next;
    atomic_int failed;
} Job;

static void *work(void *argument) {
    Job *job = argument;
    const Call *call = job->call;
    void *workspace = 0;
    if (posix_memalign(&workspace, 64, job->kernels->workspace_bytes(call, job->backward))) {
        atomic_store(&job->failed, 1);
        return 0;
    }
    for (;;) {
        int64_t item = atomic_fetch_add(&job->next, 1);
        if (item >= call->num_documents * call->H) break;
        int64_t document = job->order[item / call->H], head = item % call->H;
        (job->backward ? job->kernels->backward : job->kernels->forward)(call, document, head, workspace);
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
    Entry *entries = malloc(call->num_documents * sizeof *entries);
    int64_t *order = malloc(call->num_documents * sizeof *order);
    if (entries && order) {
        for (int64_t n = 0; n < call->num_documents; n++) entries[n] = (Entry){call->documents[4 * n + 2], n};
        qsort(entries, call->num_documents, sizeof *entries, longer_first);
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
static int useful_threads(const Call *call, int allowed) {
    double tokens = 0;
    for (int64_t n = 0; n < call->num_documents; n++) tokens += (double)call->documents[4 * n + 2];
    double useful = 1 + tokens * (double)(call->H * call->K * call->V) * 3 / WORK_PER_THREAD;
    int64_t items = call->num_documents * call->H, most = allowed < MAX_THREADS ? allowed : MAX_THREADS;
    if (items < most) most = items;
    return useful < (double)most ? (int)useful : (int)most;
}

static int run(const Call *call, const char *instruction_set, int num_threads, int backward) {
    Job job = {.call = call, .kernels = find(instruction_set), .backward = backward};
    if (!job.kernels) return 2;
    int64_t *order = by_length(call);
    if (!order) return 1;
    job.order = order;
    num_threads = useful_threads(call, num_threads);
    prepare_output(call, backward);
    pthread_t threads[MAX_THREADS];
    int started = 0;
    /* Where no thread can be had, those there are do the work. */
    while (started < num_threads - 1 && !pthread_create(&threads[started], 0, work, &job)) started++;
    work(&job);
    while (started) pthread_join(threads[--started], 0);
    free(order);
    return atomic_load(&job.failed);
}

int longlode_forward(const Call *call, const char *instruction_set, int num_threads) {
    return run(call, instruction_set, num_threads, 0);
}

int longlode_backward(const Call *call, const char *instruction_set, int num_threads) {
    return run(call, instruction_set, num_threads, 1);
}

int longlode_token(const Token *call, const char *instruction_set) {
    const Kernels *kernels = find(instruction_set);
    if (!kernels) return 2;
    kernels->token(call);
    return 0;
}
