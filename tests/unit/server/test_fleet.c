// Two replicas that share a store, in one process with the fake engine: any of them answers for any
// job, a job is drawn once though replicas are lost, and every watcher learns of one end.
#include "clock.h"
#include "jobs.h"
#include "sha256.h"
#include "shared_store.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { REPLICAS = 2, PAST_LEASE = STORE_LEASE_MS + 1 };

static uv_loop_t loop;
static struct shared *shared;
static int steps; // of the next job's images; 0: default

static struct replica {
    struct engine_params engine;
    struct store *store;
    struct jobs *jobs;
} replica[REPLICAS];

// A client that watches a job in one of the replicas.
struct client {
    struct job_watch watch;
    struct replica *at;
    char id[JOB_ID_SIZE];
    struct fault why;     // refused
    bool answered, leave; // leave: when it is accepted
    int events[JOB_EVENT_SHUTDOWN + 1];
    int pictures[JOB_MAX_PICTURES], images; // images: that were there at the end
    enum job_state state;
    struct fault fault; // of the end
    uint64_t last;      // event
    void (*on_picture)(struct client *c);
};

// ---- the loop ---------------------------------------------------------------------------------

static void on_timer(uv_timer_t *t)
{
    (void)t;
}

// Runs the loop until the condition holds; false: it never did.
static bool wait_until(bool (*holds)(void *), void *ctx, double seconds)
{
    const double until = clock_seconds() + seconds;
    uv_timer_t tick;
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_timer, 5, 5);
    while (!holds(ctx) && clock_seconds() < until)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
    return holds(ctx);
}

static void wait_for(bool (*holds)(void *), void *ctx)
{
    CHECK(wait_until(holds, ctx, test_patience()));
}

static bool never(void *none)
{
    return false;
}

static void run_for(double seconds)
{
    wait_until(never, NULL, seconds);
}

static bool is_true(void *flag)
{
    return *(bool *)flag;
}

// ---- replicas ---------------------------------------------------------------------------------

static bool is_ready(void *ctx)
{
    struct replica *r = ctx;
    struct fault why;
    return jobs_ready(r->jobs, &why);
}

static void open_replica(int i, int slots)
{
    struct replica *r = &replica[i];
    r->engine = (struct engine_params){.model = "fake", .slots = slots};
    struct jobs_params p = {
        .loop = &loop,
        .limits = {.queued = 8,
                   .queued_per_owner = 8,
                   .keep_ms = 3600000,
                   .keep_jobs = 100,
                   .keep_bytes = 1 << 30,
                   .input_bytes = 1 << 20},
        .engine = &r->engine,
        .models = 1,
        .digest = sha256_hex,
    };
    struct fault why = {0};
    r->store = p.store = shared_open(shared, i);
    CHECK_MSG(!jobs_create(&p, &r->jobs, &why), "%s", why.msg);
    wait_for(is_ready, r);
}

static void open_fleet(int slots)
{
    shared = shared_create(&loop);
    for (int i = 0; i < REPLICAS; i++)
        open_replica(i, slots);
}

static void on_closed(void *flag)
{
    *(bool *)flag = true;
}

static void close_replica(int i)
{
    bool closed = false;
    if (!replica[i].jobs)
        return;
    shared_cut_off(replica[i].store, false);
    jobs_close(replica[i].jobs, on_closed, &closed);
    wait_for(is_true, &closed);
    replica[i].jobs = NULL;
}

static void close_fleet(void)
{
    for (int i = 0; i < REPLICAS; i++)
        close_replica(i);
    shared_destroy(shared);
}

static void cut_off(int i, bool cut)
{
    shared_cut_off(replica[i].store, cut);
}

// ---- clients ----------------------------------------------------------------------------------

static void on_event(struct job_watch *w, const struct job_event *ev)
{
    struct client *c = w->ctx;
    struct job *job = w->job;
    struct blob *image;
    c->events[ev->type]++;
    CHECK(ev->id > c->last);
    c->last = ev->id;
    if (ev->type == JOB_EVENT_PICTURE) {
        CHECK(ev->blob || !w->images);
        c->pictures[ev->picture]++;
        if (c->on_picture)
            c->on_picture(c);
    }
    CHECK(ev->type != JOB_EVENT_PREVIEW || ev->blob);
    if (ev->type != JOB_EVENT_END)
        return;
    c->state = job->state;
    c->fault = job->fault;
    for (int i = 0; w->images && i < job->spec.n; i++) {
        if (jobs_image(c->at->jobs, job, i, &image, NULL))
            continue;
        c->images++;
        blob_unref(&image);
    }
}

static void on_job(void *ctx, struct job *job, const struct fault *why)
{
    struct client *c = ctx;
    c->answered = true;
    if (!job) {
        c->why = *why;
        return;
    }
    memcpy(c->id, job->id, sizeof c->id);
    if (c->leave)
        return;
    c->watch.event = on_event;
    c->watch.ctx = c;
    jobs_watch(c->at->jobs, job, &c->watch);
}

static struct job_spec spec_of(const char *prompt, int n, bool durable)
{
    struct job_spec s = {.request = {.prompt = prompt, .size = {64, 64}, .steps = {steps}},
                         .n = n,
                         .previews = 4,
                         .owner = "",
                         .client = "192.0.2.1",
                         .api = "jobs",
                         .durable = durable,
                         .keep = durable};
    for (int i = 0; i < PICTURE_MAX_STAGES; i++)
        s.request.noise_level[i] = -1;
    return s;
}

// n images; the client watches the job where it submitted it. Owner: the caller closes the client.
static struct client *submit(int at, const char *prompt, int n, bool durable)
{
    struct client *c = calloc(1, sizeof *c);
    const struct job_spec s = spec_of(prompt, n, durable);
    struct jobs_ask *ask;
    c->at = &replica[at];
    c->watch.images = true;
    jobs_submit(c->at->jobs, &s, on_job, c, &ask);
    wait_for(is_true, &c->answered);
    return c;
}

// Another client of the job.
static struct client *follow(int at, const char *id, bool previews)
{
    struct client *c = calloc(1, sizeof *c);
    struct jobs_ask *ask;
    c->at = &replica[at];
    c->watch.previews = previews;
    jobs_find(c->at->jobs, &(struct jobs_lookup){id, NULL, "", JOBS_NO_IMAGE}, on_job, c, &ask);
    wait_for(is_true, &c->answered);
    CHECK(c->watch.job != NULL);
    return c;
}

static void leave(struct client *c)
{
    if (c->watch.job)
        jobs_unwatch(c->at->jobs, &c->watch);
    free(c);
}

static bool has_ended(void *client)
{
    return ((struct client *)client)->events[JOB_EVENT_END];
}

static bool has_started(void *client)
{
    return ((struct client *)client)->events[JOB_EVENT_STARTED];
}

// Waits for its end, and longer, lest there be another.
static void check_end(struct client *c, enum job_state state)
{
    wait_for(has_ended, c);
    run_for(0.3);
    CHECK_INT(c->events[JOB_EVENT_END], 1);
    CHECK_MSG(c->state == state, "state %d: %s", (int)c->state, c->fault.msg);
}

static struct shared_job log_of(const struct client *c)
{
    return shared_job(shared, c->id);
}

struct drawn_by {
    const struct client *c;
    int replica;
};

static bool is_drawn_by(void *ctx)
{
    const struct drawn_by *d = ctx;
    return log_of(d->c).replica == d->replica;
}

static void wait_drawn_by(const struct client *c, int i)
{
    wait_for(is_drawn_by, &(struct drawn_by){c, i});
}

// ---- the tests --------------------------------------------------------------------------------

// A replica with a free slot draws what it accepts, without another call.
static void test_claimed_when_accepted(void)
{
    open_fleet(1);
    struct client *c = submit(0, "a cat", 1, false);
    CHECK_INT(log_of(c).claims, 1);
    check_end(c, JOB_DONE);
    CHECK_INT(c->images, 1);
    CHECK_INT(c->pictures[0], 1);
    const struct shared_job log = log_of(c);
    CHECK(log.claims == 1 && log.drawn[0] == 1 && log.ends == 1 && !log.stale);
    leave(c);
    close_fleet();
}

static bool draws_nothing(void *r)
{
    return !jobs_stats(((struct replica *)r)->jobs).running;
}

// A slot that becomes free while a claim is under way, which was made for no room, is used at once.
static void test_claimed_when_a_slot_is_free(void)
{
    open_fleet(1);
    struct client *busy = submit(1, "[hang]", 1, true);
    steps = 20; // which take two seconds, so that there is a regular claim
    struct client *first = submit(0, "a cat [slow]", 1, true);
    steps = 0;
    struct client *c = submit(0, "a cat", 1, true);
    CHECK_INT(log_of(c).replica, -1);
    wait_for(has_started, first);
    cut_off(0, true);
    wait_for(draws_nothing, &replica[0]);
    cut_off(0, false);
    for (int i = 0; i < 20; i++) // in less time than until the next regular claim
        uv_run(&loop, UV_RUN_NOWAIT);
    CHECK_INT(log_of(c).replica, 0);
    check_end(c, JOB_DONE);
    leave(c);
    leave(first);
    leave(busy);
    close_fleet();
}

// A busy replica's job is drawn by another one, and its client notices nothing.
static void test_drawn_elsewhere(void)
{
    open_fleet(1);
    struct client *busy = submit(0, "[hang]", 1, true);
    steps = 30; // which take three seconds
    struct client *c = submit(0, "a cat [slow]", 2, false), *other;
    steps = 0;
    wait_drawn_by(c, 1);
    other = follow(0, c->id, true);
    check_end(c, JOB_DONE);
    CHECK_INT(c->images, 2);
    CHECK(c->pictures[0] == 1 && c->pictures[1] == 1);
    CHECK_INT(c->events[JOB_EVENT_STARTED], 1);
    CHECK(c->events[JOB_EVENT_STEP] >= 1);
    check_end(other, JOB_DONE);
    CHECK(other->events[JOB_EVENT_PREVIEW] >= 1); // and with its image
    CHECK_INT(other->events[JOB_EVENT_PICTURE], 2);
    CHECK_INT(log_of(c).claims, 1);
    leave(other);
    leave(c);
    leave(busy);
    close_fleet();
}

static void on_picture_cut_off(struct client *c)
{
    shared_cut_off(c->at->store, true);
}

// A replica is lost after its first image of two: another one draws the second one only. What the
// lost one still writes is refused, and it drops the job without a word.
static void test_lost_replica(void)
{
    open_fleet(1);
    struct client *c = submit(0, "a cat [slow]", 2, true), *other;
    CHECK_INT(log_of(c).replica, 0);
    c->on_picture = on_picture_cut_off;
    other = follow(1, c->id, false);
    while (!c->pictures[0])
        run_for(0.05);
    shared_pass(shared, PAST_LEASE);
    wait_drawn_by(c, 1);
    run_for(1.2); // meanwhile the lost one is done, too
    cut_off(0, false);
    check_end(c, JOB_DONE);
    check_end(other, JOB_DONE);
    const struct shared_job log = log_of(c);
    CHECK(log.drawn[0] == 1 && log.drawn[1] == 1);
    CHECK(log.ends == 1 && log.claims == 2);
    CHECK(log.stale >= 1);
    CHECK(c->pictures[0] == 1 && c->pictures[1] == 1 && c->images == 2);
    leave(other);
    leave(c);
    close_fleet();
}

// A client cancels a job in a replica that has lost it, unawares: its end is refused, and the
// replica that has the job learns of the wish.
static void test_stale_end(void)
{
    open_fleet(1);
    struct client *c = submit(0, "[hang]", 1, true);
    wait_for(has_started, c);
    cut_off(0, true);
    jobs_cancel(replica[0].jobs, c->watch.job);
    shared_pass(shared, PAST_LEASE);
    wait_drawn_by(c, 1);
    CHECK_INT(c->events[JOB_EVENT_END], 0);
    cut_off(0, false);
    check_end(c, JOB_CANCELLED);
    CHECK(log_of(c).stale == 1 && log_of(c).ends == 1);
    leave(c);
    close_fleet();
}

struct beats {
    int replica, n;
};

static bool has_beaten(void *ctx)
{
    const struct beats *b = ctx;
    return shared_calls(shared, b->replica, STORE_BEAT) >= b->n;
}

// A job that takes long stays where it is, as long as its replica lives.
static void test_heartbeats(void)
{
    open_fleet(1);
    struct client *c = submit(0, "[hang]", 1, true);
    for (int i = 0; i < 3; i++) {
        shared_pass(shared, STORE_LEASE_MS - 1);
        struct beats b = {0, shared_calls(shared, 0, STORE_BEAT) + 1};
        CHECK(wait_until(has_beaten, &b, 5));
    }
    run_for(1.2);
    CHECK(log_of(c).replica == 0 && log_of(c).claims == 1);
    leave(c);
    close_fleet();
}

static void cancel_at(int at, const char *id)
{
    struct client *c = follow(at, id, false);
    jobs_cancel(c->at->jobs, c->watch.job);
    check_end(c, JOB_CANCELLED);
    leave(c);
}

// A client cancels a job that runs in, or waits for, another replica.
static void test_cancelled_elsewhere(void)
{
    open_fleet(1);
    struct client *a = submit(0, "[hang]", 1, true), *b = submit(1, "[hang]", 1, true);
    struct client *waits = submit(0, "a cat", 1, true);
    wait_for(has_started, a);
    wait_for(has_started, b);
    CHECK_INT(log_of(waits).replica, -1);
    cancel_at(1, waits->id);
    check_end(waits, JOB_CANCELLED);
    CHECK_INT(log_of(waits).claims, 0);
    cancel_at(1, a->id);
    check_end(a, JOB_CANCELLED);
    CHECK_INT(log_of(a).ends, 1);
    // A client that leaves cancels what only it wanted.
    struct client *sync = submit(1, "[hang]", 1, false);
    wait_drawn_by(sync, 0);
    struct client *seen = follow(1, sync->id, false);
    leave(sync);
    jobs_unwatch(seen->at->jobs, &seen->watch);
    seen->answered = false;
    char id[JOB_ID_SIZE];
    memcpy(id, seen->id, sizeof id);
    leave(seen);
    seen = follow(0, id, false);
    if (!has_ended(seen) && seen->watch.job && !job_ended(seen->watch.job))
        check_end(seen, JOB_CANCELLED);
    else
        CHECK_INT(seen->watch.job->state, JOB_CANCELLED);
    leave(seen);
    leave(b);
    leave(waits);
    leave(a);
    close_fleet();
}

// A job whose replicas are lost again and again fails.
static void test_poisoned(void)
{
    open_fleet(1);
    struct client *c = submit(0, "[hang]", 1, true);
    for (int i = 0; i < JOB_MAX_CLAIMS; i++) {
        const int from = i % 2;
        wait_drawn_by(c, from);
        cut_off(1 - from, false);
        run_for(0.3);
        CHECK_INT(log_of(c).claims, i + 1);
        cut_off(from, true);
        shared_pass(shared, PAST_LEASE);
    }
    cut_off(0, false);
    cut_off(1, false);
    check_end(c, JOB_FAILED);
    CHECK_MSG(strstr(c->fault.msg, "given up") != NULL, "%s", c->fault.msg);
    CHECK_INT(log_of(c).drawn[0], 0);
    leave(c);
    close_fleet();
}

// A replica that stops hands its jobs back, which does not count as an attempt.
static void test_handed_back(void)
{
    open_fleet(1);
    struct client *a = submit(0, "a cat [slow]", 2, true), *c;
    wait_for(has_started, a);
    c = follow(1, a->id, false);
    jobs_drain(replica[0].jobs);
    struct client *refused = submit(0, "a dog", 1, true);
    CHECK_INT(refused->why.code, ERR_BUSY);
    jobs_abandon(replica[0].jobs);
    CHECK_INT(a->events[JOB_EVENT_SHUTDOWN], 1);
    leave(a);
    close_replica(0);
    wait_drawn_by(c, 1);
    CHECK_INT(log_of(c).claims, 1);
    check_end(c, JOB_DONE);
    CHECK(log_of(c).drawn[0] == 1 && log_of(c).drawn[1] == 1);
    leave(c);
    leave(refused);
    close_fleet();
}

// The queue is the fleet's.
static void test_full_queue(void)
{
    open_fleet(1);
    struct client *a = submit(0, "[hang]", 1, true), *b = submit(1, "[hang]", 1, true);
    struct client *waits = submit(0, "a cat", 8, true), *refused = submit(1, "a cat", 1, true);
    CHECK(!waits->why.code && refused->why.code == ERR_BUSY);
    CHECK_STR(refused->why.param, "queue");
    leave(refused);
    leave(waits);
    leave(b);
    leave(a);
    close_fleet();
}

// A replica stops while it waits for an input image, which only its loop can fetch.
static void test_stopped_without_the_input(void)
{
    static const char name[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    bool closed = false;
    open_fleet(1);
    struct client c = {.at = &replica[0], .leave = true};
    struct job_spec s = spec_of("a cat", 1, true);
    struct jobs_ask *ask;
    s.input.image = name;
    s.input.size = (struct check_size){64, 64};
    job_spec_link(&s);
    shared_hold_files(replica[0].store, true);
    jobs_submit(replica[0].jobs, &s, on_job, &c, &ask);
    wait_for(is_true, &c.answered);
    CHECK_INT(log_of(&c).replica, 0);
    run_for(0.2);
    jobs_close(replica[0].jobs, on_closed, &closed);
    run_for(0.2);
    CHECK(!closed);
    shared_hold_files(replica[0].store, false);
    wait_for(is_true, &closed);
    replica[0].jobs = NULL;
    wait_drawn_by(&c, 1); // it was handed back
    close_fleet();
}

// Progress and interruption of the A1111 API find the job of a client in any replica.
static void test_current(void)
{
    struct client found = {.at = &replica[1]};
    struct jobs_ask *ask;
    open_fleet(1);
    struct client *c = submit(0, "[hang]", 1, true);
    jobs_current(replica[1].jobs, &(struct jobs_who){"", "192.0.2.2", "jobs"}, on_job, &found,
                 &ask);
    wait_for(is_true, &found.answered);
    CHECK_INT(found.why.code, ERR_NOT_FOUND);
    found.answered = false;
    jobs_current(replica[1].jobs, &(struct jobs_who){"", "192.0.2.1", "jobs"}, on_job, &found,
                 &ask);
    wait_for(is_true, &found.answered);
    CHECK_STR(found.id, c->id);
    if (found.watch.job)
        jobs_unwatch(replica[1].jobs, &found.watch);
    leave(c);
    close_fleet();
}

int main(void)
{
    CHECK_INT(uv_loop_init(&loop), 0);
    RUN(test_claimed_when_accepted());
    RUN(test_claimed_when_a_slot_is_free());
    RUN(test_drawn_elsewhere());
    RUN(test_lost_replica());
    RUN(test_stale_end());
    RUN(test_heartbeats());
    RUN(test_cancelled_elsewhere());
    RUN(test_poisoned());
    RUN(test_handed_back());
    RUN(test_full_queue());
    RUN(test_stopped_without_the_input());
    RUN(test_current());
    CHECK_INT(uv_loop_close(&loop), 0);
    return test_end();
}
