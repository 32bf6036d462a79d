// The engine without a server, for comparison with the service: bench_alone MODEL SIZE. Opens the
// model, then reads lines "IN_FLIGHT PICTURES" and answers each with the seconds that PICTURES
// images of SIZE took, IN_FLIGHT at a time. Uses engine.h only.
#include "engine.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>

static const char prompt[] = "a red sphere on a wooden table";

struct count {
    int begun, done, failed;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct count *n = ctx;

    n->done += ev->type == ENGINE_DONE;
    n->failed += ev->type == ENGINE_FAILED;
}

// A picture joins as soon as one has left, as requests do in the service.
static enum err draw(struct engine *g, int size, int in_flight, int pictures, struct fault *why)
{
    struct count n = {0};
    enum err e = ERR_OK;

    while (!e && n.done < pictures) {
        while (!e && n.begun < pictures && n.begun - n.done < in_flight && engine_free(g)) {
            int slot;
            e = engine_admit(
                g, &(struct picture_request){.prompt = prompt, .size = {size, size}, .seed = 1},
                NULL, &slot, why);
            n.begun++;
        }
        if (!e)
            e = engine_step(g, on_event, &n, why);
        if (!e && n.failed)
            e = fault_set(why, ERR_INTERNAL, NULL, "a picture failed");
    }
    return e;
}

int main(int argc, char **argv)
{
    struct engine *g = NULL;
    struct fault why = {0};
    char line[64];
    int in_flight, pictures;
    enum err e;

    if (argc != 3) {
        fputs("usage: bench_alone MODEL SIZE\n", stderr);
        return 2;
    }
    const int size = atoi(argv[2]);
    e = engine_open(&(struct engine_params){.model = argv[1]}, &g, &why);
    if (!e)
        e = draw(g, size, 1, 1, &why); // a warm-up
    if (!e)
        puts("ready");
    fflush(stdout);
    while (!e && fgets(line, sizeof line, stdin) &&
           sscanf(line, "%d %d", &in_flight, &pictures) == 2) {
        const double began = clock_seconds();
        e = draw(g, size, in_flight, pictures, &why);
        printf("%.6f\n", clock_seconds() - began);
        fflush(stdout);
    }
    if (e)
        fprintf(stderr, "bench_alone: %s\n", why.msg);
    engine_close(&g);
    return e ? 1 : 0;
}
