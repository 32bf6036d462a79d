// The one queue of images that wait for a slot: round-robin over owners, and within an owner by
// priority, then first come first served. Thread: any; the queue has its own lock.
#ifndef IMAGEND_QUEUE_H
#define IMAGEND_QUEUE_H

#include "err.h"
#include "picture.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct job;
struct job_spec;
struct queue;

// Whether the previews of an image are watched.
enum work_watched { WATCHED_NOT, WATCHED_ONCE, WATCHED_ALWAYS };

// One image to draw. The loop thread makes and frees it; from queue_take to its last event it is
// the worker's, which may only read spec and image.
struct work {
    struct work *next;
    struct job *job; // the loop thread's
    const struct job_spec *spec;
    int picture;
    atomic_bool cancelled; // the loop asks, the worker answers between two steps
    uint64_t order;        // first come; kept when the image goes back into the queue
    int ahead;             // set by queue_rank
    bool in_slot;          // the loop thread's
    atomic_int watched;    // enum work_watched: the loop sets it, the worker takes a WATCHED_ONCE
    // The worker's: where it is, how many previews were due and how many were rendered.
    int slot, stage, stages, step, steps, previews_due, previews;
    int first_step[PICTURE_MAX_STAGES + 1]; // of each stage, counted over all; last: how many
};

struct queue *queue_create(void);
void queue_destroy(struct queue **q); // must be empty

// Errors: NO_MEMORY; the image is not in the queue then.
enum err queue_push(struct queue *q, struct work *w);
// Whether it was still there; if not, a worker has it.
bool queue_remove(struct queue *q, struct work *w);
// The next image in fair order, or NULL.
struct work *queue_take(struct queue *q);
// An image that was taken has left its slot.
void queue_leave(struct queue *q, const struct work *w);
// Wait until something changed since *seen (0 at first), or until queue_wake; at most seconds.
void queue_wait(struct queue *q, uint64_t *seen, double seconds);
void queue_wake(struct queue *q);

// Images of one owner that may be in slots at once; 0: no limit.
void queue_set_running_limit(struct queue *q, int per_owner);
// While held, queue_take skips durable work, which waits for the restart.
void queue_hold(struct queue *q, bool hold);

int queue_length(struct queue *q);
int queue_owner_length(struct queue *q, const char *owner);
// Set `ahead` of every waiting image to the number that will be taken before it.
void queue_rank(struct queue *q);

#endif
