// A store that several job cores of one process share, with a clock that the test moves: what
// store.h promises about sharing, over the store in memory.
#ifndef IMAGEND_SHARED_STORE_H
#define IMAGEND_SHARED_STORE_H

#include "store.h"

struct shared;

struct shared *shared_create(struct uv_loop_s *loop);
void shared_destroy(struct shared *s); // after all its stores were closed
struct store *shared_open(struct shared *s, int replica);
// Moves the clock of the leases.
void shared_pass(struct shared *s, int64_t ms);
// While a replica is cut off, its calls wait.
void shared_cut_off(struct store *store, bool cut_off);

// While files are held, get_file waits: for the loop, as that of a database's client does.
void shared_hold_files(struct store *store, bool hold);

// The history of a job.
struct shared_job {
    int replica; // that has its lease; -1: none
    int claims;
    int drawn[JOB_MAX_PICTURES]; // number of times that an image was stored
    int ends;                    // number of ends that were stored
    int stale;                   // refused writes
};
struct shared_job shared_job(struct shared *s, const char *id);
int shared_calls(const struct shared *s, int replica, enum store_op op);

#endif
