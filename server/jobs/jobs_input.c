// Acceptance of jobs with an input image: the files are decoded once on the thread pool, so that
// errors reach the waiting client, then hashed and stored before the job is submitted. Loop thread,
// except where a name says pool.
#include "jobs_impl.h"

#include <stdlib.h>
#include <string.h>

// Decoded at once. Each may take hundreds of megabytes, and the pool has other work, too.
enum { INTAKES_AT_ONCE = 2 };

struct jobs_intake {
    struct jobs_intake *next; // of those that wait to be decoded
    uv_work_t req;
    struct jobs *j;
    struct job_spec spec; // strings point into text
    char *text;
    struct blob *file[2]; // image, mask or NULL; NULL once added
    size_t bytes;
    char name[2][ATTACHMENT_NAME];
    bool added[2];
    bool unwanted; // the client left before it was decoded
    struct fault why;
    struct jobs_ask *ask;
    jobs_job_fn *done; // NULL: cancelled
    void *ctx;
};

static void intake_free(struct jobs_intake *in)
{
    for (int i = 0; i < 2; i++) {
        blob_unref(&in->file[i]);
        if (in->added[i])
            attachments_release(in->j->attachments, in->name[i]);
    }
    in->j->intake_bytes -= in->bytes;
    in->j->intakes--;
    free(in->text);
    free(in);
}

// Calls done, if it is not cancelled; job NULL: refused.
static void intake_end(struct jobs_intake *in, struct job *job)
{
    struct jobs *j = in->j;
    if (in->done)
        in->done(in->ctx, job, job ? NULL : &in->why);
    intake_free(in);
    jobs_try_closed(j);
}

static void on_submitted(void *ctx, struct job *job, const struct fault *why)
{
    struct jobs_intake *in = ctx;
    // The job of a repeated request has its own references, as has any in a shared store.
    if (job && !in->ask->found && !in->j->p.store->shared)
        in->added[0] = in->added[1] = false;
    if (why)
        in->why = *why;
    intake_end(in, job);
}

static void intake_submit(struct jobs_intake *in)
{
    if (in->done)
        jobs_submit(in->j, &in->spec, on_submitted, in, &in->ask);
    else
        intake_end(in, NULL);
}

static void pool_store(uv_work_t *req)
{
    struct jobs_intake *in = req->data;
    for (int i = 0; i < 2 && !in->why.code; i++)
        if (in->added[i])
            attachments_put(in->j->attachments, in->name[i], &in->why);
}

static void on_stored(uv_work_t *req, int status)
{
    struct jobs_intake *in = req->data;
    if (in->why.code)
        intake_end(in, NULL);
    else
        intake_submit(in);
}

static void pool_decode(uv_work_t *req)
{
    struct jobs_intake *in = req->data;
    struct picture_edit *edit = NULL;
    if (!in->unwanted && !job_input_decode(&in->spec.input, &in->spec.request, in->file[0],
                                           in->file[1], &edit, &in->why))
        for (int i = 0; i < 2; i++)
            if (in->file[i])
                in->j->p.digest(in->file[i]->data, in->file[i]->size, in->name[i]);
    picture_edit_destroy(&edit);
}

static void decode_next(struct jobs *j);

static void on_decoded(uv_work_t *req, int status)
{
    struct jobs_intake *in = req->data;
    struct jobs *j = in->j;
    j->decoding--;
    j->intake_bytes -= in->bytes; // what is added counts as an attachment
    in->bytes = 0;
    decode_next(j);
    for (int i = 0; i < 2 && !in->why.code && in->done; i++) {
        struct blob *file = in->file[i];
        in->file[i] = NULL;
        if (file)
            in->added[i] = !attachments_add(j->attachments, in->name[i], file, &in->why);
    }
    in->spec.input.image = in->added[0] ? in->name[0] : NULL;
    in->spec.input.mask = in->added[1] ? in->name[1] : NULL;
    job_spec_link(&in->spec);
    if (in->why.code || !in->done || uv_queue_work(j->p.loop, &in->req, pool_store, on_stored)) {
        if (!in->why.code)
            fault_set(&in->why, ERR_INTERNAL, "", "%s", err_text(ERR_INTERNAL));
        intake_end(in, NULL);
    }
}

static void decode_next(struct jobs *j)
{
    while (j->intake && j->decoding < INTAKES_AT_ONCE) {
        struct jobs_intake *in = j->intake;
        j->intake = in->next;
        in->unwanted = !in->done;
        j->decoding++;
        uv_queue_work(j->p.loop, &in->req, pool_decode, on_decoded); // fails without a function
    }
}

static enum err intake_room(struct jobs *j, size_t bytes, struct fault *why)
{
    const size_t most = j->p.limits.input_bytes;
    const size_t used = attachments_bytes(j->attachments) + j->intake_bytes;
    if (bytes > most)
        return fault_set(why, ERR_INVALID, "image",
                         "the input image has %zu bytes, but this server keeps at most %zu", bytes,
                         most);
    if (bytes > most - (used < most ? used : most))
        return fault_set(why, ERR_BUSY, "queue",
                         "the input images of all jobs together are too large; try again later");
    return ERR_OK;
}

enum err jobs_submit_input(struct jobs *j, const struct jobs_input *from, jobs_job_fn *done,
                           void *ctx, struct jobs_intake **out, struct fault *why)
{
    const size_t bytes = from->image->size + (from->mask ? from->mask->size : 0);
    struct jobs_intake *in = NULL;
    *out = NULL;
    enum err err = jobs_may_accept(j, from->spec, why);
    if (!err)
        err = intake_room(j, bytes, why);
    if (err)
        return err;
    in = calloc(1, sizeof *in);
    if (!in || job_spec_copy(from->spec, &in->spec, &in->text)) {
        free(in);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    in->req.data = in;
    in->j = j;
    in->bytes = bytes;
    in->done = done;
    in->ctx = ctx;
    in->file[0] = blob_ref(from->image);
    in->file[1] = from->mask ? blob_ref(from->mask) : NULL;
    j->intakes++;
    j->intake_bytes += bytes;
    struct jobs_intake **end = &j->intake;
    while (*end)
        end = &(*end)->next;
    *end = in;
    decode_next(j);
    *out = in;
    return ERR_OK;
}

void jobs_intake_forget(struct jobs_intake *in)
{
    in->done = NULL;
}

// ---- giving them back ---------------------------------------------------------------------------

struct jobs_files {
    uv_work_t req;
    struct jobs *j;
    struct job *job; // pinned: the pool reads its spec
    struct blob *file[2];
    struct fault why;
    jobs_files_fn *done; // NULL: cancelled
    void *ctx;
};

static void pool_fetch(uv_work_t *req)
{
    struct jobs_files *f = req->data;
    const char *const names[] = {f->job->spec.input.image, f->job->spec.input.mask};
    for (int i = 0; i < 2 && !f->why.code; i++)
        if (names[i])
            attachments_get(f->j->attachments, names[i], &f->file[i], &f->why);
}

static void on_fetched(uv_work_t *req, int status)
{
    struct jobs_files *f = req->data;
    struct jobs *j = f->j;
    if (f->done)
        f->done(f->ctx, f->job, f->file, f->why.code ? &f->why : NULL);
    f->job->pins--;
    f->job->answering--;
    jobs_drop_images(f->job);
    jobs_settle(j, f->job);
    for (int i = 0; i < 2; i++)
        blob_unref(&f->file[i]);
    free(f);
    j->intakes--;
    jobs_try_closed(j);
}

enum err jobs_input_files(struct jobs *j, struct job *job, jobs_files_fn *done, void *ctx,
                          struct jobs_files **out, struct fault *why)
{
    struct jobs_files *f = *out = calloc(1, sizeof *f);
    if (!f)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    *f = (struct jobs_files){.j = j, .job = job, .done = done, .ctx = ctx};
    f->req.data = f;
    job->pins++;
    job->answering++;
    j->intakes++;
    uv_queue_work(j->p.loop, &f->req, pool_fetch, on_fetched); // fails without a function
    return ERR_OK;
}

void jobs_files_forget(struct jobs_files *files)
{
    files->done = NULL;
}
