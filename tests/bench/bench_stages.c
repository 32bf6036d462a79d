// The stages of a cascade, one image at a time: bench_stages MODEL [profile]. Opens the model,
// draws an image to warm up, then answers each line of standard input with a line of JSON: seconds
// and processor seconds of every stage of one more image. With `profile`, draws one image for each
// line and prints the operators' times at the end. Uses engine.h only. Run by bench_torch.py.
#include "bench.h"
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {
    double seconds[PICTURE_MAX_STAGES], busy[PICTURE_MAX_STAGES];
    double since; // processor time at the end of the stage before
    bool done, failed;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct run *r = ctx;

    if (ev->type == ENGINE_STAGE) {
        const double now = bench_cpu();
        r->seconds[ev->stage] = ev->stage_seconds;
        r->busy[ev->stage] = now - r->since;
        r->since = now;
    }
    r->failed = r->failed || ev->type == ENGINE_FAILED;
    r->done = r->done || ev->type == ENGINE_DONE || ev->type == ENGINE_FAILED;
}

static enum err draw(struct engine *g, uint64_t seed, struct run *r, struct fault *why)
{
    const struct picture_request request = {.prompt = "a red ball next to a blue cube on the grass",
                                            .seed = seed};
    int slot;
    enum err e = engine_admit(g, &request, NULL, &slot, why);

    *r = (struct run){.since = bench_cpu()};
    while (!e && !r->done)
        e = engine_step(g, on_event, r, why);
    if (!e && r->failed)
        e = fault_set(why, ERR_INTERNAL, NULL, "the image failed");
    return e;
}

static void print(const struct model_info *info, const struct run *r)
{
    for (int i = 0; i < info->stages; i++)
        printf("%s{\"stage\": \"%s\", \"seconds\": %.6f, \"busy\": %.6f}", i ? ", " : "[",
               info->stage[i].name, r->seconds[i], r->busy[i]);
    puts("]");
    fflush(stdout);
}

static enum err answer(struct engine *g, bool profile, struct fault *why)
{
    char line[16], *text;
    struct run r;
    enum err e = draw(g, 0, &r, why); // a warm-up
    uint64_t seed = 1;

    free(engine_profile(g));
    if (!e)
        puts("ready");
    fflush(stdout);
    for (; !e && fgets(line, sizeof line, stdin); seed++) {
        e = draw(g, seed, &r, why);
        if (!e && !profile)
            print(engine_info(g), &r);
    }
    text = e ? NULL : engine_profile(g);
    if (text)
        fputs(text, stdout);
    free(text);
    return e;
}

int main(int argc, char **argv)
{
    const bool profile = argc == 3 && !strcmp(argv[2], "profile");
    struct engine *g = NULL;
    struct fault why = {0};

    if (argc != 2 && !profile) {
        fputs("usage: bench_stages MODEL [profile]\n", stderr);
        return 2;
    }
    enum err e =
        engine_open(&(struct engine_params){.model = argv[1], .profile = profile}, &g, &why);
    if (!e)
        e = answer(g, profile, &why);
    if (e)
        fprintf(stderr, "bench_stages: %s\n", why.msg);
    engine_close(&g);
    return e ? 1 : 0;
}
