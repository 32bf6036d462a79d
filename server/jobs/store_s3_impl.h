// Shared by the files of the store of results. Private to them.
#ifndef IMAGEND_STORE_S3_IMPL_H
#define IMAGEND_STORE_S3_IMPL_H

#include "store_s3.h"

#include <uv.h>

enum {
    S3_WAITING = 512 << 20, // bytes of images
    S3_MOST_FLYING = 8,     // requests that write
    S3_MOST_GONE = 200000,  // objects to delete; the sweep finds others
    S3_LEAVE_SECONDS = 5,   // for what waits when the program ends
    S3_IDLE_MS = 15000,     // without a request, the store is asked whether it is there
    S3_FIRST_BACKOFF_MS = 100,
    S3_MOST_BACKOFF_MS = 5000,
    S3_LOG_EVERY = 16,
    S3_DAY = 11, // "2026-11-26" and a NUL
};

enum s3_state { S3_WAITS, S3_FLIES, S3_READY };

// A call that waits: an image for its object, others for the images of their job.
struct s3_waiting {
    struct s3_waiting *next;
    struct store_s3 *s;
    struct store_call *call;
    enum s3_state state;
};

struct s3_gone {
    struct s3_gone *next;
    char *key;
};

struct store_s3 {
    struct store store;
    struct store *base;
    struct s3 *s3;
    uv_timer_t timer;
    struct s3_waiting *first, **last;
    size_t waiting, most_waiting; // bytes of images
    struct s3_gone *gone, **gone_last;
    int n_gone;
    struct store_stats stats; // as the base said last
    int flying;               // requests that write or ask
    bool probing, leaving, closing;
    unsigned failures;
    uint64_t backoff;
    double heard, give_up;
    bool sweeping;
    double next_sweep;
    char sweep_end[S3_DAY]; // the first day whose objects may have a row
    void (*closed)(void *ctx);
    void *ctx;
};

// store_s3.c
// Starts what can be started now, and the timer.
void store_s3_go_on(struct store_s3 *s);
// Takes the result of a request that writes or asks. True: it must be repeated.
bool store_s3_landed(struct store_s3 *s, const struct s3_call *c);

// store_s3_sweep.c
// The name of an image's object: "2026-11-26/job_...-0-17.png". Owner: the caller. NULL if out of
// memory.
char *store_s3_key(const struct job *j, int picture);
// Adds an object that must be deleted. Owner: takes key, which may be NULL.
void store_s3_add_gone(struct store_s3 *s, char *key);
void store_s3_delete_next(struct store_s3 *s);
void store_s3_forget_gone(struct store_s3 *s);
// Now and then, looks for objects without a row.
void store_s3_sweep(struct store_s3 *s);

#endif
