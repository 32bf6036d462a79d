// See one_store.h.
#include "one_store.h"

#include "test.h"

#include <stdlib.h>

#define TOKEN "fedcba9876543210fedcba987654321"

char folder[] = "/tmp/imagend-store-XXXXXX";
uv_loop_t loop;
struct store *store;
bool durable;
const char *database;

// ---- opening, and one call after the other ----------------------------------------------------

static enum err open_kind(struct fault *why)
{
    const struct store_postgres_params p = {
        .loop = &loop, .database = database, .replica = "test", .keep_ms = 3600000};
    if (database)
        return store_postgres_open(&p, &store, why);
    return durable ? store_sqlite_open(folder, &loop, &store, why) : store_memory_open(&store, why);
}

void open_store(void)
{
    struct fault why = {0};
    CHECK_MSG(!open_kind(&why), "%s", why.msg);
}

static void on_closed(void *ctx)
{
    *(bool *)ctx = true;
}

void close_store(void)
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

struct store_call *run(struct store_call *c)
{
    bool done = false;
    c->ctx = &done;
    store->ops->call(store, c);
    while (!done)
        uv_run(&loop, UV_RUN_ONCE);
    return c;
}

struct store_call *about(enum store_op op, const struct job *j)
{
    return store_call_about(op, j, on_done, NULL);
}

struct store_call *ask(enum store_op op, const char *id)
{
    struct store_call *c = store_call_create(op, on_done, NULL);
    snprintf(c->id, sizeof c->id, "%s", id);
    return c;
}

void tell(enum store_op op, const struct job *j)
{
    struct store_call *c = run(about(op, j));
    CHECK_MSG(!c->why.code && !c->n, "%s", c->why.msg);
    store_call_free(c);
}

struct blob *bytes_of(const char *s)
{
    return blob_create((uint8_t *)strdup(s), strlen(s));
}

void draw(struct job *j, int picture, const char *bytes)
{
    j->picture[picture] = (struct job_picture){.state = JOB_DONE,
                                               .stage = 1,
                                               .stages = 2,
                                               .step = 10,
                                               .steps = 10,
                                               .bytes = strlen(bytes),
                                               .width = 48,
                                               .height = 64};
    struct store_call *c = about(STORE_DRAWN, j);
    c->picture = picture;
    c->image = bytes_of(bytes);
    CHECK_MSG(!run(c)->why.code, "%s", c->why.msg);
    store_call_free(c);
}

struct blob *image(const struct job *j, int picture)
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

struct job *make(char digit, int64_t created)
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

void end(struct job *j, enum job_state state)
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

void check_digits(struct store_call *c, const char *digits)
{
    char found[20] = "";
    CHECK_MSG(!c->why.code, "%s", c->why.msg);
    for (int i = 0; i < c->n; i++)
        found[i] = c->jobs[i]->id[strlen(c->jobs[i]->id) - 1];
    CHECK_STR(found, digits);
    store_call_free(c);
}

void check_stats(int jobs, int ended, size_t bytes)
{
    struct store_call *c = run(ask(STORE_FIND, ""));
    CHECK_INT(c->n, 0);
    CHECK_INT(c->stats.jobs, jobs);
    CHECK_INT(c->stats.ended, ended);
    CHECK_INT(c->stats.bytes, bytes);
    store_call_free(c);
}

void image_path(char out[200], char digit, int picture)
{
    snprintf(out, 200, "%s/images/" ID "%c-%d.webp", folder, digit, picture);
}
