// Where jobs and their images are kept: the truth about every job that has been accepted. The job
// core asks by calls, each answered on the loop thread; a store never blocks that thread, and
// answers calls in the order in which they were made.
#ifndef IMAGEND_STORE_H
#define IMAGEND_STORE_H

#include "job.h"

struct store;
struct uv_loop_s;

enum store_op {
    STORE_CLAIM,  // jobs: what is to be drawn or called here, or has input images; oldest first
    STORE_ACCEPT, // job: a new one; jobs: the one that its owner gave the same key to, if any
    STORE_DRAWN,  // job, picture, image: an image is finished, and with the last one the job
    STORE_FINISH, // job: done, failed or cancelled
    STORE_NOTE,   // job: how far its webhook got
    STORE_FIND,   // id, or owner and key; jobs: it, or none
    STORE_LIST,   // owner, list; jobs: newest first
    STORE_IMAGE,  // id, picture, format; image
    STORE_REMOVE, // id; jobs: it, or none
    STORE_EXPIRE, // keep; jobs: those that were removed
    STORE_OPS
};

// A page of an owner's jobs: those before the job with these two.
struct store_page {
    int64_t created, seq;
    int state; // enum job_state; -1: any
    int limit;
};

// What stays: finished jobs until they expire, but no more than this.
struct store_keep {
    int64_t now; // unix ms
    int jobs;
    size_t bytes;
    bool webhooks; // jobs whose webhook has not been called stay
};

struct store_stats {
    int jobs, ended;
    size_t bytes; // of images
};

struct store_call {
    struct store_call *next; // the store's
    enum store_op op;
    void (*done)(struct store_call *c); // loop thread; the call is the caller's again
    void *ctx;
    // Asked. Owner: the call.
    struct job *job; // a snapshot
    char id[JOB_ID_SIZE];
    char *owner, *key;
    int picture;
    enum job_format format;
    bool again; // STORE_FINISH: it takes the place of another end
    struct store_page page;
    struct store_keep keep;
    // Answered. Owner: the call; who takes a job sets it to NULL.
    struct blob *image; // asked by STORE_DRAWN
    struct fault why;   // code 0: well
    struct job **jobs;
    int n;
    struct store_stats stats; // after the call
};

struct store_ops {
    const char *name;
    // Answers by c->done, perhaps before it returns. Thread: loop.
    void (*call)(struct store *s, struct store_call *c);
    // Answers what was asked; closed is called when nothing is left. Thread: loop.
    void (*close)(struct store *s, void (*closed)(void *ctx), void *ctx);
    // Files under names of hexadecimal digits: input images. NULL, all of them: it holds none.
    // Thread: any; of one name, one at a time.
    enum err (*put_file)(struct store *s, const char *name, const struct blob *file,
                         struct fault *why);
    // Owner: *out is a new reference. Errors: NOT_FOUND, IO.
    enum err (*get_file)(struct store *s, const char *name, struct blob **out, struct fault *why);
    void (*remove_file)(struct store *s, const char *name);
    size_t (*file_size)(struct store *s, const char *name); // 0: it is not there
    void (*sweep_files)(struct store *s, bool (*wanted)(void *ctx, const char *name), void *ctx);
};

struct store {
    const struct store_ops *ops;
};

enum err store_memory_open(struct store **out, struct fault *why);
// Errors: IO, FORMAT (a newer or foreign database), BUSY (another process uses the folder).
enum err store_sqlite_open(const char *dir, struct uv_loop_s *loop, struct store **out,
                           struct fault *why);

// NULL: out of memory. Owner: whoever has the call.
struct store_call *store_call_create(enum store_op op, void (*done)(struct store_call *c),
                                     void *ctx);
// As above, about a snapshot of a job.
struct store_call *store_call_about(enum store_op op, const struct job *j,
                                    void (*done)(struct store_call *c), void *ctx);
void store_call_free(struct store_call *c);
// Adds a job to the answer. Owner: takes it, also on error. Errors: NO_MEMORY, also in c->why.
enum err store_call_add(struct store_call *c, struct job *j);

#endif
