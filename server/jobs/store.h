// Storage of jobs and their images; the authoritative state of every accepted job. The job core
// makes calls, which are answered on the loop thread in the order in which they were made; a store
// never blocks that thread. Only a STORE_FIND of a job that no call under way can have changed for
// its clients may be answered at once, before the call returns.
//
// Who draws a job holds its lease: a token that is larger than all earlier ones of that job
// (job->lease). In a shared store, leases end STORE_LEASE_MS after the last STORE_BEAT that renewed
// them, by the store's clock; then another replica may claim the job. In other stores, a job is
// leased indefinitely when it is accepted or claimed.
#ifndef IMAGEND_STORE_H
#define IMAGEND_STORE_H

#include "job.h"

struct store;
struct uv_loop_s;

enum { STORE_LEASE_MS = 15000, STORE_UNFINISHED = -2 };

enum store_op {
    // job, quota, room, models: a new job gets its seq, and a lease if it may start at once; jobs:
    // the owner's job with the same key, if any. Errors: BUSY with "queue".
    STORE_ACCEPT,
    // quota, room, models, keep.webhooks; jobs: leased to this replica now, in the order to draw
    // them.
    STORE_CLAIM,
    STORE_BEAT,    // lease: renews them and stores their progress; answers in each
    STORE_RELEASE, // lease: unfinished jobs wait again, webhooks are due
    // Of a job that is drawn here. Errors: STALE if job->lease is not its lease any longer.
    STORE_DRAWN,  // job, picture, image: an image is finished; with the last one, so is the job
    STORE_FINISH, // job: done, failed or cancelled
    STORE_NOTE,   // job: progress of its webhook
    // job: its end (state, finished, expires, webhook_next), if nobody draws it; otherwise its
    // replica is told. jobs: as it is now.
    STORE_CANCEL,
    STORE_WATCH,  // watched: jobs that are not drawn here; answers in each
    STORE_FIND,   // id, or owner and key; jobs: the job, or none
    STORE_LIST,   // owner, page; jobs: newest first
    STORE_IMAGE,  // id, picture, format, and job if the store keeps objects; image
    STORE_REMOVE, // id; jobs: the job, or none
    STORE_EXPIRE, // keep; jobs: the removed ones
    STORE_AGE,    // only of a shared store; oldest
    STORE_SPEND,  // owner, rate: takes one request from the owner's bucket; only a shared store
    STORE_OPS
};

// STORE_CLAIM in a shared store first returns jobs without a valid lease that need no room: those
// that the core has to end (cancelled, past their deadline, or claimed JOB_MAX_CLAIMS times before)
// and those whose webhook is due; then waiting ones whose model the replica has, until the room is
// used up: owners in turn, an owner's by priority and age, nobody beyond running_per_owner. It
// counts job->claims, except for webhooks; STORE_RELEASE takes the count back. STORE_ACCEPT leases
// a job under the same rules.
//
// Jobs that a shared store finds, lists or watches have lease 0, their progress, and while they
// wait their position (-1: unknown). Ended jobs that nobody keeps are only watched.
//
// A job that is neither durable nor has a key ends with its clients: a shared store cancels it when
// no replica has said for the time of a lease that one waits (store_lease.wanted, STORE_WATCH).
//
// A job with a lease is running until it ends, whatever state a snapshot of it has. The lease ends
// with the job or, if it has a webhook, when webhook_next is 0; its token stays valid for
// STORE_FINISH with `again`. Input images belong to the jobs in a shared store: it deletes them,
// and the core calls only put_file and get_file.

// Limits on the images of the whole fleet. Stores that are not shared leave them to the core.
struct store_quota {
    int queued, queued_per_owner;
    int running_per_owner; // 0: no limit
};

// A page of an owner's jobs: those before the job with this time and number.
struct store_page {
    int64_t created, seq;
    int state; // enum job_state; -1: any; STORE_UNFINISHED: queued or running
    int limit;
};

// How many requests an owner may make in the whole fleet.
struct store_rate {
    double per_second, burst;
    double wait; // answer: seconds until there is one; 0: taken
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
    size_t bytes;        // of images
    int queued, running; // images; 0 unless the store is shared
};

// A lease that this replica holds.
struct store_lease {
    char id[JOB_ID_SIZE];
    int64_t token;
    bool wanted; // STORE_BEAT: clients of this replica watch it
    int backlog; // STORE_BEAT: images that wait for a slot
    // STORE_BEAT: a snapshot with the time of its start, the stage and step of each image and those
    // of its previews that are new (picture[].latest, numbered by previews); NULL: as before.
    // STORE_RELEASE: NULL.
    struct job *progress; // Owner: the call
    // Answers of STORE_BEAT.
    bool lost;     // it ended: another replica has the job, or nobody needs it
    bool cancel;   // a client wants the job cancelled, or nobody waits for it any longer
    bool previews; // clients of other replicas watch its previews
};

// A job that another replica draws, or none yet, and that clients of this one watch.
struct store_watched {
    char id[JOB_ID_SIZE];
    bool previews;              // they watch its previews
    bool leaves;                // it ends when they leave
    int seen[JOB_MAX_PICTURES]; // number of the last preview seen
    struct job *now;            // answer: with progress, position (-1: unknown) and those previews
                                // that have other numbers; NULL: no such job. Owner: the call
};

struct store_call {
    struct store_call *next; // for the store
    enum store_op op;
    double made;                        // for the caller: when
    void (*done)(struct store_call *c); // loop thread; the caller owns the call again
    void *ctx;
    // Parameters. Owner: the call.
    struct job *job; // a snapshot
    char id[JOB_ID_SIZE];
    char *owner, *key;
    char *models; // of this replica: names in a JSON list, "" for the default; NULL: only that
    int picture;
    enum job_format format;
    bool again;   // STORE_FINISH: it takes the place of another end
    bool written; // STORE_DRAWN: write_image has written the image
    int room;     // images that can start in this replica now
    struct store_quota quota;
    struct store_page page;
    struct store_keep keep;
    struct store_rate rate;
    struct store_lease *lease;
    struct store_watched *watched;
    int n_lease, n_watched;
    // Results. Owner: the call; a caller that takes a job sets it to NULL.
    struct blob *image; // a parameter of STORE_DRAWN
    struct fault why;   // code 0: success
    struct job **jobs;
    int n;
    int64_t oldest;           // when the oldest job was created; 0: there is none
    bool ended;               // by this STORE_CANCEL
    struct store_stats stats; // after the call
};

struct store_ops {
    const char *name;
    // Runs a call; calls c->done, possibly before returning. Thread: loop.
    void (*call)(struct store *s, struct store_call *c);
    // Finishes all calls, then calls closed. Thread: loop.
    void (*close)(struct store *s, void (*closed)(void *ctx), void *ctx);
    // The program ends: images that wait for a store that is away are given up soon, with STALE.
    // NULL: the store does not wait. Thread: loop.
    void (*leave)(struct store *s);
    // Writes the image of a STORE_DRAWN that follows, so that the call need not. False: the call
    // has to. drop_image: no call follows. Both read only id and spec of the job. NULL: the store
    // has no files of images. Thread: any.
    bool (*write_image)(struct store *s, const struct job *j, int picture,
                        const struct blob *image);
    void (*drop_image)(struct store *s, const struct job *j, int picture);
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
    bool shared; // by several replicas
    // Set by the core of a shared store. Called when jobs may wait, or watched or leased ones may
    // have changed: a hint, which may be lost. Thread: loop.
    void (*changed)(void *ctx);
    void *ctx;
    struct fault away; // why the store cannot be reached; code 0: it can. Thread: loop
    // A store of results that is laid over the store of jobs. Images that it keeps have a number,
    // which is the lease under which they were drawn.
    struct store *base; // that store of jobs, with its own `away`; NULL: none
};

enum err store_memory_open(struct store **out, struct fault *why);
// Errors: IO, FORMAT (a newer or foreign database), BUSY (another process uses the folder).
enum err store_sqlite_open(const char *dir, struct uv_loop_s *loop, struct store **out,
                           struct fault *why);

struct store_postgres_params {
    struct uv_loop_s *loop;
    const char *database;      // libpq's connection string or URI, without a password
    const char *password_file; // "": none
    const char *replica;       // name of this process
    int64_t keep_ms;           // for which finished jobs are kept, at first
};
// Opens at once and connects later; calls fail with BUSY ("store") while the database is away.
// Errors: INVALID (the connection string), IO (the password file), UNSUPPORTED (built without it).
enum err store_postgres_open(const struct store_postgres_params *p, struct store **out,
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
