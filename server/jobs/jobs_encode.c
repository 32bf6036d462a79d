// Encodes a generated image on the thread pool, stores it and tells the watchers. Loop thread,
// except where a name says pool.
#include "jobs_impl.h"

#include "buf.h"
#include "codec.h"

#include <stdlib.h>

// An image in libuv's thread pool.
struct encoding {
    struct encoding *next; // next of the same image: one at a time, so that they stay in order
    uv_work_t req;
    struct jobs *j;
    struct job *job;
    int picture, preview; // preview: -1 for the finished image
    struct codec_params p;
    struct picture_used used; // as of the generation of the image
    struct check_size size;   // of the file
    uint8_t *rgb;
    struct blob *blob;
    struct fault why;
    bool composed; // with the pixels that a mask keeps
    bool keep;     // the store has files, and is to keep it
    bool written;  // it has its file
};

_Static_assert((int)JOB_PNG == (int)CODEC_PNG && (int)JOB_JPEG == (int)CODEC_JPEG &&
                   (int)JOB_WEBP == (int)CODEC_WEBP,
               "one order of formats");

static void pool_encode(uv_work_t *req)
{
    struct encoding *e = req->data;
    struct picture_request r = picture_at(&e->job->spec.request, e->picture);
    struct picture_edit *edit = NULL;
    struct buf file = {0}, xmp = {0};
    enum err err = ERR_OK;
    if (e->composed)
        err = attachments_open(e->j->attachments, &e->job->spec, &edit, &e->why);
    if (edit)
        r.edit = edit;
    if (e->j->p.provenance && e->preview < 0)
        picture_xmp(&xmp, &r);
    e->p.xmp = xmp.len ? xmp.data : NULL;
    if (!err)
        err = picture_encode(&e->p, &r, &e->used, &file, &e->why);
    picture_edit_destroy(&edit);
    buf_deinit(&xmp);
    const size_t n = file.len;
    if (!err && !(e->blob = blob_create((uint8_t *)buf_take(&file), n)))
        fault_set(&e->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    buf_deinit(&file);
    struct store *store = e->j->p.store;
    e->written = e->blob && e->keep && store->ops->write_image(store, e->job, e->picture, e->blob);
}

static void preview_encoded(struct encoding *e)
{
    struct job_picture *p = &e->job->picture[e->picture];
    if (!e->blob || e->job->ending || job_ended(e->job) || !job_here(e->job))
        return;
    blob_unref(&p->latest);
    p->latest = blob_ref(e->blob);
    p->previews++;
    p->preview = e->size;
    jobs_emit(e->j, e->job,
              (struct job_event){.type = JOB_EVENT_PREVIEW,
                                 .picture = e->picture,
                                 .stage = p->stage,
                                 .stages = p->stages,
                                 .step = p->step,
                                 .steps = p->steps,
                                 .preview = e->preview,
                                 .width = e->size.width,
                                 .height = e->size.height,
                                 .blob = e->blob});
}

static void encoding_end(struct encoding *e)
{
    struct jobs *j = e->j;
    j->encoding--;
    jobs_settle(j, e->job);
    blob_unref(&e->blob);
    free(e->rgb);
    free(e);
    jobs_try_closed(j);
}

static void tell_picture(struct encoding *e)
{
    struct job_picture *p = &e->job->picture[e->picture];
    p->state = JOB_DONE;
    jobs_emit(e->j, e->job,
              (struct job_event){.type = JOB_EVENT_PICTURE,
                                 .picture = e->picture,
                                 .width = p->width,
                                 .height = p->height,
                                 .blob = e->blob});
}

// Whether every other image is stored, or being stored, in order.
static bool is_last(const struct encoding *e)
{
    for (int i = 0; i < e->job->spec.n; i++)
        if (i != e->picture && !e->job->picture[i].bytes)
            return false;
    return true;
}

static void picture_lost(struct encoding *e, const struct fault *why)
{
    struct job_picture *p = &e->job->picture[e->picture];
    p->bytes = 0;
    blob_unref(&p->image);
    if (e->job->ending) // the last image is on its way into the store
        e->job->fault = *why;
    else
        jobs_fail(e->j, e->job, why);
}

static bool keep_picture(struct encoding *e);

static void on_kept(struct store_call *c)
{
    struct encoding *e = c->ctx;
    struct job *job = e->job;
    const bool last = job_ended(c->job), stale = c->why.code == ERR_STALE;
    jobs_called(e->j, c);
    if (last)
        job->ending = false;
    if (stale && c->job->lease == job->lease) {
        jobs_lost(e->j, job);
    } else if (!job_here(job)) {
        // It was handed back or lost meanwhile.
    } else if (stale && !job_ended(job) && !job->ending) { // and claimed here again
        store_call_free(c);
        job->pins--;
        if (!keep_picture(e))
            encoding_end(e);
        return;
    } else if (job_ended(job) || (job->ending && job->outcome != JOB_DONE)) {
        // The job was cancelled meanwhile.
    } else if (c->why.code) {
        picture_lost(e, &c->why);
    } else if (last && job->fault.code) { // of an image before
        const struct fault why = job->fault;
        job->end_stored = true;
        jobs_fail(e->j, job, &why);
    } else {
        tell_picture(e);
        if (last)
            jobs_ended(e->j, job);
    }
    job->pins--;
    store_call_free(c);
    encoding_end(e);
}

// Stores the image before its watchers are told; with the last image, also the end of the job.
static bool keep_picture(struct encoding *e)
{
    struct job *job = e->job;
    const bool last = is_last(e);
    job->picture[e->picture].object = e->j->p.store->base ? job->lease : 0;
    if (last)
        jobs_begin_end(e->j, job, JOB_DONE);
    struct store_call *c = store_call_about(STORE_DRAWN, job, on_kept, e);
    if (!c) {
        job->ending = false;
        fault_set(&e->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        picture_lost(e, &e->why);
        return false;
    }
    c->job->state = last ? JOB_DONE : job->state;
    c->job->picture[e->picture].state = JOB_DONE;
    c->picture = e->picture;
    c->image = blob_ref(e->blob);
    c->written = e->written;
    job->pins++;
    jobs_call(e->j, c);
    return true;
}

static void picture_encoded(struct encoding *e)
{
    struct job *job = e->job;
    struct job_picture *p = &job->picture[e->picture];
    const bool over = job->ending || job_ended(job) || !job_here(job) || p->state == JOB_DONE;
    if (over || !e->blob) {
        if (!e->blob)
            jobs_fail(e->j, job, &e->why);
        if (e->written && !p->bytes)
            e->j->p.store->ops->drop_image(e->j->p.store, job, e->picture);
        encoding_end(e);
        return;
    }
    p->image = blob_ref(e->blob);
    p->bytes = e->blob->size;
    p->width = e->size.width;
    p->height = e->size.height;
    if (job->stored) {
        if (!keep_picture(e))
            encoding_end(e);
        return;
    }
    tell_picture(e);
    if (is_last(e))
        jobs_end(e->j, job, JOB_DONE, NULL);
    encoding_end(e);
}

static void jobs_on_encoded(uv_work_t *req, int status)
{
    struct encoding *e = req->data;
    e->job->picture[e->picture].encoding = e->next;
    if (e->next)
        uv_queue_work(e->j->p.loop, &e->next->req, pool_encode, jobs_on_encoded);
    if (e->preview < 0) {
        picture_encoded(e);
        return;
    }
    preview_encoded(e);
    encoding_end(e);
}

void jobs_encode(struct jobs *j, struct worker_event *ev, int preview)
{
    struct job *job = ev->work->job;
    struct encoding *e = calloc(1, sizeof *e);
    if (!e || !ev->rgb) {
        struct fault why;
        fault_set(&why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        if (preview < 0)
            jobs_fail(j, job, &why);
        free(e);
        return;
    }
    e->req.data = e;
    e->j = j;
    e->job = job;
    e->picture = ev->work->picture;
    e->preview = preview;
    e->rgb = ev->rgb;
    ev->rgb = NULL;
    e->keep = preview < 0 && job->stored && j->p.store->ops->write_image;
    e->used = job->used;
    e->composed = preview < 0 && job->spec.input.masked && !job->used.scale;
    e->size = picture_file_size(&job->used, ev->width, ev->height, e->composed);
    e->p = (struct codec_params){
        .format = (enum codec_format)(preview < 0 ? job->spec.format : job->spec.preview_format),
        .quality = preview < 0 ? job->spec.quality : 80,
        .width = ev->width,
        .height = ev->height,
        .rgb = e->rgb,
    };
    struct encoding **at = &job->picture[e->picture].encoding;
    if (!*at)
        uv_queue_work(j->p.loop, &e->req, pool_encode, jobs_on_encoded);
    while (*at)
        at = &(*at)->next;
    *at = e;
    j->encoding++;
}
