/* Work handed out to threads, phase after phase: no item of a phase before all of the phase before are done.
 *
 * A phase ends when its items are done, not when so many threads have come by: a thread that never got going (no memory)
 * is not waited for. Items take 20 microseconds and more, beside which a lock is nothing. */
#ifndef LONGLODE_QUEUE_H
#define LONGLODE_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

/* How often a thread looks for the next phase before it sleeps, which costs 50 microseconds: about 20 of them. */
#define LOOKS 500
#define MAX_THREADS 256
#if defined(__x86_64__)
#define REST __builtin_ia32_pause()
#elif defined(__aarch64__)
#define REST __asm__ volatile("yield")
#else
#define REST (void)0
#endif

typedef struct {
    int64_t num_phases, num_items[2];   /* num_items: of even and of odd phases */
    atomic_llong phase;                 /* written with the lock held */
    int64_t next_item, num_done;        /* guarded by the lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
} Queue;

/* One phase; more are added by setting num_phases and num_items before the first `take`. */
static void open_queue(Queue *queue, int64_t num_items) {
    *queue = (Queue){.num_phases = 1, .num_items = {num_items, num_items}};
    pthread_mutex_init(&queue->lock, 0);
    pthread_cond_init(&queue->changed, 0);
}

static int all_taken(const Queue *queue) {
    return queue->phase < queue->num_phases && queue->next_item == queue->num_items[queue->phase % 2];
}

/* The next item and its phase, once its phase has begun; 0 where nothing is left. */
static int take(Queue *queue, int64_t *phase, int64_t *item) {
    pthread_mutex_lock(&queue->lock);
    if (all_taken(queue)) {
        const int64_t before = queue->phase;
        pthread_mutex_unlock(&queue->lock);
        for (int look = 0; look < LOOKS && queue->phase == before; look++) REST;
        pthread_mutex_lock(&queue->lock);
        while (all_taken(queue)) pthread_cond_wait(&queue->changed, &queue->lock);
    }
    *phase = queue->phase;
    const int found = *phase < queue->num_phases;
    if (found) *item = queue->next_item++;
    pthread_mutex_unlock(&queue->lock);
    return found;
}

/* Says that an item taken is done. */
static void done(Queue *queue) {
    pthread_mutex_lock(&queue->lock);
    if (++queue->num_done == queue->num_items[queue->phase % 2]) {
        queue->next_item = 0, queue->num_done = 0;
        queue->phase++;
        pthread_cond_broadcast(&queue->changed);
    }
    pthread_mutex_unlock(&queue->lock);
}

/* Whether all was done, once no thread is left in it. */
static int close_queue(Queue *queue) {
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->changed);
    return queue->phase == queue->num_phases;
}

/* Runs `work` on so many threads, at most MAX_THREADS, this one among them. Where no thread can be had, those there are
 * do the work. */
static void on_threads(int64_t num_threads, void *(*work)(void *), void *job) {
    pthread_t threads[MAX_THREADS];
    int started = 0;
    while (started < num_threads - 1 && !pthread_create(&threads[started], 0, work, job)) started++;
    work(job);
    while (started) pthread_join(threads[--started], 0);
}

#endif
