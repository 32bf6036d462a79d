// The stores by themselves, each by the same calls: everything that a job is comes back, in the
// order in which it came; a key has one job; images go with their job. SQLite's also come back
// after it was closed, as private files.
#include "blob.h"
#include "store.h"
#include "test.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define ID "job_0123456789abcdef0123456789abcde"
#define TOKEN "fedcba9876543210fedcba987654321"

static char folder[] = "/tmp/imagend-store-XXXXXX";
static uv_loop_t loop;
static struct store *store;
static bool durable;         // which of the stores
static const char *database; // of the PostgreSQL store, or NULL

// ---- opening, and one call after the other ----------------------------------------------------

static enum err open_kind(struct fault *why)
{
    const struct store_postgres_params p = {
        .loop = &loop, .database = database, .replica = "test", .keep_ms = 3600000};
    if (database)
        return store_postgres_open(&p, &store, why);
    return durable ? store_sqlite_open(folder, &loop, &store, why) : store_memory_open(&store, why);
}

static void open_store(void)
{
    struct fault why = {0};
    CHECK_MSG(!open_kind(&why), "%s", why.msg);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

static void close_store(void)
{
    bool closed = false;
    store->ops->close(store, on_closed, &closed);
    while (!closed)
        uv_run(&loop, UV_RUN_ONCE);
    store = NULL;
}

static void on_done(struct store_call *c)
{
    *(bool *)c->ctx = true;
}

// Owner: the caller frees the call.
static struct store_call *run(struct store_call *c)
{
    bool done = false;
    c->ctx = &done;
    store->ops->call(store, c);
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    return c;
}

static struct store_call *about(enum store_op op, const struct job *j)
{
    return store_call_about(op, j, on_done, NULL);
}

static struct store_call *ask(enum store_op op, const char *id)
{
    struct store_call *c = store_call_create(op, on_done, NULL);
    snprintf(c->id, sizeof c->id, "%s", id);
    return c;
}

static void tell(enum store_op op, const struct job *j)
{
    struct store_call *c = run(about(op, j));
    CHECK_MSG(!c->why.code && !c->n, "%s", c->why.msg);
    store_call_free(c);
}

static struct blob *bytes_of(const char *s)
{
    return blob_create((uint8_t *)strdup(s), strlen(s));
}

static void draw(struct job *j, int picture, const char *bytes)
{
    j->picture[picture] =
        (struct job_picture){.state = JOB_DONE, .bytes = strlen(bytes), .width = 48, .height = 64};
    struct store_call *c = about(STORE_DRAWN, j);
    c->picture = picture;
    c->image = bytes_of(bytes);
    CHECK_MSG(!run(c)->why.code, "%s", c->why.msg);
    store_call_free(c);
}

// The bytes of an image, or NULL. Owner: the caller.
static struct blob *image(const struct job *j, int picture)
{
    struct store_call *c = ask(STORE_IMAGE, j->id);
    c->picture = picture;
    c->format = j->spec.format;
    run(c);
    struct blob *b = c->image ? blob_ref(c->image) : NULL;
    CHECK_INT(c->why.code, b ? ERR_OK : ERR_NOT_FOUND);
    CHECK(!strstr(c->why.msg, folder)); // clients read it
    store_call_free(c);
    return b;
}

// ---- jobs -------------------------------------------------------------------------------------

static const struct job_spec spec = {
    .request = {.prompt = "a \"red\" sphere \xe2\x82\xac",
                .negative_prompt = "blurry",
                .preset = "fast",
                .sampler = "ddim",
                .size = {48, 64},
                .seed = INT64_MAX,
                .picture = 4,
                .steps = {27, 10},
                .guidance_scale = {7.5F, 1},
                .noise_level = {-1, 250, -1},
                .set_noise_level = true},
    .n = 3,
    .format = JOB_WEBP,
    .quality = 77,
    .previews = 2,
    .preview_format = JOB_PNG,
    .priority = 4,
    .deadline = 1893456000123,
    .owner = "alice",
    .client = "192.0.2.7",
    .api = "openai",
    .request_id = "req-1",
    .body_hash = "abcdef",
    .webhook_url = "https://hooks.example/x",
    .durable = true,
    .keep = true,
};

static struct job *make(char digit, int64_t created)
{
    struct job *j = job_create();
    struct job_spec s = spec;
    char key[] = "key-0";

    key[4] = digit;
    s.idempotency_key = key;
    snprintf(j->id, sizeof j->id, ID "%c", digit);
    snprintf(j->token, sizeof j->token, TOKEN "%c", digit);
    CHECK(!job_spec_copy(&s, &j->spec, &j->spec_text));
    j->created = created;
    j->used = (struct picture_used){.model = "m",
                                    .preset = "fast",
                                    .sampler = "ddim",
                                    .size = {48, 64},
                                    .drawn = {64, 64},
                                    .stages = 2,
                                    .steps = {27, 10},
                                    .guidance_scale = {7.5F, 1},
                                    .noise_level = {-1, 250, -1},
                                    .tokens = 77,
                                    .tokens_cut = 5,
                                    .negative_tokens = 3,
                                    .negative_tokens_cut = 1};
    return j;
}

static void end(struct job *j, enum job_state state)
{
    j->state = state;
    j->started = j->created + 11;
    j->finished = j->created + 222;
    j->expires = j->created + 3333;
    j->webhook_tries = 3;
    j->webhook_next = j->created + 44444;
    if (state == JOB_FAILED)
        fault_set(&j->fault, ERR_NOT_FINITE, "model", "it became \"NaN\"");
    tell(STORE_FINISH, j);
}

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

// The last digits of the ids that a call answered with.
static void check_digits(struct store_call *c, const char *digits)
{
    char found[20] = "";
    CHECK_MSG(!c->why.code, "%s", c->why.msg);
    for (int i = 0; i < c->n; i++)
        found[i] = c->jobs[i]->id[strlen(c->jobs[i]->id) - 1];
    CHECK_STR(found, digits);
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

static void check_stats(int jobs, int ended, size_t bytes)
{
    struct store_call *c = run(ask(STORE_FIND, ""));
    CHECK_INT(c->n, 0);
    CHECK_INT(c->stats.jobs, jobs);
    CHECK_INT(c->stats.ended, ended);
    CHECK_INT(c->stats.bytes, bytes);
    store_call_free(c);
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

static void image_path(char out[200], char digit, int picture)
{
    snprintf(out, 200, "%s/images/" ID "%c-%d.webp", folder, digit, picture);
}

// Nobody else on this machine reads what was drawn; a file that is not what its row says is not
// offered; and what a client was waiting for is not drawn again.
static void test_files(void)
{
    struct job *j = make('1', 1000), *gone = make('2', 1000);
    struct stat st;
    char path[200];

    open_store();
    tell(STORE_ACCEPT, j);
    draw(j, 0, "RIFF....WEBP");
    draw(j, 1, "RIFF....WEBP");
    end(j, JOB_DONE);
    gone->spec.durable = false;
    tell(STORE_ACCEPT, gone);
    draw(gone, 0, "RIFF....WEBP");
    image_path(path, '1', 0);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    snprintf(path, sizeof path, "%s/images", folder);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0700);
    close_store();
    image_path(path, '1', 1);
    CHECK_INT(truncate(path, 11), 0);
    open_store();
    check_stats(1, 1, 12);
    image_path(path, '2', 0);
    CHECK_INT(access(path, F_OK), -1);
    struct store_call *c = run(ask(STORE_FIND, j->id));
    CHECK_INT(c->n, 1);
    CHECK_INT(c->jobs[0]->picture[0].state, JOB_DONE);
    CHECK_INT(c->jobs[0]->picture[1].state, JOB_FAILED);
    CHECK_INT(c->jobs[0]->picture[2].state, JOB_FAILED);
    store_call_free(c);
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    for (int i = 0; i < 2; i++) {
        image_path(path, '1', i);
        CHECK_INT(access(path, F_OK), -1);
    }
    close_store();
    job_free(&j);
    job_free(&gone);
}

// An unfinished job generates a damaged image again; the new file is as good as any other.
static void test_replaced(void)
{
    struct job *j = make('1', 1000), *found;
    struct store_call *c;
    struct blob *b;
    char path[200];

    open_store();
    tell(STORE_ACCEPT, j);
    draw(j, 0, "RIFF....WEBP");
    draw(j, 1, "RIFF....WEBP");
    close_store();
    for (int i = 0; i < 2; i++) {
        image_path(path, '1', i);
        CHECK_INT(truncate(path, 11), 0);
    }
    open_store();
    check_stats(1, 0, 0);
    c = run(ask(STORE_CLAIM, ""));
    CHECK_INT(c->n, 1);
    CHECK_INT(c->jobs[0]->picture[0].state, JOB_QUEUED);
    CHECK_INT(c->jobs[0]->picture[1].state, JOB_QUEUED);
    found = c->jobs[0];
    draw(found, 0, "RIFF....WEBP+");
    end(found, JOB_DONE);
    store_call_free(c);
    check_stats(1, 1, 13);
    c = run(ask(STORE_FIND, j->id));
    CHECK_INT(c->n, 1);
    CHECK_INT(c->jobs[0]->picture[0].state, JOB_DONE);
    CHECK_INT(c->jobs[0]->picture[0].bytes, 13);
    CHECK_INT(c->jobs[0]->picture[1].state, JOB_FAILED); // not replaced
    store_call_free(c);
    b = image(j, 0);
    CHECK(b && b->size == 13);
    blob_unref(&b);
    check_digits(run(ask(STORE_REMOVE, j->id)), "1");
    check_stats(0, 0, 0);
    close_store();
    job_free(&j);
}

static bool begins_with_a(void *ctx, const char *name)
{
    CHECK_INT(strlen(name), 64);
    return *name == 'a';
}

// Of the input images that no job wants, nothing stays; a wanted one may just be being written.
static void test_sweep(void)
{
    static const char *const end[] = {"", ".7.part"};
    char path[200];

    open_store();
    for (int i = 0; i < 4; i++) {
        char name[80];
        struct blob *file = blob_create((uint8_t *)strdup("image"), 5);
        struct fault why = {0};
        snprintf(name, sizeof name, "%064d%s", 0, end[i % 2]);
        memset(name, i < 2 ? 'a' : 'b', 64);
        CHECK_MSG(!store->ops->put_file(store, name, file, &why), "%s", why.msg);
        blob_unref(&file);
    }
    store->ops->sweep_files(store, begins_with_a, NULL);
    for (int i = 0; i < 4; i++) {
        const int n = snprintf(path, sizeof path, "%s/inputs/%064d%s", folder, 0, end[i % 2]);
        memset(path + n - 64 - (int)strlen(end[i % 2]), i < 2 ? 'a' : 'b', 64);
        CHECK_INT(access(path, F_OK), i < 2 ? 0 : -1);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/inputs/%064d%s", folder, 0, end[i]);
        memset(path + strlen(folder) + 8, 'a', 64);
        CHECK_INT(unlink(path), 0);
    }
    close_store();
}

// A file that was written only in part, as on a full disk, does not stay.
static void test_no_room(void)
{
    char name[65], path[200];
    struct rlimit before, little;
    struct blob *file = blob_create(calloc(1, 5000), 5000), *out = NULL;
    struct fault why = {0};

    snprintf(name, sizeof name, "%064d", 0);
    open_store();
    CHECK_INT(getrlimit(RLIMIT_FSIZE, &before), 0);
    little = (struct rlimit){1000, before.rlim_max};
    CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && !setrlimit(RLIMIT_FSIZE, &little));
    CHECK_INT(store->ops->put_file(store, name, file, &why), ERR_IO);
    CHECK_MSG(strstr(why.msg, "cannot write the image") != NULL, "%s", why.msg);
    CHECK_INT(setrlimit(RLIMIT_FSIZE, &before), 0);
    CHECK_INT(store->ops->get_file(store, name, &out, &why), ERR_NOT_FOUND);
    CHECK_INT(store->ops->file_size(store, name), 0);
    snprintf(path, sizeof path, "%s/inputs", folder);
    CHECK_INT(rmdir(path), 0); // and no part of it either
    blob_unref(&file);
    blob_unref(&out);
    close_store();
}

static void test_one_process(void)
{
    struct store *second = NULL;
    struct fault why = {0};

    open_store();
    CHECK_INT(store_sqlite_open(folder, &loop, &second, &why), ERR_BUSY);
    CHECK(!second && !strcmp(why.param, "data-dir"));
    close_store();
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
    }
    test_together();
    test_files();
    test_replaced();
    test_sweep();
    test_no_room();
    test_one_process();
    CHECK_INT(uv_loop_close(&loop), 0);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
    return test_end();
}
