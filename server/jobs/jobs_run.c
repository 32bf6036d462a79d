// What happens to a job while it is drawn: into the queue, events of the workers, encoding on the
// thread pool, telling the watchers, the end. Loop thread, except where a name says pool.
#include "jobs_impl.h"

#include "buf.h"
#include "clock.h"
#include "codec.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

// One image on its way through libuv's thread pool.
struct encoding {
    struct encoding *next; // of the same image: one at a time, so that they arrive in order
    uv_work_t req;
    struct jobs *j;
    struct job *job;
    int picture, preview; // preview: -1 for the finished image
    struct codec_params p;
    struct picture_used used; // as it was when the image was drawn
    struct check_size size;   // of the file
    uint8_t *rgb;
    struct blob *blob;
    struct fault why;
    bool keep;     // also into the store
    bool composed; // with what a mask keeps of the input image
};

_Static_assert((int)JOB_PNG == (int)CODEC_PNG && (int)JOB_JPEG == (int)CODEC_JPEG &&
                   (int)JOB_WEBP == (int)CODEC_WEBP,
               "one order of formats");

bool job_busy(const struct job *job)
{
    for (int i = 0; i < job->spec.n; i++)
        if (job->picture[i].work || job->picture[i].encoding)
            return true;
    return job->emitting > 0;
}

// ---- telling the watchers -------------------------------------------------------------------

void jobs_emit(struct jobs *j, struct job *job, struct job_event ev)
{
    struct job_event *slot = &job->ring[job->events % JOB_RING];
    ev.id = ++job->events;
    blob_unref(&slot->blob);
    *slot = ev;
    // Streams that come back get the latest preview from the image, not from the ring.
    slot->blob = NULL;
    job->emitting++;
    for (struct job_watch *w = job->watches, *next; w; w = next) {
        next = w->next;
        w->event(w, &ev);
    }
    job->emitting--;
}

// ---- the end --------------------------------------------------------------------------------

static void pictures_stop(struct jobs *j, struct job *job)
{
    bool poke = false;
    for (int i = 0; i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        if (p->state == JOB_QUEUED || p->state == JOB_RUNNING)
            p->state = job->state;
        if (!p->work)
            continue;
        if (queue_remove(j->queue, p->work)) {
            free(p->work);
            p->work = NULL;
        } else {
            atomic_store(&p->work->cancelled, true);
            poke = true;
        }
    }
    for (int i = 0; poke && i < j->workers; i++)
        worker_poke(j->worker[i]);
}

void jobs_end(struct jobs *j, struct job *job, enum job_state state, const struct fault *why)
{
    struct fault trouble;
    job->state = state;
    if (why) {
        job->fault = *why;
        // Clients read it, also after a restart.
        if (fault_hide_paths(&job->fault))
            log_msg(LOG_ERROR, "jobs", "%s: %s", job->id, why->msg);
    }
    job->finished = clock_unix_ms();
    job->expires = job->finished + j->p.limits.keep_ms;
    job->webhook_next = job->spec.webhook_url ? job->finished : 0;
    j->kept++;
    pictures_stop(j, job);
    if (job->spec.durable || job->spec.keep) {
        if (j->p.store->ops->put(j->p.store, job, &trouble))
            log_msg(LOG_ERROR, "store", "%s: %s", job->id, trouble.msg);
        else
            job->stored = true;
    }
    jobs_measure(j, JOBS_ENDED, (int)state, (double)(job->finished - job->created) * 1e-3);
    jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_END});
    for (int i = 0; i < job->spec.n; i++) {
        blob_unref(&job->picture[i].latest);
        if (job->stored && j->p.store->ops->holds_images)
            blob_unref(&job->picture[i].image);
    }
}

static void jobs_fail(struct jobs *j, struct job *job, const struct fault *why)
{
    if (!job_ended(job))
        jobs_end(j, job, JOB_FAILED, why);
}

// ---- encoding -------------------------------------------------------------------------------

static void pool_encode(uv_work_t *req)
{
    struct encoding *e = req->data;
    struct store *store = e->j->p.store;
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
    if (!e->blob || !e->keep || !store->ops->holds_images)
        return;
    if (store->ops->put_image(store, e->job->id, e->picture, (enum job_format)e->p.format, e->blob,
                              &e->why))
        blob_unref(&e->blob);
}

static void preview_encoded(struct encoding *e)
{
    struct job_picture *p = &e->job->picture[e->picture];
    if (!e->blob || job_ended(e->job))
        return;
    blob_unref(&p->latest);
    p->latest = blob_ref(e->blob);
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

static void picture_encoded(struct encoding *e)
{
    struct job *job = e->job;
    struct job_picture *p = &job->picture[e->picture];
    if (job_ended(job))
        return;
    if (!e->blob) {
        jobs_fail(e->j, job, &e->why);
        return;
    }
    p->image = blob_ref(e->blob);
    p->bytes = e->blob->size;
    p->width = e->size.width;
    p->height = e->size.height;
    p->state = JOB_DONE;
    e->j->kept_bytes += p->bytes;
    jobs_emit(e->j, job,
              (struct job_event){.type = JOB_EVENT_PICTURE,
                                 .picture = e->picture,
                                 .width = p->width,
                                 .height = p->height,
                                 .blob = e->blob});
    for (int i = 0; i < job->spec.n; i++)
        if (job->picture[i].state != JOB_DONE)
            return;
    jobs_end(e->j, job, JOB_DONE, NULL);
}

static void jobs_on_encoded(uv_work_t *req, int status)
{
    struct encoding *e = req->data;
    struct jobs *j = e->j;
    struct job_picture *p = &e->job->picture[e->picture];
    p->encoding = e->next;
    if (e->next)
        uv_queue_work(j->p.loop, &e->next->req, pool_encode, jobs_on_encoded);
    j->encoding--;
    if (e->preview >= 0)
        preview_encoded(e);
    else
        picture_encoded(e);
    jobs_drop_if_idle(j, e->job);
    blob_unref(&e->blob);
    free(e->rgb);
    free(e);
    jobs_try_closed(j);
}

static void jobs_encode(struct jobs *j, struct worker_event *ev, int preview)
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
    e->keep = preview < 0 && (job->spec.keep || job->spec.durable);
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

// ---- what the workers say -------------------------------------------------------------------

static void on_admitted(struct jobs *j, struct job *job, const struct worker_event *ev)
{
    struct job_picture *p = &job->picture[ev->work->picture];
    char warning[160];
    for (int i = 0; !job->used.tokens && picture_warning(&ev->used, i, warning); i++)
        log_msg(LOG_WARN, "jobs", "%s: %s", job->id, warning);
    job->used = ev->used;
    p->state = JOB_RUNNING;
    p->attempts++;
    if (job->state != JOB_QUEUED)
        return;
    job->state = JOB_RUNNING;
    if (!job->started) {
        job->started = clock_unix_ms();
        jobs_measure(j, JOBS_WAITED, 0, (double)(job->started - job->created) * 1e-3);
    }
    jobs_emit(j, job, (struct job_event){.type = JOB_EVENT_STARTED});
}

static void on_progress(struct jobs *j, const struct worker_event *ev)
{
    struct job *job = ev->work->job;
    struct job_picture *p = &job->picture[ev->work->picture];
    p->stage = ev->stage;
    p->stages = ev->stages;
    p->step = ev->step;
    p->steps = ev->steps;
    jobs_emit(j, job,
              (struct job_event){.type = ev->type == WORKER_STEP ? JOB_EVENT_STEP : JOB_EVENT_STAGE,
                                 .picture = ev->work->picture,
                                 .stage = ev->stage,
                                 .stages = ev->stages,
                                 .step = ev->step,
                                 .steps = ev->steps});
}

// An image whose device was lost goes back into the queue, once: an image that takes the device
// with it would otherwise do so for ever.
static bool requeue_lost(struct jobs *j, struct work *work)
{
    struct job *job = work->job;
    struct job_picture *p = &job->picture[work->picture];
    if (job_ended(job) || p->attempts > 1 || j->leaving)
        return false;
    p->state = JOB_QUEUED;
    p->step = p->stage = 0;
    if (queue_push(j->queue, work))
        return false;
    log_msg(LOG_INFO, "jobs", "%s: image %d returned to the queue", job->id, work->picture);
    return true;
}

// The worker has returned the image for the last time.
static void on_returned(struct jobs *j, struct worker_event *ev)
{
    struct job *job = ev->work->job;
    struct job_picture *p = &job->picture[ev->work->picture];
    p->work = NULL;
    if (ev->type == WORKER_DRAWN) {
        j->seconds_per_picture +=
            (j->seconds_per_picture > 0 ? 0.1 : 1) * (j->busy_seconds - j->seconds_per_picture);
        j->busy_seconds = 0;
        jobs_measure(j, JOBS_PICTURE, 0, 1);
        if (!job_ended(job))
            jobs_encode(j, ev, -1);
    } else if (ev->type != WORKER_CANCELLED) {
        jobs_measure(j, JOBS_FAILED, ev->fault.code, 1);
        jobs_fail(j, job, &ev->fault);
    }
    free(ev->work);
    jobs_drop_if_idle(j, job);
}

static void on_worker_work(struct jobs *j, struct worker_event *ev)
{
    struct job *job = ev->work->job;
    switch (ev->type) {
    case WORKER_ADMITTED:
        j->running++;
        ev->work->in_slot = true;
        if (!job_ended(job))
            on_admitted(j, job, ev);
        break;
    case WORKER_STEP:
    case WORKER_STAGE:
        if (ev->type == WORKER_STAGE)
            jobs_measure(j, JOBS_STAGE_DONE, ev->stage, ev->seconds);
        if (!job_ended(job))
            on_progress(j, ev);
        break;
    case WORKER_PREVIEW:
        if (!job_ended(job))
            jobs_encode(j, ev, ev->preview);
        break;
    default:
        j->running -= ev->work->in_slot;
        ev->work->in_slot = false;
        if (ev->type != WORKER_LOST || !requeue_lost(j, ev->work))
            on_returned(j, ev);
        break;
    }
}

void jobs_on_worker(void *ctx, struct worker_event *ev)
{
    struct jobs *j = ctx;
    switch (ev->type) {
    case WORKER_READY:
        j->down = (struct fault){0};
        log_msg(LOG_INFO, "worker", "ready: %s on %s", jobs_model(j)->name, jobs_model(j)->device);
        break;
    case WORKER_DOWN:
        j->down = ev->fault;
        fault_hide_paths(&j->down); // clients read it
        jobs_measure(j, JOBS_REBUILT, 0, 1);
        log_msg(LOG_ERROR, "worker", "cannot open the engine: %s", ev->fault.msg);
        // A lost device may recover; an invalid model folder at startup will not.
        if (!jobs_model(j) && j->p.hopeless &&
            (ev->fault.code == ERR_NOT_FOUND || ev->fault.code == ERR_FORMAT ||
             ev->fault.code == ERR_UNSUPPORTED || ev->fault.code == ERR_INVALID))
            j->p.hopeless(j->p.ctx, &ev->fault);
        break;
    case WORKER_TICK:
        j->busy_seconds += ev->seconds;
        jobs_measure(j, JOBS_STEP, ev->stage, ev->seconds);
        jobs_measure(j, JOBS_OCCUPANCY, ev->stage, ev->step);
        break;
    default: on_worker_work(j, ev); break;
    }
    free(ev->rgb);
}

// ---- into the queue -------------------------------------------------------------------------

enum err jobs_enqueue(struct jobs *j, struct job *job)
{
    job->state = JOB_QUEUED;
    for (int i = 0; i < job->spec.n; i++) {
        struct job_picture *p = &job->picture[i];
        struct work *w = calloc(1, sizeof *w);
        if (!w)
            return ERR_NO_MEMORY;
        w->job = job;
        w->spec = &job->spec;
        w->picture = i;
        atomic_init(&w->watched, job->spec.watched ? WATCHED_ALWAYS : WATCHED_NOT);
        p->state = JOB_QUEUED;
        if (queue_push(j->queue, w)) {
            free(w);
            return ERR_NO_MEMORY;
        }
        p->work = w;
    }
    return ERR_OK;
}
