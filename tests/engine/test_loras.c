// LoRAs that requests name: each image equals that of an engine that was opened with just these, in
// any batch; images with the same LoRAs share forward passes, and none waits forever.
#include "engine.h"

#include "buf.h"
#include "model_folder.h"
#include "safetensors.h"
#include "test.h"
#include "trace.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BASE = 16, SIZE = 64, RGB = 3 * SIZE * SIZE, RANK = 2, STEPS = 2 };

static const char model[] = GOLDEN "/if-tiny-I," GOLDEN "/if-tiny-II";
static char folder[256];

// ---- files ------------------------------------------------------------------------------------

static float next_value(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) / 16777216.0F - 0.5F;
}

// Attention and the text part, which an image passes once, when it enters its stage.
static void write_lora(const char *name, const char *network, const char *block, uint32_t seed)
{
    static const char *const layers[] = {"to_q", "add_k_proj"};
    struct safetensors *set = NULL;
    struct fault why = {0};
    char header[2048] = "{", dir[512], weight[128];
    static float values[1 << 16];
    size_t at = 1, count = 0;

    snprintf(dir, sizeof dir, GOLDEN "/%s/unet", network);
    CHECK_MSG(!safetensors_open(
                  &(struct safetensors_params){.dir = dir, .base = "diffusion_pytorch_model"}, &set,
                  &why),
              "%s", why.msg);
    for (int i = 0; set && i < 4; i++) {
        snprintf(weight, sizeof weight, "%s.attentions.0.%s.weight", block, layers[i / 2]);
        const struct safetensor *w = safetensors_find(set, weight);
        const uint64_t rows = i % 2 ? w->shape[0] : RANK, columns = i % 2 ? RANK : w->shape[1];
        const size_t first = 4 * count;
        for (uint64_t k = 0; k < rows * columns; k++)
            values[count++] = next_value(&seed);
        at += (size_t)snprintf(header + at, sizeof header - at,
                               "%s\"unet.%s.attentions.0.%s.lora_%c.weight\":{\"dtype\":\"F32\","
                               "\"shape\":[%d,%d],\"data_offsets\":"
                               "[%zu,%zu]}",
                               i ? "," : "", block, layers[i / 2], i % 2 ? 'B' : 'A', (int)rows,
                               (int)columns, first, 4 * count);
    }
    at += (size_t)snprintf(header + at, sizeof header - at, "}");
    const uint64_t length = at;
    char *file = malloc(8 + at + 4 * count);
    memcpy(file, &length, 8);
    memcpy(file + 8, header, at);
    memcpy(file + 8 + at, values, 4 * count);
    model_folder_write(name, file, 8 + at + 4 * count);
    free(file);
    safetensors_close(&set);
}

// ---- images -----------------------------------------------------------------------------------

struct result {
    uint8_t rgb[RGB];
    char loras[sizeof(((struct picture_used *)0)->loras)];
    int done, failed, after; // after: the number of calls of engine_step
    struct fault why;
};

static int calls;
static struct engine *current;

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct result *r = ev->tag;

    (void)ctx;
    if (ev->type == ENGINE_DONE) {
        r->done++;
        r->after = calls;
        memcpy(r->rgb, ev->image.rgb, (size_t)(ev->image.width * ev->image.height) * 3);
        snprintf(r->loras, sizeof r->loras, "%s", engine_used(current, ev->slot)->loras);
    }
    if (ev->type == ENGINE_FAILED) {
        r->failed++;
        r->why = *ev->fault;
    }
}

static void step(struct engine *g)
{
    struct fault why = {0};

    current = g;
    calls++;
    CHECK_MSG(!engine_step(g, on_event, NULL, &why), "%s", why.msg);
}

static void admit(struct engine *g, const struct picture_request *r, struct result *out)
{
    struct fault why = {0};
    int slot;

    memset(out, 0, sizeof *out);
    CHECK_MSG(!engine_admit(g, r, out, &slot, &why), "%s", why.msg);
}

// The files of a list such as "a:0.5,b".
static void paths_of(const char *list, char *out, size_t n)
{
    size_t at = 0;

    *out = 0;
    for (const char *s = list; *s; s += strcspn(s, ","), s += *s == ',') {
        const int name = (int)strcspn(s, ",:"), all = (int)strcspn(s, ",");
        at += (size_t)snprintf(out + at, n - at, "%s%s/%.*s.safetensors%.*s", at ? "," : "", folder,
                               name, s, all - name, s + name);
    }
}

// lora and lora_choices: lists for paths_of.
static struct engine *open_with(const char *lora, const char *choices, size_t limit, int slots)
{
    struct engine *g = NULL;
    struct fault why = {0};
    char files[2][640];

    paths_of(lora, files[0], sizeof files[0]);
    paths_of(choices, files[1], sizeof files[1]);
    const enum err e = engine_open(&(struct engine_params){.model = model,
                                                           .lora = files[0],
                                                           .lora_choices = files[1],
                                                           .memory_limit = limit,
                                                           .slots = slots,
                                                           .dtype = "f32"},
                                   &g, &why);
    CHECK_MSG(!e, "%s", why.msg);
    return g;
}

// An engine from which requests choose.
static struct engine *open_choices(size_t limit, int slots)
{
    return open_with("a:0.5", "b:0.75,c", limit, slots);
}

// The list of a request, and an engine's own LoRAs that are the same.
static const struct {
    const char *named; // NULL: nothing
    const char *lora;
    const char *loras; // in the metadata
    int edge;
} sets[] = {
    {NULL, "a:0.5", "a:0.5", SIZE},
    {"", "", "", SIZE},
    {"b", "b:0.75", "b:0.75", SIZE},
    {"b:0.7", "b:0.7", "b:0.7", SIZE},
    {"b,a:-1", "b:0.75,a:-1", "b:0.75, a:-1", SIZE},
    {"c", "c", "c:1", SIZE},
    {"b,c:2", "b:0.75,c:2", "b:0.75, c:2", SIZE},
    {"c:2,b", "b:0.75,c:2", "b:0.75", BASE},
};
enum { SETS = sizeof sets / sizeof *sets, OF_BASE = 2, OF_SUPER = 5 };

static struct picture_request request_of(int set)
{
    struct picture_request r = {.prompt = "a photo of a fox",
                                .seed = 11,
                                .size = {sets[set].edge, sets[set].edge},
                                .steps = {STEPS, sets[set].edge == SIZE ? STEPS : 0}};

    if (sets[set].named)
        CHECK(!check_query(&picture_table, "loras", sets[set].named, &r, NULL));
    return r;
}

// Drawn, once, by an engine with just these LoRAs.
static const struct result *expected(int set)
{
    static struct result drawn[SETS];
    struct result *r = &drawn[set];

    if (!r->done) {
        struct engine *g = open_with(sets[set].lora, "", 0, 1);
        struct picture_request request = request_of(set);
        request.loras = (struct check_scales){.given = false};
        admit(g, &request, r);
        while (engine_busy(g))
            step(g);
        CHECK_INT(r->done, 1);
        CHECK_STR(r->loras, sets[set].loras);
        engine_close(&g);
    }
    return r;
}

// ---- tests ------------------------------------------------------------------------------------

// Else the others could not tell the sets apart.
static void test_sets(void)
{
    for (int i = 0; i < SETS; i++)
        for (int k = 0; k < i; k++)
            CHECK_MSG(memcmp(expected(i)->rgb, expected(k)->rgb, RGB) != 0, "%d and %d", i, k);
}

static void check_result(const struct result *got, int set)
{
    const size_t bytes = (size_t)(3 * sets[set].edge * sets[set].edge);

    CHECK_MSG(got->done == 1 && !got->failed, "set %d: %s", set, got->why.msg);
    CHECK_MSG(!memcmp(got->rgb, expected(set)->rgb, bytes), "set %d", set);
    CHECK_STR(got->loras, sets[set].loras);
}

// The least memory limit for three images at once.
static size_t least_limit(void)
{
    const struct engine_params p = {
        .model = model, .memory_limit = 1 << 20, .slots = 3, .dtype = "f32"};
    static const char words[] = "needs at least ";
    struct engine *g = NULL;
    struct fault why = {0};

    CHECK_INT(engine_open(&p, &g, &why), ERR_NO_DEVICE_MEMORY);
    const char *at = strstr(why.msg, words);
    CHECK_MSG(at != NULL, "%s", why.msg);
    return at ? (size_t)atol(at + strlen(words)) * 1000000 : 0;
}

// All sets in turn, together with other images, while slots become free.
static void test_company(size_t limit, int images)
{
    static struct result got[2 * SETS];
    struct engine *g = open_choices(limit, 3);
    int admitted = 0;

    while (g && (admitted < images || engine_busy(g))) {
        while (admitted < images && engine_free(g)) {
            const struct picture_request r = request_of(admitted * 3 % SETS);
            admit(g, &r, &got[admitted++]);
        }
        step(g);
    }
    for (int i = 0; i < images; i++)
        check_result(&got[i], i * 3 % SETS);
    engine_close(&g);
}

static struct engine_stats stats(const struct engine *g)
{
    struct engine_stats s;

    engine_stats(g, &s);
    return s;
}

// How often weights were read, from a trace.
static int count_uploads(const char *trace)
{
    struct buf text = {0};
    struct fault why = {0};
    int n = 0;

    CHECK(!buf_read_file(&text, trace, 1 << 24, &why));
    for (const char *s = text.data; s && (s = strstr(s, "\"weights of ")); s++)
        n++;
    buf_deinit(&text);
    return n;
}

// Two pairs in alternating order: a pair shares its passes, and weights are read only for a stage
// whose LoRAs change.
static void test_passes(struct engine *g)
{
    static const int order[] = {OF_BASE, OF_SUPER, OF_BASE, OF_SUPER};
    static struct result got[4];
    struct fault why = {0};
    char trace[300];

    snprintf(trace, sizeof trace, "%s/trace", folder);
    CHECK(!trace_open(trace, &why));

    for (int i = 0; i < 4; i++) {
        const struct picture_request r = request_of(order[i]);
        admit(g, &r, &got[i]);
    }
    while (engine_busy(g))
        step(g);
    CHECK(!trace_close(&why));
    // a to b in the first stage, b to none in the first and none to c in the second.
    CHECK_INT(count_uploads(trace), 3);
    for (int i = 0; i < 4; i++)
        check_result(&got[i], order[i]);
    const struct engine_stats s = stats(g);
    CHECK_INT(s.steps[0], 2 * STEPS);
    CHECK_INT(s.step_pictures[0], 4 * STEPS);
    CHECK_INT(s.steps[1], 2 * STEPS);
    CHECK_INT(s.step_pictures[1], 4 * STEPS);
}

// An image that joins another's passes, and is in the stage when an older one with other LoRAs has
// its turn there, waits with the steps that it has done.
static void test_left_behind(struct engine *g)
{
    const struct picture_request r = request_of(OF_BASE), older = request_of(OF_SUPER);
    static struct result got[3];

    admit(g, &r, &got[0]);
    step(g);
    admit(g, &older, &got[1]);
    admit(g, &r, &got[2]);
    while (engine_busy(g))
        step(g);
    for (int i = 0; i < 3; i++)
        check_result(&got[i], i == 1 ? OF_SUPER : OF_BASE);
    CHECK(got[0].after < got[1].after && got[1].after < got[2].after);
}

// A stream of others does not keep an image with its own LoRA waiting, nor does its end.
static void test_no_starvation(void)
{
    enum { STREAM = 8 };
    struct engine *g = open_choices(0, 2);
    const struct picture_request other = request_of(OF_BASE), r = request_of(OF_SUPER);
    static struct result stream[STREAM], one;
    int admitted = 1;

    calls = 0;
    admit(g, &other, &stream[0]);
    admit(g, &r, &one);
    while (admitted < STREAM || engine_busy(g)) {
        while (admitted < STREAM && engine_free(g))
            admit(g, &other, &stream[admitted++]);
        step(g);
    }
    // The older one, then this one, each alone.
    CHECK_INT(one.done, 1);
    CHECK_INT(stream[0].after, 2 * STEPS);
    CHECK_INT(one.after, 4 * STEPS);
    for (int i = 1; i < STREAM; i++)
        CHECK(stream[i].done == 1 && stream[i].after > one.after);
    engine_close(&g);
}

// An image that is cancelled leaves nothing behind that the next ones would have.
static void test_cancelled(struct engine *g)
{
    const struct picture_request r = request_of(OF_BASE), other = request_of(OF_SUPER);
    static struct result got[2], cancelled;
    struct fault why = {0};
    int slot;

    memset(&cancelled, 0, sizeof cancelled);
    CHECK(!engine_admit(g, &other, &cancelled, &slot, &why));
    step(g);
    admit(g, &r, &got[0]);
    step(g);
    CHECK_INT(engine_evict(g, slot), ERR_OK);
    admit(g, &r, &got[1]);
    while (engine_busy(g))
        step(g);
    check_result(&got[0], OF_BASE);
    check_result(&got[1], OF_BASE);
    CHECK(!cancelled.done && !cancelled.failed);
}

// A file that has gone since the start fails the images that need it, and no others.
static void test_gone(struct engine *g)
{
    const struct picture_request good = request_of(1), bad = request_of(OF_SUPER);
    static struct result got[4];
    char path[300];

    snprintf(path, sizeof path, "%s/c.safetensors", folder);
    CHECK_INT(unlink(path), 0);
    admit(g, &bad, &got[0]);
    admit(g, &good, &got[1]);
    admit(g, &bad, &got[2]);
    while (engine_busy(g))
        step(g);
    admit(g, &good, &got[3]);
    while (engine_busy(g))
        step(g);
    for (int i = 0; i <= 2; i += 2) {
        CHECK(got[i].failed == 1 && !got[i].done);
        CHECK_INT(got[i].why.code, ERR_INTERNAL);
        CHECK_MSG(strstr(got[i].why.msg, "c.safetensors") != NULL, "%s", got[i].why.msg);
    }
    check_result(&got[1], 1);
    check_result(&got[3], 1);
    write_lora("c.safetensors", "if-tiny-II", "down_blocks.2", 3);
}

static void test_refused(void)
{
    static const struct {
        const char *lora, *choices, *says;
    } bad[] = {
        {"a", "a", "two LoRAs have the name \"a\""},
        {"", "b,c,b", "two LoRAs have the name \"b\""},
        {"", "nowhere", "nowhere"},
        {"", "a:1000", "the scale of lora"},
    };
    struct fault why = {0};
    struct engine_plan *one = NULL;
    const struct picture_request r = request_of(OF_BASE);
    struct picture_used used;
    char file[640];

    paths_of("a", file, sizeof file);
    CHECK(!engine_plan_open(&(struct engine_params){.model = model, .lora = file}, &one, &why));
    CHECK_INT(engine_plan_resolve(one, &r, &used, &why), ERR_INVALID);
    CHECK_STR(why.param, "loras");
    CHECK_MSG(strstr(why.msg, "unknown LoRA \"b\"; this model has a") != NULL, "%s", why.msg);
    engine_plan_close(&one);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct engine_plan *plan = NULL;
        char files[2][640];
        paths_of(bad[i].lora, files[0], sizeof files[0]);
        paths_of(bad[i].choices, files[1], sizeof files[1]);
        CHECK(
            engine_plan_open(
                &(struct engine_params){.model = model, .lora = files[0], .lora_choices = files[1]},
                &plan, &why) != ERR_OK);
        CHECK_MSG(strstr(why.msg, bad[i].says) != NULL, "%s", why.msg);
        engine_plan_close(&plan);
    }
}

int main(void)
{
    struct engine *g = NULL;
    struct fault why = {0};
    char *devices = NULL;

    if (engine_devices(&devices, &why)) {
        fprintf(stderr, "%s\n", why.msg);
        return why.code == ERR_NO_DEVICE ? test_skip(why.msg) : 1;
    }
    free(devices);
    snprintf(folder, sizeof folder, "%s", model_folder(GOLDEN));
    write_lora("a.safetensors", "if-tiny-I", "mid_block", 1);
    write_lora("b.safetensors", "if-tiny-I", "mid_block", 2);
    write_lora("c.safetensors", "if-tiny-II", "down_blocks.2", 3);
    RUN(test_sets());
    RUN(test_company(0, 2 * SETS));
    RUN(test_company(least_limit(), SETS));
    RUN(test_no_starvation());
    g = open_choices(0, 4);
    RUN(test_passes(g));
    RUN(test_left_behind(g));
    RUN(test_cancelled(g));
    RUN(test_gone(g));
    engine_close(&g);
    RUN(test_refused());
    return test_end();
}
