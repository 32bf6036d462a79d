// Jobs with input images in the job core, with the fake engine and both stores: decoded before they
// are accepted, stored once under their hash until no job uses them, composed in the result,
// limited in size, and found again after a restart.
#include "buf.h"
#include "clock.h"
#include "codec.h"
#include "jobs.h"
#include "sha256.h"
#include "store.h"
#include "test.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

enum { W = 48, H = 32 };

static uv_loop_t loop;
static struct jobs *jobs;
static char folder[] = "/tmp/imagend-inputs-XXXXXX";

static struct blob *file(int w, int h, int seed, bool mask)
{
    uint8_t *rgb = malloc((size_t)(w * h) * 3);
    struct buf b = {0};
    for (int k = 0; k < w * h * 3; k++)
        rgb[k] = mask ? (k / 3 % w >= w / 2 ? 255 : 0) : (uint8_t)(k * 7 + seed);
    CHECK_INT(codec_encode(&(struct codec_params){.width = w, .height = h, .rgb = rgb}, &b, NULL),
              ERR_OK);
    free(rgb);
    const size_t n = b.len;
    return blob_create((uint8_t *)buf_take(&b), n);
}

static struct blob *text(const char *s)
{
    return blob_create((uint8_t *)strdup(s), strlen(s));
}

static void on_timer(uv_timer_t *t)
{
    (void)t;
}

// Runs the loop until *ended.
static void wait_for(bool (*ended)(void *), void *ctx)
{
    const double until = clock_seconds() + test_patience();
    uv_timer_t tick; // so that the loop wakes up
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_timer, 5, 5);
    while (!ended(ctx) && clock_seconds() < until)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK(ended(ctx));
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static bool is_true(void *flag)
{
    return *(bool *)flag;
}

static bool is_ready(void *none)
{
    struct fault why;
    return jobs_ready(jobs, &why);
}

static bool has_ended(void *job)
{
    return job_ended(job);
}

// Keeps a job that ends in memory, until it is let go.
struct held {
    struct job_watch watch;
    struct held *next;
};
static struct held *all_held;

static void on_event(struct job_watch *w, const struct job_event *ev) {}

static struct job *hold(struct job *job)
{
    struct held *h = calloc(1, sizeof *h);
    h->watch.event = on_event;
    h->next = all_held;
    all_held = h;
    jobs_watch(jobs, job, &h->watch);
    return job;
}

static void let_go(struct job *job)
{
    struct held **at = &all_held;
    while ((*at)->watch.job != job)
        at = &(*at)->next;
    struct held *h = *at;
    *at = h->next;
    jobs_unwatch(jobs, &h->watch);
    free(h);
}

static void on_removed(void *ctx, struct job *none, const struct fault *why)
{
    CHECK(!none && !why);
    *(bool *)ctx = true;
}

static void remove_job(struct job *job)
{
    struct jobs_ask *ask;
    bool gone = false;
    jobs_remove(jobs, job, on_removed, &gone, &ask);
    wait_for(is_true, &gone);
    let_go(job);
}

static void open_jobs(bool durable, size_t input_bytes)
{
    static const struct engine_params engine = {.model = "fake"};
    struct jobs_params p = {
        .loop = &loop,
        .limits = {.queued = 64,
                   .queued_per_owner = 64,
                   .keep_ms = 3600000,
                   .keep_jobs = 100,
                   .keep_bytes = 1 << 30,
                   .input_bytes = input_bytes},
        .engine = &engine,
        .models = 1,
        .digest = sha256_hex,
    };
    struct fault why = {0};
    CHECK_INT(durable ? store_sqlite_open(folder, &loop, &p.store, &why)
                      : store_memory_open(&p.store, &why),
              ERR_OK);
    CHECK_MSG(!jobs_create(&p, &jobs, &why), "%s", why.msg);
    wait_for(is_ready, NULL);
}

static bool closed;

static void on_closed(void *none)
{
    closed = true;
}

static void close_jobs(void)
{
    closed = false;
    jobs_close(jobs, on_closed, NULL);
    wait_for(is_true, &closed);
    jobs = NULL;
    for (struct held *h = all_held, *next; h; h = next) {
        next = h->next;
        free(h);
    }
    all_held = NULL;
}

struct outcome {
    bool there;
    struct job *job;
    struct fault why;
};

static void on_submitted(void *ctx, struct job *job, const struct fault *why)
{
    struct outcome *o = ctx;
    CHECK(!o->there);
    o->there = true;
    o->job = job ? hold(job) : NULL;
    if (why)
        o->why = *why;
}

static struct job_spec spec_of(int scale)
{
    struct job_spec s = {
        .request = {.prompt = "a cat", .scale = scale, .noise_level = {-1, -1, -1}},
        .input = {.feather = PICTURE_FEATHER_AUTO},
        .n = 1,
        .owner = "",
        .api = "jobs",
        .durable = true,
        .keep = true};
    return s;
}

static struct outcome submit_spec(const struct job_spec *s, struct blob *image, struct blob *mask)
{
    const struct jobs_input in = {s, image, mask};
    struct jobs_intake *intake;
    struct outcome o = {0};
    if (!jobs_submit_input(jobs, &in, on_submitted, &o, &intake, &o.why))
        wait_for(is_true, &o.there);
    return o;
}

static struct outcome submit(int scale, struct blob *image, struct blob *mask)
{
    const struct job_spec s = spec_of(scale);
    return submit_spec(&s, image, mask);
}

struct lookup {
    bool there;
    struct blob *image;
};

static void on_found(void *ctx, struct job *job, const struct fault *none)
{
    struct lookup *l = ctx;
    struct fault why = {0};
    CHECK(job && !none);
    CHECK_MSG(!jobs_image(jobs, job, 0, &l->image, &why), "%s", why.msg);
    l->there = true;
}

// The image of a job, which has ended.
static struct codec_image result(struct job *job)
{
    struct codec_image i = {0};
    struct lookup l = {0};
    struct jobs_ask *ask;
    struct fault why = {0};
    wait_for(has_ended, job);
    CHECK_MSG(job->state == JOB_DONE, "state %d: %s", (int)job->state, job->fault.msg);
    jobs_find(jobs, &(struct jobs_lookup){job->id, NULL, NULL, 0}, on_found, &l, &ask);
    wait_for(is_true, &l.there);
    struct blob *image = l.image;
    if (image)
        CHECK_MSG(!codec_decode(image->data, image->size, NULL, &i, &why), "%s", why.msg);
    blob_unref(&image);
    return i;
}

// The left half is the input's, the right half is not.
static void check_kept(struct job *job, const struct blob *image)
{
    struct codec_image from, to = result(job);
    int equal = 0;
    CHECK_INT(codec_decode(image->data, image->size, NULL, &from, NULL), ERR_OK);
    CHECK(to.width == W && to.height == H);
    for (int k = 0; to.rgba && k < W * H; k++) {
        const bool same = !memcmp(to.rgba + 4 * k, from.rgba + 4 * k, 3);
        if (k % W < W / 2)
            CHECK(same);
        else
            equal += same;
    }
    CHECK(equal < W * H / 8);
    CHECK(job->picture[0].width == W && job->picture[0].height == H);
    codec_image_deinit(&from);
    codec_image_deinit(&to);
}

static int files_in(const char *name)
{
    char path[256];
    int n = 0;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static void test_life(bool durable)
{
    struct blob *image = file(W, H, 1, false), *mask = file(W, H, 0, true);
    open_jobs(durable, 1 << 20);
    struct outcome a = submit(0, image, mask), b = submit(0, image, mask),
                   c = submit(4, image, NULL);
    CHECK(a.job && b.job && c.job);
    CHECK(a.job->spec.input.masked && a.job->used.strength[0] == 1);
    CHECK_STR(a.job->spec.input.image, c.job->spec.input.image);
    check_kept(a.job, image);
    check_kept(b.job, image);
    struct codec_image large = result(c.job);
    CHECK(large.width == 4 * W && large.height == 4 * H);
    codec_image_deinit(&large);
    // Each file once, until the last job that has it goes.
    CHECK_INT(jobs_stats(jobs).input_bytes, image->size + mask->size);
    CHECK_INT(files_in("inputs"), durable ? 2 : 0);
    remove_job(a.job);
    CHECK_INT(jobs_stats(jobs).input_bytes, image->size + mask->size);
    remove_job(b.job);
    CHECK_INT(jobs_stats(jobs).input_bytes, image->size);
    CHECK_INT(files_in("inputs"), durable ? 1 : 0);
    remove_job(c.job);
    CHECK_INT(jobs_stats(jobs).input_bytes, 0);
    CHECK_INT(files_in("inputs"), 0);
    close_jobs();
    blob_unref(&image);
    blob_unref(&mask);
}

static void test_refused(void)
{
    struct blob *image = file(W, H, 1, false), *mask = file(W, H, 0, true);
    struct blob *small = file(8, 8, 0, true), *bad = text("hello");
    const struct {
        struct blob *image, *mask;
        int scale;
        const char *param, *says;
    } rows[] = {
        {bad, NULL, 0, "image", "the image is not a PNG"},
        {image, bad, 0, "mask", "the mask is not a PNG"},
        {image, small, 0, "mask", "8x8 pixels"},
        {image, NULL, 3, "scale", "scale 3"},
    };
    open_jobs(true, 1 << 20);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct outcome o = submit(rows[i].scale, rows[i].image, rows[i].mask);
        CHECK(o.there && !o.job);
        CHECK_INT(o.why.code, ERR_INVALID);
        CHECK_STR(o.why.param, rows[i].param);
        CHECK_MSG(strstr(o.why.msg, rows[i].says) != NULL, "%s", o.why.msg);
        CHECK_INT(jobs_stats(jobs).input_bytes, 0);
    }
    CHECK_INT(files_in("inputs"), 0);
    CHECK_INT(jobs_stats(jobs).jobs, 0);

    // Nobody waits for this one.
    const struct job_spec s = spec_of(0);
    struct jobs_intake *intake;
    struct outcome o = {0};
    struct fault why = {0};
    CHECK_INT(jobs_submit_input(jobs, &(struct jobs_input){&s, image, mask}, on_submitted, &o,
                                &intake, &why),
              ERR_OK);
    jobs_intake_forget(intake);
    close_jobs(); // and it does not keep the loop
    CHECK(!o.there);
    CHECK_INT(files_in("inputs"), 0);

    // Of all together, and of one alone.
    open_jobs(true, image->size + mask->size - 1);
    o = submit(0, image, mask);
    CHECK(!o.there && o.why.code == ERR_INVALID && !strcmp(o.why.param, "image"));
    struct outcome first = submit(0, image, NULL);
    CHECK(first.job);
    o = submit(0, mask, NULL);
    CHECK(!o.there && o.why.code == ERR_BUSY && !strcmp(o.why.param, "queue"));
    wait_for(has_ended, first.job);
    remove_job(first.job);
    o = submit(0, mask, NULL);
    CHECK(o.job);
    wait_for(has_ended, o.job);
    remove_job(o.job);
    close_jobs();
    blob_unref(&image);
    blob_unref(&mask);
    blob_unref(&small);
    blob_unref(&bad);
}

// A job that its client waits for is not stored: its files go when nobody holds it any more.
static void test_not_stored(void)
{
    struct blob *image = file(W, H, 1, false), *mask = file(W, H, 0, true);
    struct job_spec s = spec_of(0);
    s.durable = s.keep = false;
    open_jobs(true, 1 << 20);
    struct outcome o = submit_spec(&s, image, mask);
    CHECK(o.job);
    CHECK_INT(jobs_stats(jobs).input_bytes, image->size + mask->size);
    wait_for(has_ended, o.job);
    let_go(o.job);
    CHECK_INT(jobs_stats(jobs).input_bytes, 0);
    CHECK_INT(files_in("inputs"), 0);
    close_jobs();
    blob_unref(&image);
    blob_unref(&mask);
}

// Two requests with one key at the same time: neither finds the other's job when it asks for it
// first, and they get one job.
static void test_at_the_same_time(void)
{
    struct job_spec s = spec_of(0);
    s.idempotency_key = "k";
    s.body_hash = "h";
    struct jobs_ask *ask[2];
    struct outcome o[2] = {{0}};
    open_jobs(true, 1 << 20);
    for (int i = 0; i < 2; i++)
        jobs_submit(jobs, &s, on_submitted, &o[i], &ask[i]);
    for (int i = 0; i < 2; i++)
        wait_for(is_true, &o[i].there);
    CHECK(o[0].job && o[1].job == o[0].job);
    if (o[0].job && o[1].job) {
        wait_for(has_ended, o[0].job);
        let_go(o[0].job);
        remove_job(o[0].job);
    }
    CHECK_INT(jobs_stats(jobs).jobs, 0);
    close_jobs();
}

static bool is_running(void *job)
{
    return ((struct job *)job)->state == JOB_RUNNING;
}

// A job whose end could not be stored, and that cannot be removed either, is what it was: its row
// still says that it has to be drawn.
static void test_not_removed(void)
{
    struct job_spec s = spec_of(0);
    s.request.prompt = "[hang]";
    struct jobs_ask *ask;
    struct outcome o = {0}, removed = {0}, found = {0};
    struct rlimit before, none;
    open_jobs(true, 1 << 20);
    jobs_submit(jobs, &s, on_submitted, &o, &ask);
    wait_for(is_true, &o.there);
    wait_for(is_running, o.job);
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    none = (struct rlimit){0, before.rlim_max};
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && !setrlimit(RLIMIT_FSIZE, &none));
    jobs_cancel(jobs, o.job);
    wait_for(has_ended, o.job);
    char id[JOB_ID_SIZE];
    snprintf(id, sizeof id, "%s", o.job->id);
    jobs_remove(jobs, o.job, on_submitted, &removed, &ask);
    let_go(o.job);
    wait_for(is_true, &removed.there);
    CHECK(removed.why.code);
    jobs_find(jobs, &(struct jobs_lookup){id, NULL, NULL, JOBS_NO_IMAGE}, on_submitted, &found,
              &ask);
    wait_for(is_true, &found.there);
    CHECK(found.job && found.job->state == JOB_CANCELLED);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    if (found.job)
        remove_job(found.job);
    close_jobs();
}

// A job that waits when the program ends is done after the next start, with its files; what no job
// has is swept.
static void test_restart(void)
{
    struct blob *image = file(W, H, 2, false), *mask = file(W, H, 0, true);
    char held[64], orphan[128], id[JOB_ID_SIZE];
    struct outcome again = {0};
    struct jobs_ask *ask;
    snprintf(held, sizeof held, "%s/held", folder);
    snprintf(orphan, sizeof orphan, "%s/inputs/%064d", folder, 7);
    open_jobs(true, 1 << 20);
    setenv("FAKE_HELD", held, 1);
    fclose(fopen(held, "w"));
    struct outcome o = submit(0, image, mask);
    CHECK(o.job);
    snprintf(id, sizeof id, "%s", o.job->id);
    close_jobs();
    CHECK_INT(files_in("inputs"), 2);
    fclose(fopen(orphan, "w"));
    unlink(held);
    open_jobs(true, 1 << 20);
    jobs_find(jobs, &(struct jobs_lookup){id, NULL, NULL, JOBS_NO_IMAGE}, on_submitted, &again,
              &ask);
    wait_for(is_true, &again.there);
    struct job *job = again.job;
    CHECK_INT(files_in("inputs"), 2);
    CHECK(access(orphan, F_OK));
    CHECK_STR(job->id, id);
    CHECK(job->spec.request.edit != NULL);
    check_kept(job, image);
    remove_job(job);
    CHECK_INT(files_in("inputs"), 0);
    close_jobs();
    unsetenv("FAKE_HELD");
    blob_unref(&image);
    blob_unref(&mask);
}

int main(void)
{
    char command[64];
    CHECK(mkdtemp(folder));
    CHECK_INT(uv_loop_init(&loop), 0);
    test_life(false);
    test_life(true);
    test_refused();
    test_not_stored();
    test_at_the_same_time();
    test_not_removed();
    test_restart();
    CHECK_INT(uv_loop_close(&loop), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
    return test_end();
}
