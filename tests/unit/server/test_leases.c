// Two replicas that share a PostgreSQL: who may draw a job, and what the other one learns. Started
// by tests/api/postgres.py, which sets IMAGEND_TEST_DATABASE. What needs time is moved in the
// database: the tests let leases end and the database be old.
#include "blob.h"
#include "clock.h"
#include "pg.h"
#include "store.h"
#include "test.h"

#include <stdlib.h>
#include <uv.h>

static uv_loop_t loop;
static const char *database;
static struct store *a, *b; // the replicas
static int hints;           // that came to b

// ---- calls --------------------------------------------------------------------------------------

static void on_done(struct store_call *c)
{
    *(bool *)c->ctx = true;
}

static struct store_call *run(struct store *s, struct store_call *c)
{
    bool done = false;
    c->done = on_done;
    c->ctx = &done;
    s->ops->call(s, c);
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    return c;
}

static struct store_call *about(enum store_op op, const struct job *j)
{
    return store_call_about(op, j, NULL, NULL);
}

static struct store_call *ask(enum store_op op, const char *id)
{
    struct store_call *c = store_call_create(op, NULL, NULL);
    snprintf(c->id, sizeof c->id, "%s", id);
    return c;
}

static void on_sql(struct pg_call *q)
{
    *(struct pg_call **)q->ctx = q;
}

static struct pg *admin;

// The first field of a statement's result. Owner: static.
static const char *sql(const char *text)
{
    static char field[100];
    struct pg_call *done = NULL, *q = pg_call_create(on_sql, &done);
    pg_query(q, text, false);
    pg_send(admin, q);
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_MSG(!q->why.code, "%s: %s", text, q->why.msg);
    snprintf(field, sizeof field, "%s",
             !q->why.code && PQnfields(q->result[0]) && pg_rows(q, 0) ? pg_get(q, 0, 0, 0) : "");
    pg_call_free(q);
    return field;
}

// All leases end, of a database that has been up for long.
static void let_leases_end(void)
{
    sql("CREATE OR REPLACE FUNCTION imagend.up_ms() RETURNS bigint LANGUAGE sql AS"
        " 'SELECT 1000000::bigint'");
    sql("UPDATE imagend.job SET lease_until = clock_timestamp() - interval '1 ms'"
        " WHERE lease_until IS NOT NULL");
}

// ---- jobs ---------------------------------------------------------------------------------------

static int made;

static struct job *make(const char *owner, int n)
{
    struct job *j = job_create();
    const struct job_spec s = {.request = {.prompt = "a", .size = {64, 64}},
                               .n = n,
                               .owner = owner,
                               .api = "jobs",
                               .durable = true,
                               .keep = true};
    CHECK(!job_spec_copy(&s, &j->spec, &j->spec_text));
    snprintf(j->id, sizeof j->id, "job_%032x", ++made);
    snprintf(j->token, sizeof j->token, "%032x", made);
    snprintf(j->used.model, sizeof j->used.model, "m");
    snprintf(j->used.sampler, sizeof j->used.sampler, "ddim");
    j->used.size = j->used.drawn = j->spec.request.size;
    j->used.stages = 1;
    j->used.steps[0] = 4;
    j->created = 1000 + made;
    return j;
}

// Accepts a job while room images can start. The lease is in the job.
static enum err admit(struct store *s, struct job *j, int room)
{
    struct store_call *c = about(STORE_ACCEPT, j);
    c->room = room;
    c->quota = (struct store_quota){1000, 1000, 0};
    const enum err err = run(s, c)->why.code;
    j->seq = c->job->seq;
    j->lease = c->job->lease;
    j->claims = c->job->claims;
    store_call_free(c);
    return err;
}

// Claims; out: the jobs, whose owner is the caller. Returns their number.
static int claim(struct store *s, int room, int per_owner, struct job *out[16])
{
    struct store_call *c = ask(STORE_CLAIM, "");
    c->room = room;
    c->quota.running_per_owner = per_owner;
    c->keep.webhooks = true;
    run(s, c);
    CHECK_MSG(!c->why.code, "%s", c->why.msg);
    const int n = c->n;
    for (int i = 0; i < n && i < 16; i++) {
        out[i] = c->jobs[i];
        c->jobs[i] = NULL;
    }
    store_call_free(c);
    return n;
}

static void free_all(struct job *jobs[16], int n)
{
    for (int i = 0; i < n && i < 16; i++)
        job_free(&jobs[i]);
}

// The numbers of claimed jobs after a base, as text.
static void check_claim(struct store *s, int room, int per_owner, int base, const char *want)
{
    struct job *jobs[16];
    char got[100] = "";
    const int n = claim(s, room, per_owner, jobs);
    for (int i = 0; i < n && i < 16; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%ld", i ? " " : "",
                 strtol(jobs[i]->id + 4, NULL, 16) - base);
    CHECK_STR(got, want);
    free_all(jobs, n);
}

static enum err change(struct store *s, enum store_op op, struct job *j)
{
    struct store_call *c = run(s, about(op, j));
    const enum err err = c->why.code;
    store_call_free(c);
    return err;
}

static enum err draw(struct store *s, struct job *j, int picture, const char *bytes)
{
    j->picture[picture] =
        (struct job_picture){.state = JOB_DONE, .bytes = strlen(bytes), .width = 64, .height = 64};
    struct store_call *c = about(STORE_DRAWN, j);
    c->picture = picture;
    c->image = blob_create((uint8_t *)strdup(bytes), strlen(bytes));
    const enum err err = run(s, c)->why.code;
    store_call_free(c);
    return err;
}

static enum err end(struct store *s, struct job *j, enum job_state state)
{
    j->state = state;
    j->finished = clock_unix_ms();
    j->expires = j->finished + 1000;
    return change(s, STORE_FINISH, j);
}

static struct job *find(struct store *s, const char *id)
{
    struct store_call *c = run(s, ask(STORE_FIND, id));
    struct job *j = c->n ? c->jobs[0] : NULL;
    if (j)
        c->jobs[0] = NULL;
    store_call_free(c);
    return j;
}

static void check_state(const struct job *like, enum job_state state)
{
    struct job *j = find(b, like->id);
    CHECK_STR(j ? job_state_name(j->state) : "no job", job_state_name(state));
    job_free(&j);
}

static struct store_call *leases(enum store_op op, const struct job *j)
{
    struct store_call *c = ask(op, "");
    c->lease = calloc(1, sizeof *c->lease);
    c->n_lease = 1;
    memcpy(c->lease->id, j->id, sizeof j->id);
    c->lease->token = j->lease;
    return c;
}

static struct store_lease beat(struct store *s, const struct job *j, bool progress)
{
    struct store_call *c = leases(STORE_BEAT, j);
    c->lease->progress = progress ? job_snapshot(j) : NULL;
    if (progress && j->picture[0].latest)
        c->lease->progress->picture[0].latest = blob_ref(j->picture[0].latest);
    run(s, c);
    CHECK_MSG(!c->why.code, "%s", c->why.msg);
    const struct store_lease l = *c->lease;
    store_call_free(c);
    return l;
}

static struct job *watch(struct store *s, const struct job *j, bool previews, int seen)
{
    struct store_call *c = ask(STORE_WATCH, "");
    c->watched = calloc(1, sizeof *c->watched);
    c->n_watched = 1;
    memcpy(c->watched->id, j->id, sizeof j->id);
    c->watched->previews = previews;
    c->watched->seen[0] = seen;
    run(s, c);
    CHECK_MSG(!c->why.code, "%s", c->why.msg);
    struct job *now = c->watched->now;
    c->watched->now = NULL;
    store_call_free(c);
    return now;
}

static void empty(void)
{
    sql("DELETE FROM imagend.job");
    sql("DELETE FROM imagend.load");
}

// ---- tests --------------------------------------------------------------------------------------

static void test_start_at_once(void)
{
    struct job *first = make("", 2), *second = make("", 1), *third = make("", 1);
    CHECK(!admit(a, first, 4));
    CHECK(first->lease > 0 && first->claims == 1);
    check_state(first, JOB_RUNNING);
    CHECK(!admit(b, second, 0)); // no room
    CHECK(!second->lease);
    check_state(second, JOB_QUEUED);
    CHECK(!admit(b, third, 4)); // another one waits
    CHECK(!third->lease);
    CHECK(!admit(b, second, 4)); // a repeated call is the same job
    CHECK_STR(sql("SELECT count(*) FROM imagend.job"), "3");
    CHECK_STR(sql("SELECT queued * 10 + running FROM imagend.load"), "22");
    check_claim(b, 4, 0, made - 2, "1 2");
    check_claim(a, 4, 0, made - 2, "");
    job_free(&first);
    job_free(&second);
    job_free(&third);
    empty();
}

// Owners in turn; an owner's by priority, then age; nobody beyond the limit.
static void test_order(void)
{
    static const struct {
        const char *owner;
        int n, priority;
    } jobs[] = {{"x", 1, 0}, {"x", 1, 0}, {"x", 1, 5}, {"y", 1, 0}, {"y", 2, 0}, {"z", 4, 0}};
    const int base = made;
    for (int i = 0; i < 6; i++) {
        struct job *j = make(jobs[i].owner, jobs[i].n);
        j->spec.priority = jobs[i].priority;
        CHECK(!admit(a, j, 0));
        job_free(&j);
    }
    check_claim(a, 0, 0, base, "");
    check_claim(a, 3, 1, base, "3 4 6"); // z has none running: it may have more than the limit
    check_claim(b, 9, 1, base, "");
    check_claim(b, 1, 2, base, "1");
    check_claim(b, 9, 3, base, "5 2");
    empty();
}

static void test_quota(void)
{
    static const struct {
        const char *owner;
        int n, most, own;
        enum err err;
    } cases[] = {
        {"x", 3, 4, 4, ERR_OK}, {"x", 2, 4, 9, ERR_BUSY}, {"x", 1, 4, 3, ERR_BUSY},
        {"y", 1, 4, 3, ERR_OK}, {"y", 1, 4, 3, ERR_BUSY}, {"y", 1, 0, 0, ERR_OK}, // 0: no limit
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct job *j = make(cases[i].owner, cases[i].n);
        struct store_call *c = about(STORE_ACCEPT, j);
        c->quota = (struct store_quota){cases[i].most, cases[i].own, 0};
        run(i % 2 ? a : b, c);
        CHECK_MSG(c->why.code == cases[i].err, "case %zu: %s", i, c->why.msg);
        if (c->why.code)
            CHECK_STR(c->why.param, "queue");
        store_call_free(c);
        job_free(&j);
    }
    empty();
}

// A replica that was gone for longer than its lease cannot write what another one draws now.
static void test_fencing(void)
{
    struct job *j = make("", 2), *jobs[16];
    CHECK(!admit(a, j, 4));
    CHECK(!draw(a, j, 0, "first"));
    check_claim(b, 4, 0, made - 1, "");
    let_leases_end();
    CHECK_INT(claim(b, 4, 0, jobs), 1);
    struct job *now = jobs[0];
    CHECK(now->lease > j->lease && now->claims == 2);
    CHECK_INT(now->picture[0].state, JOB_DONE); // it is not drawn again
    CHECK_INT(now->picture[1].state, JOB_QUEUED);
    CHECK(beat(a, j, true).lost);
    CHECK_INT(draw(a, j, 1, "stale"), ERR_STALE);
    CHECK_INT(end(a, j, JOB_FAILED), ERR_STALE);
    CHECK_INT(change(a, STORE_NOTE, j), ERR_STALE);
    check_state(j, JOB_RUNNING);
    CHECK(!beat(b, now, false).lost);
    now->state = JOB_DONE;
    now->finished = 5;
    now->expires = INT64_MAX;
    CHECK(!draw(b, now, 1, "second"));
    check_state(j, JOB_DONE);
    CHECK(!draw(b, now, 1, "second")); // the call of a lost answer, again
    CHECK_INT(draw(a, j, 1, "stale"), ERR_STALE);
    CHECK_STR(sql("SELECT string_agg(convert_from(bytes, 'UTF8'), ',' ORDER BY picture)"
                  " FROM imagend.image"),
              "first,second");
    CHECK_STR(sql("SELECT queued + running FROM imagend.load"), "0");
    job_free(&j);
    job_free(&now);
    empty();
    sql("DELETE FROM imagend.image");
}

// A lease that ended, but that nobody else took, goes on.
static void test_late_beat(void)
{
    struct job *j = make("", 1);
    CHECK(!admit(a, j, 4));
    let_leases_end();
    CHECK(!beat(a, j, false).lost);
    check_claim(b, 4, 0, made - 1, "");
    check_state(j, JOB_RUNNING);
    job_free(&j);
    empty();
}

// Leases that ended while the database was away are not taken before their replicas are back.
static void test_database_was_away(void)
{
    struct job *j = make("", 1);
    CHECK(!admit(a, j, 4));
    let_leases_end();
    sql("CREATE OR REPLACE FUNCTION imagend.up_ms() RETURNS bigint LANGUAGE sql AS"
        " 'SELECT 14000::bigint'");
    check_claim(b, 4, 0, made - 1, "");
    let_leases_end();
    check_claim(b, 4, 0, made - 1, "1");
    job_free(&j);
    empty();
}

static void test_release(void)
{
    struct job *j = make("", 2), *again;
    CHECK(!admit(a, j, 4));
    CHECK(!draw(a, j, 0, "first"));
    store_call_free(run(a, leases(STORE_RELEASE, j)));
    again = find(b, j->id);
    CHECK(again && again->state == JOB_QUEUED && again->claims == 0);
    job_free(&again);
    CHECK_INT(draw(a, j, 1, "late"), ERR_STALE);
    CHECK_STR(sql("SELECT queued * 10 + running FROM imagend.load"), "10");
    check_claim(b, 4, 0, made - 1, "1");
    job_free(&j);
    empty();
}

// A job that was lost again and again comes back once more, for its end.
static void test_poison(void)
{
    struct job *j = make("", 1), *jobs[16];
    CHECK(!admit(a, j, 4));
    for (int i = 2; i <= JOB_MAX_CLAIMS + 1; i++) {
        let_leases_end();
        // The last claim needs no room.
        CHECK_INT(claim(b, i > JOB_MAX_CLAIMS ? 0 : 1, 0, jobs), 1);
        CHECK_INT(jobs[0]->claims, i);
        job_free(&j);
        j = jobs[0];
    }
    CHECK(!end(b, j, JOB_FAILED));
    let_leases_end();
    check_claim(b, 4, 0, made - 1, "");
    job_free(&j);
    empty();
}

static void test_cancel(void)
{
    struct job *waits = make("", 1), *runs = make("", 1), *lost = make("", 1);
    CHECK(!admit(a, runs, 4));
    CHECK(!admit(a, waits, 0));
    struct job *all[] = {waits, runs};
    for (int i = 0; i < 2; i++) {
        all[i]->state = JOB_CANCELLED;
        all[i]->finished = all[i]->expires = 77;
        struct job *copy = job_snapshot(all[i]);
        copy->lease = 0; // b does not draw it
        struct store_call *c = run(b, about(STORE_CANCEL, copy));
        CHECK_INT(c->n, 1);
        CHECK_INT(c->jobs[0]->state, i ? JOB_RUNNING : JOB_CANCELLED);
        store_call_free(c);
        job_free(&copy);
    }
    check_claim(a, 4, 0, made - 3, "");
    CHECK(beat(a, runs, false).cancel);
    CHECK(!end(a, runs, JOB_CANCELLED));
    check_state(runs, JOB_CANCELLED);
    // The end came first: the cancellation changes nothing.
    struct store_call *c = run(b, about(STORE_CANCEL, runs));
    CHECK(c->n && c->jobs[0]->state == JOB_CANCELLED);
    store_call_free(c);
    // A lost one that was cancelled is for its end, too.
    CHECK(!admit(a, lost, 4));
    sql("UPDATE imagend.job SET cancel = true WHERE state = 'running'");
    let_leases_end();
    check_claim(b, 0, 0, made - 1, "1");
    job_free(&waits);
    job_free(&runs);
    job_free(&lost);
    empty();
}

static void test_deadline(void)
{
    struct job *j = make("", 1), *later = make("", 1);
    j->spec.deadline = clock_unix_ms() - 1;
    later->spec.deadline = clock_unix_ms() + 1000000;
    CHECK(!admit(a, j, 0));
    CHECK(!admit(a, later, 0));
    check_claim(b, 0, 0, made - 2, "1");
    job_free(&j);
    job_free(&later);
    empty();
}

static void test_webhook(void)
{
    struct job *j = make("", 1), *jobs[16];
    struct job_spec s = j->spec;
    char *text = j->spec_text;
    s.webhook_url = "https://hooks.example/x";
    CHECK(!job_spec_copy(&s, &j->spec, &j->spec_text));
    free(text);
    CHECK(!admit(a, j, 4));
    j->webhook_next = clock_unix_ms();
    CHECK(!end(a, j, JOB_DONE));
    check_claim(b, 0, 0, made - 1, ""); // a calls it
    let_leases_end();
    CHECK_INT(claim(b, 0, 0, jobs), 1);
    CHECK_INT(jobs[0]->claims, 1);
    CHECK_INT(jobs[0]->state, JOB_DONE);
    CHECK_INT(change(a, STORE_NOTE, j), ERR_STALE);
    jobs[0]->webhook_next = 0;
    CHECK(!change(b, STORE_NOTE, jobs[0]));
    let_leases_end();
    check_claim(a, 0, 0, made - 1, "");
    job_free(&jobs[0]);
    job_free(&j);
    empty();
}

// The other replica sees the progress of an image, and its previews once it has asked for them.
static void test_watch(void)
{
    struct job *j = make("", 1), *now;
    CHECK(!admit(a, j, 4));
    CHECK(!beat(a, j, false).previews);
    now = watch(b, j, true, 0);
    CHECK(now && now->state == JOB_RUNNING && !now->picture[0].latest && now->position == -1);
    job_free(&now);
    j->state = JOB_RUNNING;
    j->picture[0] = (struct job_picture){.state = JOB_RUNNING,
                                         .stages = 1,
                                         .step = 3,
                                         .steps = 4,
                                         .attempts = 1,
                                         .previews = 1,
                                         .preview = {64, 64},
                                         .latest = blob_create((uint8_t *)strdup("jpeg"), 4)};
    CHECK(beat(a, j, true).previews);
    CHECK(!strcmp(sql("SELECT count(*) FROM imagend.preview"), "1"));
    now = watch(b, j, true, 0);
    CHECK(now && now->picture[0].state == JOB_RUNNING && now->picture[0].step == 3);
    CHECK(now && now->picture[0].previews == 1 && now->picture[0].preview.width == 64);
    const struct blob *latest = now ? now->picture[0].latest : NULL;
    CHECK(latest && latest->size == 4 && !memcmp(latest->data, "jpeg", 4));
    job_free(&now);
    now = watch(b, j, true, 1); // seen
    CHECK(now && !now->picture[0].latest);
    job_free(&now);
    now = find(b, j->id);
    CHECK(now && now->picture[0].step == 3 && !now->lease);
    job_free(&now);
    CHECK(!end(a, j, JOB_DONE));
    now = watch(b, j, false, 0);
    CHECK(now && now->state == JOB_DONE && now->picture[0].step == 0);
    job_free(&now);
    job_free(&j);
    now = make("", 1);
    j = watch(b, now, true, 0);
    CHECK(!j);
    job_free(&now);
    empty();
}

static int answered, accepted;

static void on_raced(struct store_call *c)
{
    answered++;
    accepted += !c->why.code && !c->n;
    CHECK_MSG(!c->why.code, "%s", c->why.msg);
    store_call_free(c);
}

// 50 requests with one key, on two replicas at once, are one job.
static void test_key_race(void)
{
    for (int i = 0; i < 50; i++) {
        struct job *j = make("x", 1);
        struct job_spec s = j->spec;
        char *text = j->spec_text;
        s.idempotency_key = "k";
        CHECK(!job_spec_copy(&s, &j->spec, &j->spec_text));
        free(text);
        struct store *to = i % 2 ? a : b;
        to->ops->call(to, store_call_about(STORE_ACCEPT, j, on_raced, NULL));
        job_free(&j);
    }
    while (answered < 50)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_INT(accepted, 1);
    CHECK_STR(sql("SELECT count(*) FROM imagend.job"), "1");
    empty();
}

static void wait_for(double seconds)
{
    const double end = clock_seconds() + seconds;
    while (clock_seconds() < end)
        uv_run(&loop, UV_RUN_ONCE); // ended by the tests' timer
}

// Many changes are one hint per replica and tick; a replica is not told of its own.
static void test_hints(void)
{
    const double begin = clock_seconds();
    hints = 0;
    for (int i = 0; i < 100; i++) {
        struct job *j = make("", 1);
        CHECK(!admit(a, j, 0));
        job_free(&j);
    }
    while (!hints || clock_seconds() - begin < 1)
        uv_run(&loop, UV_RUN_ONCE); // the tests' timer ends the wait
    const int most = 2 + (int)((clock_seconds() - begin) / 0.25);
    CHECK_MSG(hints >= 1 && hints <= most, "%d hints, at most %d", hints, most);
    wait_for(0.6); // for the last hint
    hints = 0;
    struct job *j = make("", 1);
    CHECK(!admit(b, j, 0));
    job_free(&j);
    wait_for(0.6);
    CHECK_INT(hints, 0);
    empty();
}

// Partitions come as time passes, and go when no job has images in them.
static void test_partitions(void)
{
    struct job *j = make("", 1);
    static const char partitions[] =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'imagend.image'::regclass";
    CHECK(!admit(a, j, 4));
    CHECK(!draw(a, j, 0, "kept"));
    CHECK_STR(sql(partitions), "1");
    for (int i = 0; i < 4; i++) {
        sql("UPDATE imagend.span SET began = began - 100000000");
        struct store_call *c = ask(STORE_EXPIRE, "");
        c->keep = (struct store_keep){0, 100, 1 << 20, false};
        CHECK(!run(i % 2 ? a : b, c)->why.code);
        store_call_free(c);
    }
    CHECK_STR(sql("SELECT max(span) FROM imagend.span"), "5");
    CHECK_STR(sql("SELECT attstorage FROM pg_attribute WHERE attname = 'bytes' AND attrelid ="
                  " 'imagend.image_5'::regclass"),
              "e");
    empty();
    for (int i = 0; i < 8; i++) {
        struct store_call *c = ask(STORE_EXPIRE, "");
        c->keep = (struct store_keep){0, 100, 1 << 20, false};
        CHECK(!run(a, c)->why.code);
        store_call_free(c);
    }
    // The newest two are in use: the one before was just replaced.
    CHECK_STR(sql(partitions), "2");
    CHECK_STR(sql("SELECT count(*) FROM imagend.image"), "0");
    job_free(&j);
}

// ---- input images -------------------------------------------------------------------------------

static const char name[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static enum err pool_errors[3];
static char pool_got[20];

static void pool_files(uv_work_t *req)
{
    struct fault why;
    struct blob *file = blob_create((uint8_t *)strdup("input"), 5), *got = NULL;
    pool_errors[0] = a->ops->put_file(a, name, file, &why);
    pool_errors[1] = b->ops->get_file(b, name, &got, &why);
    if (got)
        snprintf(pool_got, sizeof pool_got, "%.*s", (int)got->size, (const char *)got->data);
    blob_unref(&got);
    pool_errors[2] = b->ops->get_file(b, "missing", &got, &why);
    blob_unref(&file);
}

static bool files_done;

static void on_files(uv_work_t *req, int status)
{
    files_done = true;
}

static void test_files(void)
{
    uv_work_t work;
    struct blob *got = NULL;
    struct fault why = {0};
    uv_queue_work(&loop, &work, pool_files, on_files);
    while (!files_done)
        uv_run(&loop, UV_RUN_ONCE);
    CHECK_INT(pool_errors[0], ERR_OK);
    CHECK_INT(pool_errors[1], ERR_OK);
    CHECK_INT(pool_errors[2], ERR_NOT_FOUND);
    CHECK_STR(pool_got, "input");
    CHECK(!a->ops->get_file(a, name, &got, &why)); // at hand on the loop thread
    blob_unref(&got);
    CHECK_INT(a->ops->get_file(a, "other", &got, &why), ERR_BUSY);
    sql("UPDATE imagend.input SET stored = stored - interval '2 hours'");
    struct store_call *c = ask(STORE_EXPIRE, "");
    c->keep = (struct store_keep){0, 100, 1 << 20, false};
    store_call_free(run(a, c));
    CHECK_STR(sql("SELECT count(*) FROM imagend.input"), "0");
}

// ---- running ------------------------------------------------------------------------------------

static void on_hint(void *ctx)
{
    ++*(int *)ctx;
}

static void on_tick(uv_timer_t *t) {}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static struct store *open_replica(const char *replica)
{
    const struct store_postgres_params p = {
        .loop = &loop, .database = database, .replica = replica, .keep_ms = 3600000};
    struct store *s = NULL;
    struct fault why = {0};
    CHECK_MSG(!store_postgres_open(&p, &s, &why), "%s", why.msg);
    CHECK(s->shared && s->away.code);
    return s;
}

static void close_replica(struct store *s)
{
    bool closed = false;
    s->ops->close(s, on_closed, &closed);
    while (!closed)
        uv_run(&loop, UV_RUN_ONCE);
}

static void open_admin(void)
{
    const struct pg_params p = {.loop = &loop,
                                .database = database,
                                .name = "test",
                                .connect_seconds = 5,
                                .statement_seconds = 10,
                                .backoff_seconds = 0.1,
                                .patience_seconds = 5,
                                .waiting_bytes = 1 << 20};
    struct fault why = {0};
    CHECK_MSG(!pg_open(&p, &admin, &why), "%s", why.msg);
}

int main(void)
{
    uv_timer_t tick;
    database = getenv("IMAGEND_TEST_DATABASE");
    if (!database)
        return test_skip("it needs a database");
    uv_loop_init(&loop);
    uv_timer_init(&loop, &tick);
    uv_timer_start(&tick, on_tick, 20, 20);
    // Both create the schema at once.
    a = open_replica("same name");
    b = open_replica("same name");
    b->changed = on_hint;
    b->ctx = &hints;
    open_admin();
    test_start_at_once();
    CHECK(!a->away.code && !b->away.code);
    test_partitions();
    test_order();
    test_quota();
    test_fencing();
    test_late_beat();
    test_database_was_away();
    test_release();
    test_poison();
    test_cancel();
    test_deadline();
    test_webhook();
    test_watch();
    test_key_race();
    test_hints();
    test_files();
    bool closed = false;
    pg_close(admin, on_closed, &closed);
    close_replica(a);
    close_replica(b);
    while (!closed)
        uv_run(&loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&tick, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&loop), 0);
    return test_end();
}
