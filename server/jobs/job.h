// A job: one request for n images, from acceptance until its results expire. Only the loop thread
// reads or changes a live job; workers read its spec, which never changes, and stores get
// snapshots.
#ifndef IMAGEND_JOB_H
#define IMAGEND_JOB_H

#include "blob.h"
#include "err.h"
#include "picture.h"
#include "picture_edit.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    JOB_MAX_PICTURES = 16,
    JOB_MAX_PREVIEWS = 32,
    JOB_MAX_PRIORITY = 9,
    JOB_ID_SIZE = 40,
    JOB_RING = 64,      // events kept for streams that reconnect
    JOB_MAX_CLAIMS = 3, // a job that was lost by so many replicas fails
};

enum job_state { JOB_QUEUED, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED };
enum job_format { JOB_PNG, JOB_JPEG, JOB_WEBP };

// The image that a job edits or enlarges, and the meaning of its mask. The files are attachments;
// they are decoded only when needed, because the pixels of a whole queue would fill the memory.
struct job_input {
    const char *image, *mask; // names of attachments; NULL: none
    int mask_kind;            // enum picture_mask
    bool mask_invert;
    int feather; // as in picture_edit_params
    struct picture_edit_options options;
    struct check_size size; // of the image as edited; 0x0: no image
    bool masked;            // some pixels are kept
};

// The images to generate, and how to store them.
struct job_spec {
    struct picture_request request; // of the first image; picture_at for the others
    struct job_input input;
    struct picture_edit shape; // size and mask of input; request.edit points to it
    const char *model;         // its name; NULL: the only one of a process that has no names
    int n;
    enum job_format format;
    int quality;  // 0..100, JPEG and WebP
    int previews; // number of previews per image, spread evenly over the steps
    bool watched; // a client watches the previews from the start
    enum job_format preview_format;
    int priority;       // 0..JOB_MAX_PRIORITY; among one owner's jobs, larger first
    int64_t deadline;   // unix ms; 0: none
    const char *owner;  // name of the API key; "" without keys
    const char *client; // client's address, if addresses identify clients; else NULL
    const char *api;    // API that created it, for lists: "jobs", "openai", "a1111"
    const char *request_id;
    const char *idempotency_key; // NULL: none
    const char *body_hash;       // hash of the request, to compare repeated keys
    const char *webhook_url;     // NULL: none
    bool durable;                // accepted asynchronously: continues after a restart
    bool keep;                   // results are kept until they expire, as with a key
};

enum job_event_type {
    JOB_EVENT_QUEUED,   // position changed
    JOB_EVENT_STARTED,  // the first image got a slot
    JOB_EVENT_STEP,     // image, stage, step
    JOB_EVENT_PREVIEW,  // blob: the current image
    JOB_EVENT_STAGE,    // a stage of an image is done
    JOB_EVENT_PICTURE,  // blob: an image is done
    JOB_EVENT_END,      // the job is done, failed or cancelled
    JOB_EVENT_SHUTDOWN, // the server is stopping; the job continues after the restart
};

struct job_event {
    uint64_t id; // increases within a job, also across a restart
    enum job_event_type type;
    int picture, stage, stages, step, steps;
    int preview;  // JOB_EVENT_PREVIEW: 0-based count for this image
    int position; // JOB_EVENT_QUEUED: number of images ahead
    int width, height;
    struct blob *blob;
};

struct encoding;
struct jobs;
struct work;

struct job_picture {
    enum job_state state;
    int stage, stages, step, steps;
    int attempts;
    int previews;              // number of latest, which increases
    int told;                  // that of the last one which other replicas were told about
    struct encoding *encoding; // the current one, followed by waiting ones
    int width, height;
    struct work *work;         // queued or in a slot, else NULL
    struct blob *image;        // while the job runs or the image is being fetched
    struct blob *latest;       // the last preview
    struct check_size preview; // of latest
    size_t bytes;
    int64_t object; // number in the name of its object; 0: the image is in the job store
};

// A subscription to the events of a job. Owner: the watcher; unlinked by jobs_unwatch. Thread:
// loop.
struct job_watch {
    struct job_watch *next;
    struct job *job;
    bool previews; // needs previews; without such a watcher none are rendered
    bool images;   // needs the images, with JOB_EVENT_PICTURE and at the end
    void (*event)(struct job_watch *w, const struct job_event *ev);
    void *ctx;
};

struct job {
    char id[JOB_ID_SIZE];
    char token[JOB_ID_SIZE]; // part of result URLs: anyone with the URL has access
    enum job_state state;
    struct job_spec spec;                        // strings point into spec_text
    struct picture_used used;                    // the settings after resolution by the model
    struct fault fault;                          // JOB_FAILED
    int64_t created, started, finished, expires; // unix ms; 0: not yet
    int position;                                // number of images ahead, while queued
    int webhook_tries;
    int64_t webhook_next; // unix ms; 0: no call is pending
    bool webhook_sending;
    struct job_picture picture[JOB_MAX_PICTURES];
    struct jobs *core;     // of a live job
    int64_t seq;           // number in the store's order of acceptance; 0: not stored
    int64_t lease;         // the store's token for drawing it here; 0: not drawn here
    int claims;            // number of times that a replica began to draw it
    bool cancel;           // the job must be cancelled by, or for, another replica
    bool cancelling;       // that is under way
    bool watched_there;    // clients of other replicas watch its previews
    uint64_t told;         // events, as of the last heartbeat
    struct job *news;      // of a job drawn elsewhere, until its images are here
    struct job *later;     // what to tell after that
    int fetching;          // number of those images
    uint64_t events;       // id of the last event
    uint64_t events_begin; // ids of this process are larger
    struct job_event ring[JOB_RING];
    struct job_watch *watches;
    char *spec_text;
    struct fault lost;         // reason why an image could not be fetched
    enum job_state outcome;    // state once the store has it
    bool stored;               // it has a row in the store
    bool linked;               // it is in the table of live jobs
    bool ending;               // no image is in progress; the store is being told
    bool end_stored;           // as another end than the one that it has now
    bool unsaved;              // the store does not know its end yet
    bool removing;             // deleted for clients; freed after its last piece of work
    int pins;                  // number of users; the memory must stay while it is not 0
    int answering;             // of them, those that fetch files for a response with its images
    struct job *newer, *older; // live jobs, by age
    struct job *by_id;         // chain of the hash table
};

// Owner: the caller, who frees it with job_free.
struct job *job_create(void);
void job_free(struct job **j);
// Copies the parts that stores keep: no images, events or watchers. NULL if out of memory.
struct job *job_snapshot(const struct job *j);
// Copies what changes after acceptance from a live job or a snapshot to a snapshot, except images.
void job_update(struct job *to, const struct job *from);

const char *job_state_name(enum job_state s);
enum err job_state_find(const char *name, enum job_state *out);
const char *job_format_name(enum job_format f); // "png"
const char *job_format_type(enum job_format f); // "image/png"
static inline bool job_ended(const struct job *j)
{
    return j->state >= JOB_DONE;
}

// Makes request.edit point to shape and fills shape from input.
void job_spec_link(struct job_spec *s);
// Decodes the input image; mask: NULL if none. Fills in size and masked. Thread: any. Owner: the
// caller destroys *out. Errors: as codec_decode and picture_edit_create.
enum err job_input_decode(struct job_input *in, const struct picture_request *r,
                          const struct blob *image, const struct blob *mask,
                          struct picture_edit **out, struct fault *why);

// Copies a spec; its strings point into one allocation, *text. Errors: NO_MEMORY.
enum err job_spec_copy(const struct job_spec *from, struct job_spec *to, char **text);

// Convert the spec to JSON and back, for stores. Owner: the caller frees the text. Errors: FORMAT.
char *job_spec_write(const struct job_spec *s);
enum err job_spec_read(const char *json, struct job_spec *to, char **text, struct fault *why);

// The fraction of the job's steps that are done, 0..1.
double job_progress(const struct job *j);
// The total size of its finished images.
size_t job_bytes(const struct job *j);

#endif
