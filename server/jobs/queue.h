// The queue of images that wait for a slot: round-robin over owners; within an owner by priority,
// then first come, first served. Thread: any; the queue has its own lock.
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

// One image to generate. The loop thread creates and frees it. From queue_take to its last event it
// belongs to the worker, which may read only spec and image.
struct work {
    struct work *next;
    struct job *job; // the loop thread's
    const struct job_spec *spec;
    int picture;
    atomic_bool cancelled; // set by the loop; the worker responds between two steps
    uint64_t order;        // order of arrival; kept if the image returns to the queue
    int ahead;             // set by queue_rank
    bool in_slot;          // the loop thread's
    atomic_int watched;    // enum work_watched: set by the loop; the worker clears WATCHED_ONCE
    int model;             // for the worker: its index
    // For the worker: position, number of previews due and rendered.
    int slot, stage, stages, step, steps, previews_due, previews;
    // First step of each stage, counted over all stages; last entry: the total.
    int first_step[PICTURE_MAX_STAGES + 1];
};

struct queue *queue_create(void);
void queue_destroy(struct queue **q); // the queue must be empty

// Errors: NO_MEMORY; the image is then not queued.
enum err queue_push(struct queue *q, struct work *w);
// False if the image is no longer queued because a worker has it.
bool queue_remove(struct queue *q, struct work *w);
// The next image in fair order, or NULL.
struct work *queue_take(struct queue *q);
// Call when a taken image has left its slot.
void queue_leave(struct queue *q, const struct work *w);
// Waits until the queue has changed since *seen (initially 0), or until queue_wake, at most this
// many seconds.
void queue_wait(struct queue *q, uint64_t *seen, double seconds);
void queue_wake(struct queue *q);

// Maximum number of an owner's images in slots at once; 0: no limit.
void queue_set_running_limit(struct queue *q, int per_owner);
// While held, queue_take skips durable work, which waits for the restart.
void queue_hold(struct queue *q, bool hold);

int queue_length(struct queue *q);
// The number of images that are in slots or could start now if all had room, within the limit.
int queue_demand(struct queue *q);
int queue_owner_length(struct queue *q, const char *owner);
// Sets `ahead` of every waiting image to the number of images that will be taken before it.
void queue_rank(struct queue *q);

#endif
