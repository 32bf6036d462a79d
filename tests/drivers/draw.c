// Generates images and writes their pixels as PPM files, which need no decoder to compare: draw
// MODEL SIZE FOLDER PROMPT SEED... writes FOLDER/SEED.ppm, with 4 steps in the first stage. Called
// by driver.sh, once per driver, and by bench/gpu.py, with DRAW_STEPS=0 for the model's own steps
// and DRAW_DTYPE for another storage. Uses engine.h only.
#include "engine.h"

#include <stdio.h>
#include <stdlib.h>

struct drawing {
    char path[1024];
    bool drawn;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct drawing *d = ctx;
    const struct engine_image *image = &ev->image;

    if (ev->type == ENGINE_FAILED)
        fprintf(stderr, "draw: %s\n", ev->fault->msg);
    if (ev->type != ENGINE_DONE)
        return;
    FILE *f = fopen(d->path, "wb");
    if (!f)
        return;
    const size_t bytes = (size_t)image->width * (size_t)image->height * 3;
    d->drawn = fprintf(f, "P6\n%d %d\n255\n", image->width, image->height) > 0 &&
               fwrite(image->rgb, 1, bytes, f) == bytes;
    d->drawn = !fclose(f) && d->drawn;
}

static enum err draw(struct engine *g, const struct picture_request *r, struct drawing *d,
                     struct fault *why)
{
    int slot;
    enum err e = engine_admit(g, r, d, &slot, why);

    while (!e && engine_busy(g))
        e = engine_step(g, on_event, d, why);
    if (!e && !d->drawn)
        e = fault_set(why, ERR_IO, NULL, "%s was not written", d->path);
    return e;
}

int main(int argc, char **argv)
{
    struct engine *g = NULL;
    struct fault why = {0};

    if (argc < 6) {
        fputs("usage: draw MODEL SIZE FOLDER PROMPT SEED...\n", stderr);
        return 2;
    }
    const char *steps = getenv("DRAW_STEPS");
    const struct engine_params p = {.model = argv[1], .slots = 1, .dtype = getenv("DRAW_DTYPE")};
    enum err e = engine_open(&p, &g, &why);
    for (int i = 5; !e && i < argc; i++) {
        struct drawing d = {.drawn = false};
        snprintf(d.path, sizeof d.path, "%s/%s.ppm", argv[3], argv[i]);
        e = draw(g,
                 &(struct picture_request){.prompt = argv[4],
                                           .size = {atoi(argv[2]), atoi(argv[2])},
                                           .seed = strtoull(argv[i], NULL, 10),
                                           .steps = {steps ? atoi(steps) : 4}},
                 &d, &why);
    }
    if (e)
        fprintf(stderr, "draw: %s\n", why.msg);
    else
        printf("%d drawn\n", argc - 5);
    engine_close(&g);
    return e ? 1 : 0;
}
