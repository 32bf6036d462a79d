// The stores by themselves, each by the same calls: everything that a job is comes back, in the
// order in which it came; a key has one job; images go with their job. SQLite's also come back
// after it was closed; test_store_files.c has its files.
#include "one_store.h"
#include "test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void check_job(const struct job *j, const struct job *like)
{
    char *a = job_spec_write(&j->spec), *b = job_spec_write(&like->spec);
    const struct picture_used *u = &j->used;

    // Every field of the table; test_spec.c says that it is written.
    CHECK_STR(a, b);
    CHECK_STR(j->id, like->id);
    CHECK_STR(j->token, like->token);
    CHECK_INT(j->state, like->state);
    CHECK_INT(j->created, like->created);
    CHECK_INT(j->started, like->started);
    CHECK_INT(j->finished, like->finished);
    CHECK_INT(j->expires, like->expires);
    CHECK_INT(j->webhook_tries, like->webhook_tries);
    CHECK_INT(j->webhook_next, like->webhook_next);
    CHECK_INT(j->fault.code, like->fault.code);
    CHECK_STR(j->fault.msg, like->fault.msg);
    CHECK_STR(u->model, "m");
    CHECK_STR(u->preset, "fast");
    CHECK_STR(u->sampler, "ddim");
    CHECK(u->size.width == 48 && u->size.height == 64 && u->drawn.width == 64 && u->stages == 2);
    CHECK(u->steps[1] == 10 && u->guidance_scale[0] == 7.5F && u->noise_level[1] == 250);
    CHECK(u->tokens == 77 && u->tokens_cut == 5);
    CHECK(u->negative_tokens == 3 && u->negative_tokens_cut == 1);
    for (int i = 0; i < j->spec.n; i++) {
        CHECK_INT(j->picture[i].bytes, like->picture[i].bytes);
        CHECK_INT(j->picture[i].width, like->picture[i].width);
        CHECK_INT(j->picture[i].height, like->picture[i].height);
        CHECK_INT(j->picture[i].stage, like->picture[i].stage);
        CHECK_INT(j->picture[i].stages, like->picture[i].stages);
        CHECK_INT(j->picture[i].step, like->picture[i].step);
        CHECK_INT(j->picture[i].steps, like->picture[i].steps);
    }
    free(a);
    free(b);
}

static void check_kept(const struct job *like)
{
    struct store_call *c = run(ask(STORE_FIND, like->id));
    CHECK_INT(c->n, 1);
    if (c->n)
        check_job(c->jobs[0], like);
    store_call_free(c);
    c = ask(STORE_FIND, "");
    c->owner = strdup("alice");
    c->key = strdup(like->spec.idempotency_key);
    CHECK_INT(run(c)->n, 1);
    if (c->n)
        CHECK_STR(c->jobs[0]->id, like->id);
    store_call_free(c);
}

static struct store_call *page(const char *owner, int state, const struct job *after, int limit)
{
    struct store_call *c = ask(STORE_LIST, "");
    c->owner = strdup(owner);
    c->page = (struct store_page){INT64_MAX, INT64_MAX, state, limit};
    if (after) {
        struct store_call *f = run(ask(STORE_FIND, after->id));
        c->page.created = f->jobs[0]->created;
        c->page.seq = f->jobs[0]->seq;
        store_call_free(f);
    }
    return run(c);
}

static struct store_call *expire(int64_t now, int jobs, size_t bytes, bool webhooks)
{
    struct store_call *c = ask(STORE_EXPIRE, "");
    c->keep = (struct store_keep){now, jobs, bytes, webhooks};
    return run(c);
}

// ---- the tests --------------------------------------------------------------------------------

static void test_life(void)
{
    struct job *waits = make('1', 1000), *fails = make('2', 1000), *ends = make('3', 2000);
    struct blob *b;

    open_store();
    tell(STORE_ACCEPT, waits);
    tell(STORE_ACCEPT, fails);
    tell(STORE_ACCEPT, ends);
    check_stats(3, 0, 0);
    check_kept(waits);
    draw(ends, 1, "RIFF....WEBP");
    draw(ends, 0, "RIFF....WEBP+");
    check_stats(3, 0, 25);
    check_kept(ends);
    end(ends, JOB_DONE); // as if the third were no more wanted
    end(fails, JOB_FAILED);
    check_stats(3, 2, 25);
    check_kept(ends);
    check_kept(fails);
    ends->webhook_tries = 4;
    tell(STORE_NOTE, ends);
    check_kept(ends);
    check_stats(3, 2, 25);
    b = image(ends, 1);
    CHECK(b && b->size == 12 && !memcmp(b->data, "RIFF....WEBP", 12));
    blob_unref(&b);
    CHECK(!image(ends, 2));
    if (durable) { // as it was after it is opened again; unfinished work comes oldest first
        close_store();
        open_store();
        check_stats(3, 2, 25);
        check_kept(waits);
        check_kept(ends);
        check_kept(fails);
        if (!database) // test_leases.c has the claims of a shared store
            check_digits(run(ask(STORE_CLAIM, "")), "123");
    }
    if (!database)
        check_digits(run(ask(STORE_CLAIM, "")), "");
    check_digits(run(ask(STORE_REMOVE, ends->id)), "3");
    check_digits(run(ask(STORE_REMOVE, ends->id)), ""); // not there: no error
    CHECK(!image(ends, 1));
    check_stats(2, 1, 0);
    check_digits(run(ask(STORE_REMOVE, waits->id)), "1");
    check_digits(run(ask(STORE_REMOVE, fails->id)), "2");
    close_store();
    job_free(&waits);
    job_free(&fails);
    job_free(&ends);
}

static void count(void *ctx)
{
    ++*(int *)ctx;
}

// A store of one process leases every job to it indefinitely.
static void test_leases(void)
{
    struct job *j = make('1', 1000);
    int changes = 0;

    open_store();
    CHECK(!store->shared);
    store->changed = count;
    store->ctx = &changes;
    struct store_call *c = run(about(STORE_ACCEPT, j));
    CHECK_INT(c->job->lease, 1);
    store_call_free(c);
    if (durable) {
        close_store();
        open_store();
        c = run(ask(STORE_CLAIM, ""));
        CHECK_INT(c->n, 1);
        CHECK_INT(c->n ? c->jobs[0]->lease : 0, 1);
        store_call_free(c);
    }
    for (int op = STORE_BEAT; op <= STORE_RELEASE; op++) {
        c = ask((enum store_op)op, "");
        c->lease = calloc(1, sizeof *c->lease);
        c->n_lease = 1;
        snprintf(c->lease->id, sizeof c->lease->id, "%s", j->id);
        c->lease->token = 1;
        run(c);
        CHECK(!c->why.code && !c->lease->lost && !c->lease->cancel && !c->lease->previews);
        store_call_free(c);
    }
    c = ask(STORE_WATCH, "");
    c->watched = calloc(2, sizeof *c->watched);
    c->n_watched = 2;
    snprintf(c->watched[1].id, sizeof c->watched->id, "%s", j->id);
    run(c);
    CHECK(!c->watched[0].now && c->watched[1].now);
    if (c->watched[1].now)
        check_job(c->watched[1].now, j);
    store_call_free(c);
    c = run(about(STORE_CANCEL, j)); // it is drawn here
    CHECK_INT(c->n ? c->jobs[0]->state : JOB_CANCELLED, JOB_QUEUED);
    store_call_free(c);
    check_digits(page("alice", STORE_UNFINISHED, NULL, 2), "1");
    end(j, JOB_CANCELLED);
    check_digits(page("alice", STORE_UNFINISHED, NULL, 2), "");
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    CHECK_INT(changes, 0);
    close_store();
    job_free(&j);
}

static void test_keys(void)
{
    struct job *first = make('1', 1000), *second = make('2', 1000), *other = make('3', 1000);

    open_store();
    tell(STORE_ACCEPT, first);
    second->spec.idempotency_key = first->spec.idempotency_key;
    check_digits(run(about(STORE_ACCEPT, second)), "1");
    other->spec.idempotency_key = first->spec.idempotency_key;
    other->spec.owner = "bob"; // each owner has keys of its own
    tell(STORE_ACCEPT, other);
    check_digits(run(ask(STORE_REMOVE, first->id)), "1");
    tell(STORE_ACCEPT, second); // the key is free again
    check_stats(2, 0, 0);
    check_digits(run(ask(STORE_REMOVE, second->id)), "2");
    check_digits(run(ask(STORE_REMOVE, other->id)), "3");
    close_store();
    job_free(&first);
    job_free(&second);
    job_free(&other);
}

static void test_pages(void)
{
    struct job *j[6];
    int64_t first = 1;

    open_store();
    for (int i = 0; i < 6; i++) {
        j[i] = make((char)('1' + i), i < 2 ? 1000 : 2000); // of one millisecond: as they came
        if (i == 3)
            j[i]->spec.owner = "bob";
        struct store_call *c = run(about(STORE_ACCEPT, j[i]));
        CHECK_MSG(!c->why.code && !c->n, "%s", c->why.msg);
        first = database && !i ? c->job->seq : first;
        CHECK_INT(c->job->seq, first + i); // the core pages by it while the job is live
        store_call_free(c);
    }
    end(j[2], JOB_DONE);
    check_digits(page("alice", -1, NULL, 10), "65321");
    check_digits(page("alice", -1, NULL, 2), "65");
    check_digits(page("alice", -1, j[4], 2), "32");
    check_digits(page("alice", -1, j[0], 2), "");
    check_digits(page("alice", JOB_DONE, NULL, 2), "3");
    check_digits(page("alice", JOB_FAILED, j[4], 2), "");
    check_digits(page("bob", -1, NULL, 2), "4");
    check_digits(page("", -1, NULL, 2), "");
    for (int i = 0; i < 6; i++) {
        check_digits(run(ask(STORE_REMOVE, j[i]->id)), (char[]){(char)('1' + i), 0});
        job_free(&j[i]);
    }
    close_store();
}

static void test_expiry(void)
{
    struct job *j[6];

    open_store();
    for (int i = 0; i < 6; i++) {
        j[i] = make((char)('1' + i), 1000 * i);
        tell(STORE_ACCEPT, j[i]);
        draw(j[i], 0, "RIFF....WEBP");
        if (i != 1) // which goes on, and stays whatever there is
            end(j[i], JOB_DONE);
    }
    check_digits(expire(INT64_MAX, 0, 0, true), ""); // their webhooks have not been called
    check_digits(expire(0, 5, 72, false), "");
    check_digits(expire(3333, 5, 72, false), "1");
    check_digits(expire(3334, 3, 72, false), "3"); // too many: the oldest
    check_stats(4, 3, 48);
    check_digits(expire(3334, 3, 47, false), "4"); // too much
    check_digits(expire(INT64_MAX, 3, 47, false), "56");
    check_stats(1, 0, 12);
    check_digits(run(ask(STORE_REMOVE, j[1]->id)), "2");
    check_stats(0, 0, 0);
    close_store();
    for (int i = 0; i < 6; i++)
        job_free(&j[i]);
}

static void on_done_free(struct store_call *c)
{
    ++*(int *)c->ctx;
    store_call_free(c);
}

static void on_refused(struct store_call *c)
{
    CHECK_INT(c->why.code, ERR_IO);
    on_done_free(c);
}

// Calls made before the store is closed are answered, and done.
static void test_close_answers(void)
{
    struct job *j = make('1', 1000);
    int done = 0;

    open_store();
    store->ops->call(store, store_call_about(STORE_ACCEPT, j, on_done_free, &done));
    store->ops->call(store, store_call_about(STORE_NOTE, j, on_done_free, &done));
    close_store();
    CHECK_INT(done, 2);
    if (durable) {
        open_store();
        check_digits(run(ask(STORE_REMOVE, j->id)), "1");
        close_store();
    }
    job_free(&j);
}

static bool is_at_once(const char *id)
{
    int done = 0;
    struct store_call *c = store_call_create(STORE_FIND, on_done_free, &done);
    snprintf(c->id, sizeof c->id, "%s", id);
    store->ops->call(store, c);
    const bool at_once = done;
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    return at_once;
}

// A store that keeps ended jobs at hand gives them as they are now.
static void test_ended_jobs_at_hand(void)
{
    enum { MANY = 300 };
    const bool waits = !durable; // the memory store answers everything at once
    struct job *j = make('1', 1000), *other = make('2', 1000);

    open_store();
    tell(STORE_ACCEPT, j);
    tell(STORE_ACCEPT, other);
    draw(j, 0, "RIFF....WEBP");
    check_kept(j);
    CHECK_INT(is_at_once(j->id), waits); // it is not ended
    end(j, JOB_DONE);
    CHECK_INT(is_at_once(j->id), waits); // and not as it was
    check_kept(j);
    CHECK(is_at_once(j->id));
    check_kept(j);
    j->webhook_tries = 5;
    tell(STORE_NOTE, j);
    check_kept(j);
    j->state = JOB_FAILED;
    struct store_call *c = about(STORE_FINISH, j);
    c->again = true;
    CHECK(!run(c)->why.code);
    store_call_free(c);
    check_kept(j);
    CHECK(is_at_once(j->id));
    check_stats(2, 1, 12);
    end(other, JOB_DONE);
    check_kept(other);
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    check_digits(run(ask(STORE_FIND, j->id)), "");
    check_digits(expire(INT64_MAX, 9, 99, false), "2");
    check_digits(run(ask(STORE_FIND, other->id)), "");
    check_stats(0, 0, 0);
    for (int i = 0; i < MANY; i++) { // more than it keeps
        snprintf(j->id, sizeof j->id, "job_%032x", i);
        j->spec.idempotency_key = NULL;
        tell(STORE_ACCEPT, j);
        end(j, JOB_DONE);
        CHECK_INT(is_at_once(j->id), waits);
        CHECK(is_at_once(j->id));
    }
    int at_once = 0;
    for (int i = 0; i < MANY; i++) {
        snprintf(j->id, sizeof j->id, "job_%032x", i);
        at_once += is_at_once(j->id);
    }
    CHECK(waits || (at_once > 0 && at_once <= 128));
    c = expire(INT64_MAX, 0, 0, false);
    CHECK_INT(c->n, MANY);
    store_call_free(c);
    close_store();
    job_free(&j);
    job_free(&other);
}

// Calls that arrive together share a transaction; one that fails leaves the others as they are.
static void test_together(void)
{
    enum { MANY = 60, BAD = 30 };
    struct job *j[MANY], *drawn = make('0', 500);
    char path[200];
    int done = 0;

    open_store();
    tell(STORE_ACCEPT, drawn);
    image_path(path, '0', 0);
    CHECK_INT(mkdir(path, 0700), 0); // the file cannot be written
    for (int i = 0; i < MANY; i++) {
        j[i] = make((char)('1' + i % 9), 1000);
        snprintf(j[i]->id, sizeof j[i]->id, "job_%032x", i);
        j[i]->spec.idempotency_key = NULL;
    }
    for (int i = 0; i < MANY; i++) {
        if (i == BAD) {
            drawn->picture[0] = (struct job_picture){.state = JOB_DONE, .bytes = 4};
            struct store_call *c = about(STORE_DRAWN, drawn);
            c->ctx = &done;
            c->image = bytes_of("RIFF");
            c->done = on_refused;
            store->ops->call(store, c);
        }
        store->ops->call(store, store_call_about(STORE_ACCEPT, j[i], on_done_free, &done));
    }
    while (done < MANY + 1)
        uv_run(&loop, UV_RUN_ONCE);
    check_stats(MANY + 1, 0, 0);
    for (int i = 0; i < MANY; i++) {
        struct store_call *c = run(ask(STORE_REMOVE, j[i]->id));
        CHECK_INT(c->n, 1);
        if (c->n)
            CHECK_INT(c->jobs[0]->seq, i + 2);
        store_call_free(c);
        job_free(&j[i]);
    }
    CHECK_INT(rmdir(path), 0);
    check_digits(run(ask(STORE_REMOVE, drawn->id)), "0");
    close_store();
    job_free(&drawn);
}

// Started by tests/api/postgres.py.
static int postgres_tests(void)
{
    durable = true;
    test_life();
    test_keys();
    test_pages();
    test_expiry();
    test_close_answers();
    CHECK_INT(rmdir(folder), 0);
    CHECK_INT(uv_loop_close(&loop), 0);
    return test_end();
}

int main(void)
{
    char command[100];

    CHECK(mkdtemp(folder) != NULL);
    CHECK_INT(uv_loop_init(&loop), 0);
    database = getenv("IMAGEND_TEST_DATABASE");
    if (database)
        return postgres_tests();
    for (int i = 0; i < 2; i++) {
        durable = i;
        test_life();
        test_leases();
        test_keys();
        test_pages();
        test_expiry();
        test_close_answers();
        test_ended_jobs_at_hand();
    }
    test_together();
    CHECK_INT(uv_loop_close(&loop), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
    return test_end();
}
