// The stores alone: a reopened store returns every field of a job, in order of creation; images are
// private files that are deleted with their job.
#include "blob.h"
#include "store.h"
#include "test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ID "job_0123456789abcdef0123456789abcde"
#define TOKEN "fedcba9876543210fedcba987654321"

static char folder[] = "/tmp/imagend-store-XXXXXX";

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
    .idempotency_key = "key-1",
    .body_hash = "abcdef",
    .webhook_url = "https://hooks.example/x",
    .durable = true,
    .keep = true,
};

static struct job *make(char digit, enum job_state state, int64_t created)
{
    struct job *j = job_create();

    snprintf(j->id, sizeof j->id, ID "%c", digit);
    snprintf(j->token, sizeof j->token, TOKEN "%c", digit);
    CHECK(!job_spec_copy(&spec, &j->spec, &j->spec_text));
    j->state = state;
    j->created = created;
    j->started = created + 11;
    j->finished = created + 222;
    j->expires = created + 3333;
    j->webhook_tries = 3;
    j->webhook_next = created + 44444;
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
    fault_set(&j->fault, ERR_NOT_FINITE, "model", "it became \"NaN\"");
    return j;
}

static void check_spec(const struct job_spec *s)
{
    char *a = job_spec_write(s), *b = job_spec_write(&spec);

    // Every field of the table; test_spec.c says that it is written.
    CHECK_STR(a, b);
    CHECK_STR(s->client, "192.0.2.7");
    CHECK_STR(s->request_id, "req-1");
    CHECK_STR(s->idempotency_key, "key-1");
    CHECK_STR(s->body_hash, "abcdef");
    CHECK_STR(s->webhook_url, spec.webhook_url);
    CHECK(s->n == 3 && s->quality == 77 && s->previews == 2 && s->priority == 4);
    CHECK(s->preview_format == JOB_PNG && s->request.picture == 4);
    CHECK_STR(s->api, "openai");
    free(a);
    free(b);
}

struct found {
    int count;
    char order[8];
};

static void on_row(void *ctx, struct job *j)
{
    struct found *f = ctx;
    const struct picture_used *u = &j->used;
    const char digit = j->id[strlen(j->id) - 1];

    f->order[f->count++] = digit;
    check_spec(&j->spec);
    CHECK(!strncmp(j->token, TOKEN, sizeof TOKEN - 1) && j->token[sizeof TOKEN - 1] == digit);
    CHECK_INT(j->started - j->created, 11);
    CHECK_INT(j->finished - j->created, 222);
    CHECK_INT(j->expires - j->created, 3333);
    CHECK_INT(j->webhook_tries, 3);
    CHECK_INT(j->webhook_next - j->created, 44444);
    CHECK_STR(u->model, "m");
    CHECK_STR(u->preset, "fast");
    CHECK_STR(u->sampler, "ddim");
    CHECK(u->size.width == 48 && u->size.height == 64 && u->drawn.width == 64 && u->stages == 2);
    CHECK(u->steps[1] == 10 && u->guidance_scale[0] == 7.5F && u->noise_level[1] == 250);
    CHECK(u->tokens == 77 && u->tokens_cut == 5);
    CHECK(u->negative_tokens == 3 && u->negative_tokens_cut == 1);
    switch (digit) {
    case '1': CHECK_INT(j->state, JOB_QUEUED); break;
    case '2':
        CHECK_INT(j->state, JOB_FAILED);
        CHECK_INT(j->fault.code, ERR_NOT_FINITE);
        CHECK_STR(j->fault.msg, "it became \"NaN\"");
        break;
    case '3':
        CHECK_INT(j->state, JOB_DONE);
        CHECK(!j->fault.code && !j->fault.msg[0]);
        CHECK_INT(j->picture[0].state, JOB_DONE);
        CHECK(j->picture[0].bytes == 12 && j->picture[0].width == 48);
        CHECK_INT(j->picture[0].height, 64);
        // Its file has another size, and there is none.
        CHECK_INT(j->picture[1].state, JOB_FAILED);
        CHECK_INT(j->picture[2].state, JOB_FAILED);
        break;
    default: CHECK_MSG(false, "%s", j->id);
    }
    job_free(&j);
}

static struct store *open_store(void)
{
    struct store *s = NULL;
    struct fault why = {0};

    CHECK_MSG(!store_sqlite_open(folder, &s, &why), "%s", why.msg);
    return s;
}

static void check_found(const char *order)
{
    struct store *s = open_store();
    struct found f = {0};
    struct fault why = {0};

    CHECK_MSG(!s->ops->load(s, on_row, &f, &why), "%s", why.msg);
    CHECK_STR(f.order, order);
    s->ops->close(&s);
    CHECK(!s);
}

static void image_path(char out[200], char digit, int picture)
{
    snprintf(out, 200, "%s/images/" ID "%c-%d.webp", folder, digit, picture);
}

static void put_image(struct store *s, const struct job *j, int picture, const char *bytes)
{
    uint8_t *copy = malloc(strlen(bytes));
    memcpy(copy, bytes, strlen(bytes));
    struct blob *b = blob_create(copy, strlen(bytes)), *back = NULL;
    struct fault why = {0};

    CHECK_MSG(!s->ops->put_image(s, j->id, picture, JOB_WEBP, b, &why), "%s", why.msg);
    CHECK_MSG(!s->ops->get_image(s, j->id, picture, JOB_WEBP, &back, &why), "%s", why.msg);
    CHECK(back && back->size == b->size && !memcmp(back->data, bytes, b->size));
    blob_unref(&back);
    blob_unref(&b);
}

static void test_round_trip(void)
{
    struct store *s = open_store();
    struct job *queued = make('1', JOB_QUEUED, 1000), *failed = make('2', JOB_FAILED, 500),
               *done = make('3', JOB_DONE, 2000);
    struct fault why = {0};
    struct blob *b = NULL;
    struct stat st;
    char path[200];

    CHECK(!s->ops->put(s, queued, &why) && !s->ops->put(s, failed, &why));
    put_image(s, done, 0, "RIFF....WEBP");
    put_image(s, done, 1, "RIFF....WEBP");
    for (int i = 0; i < 2; i++) {
        done->picture[i].bytes = i ? 13 : 12;
        done->picture[i].width = 48;
        done->picture[i].height = 64;
    }
    CHECK(!s->ops->put(s, done, &why));
    CHECK(!s->ops->put(s, done, &why)); // again: replaced
    CHECK_INT(s->ops->get_image(s, done->id, 2, JOB_WEBP, &b, &why), ERR_NOT_FOUND);
    CHECK(!strstr(why.msg, folder)); // clients read it
    // Nobody else on this machine reads what was drawn.
    image_path(path, '3', 0);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0600);
    snprintf(path, sizeof path, "%s/images", folder);
    CHECK(!stat(path, &st) && (st.st_mode & 0777) == 0700);
    s->ops->close(&s);
    check_found("213");

    s = open_store();
    CHECK(!s->ops->remove(s, done, &why));
    CHECK(!s->ops->remove(s, done, &why)); // not there: no error
    for (int i = 0; i < 2; i++) {
        image_path(path, '3', i);
        CHECK_INT(access(path, F_OK), -1);
    }
    s->ops->close(&s);
    check_found("21");

    s = open_store();
    CHECK(!s->ops->remove(s, queued, &why) && !s->ops->remove(s, failed, &why));
    s->ops->close(&s);
    check_found("");
    job_free(&queued);
    job_free(&failed);
    job_free(&done);
}

static void test_one_process(void)
{
    struct store *first = open_store(), *second = NULL;
    struct fault why = {0};

    CHECK_INT(store_sqlite_open(folder, &second, &why), ERR_BUSY);
    CHECK(!second && !strcmp(why.param, "data-dir"));
    first->ops->close(&first);
}

static void test_memory(void)
{
    struct store *s = NULL;
    struct fault why = {0};
    struct job *j = make('1', JOB_QUEUED, 1000);
    struct found f = {0};

    CHECK(!store_memory_open(&s, &why));
    CHECK(!s->ops->holds_images);
    CHECK(!s->ops->put(s, j, &why) && !s->ops->load(s, on_row, &f, &why) && !f.count);
    s->ops->close(&s);
    CHECK(!s);
    job_free(&j);
}

int main(void)
{
    char command[100];

    CHECK(mkdtemp(folder) != NULL);
    test_round_trip();
    test_one_process();
    test_memory();
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK_INT(system(command), 0);
    return test_end();
}
