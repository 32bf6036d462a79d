// Storage of jobs and their images; the authoritative state of every accepted job. The job core
// makes calls, which are answered on the loop thread in the order in which they were made; a store
// never blocks that thread.
#ifndef IMAGEND_STORE_H
#define IMAGEND_STORE_H

#include "job.h"

struct store;
struct uv_loop_s;

enum store_op {
    STORE_CLAIM, // jobs: unfinished ones, those with pending webhooks or input images; oldest first
    STORE_ACCEPT, // job: a new one, gets its seq; jobs: the owner's job with the same key, if any
    STORE_DRAWN,  // job, picture, image: an image is finished; with the last one, so is the job
    STORE_FINISH, // job: done, failed or cancelled
    STORE_NOTE,   // job: progress of its webhook
    STORE_FIND,   // id, or owner and key; jobs: the job, or none
    STORE_LIST,   // owner, list; jobs: newest first
    STORE_IMAGE,  // id, picture, format; image
    STORE_REMOVE, // id; jobs: the job, or none
    STORE_EXPIRE, // keep; jobs: the removed ones
    STORE_OPS
};

// A page of an owner's jobs: those before the job with this time and number.
struct store_page {
    int64_t created, seq;
    int state; // enum job_state; -1: any
    int limit;
};

// Retention: finished jobs until they expire, up to these limits.
struct store_keep {
    int64_t now; // unix ms
    int jobs;
    size_t bytes;
    bool webhooks; // keep jobs whose webhook has not been called
};

struct store_stats {
    int jobs, ended;
    size_t bytes; // of images
};

struct store_call {
    struct store_call *next; // for the store
    enum store_op op;
    void (*done)(struct store_call *c); // loop thread; the caller owns the call again
    void *ctx;
    // Parameters. Owner: the call.
    struct job *job; // a snapshot
    char id[JOB_ID_SIZE];
    char *owner, *key;
    int picture;
    enum job_format format;
    bool again; // STORE_FINISH: it takes the place of another end
    struct store_page page;
    struct store_keep keep;
    // Results. Owner: the call; a caller that takes a job sets it to NULL.
    struct blob *image; // a parameter of STORE_DRAWN
    struct fault why;   // code 0: success
    struct job **jobs;
    int n;
    struct store_stats stats; // after the call
};

struct store_ops {
    const char *name;
    // Runs a call; calls c->done, possibly before returning. Thread: loop.
    void (*call)(struct store *s, struct store_call *c);
    // Finishes all calls, then calls closed. Thread: loop.
    void (*close)(struct store *s, void (*closed)(void *ctx), void *ctx);
    // Input images, stored under hexadecimal names. All NULL: the store holds no files. Thread:
    // any; two may write the same bytes under one name.
    enum err (*put_file)(struct store *s, const char *name, const struct blob *file,
                         struct fault *why);
    // Owner: *out is a new reference. Errors: NOT_FOUND, IO.
    enum err (*get_file)(struct store *s, const char *name, struct blob **out, struct fault *why);
    void (*remove_file)(struct store *s, const char *name);
    size_t (*file_size)(struct store *s, const char *name); // 0: not found
    void (*sweep_files)(struct store *s, bool (*wanted)(void *ctx, const char *name), void *ctx);
};

struct store {
    const struct store_ops *ops;
};

enum err store_memory_open(struct store **out, struct fault *why);
// Errors: IO, FORMAT (a newer or foreign database), BUSY (another process uses the folder).
enum err store_sqlite_open(const char *dir, struct uv_loop_s *loop, struct store **out,
                           struct fault *why);

// Returns NULL if out of memory. Owner: the caller, or the store while it runs.
struct store_call *store_call_create(enum store_op op, void (*done)(struct store_call *c),
                                     void *ctx);
// Likewise, with a snapshot of a job.
struct store_call *store_call_about(enum store_op op, const struct job *j,
                                    void (*done)(struct store_call *c), void *ctx);
void store_call_free(struct store_call *c);
// Adds a job to the results. Owner: takes it, also on error. Errors: NO_MEMORY, also in c->why.
enum err store_call_add(struct store_call *c, struct job *j);

#endif
