// See replicas.h.
#include "replicas.h"

#include "clock.h"
#include "pg.h"
#include "test.h"

#include <stdlib.h>

uv_loop_t loop;
struct store *a, *b;
int hints;
const char *models;
static const char *database;

// ---- calls --------------------------------------------------------------------------------------

static void on_done(struct store_call *c)
{
    *(bool *)c->ctx = true;
}

struct store_call *run(struct store *s, struct store_call *c)
{
    bool done = false;
    c->done = on_done;
    c->ctx = &done;
    s->ops->call(s, c);
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    return c;
}

struct store_call *about(enum store_op op, const struct job *j)
{
    return store_call_about(op, j, NULL, NULL);
}

struct store_call *ask(enum store_op op, const char *id)
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

const char *sql(const char *text)
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

void let_leases_end(void)
{
    sql("CREATE OR REPLACE FUNCTION imagend.up_ms() RETURNS bigint LANGUAGE sql AS"
        " 'SELECT 1000000::bigint'");
    sql("UPDATE imagend.job SET lease_until = clock_timestamp() - interval '1 ms'"
        " WHERE lease_until IS NOT NULL");
}

// ---- jobs ---------------------------------------------------------------------------------------

int made;

struct job *make(const char *owner, int n)
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

enum err admit(struct store *s, struct job *j, int room)
{
    struct store_call *c = about(STORE_ACCEPT, j);
    c->room = room;
    c->models = models ? strdup(models) : NULL;
    c->quota = (struct store_quota){1000, 1000, 0};
    const enum err err = run(s, c)->why.code;
    j->seq = c->job->seq;
    j->lease = c->job->lease;
    j->claims = c->job->claims;
    store_call_free(c);
    return err;
}

int claim(struct store *s, int room, int per_owner, struct job *out[16])
{
    struct store_call *c = ask(STORE_CLAIM, "");
    c->room = room;
    c->models = models ? strdup(models) : NULL;
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

void check_claim(struct store *s, int room, int per_owner, int base, const char *want)
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

enum err change(struct store *s, enum store_op op, struct job *j)
{
    struct store_call *c = run(s, about(op, j));
    const enum err err = c->why.code;
    store_call_free(c);
    return err;
}

enum err draw(struct store *s, struct job *j, int picture, const char *bytes)
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

enum err end(struct store *s, struct job *j, enum job_state state)
{
    j->state = state;
    j->finished = clock_unix_ms();
    j->expires = j->finished + 1000;
    return change(s, STORE_FINISH, j);
}

struct job *find(struct store *s, const char *id)
{
    struct store_call *c = run(s, ask(STORE_FIND, id));
    struct job *j = c->n ? c->jobs[0] : NULL;
    if (j)
        c->jobs[0] = NULL;
    store_call_free(c);
    return j;
}

void check_state(const struct job *like, enum job_state state)
{
    struct job *j = find(b, like->id);
    CHECK_STR(j ? job_state_name(j->state) : "no job", job_state_name(state));
    job_free(&j);
}

struct store_call *leases(enum store_op op, const struct job *j)
{
    struct store_call *c = ask(op, "");
    c->lease = calloc(1, sizeof *c->lease);
    c->n_lease = 1;
    memcpy(c->lease->id, j->id, sizeof j->id);
    c->lease->token = j->lease;
    return c;
}

struct store_lease beat(struct store *s, const struct job *j, bool progress)
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

struct job *watch(struct store *s, const struct job *j, bool previews, int seen)
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

void empty(void)
{
    sql("DELETE FROM imagend.job");
    sql("DELETE FROM imagend.load");
}

void expire(struct store *s)
{
    struct store_call *c = ask(STORE_EXPIRE, "");
    c->keep = (struct store_keep){0, 100, 1 << 20, false};
    CHECK_MSG(!run(s, c)->why.code, "%s", c->why.msg);
    store_call_free(c);
}

void wait_for(double seconds)
{
    const double end = clock_seconds() + seconds;
    while (clock_seconds() < end)
        uv_run(&loop, UV_RUN_ONCE); // ended by the tests' timer
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

int replicas_main(void (*tests)(void))
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
    tests();
    CHECK(!a->away.code && !b->away.code);
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
