// Claims and accepts of two replicas that share a PostgreSQL: whose turn it is, how many may wait,
// and what they tell each other. See replicas.h.
#include "clock.h"
#include "replicas.h"
#include "test.h"

#include <stdlib.h>

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
    check_claim(b, 9, 2, base, ""); // y has one, and its next job has two
    check_claim(b, 9, 3, base, "5 2");
    empty();
}

// The images that an owner has had decide, not its jobs; one that had nothing to draw gets no more
// for that, and comes after those that are level with it.
static void test_shares(void)
{
    const int base = made;
    for (int i = 0; i < 2; i++) {
        struct job *j = make("many", 4);
        CHECK(!admit(a, j, 0));
        job_free(&j);
    }
    check_claim(b, 1, 0, base, "1");
    for (int i = 0; i < 6; i++) {
        struct job *j = make("few", 1);
        CHECK(!admit(a, j, 0));
        job_free(&j);
    }
    // Both have the same share from now on: a job of four images, then four of one.
    check_claim(b, 7, 0, base, "2 3 4 5");
    check_claim(b, 1, 0, base, "6"); // level again
    struct job *late = make("late", 1);
    CHECK(!admit(a, late, 0));
    check_claim(b, 9, 0, base, "7 9 8");
    job_free(&late);
    empty();
}

static struct job *make_for(const char *owner, const char *model, int priority)
{
    struct job *j = make(owner, 1);
    struct job_spec s = j->spec;
    char *text = j->spec_text;
    s.model = model;
    s.priority = priority;
    CHECK(!job_spec_copy(&s, &j->spec, &j->spec_text));
    free(text);
    return j;
}

// A replica gets the jobs of its models, in the order that they would have without the others.
static void test_models(void)
{
    static const struct {
        const char *owner, *model;
        int priority;
    } jobs[] = {{"x", "photo", 0}, {"x", "draft", 0},       {"x", "photo", 5},
                {"y", "draft", 0}, {"y", "tiny", 0},        {"z", NULL, 0},
                {"x", "draft", 0}, {"y", "a \"b\", {c", 0}, {"x", "a \"b\", {c", 3}};
    const int base = made;
    for (int i = 0; i < 9; i++) {
        struct job *j = make_for(jobs[i].owner, jobs[i].model, jobs[i].priority);
        CHECK(!admit(a, j, 0));
        job_free(&j);
    }
    models = "[]";
    check_claim(a, 9, 0, base, "");
    models = "[\"other\"]";
    check_claim(a, 9, 0, base, "");
    models = "[\"\", \"draft\"]";
    check_claim(a, 2, 0, base, "2 4"); // x, y and z in turn
    check_claim(b, 9, 1, base, "6");   // x has one of its limit
    models = NULL;
    check_claim(b, 9, 0, base, "");
    models = "[\"a \\\"b\\\", {c\", \"photo\", \"draft\"]";
    check_claim(b, 9, 0, base, "3 8 9 1 7"); // of all its models, by priority and age
    models = "[\"tiny\"]";
    check_claim(a, 9, 0, base, "5");
    models = NULL;
    empty();
}

// A job starts at once if those that wait are for others.
static void test_start_beside_others(void)
{
    struct job *waits = make_for("x", "photo", 0), *j = make_for("x", "draft", 0);
    struct job *second = make_for("x", "draft", 0), *third = make_for("y", "draft", 0);
    CHECK(!admit(a, waits, 0));
    models = "[\"\", \"draft\"]";
    CHECK(!admit(b, j, 4));
    CHECK(j->lease > 0);
    CHECK(!admit(b, second, 0));
    CHECK(!admit(b, third, 4)); // behind the second
    CHECK(!second->lease && !third->lease);
    models = NULL;
    job_free(&waits);
    job_free(&j);
    job_free(&second);
    job_free(&third);
    empty();
}

// A deadline, a client, or too many lost replicas end a job on a replica without its model.
static void test_ends_without_the_model(void)
{
    const int base = made;
    static const char *const changes[] = {"deadline = 1", "cancel = true", "claims = 9"};
    for (int i = 0; i < 4; i++) {
        struct job *j = make_for("x", "photo", 0);
        char text[200];
        CHECK(!admit(a, j, 0));
        snprintf(text, sizeof text, "UPDATE imagend.job SET %s WHERE id = '%s'",
                 i < 3 ? changes[i] : "cancel = false", j->id);
        sql(text);
        job_free(&j);
    }
    struct job *found[16];
    int seen = 0;
    const int n = claim(b, 0, 0, found);
    CHECK_INT(n, 3);
    for (int i = 0; i < n; i++) {
        seen |= 1 << (strtol(found[i]->id + 4, NULL, 16) - base);
        job_free(&found[i]);
    }
    CHECK_INT(seen, 2 | 4 | 8);
    empty();
}

// Programs that do not know models: what they accept has one, and they take what they find.
static void test_older_programs(void)
{
    struct job *j = make_for("x", "photo", 0);
    CHECK(!admit(a, j, 0));
    sql("INSERT INTO imagend.job (id, token, state, spec, used, images, created, started,"
        " finished, expires, fault, message, webhook_tries, webhook_next, owner, priority, "
        "deadline,"
        " waiting, brief, span) SELECT id || 'b', token, state, spec, used, images, created,"
        " started, finished, expires, fault, message, webhook_tries, webhook_next, owner, priority,"
        " deadline, waiting, brief, span FROM imagend.job");
    CHECK_STR(sql("SELECT count(*) FROM imagend.job WHERE model = 'photo'"), "2");
    sql("INSERT INTO imagend.job (id, token, state, spec, used, images, created, started,"
        " finished, expires, fault, message, webhook_tries, webhook_next, owner, priority, "
        "deadline,"
        " waiting, brief, span) SELECT id || 'c', token, state, '{', used, images, created,"
        " started, finished, expires, fault, message, webhook_tries, webhook_next, owner, priority,"
        " deadline, waiting, brief, span FROM imagend.job LIMIT 1");
    CHECK_STR(sql("SELECT count(*) FROM imagend.job WHERE model = ''"), "1");
    sql("SELECT imagend.start((SELECT max(id) FROM imagend.job), 'older', 1, 0, 1000)");
    CHECK_STR(sql("SELECT count(*) FROM imagend.job WHERE state = 'running'"), "0"); // others wait
    CHECK_STR(sql("SELECT count(*) FROM imagend.claim('older', 9, 0, false, 1000, 3)"), "3");
    job_free(&j);
    empty();
}

static void check_position(const struct job *like, int want)
{
    struct job *j = find(b, like->id), *w = watch(b, like, false, 0);
    CHECK_INT(j ? j->position : -2, want);
    CHECK_INT(w ? w->position : -2, want);
    struct store_call *c = ask(STORE_LIST, "");
    c->owner = strdup(like->spec.owner);
    c->page = (struct store_page){INT64_MAX, INT64_MAX, -1, 100};
    run(a, c);
    for (int i = 0; i < c->n; i++)
        if (!strcmp(c->jobs[i]->id, like->id))
            CHECK_INT(c->jobs[i]->position, want);
    store_call_free(c);
    job_free(&w);
    job_free(&j);
}

// The number of images ahead, in the order in which jobs are claimed.
static void test_positions(void)
{
    static const struct {
        const char *owner;
        int n, priority, before, after; // positions, before and after the first claim
    } jobs[] = {{"x", 1, 0, 6, 4},
                {"x", 2, 5, 0, -1},
                {"y", 4, 0, 2, 0},
                {"y", 1, 0, 8, 6},
                {"x", 1, 0, 7, 5}};
    struct job *j[5];
    for (int i = 0; i < 5; i++) {
        j[i] = make(jobs[i].owner, jobs[i].n);
        j[i]->spec.priority = jobs[i].priority;
        CHECK(!admit(a, j[i], 0));
    }
    for (int i = 0; i < 5; i++)
        check_position(j[i], jobs[i].before);
    check_claim(a, 2, 0, made - 5, "2");
    for (int i = 0; i < 5; i++)
        check_position(j[i], jobs[i].after);
    check_claim(a, 99, 0, made - 5, "3 1 5 4");
    // A queue that is too long to be ordered for each question: all others are ahead.
    struct job *one = make("x", 1);
    CHECK(!admit(a, one, 0));
    sql("INSERT INTO imagend.load (owner, queued, running) VALUES ('z', 20000, 0)");
    check_position(one, 20000);
    job_free(&one);
    for (int i = 0; i < 5; i++)
        job_free(&j[i]);
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
        expire(i % 2 ? a : b);
    }
    CHECK_STR(sql("SELECT max(span) FROM imagend.span"), "5");
    CHECK_STR(sql("SELECT attstorage FROM pg_attribute WHERE attname = 'bytes' AND attrelid ="
                  " 'imagend.image_5'::regclass"),
              "e");
    empty();
    for (int i = 0; i < 8; i++)
        expire(a);
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
    expire(a);
    CHECK_STR(sql("SELECT count(*) FROM imagend.input"), "0");
}

static void check_load(const char *want)
{
    CHECK_STR(sql("SELECT sum(queued) || ' ' || sum(running) || ' ' || sum(backlog)"
                  " FROM imagend.load"),
              want);
}

// Images that wait in the replica that has claimed them count for the queue, too.
static void test_backlog(void)
{
    struct job *j = make("x", 4), *more = make("x", 4), *jobs[16];
    CHECK(!admit(a, j, 1));
    check_load("0 4 3");
    struct store_call *c = about(STORE_ACCEPT, more);
    c->quota = (struct store_quota){6, 6, 0};
    CHECK_INT(run(b, c)->why.code, ERR_BUSY);
    CHECK(c->stats.queued >= 3); // at least
    store_call_free(c);
    CHECK(!admit(b, more, 0));
    check_load("4 4 3");
    c = leases(STORE_BEAT, j);
    c->lease->backlog = 2;
    CHECK_INT(run(a, c)->stats.queued, 6);
    CHECK_INT(c->stats.running, 2);
    store_call_free(c);
    for (int i = 0; i < 3; i++)
        CHECK(!draw(a, j, i, "x"));
    check_load("4 1 1"); // no more than are left
    CHECK_INT(claim(b, 3, 0, jobs), 1);
    check_load("0 5 2");
    CHECK(!end(a, j, JOB_FAILED));
    check_load("0 4 1");
    store_call_free(run(b, leases(STORE_RELEASE, jobs[0])));
    check_load("4 0 0");
    job_free(&jobs[0]);
    job_free(&more);
    job_free(&j);
    empty();
    sql("DELETE FROM imagend.image");
}

// ---- rates --------------------------------------------------------------------------------------

static double spend(struct store *s, const char *owner, double per_second, double burst)
{
    struct store_call *c = ask(STORE_SPEND, "");
    c->owner = strdup(owner);
    c->rate = (struct store_rate){per_second, burst, -1};
    CHECK_MSG(!run(s, c)->why.code, "%s", c->why.msg);
    const double wait = c->rate.wait;
    store_call_free(c);
    return wait;
}

// Both replicas take from one bucket per owner, which fills by the database's clock.
static void test_rates(void)
{
    for (int i = 0; i < 4; i++)
        CHECK(spend(i % 2 ? a : b, "x", 0.001, 4) == 0);
    for (int i = 0; i < 2; i++) {
        const double wait = spend(i ? a : b, "x", 0.001, 4);
        CHECK_MSG(wait > 900 && wait <= 1000, "%f", wait);
    }
    CHECK(spend(a, "y", 0.001, 4) == 0);
    sql("UPDATE imagend.rate SET filled = filled - interval '2000 s' WHERE owner = 'x'");
    CHECK(spend(a, "x", 0.001, 4) == 0);
    CHECK(spend(b, "x", 0.001, 4) == 0);
    CHECK(spend(a, "x", 0.001, 4) > 0);
    sql("UPDATE imagend.rate SET filled = filled - interval '100000 s' WHERE owner = 'x'");
    CHECK(spend(b, "x", 0.001, 1) == 0); // a smaller bucket since
    CHECK(spend(b, "x", 0.001, 1) > 0);
    sql("UPDATE imagend.rate SET filled = filled + interval '100 s'"); // a clock that was set back
    CHECK(spend(b, "x", 0.001, 1) > 0);
}

static void tests(void)
{
    test_partitions();
    test_start_at_once();
    test_order();
    test_shares();
    test_models();
    test_start_beside_others();
    test_ends_without_the_model();
    test_older_programs();
    test_positions();
    test_quota();
    test_backlog();
    test_rates();
    test_key_race();
    test_hints();
    test_files();
}

int main(void)
{
    return replicas_main(tests);
}
