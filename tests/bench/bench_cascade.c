// The whole cascade: time to readiness, time of each stage and operator, memory; and the same for
// each preset, relative to the default settings. Usage: bench_cascade [MODEL [RUNS]]; medians of
// RUNS images (default 3). Uses engine.h only.
#include "engine.h"

#include "clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { MAX_RUNS = 100 };

struct run {
    double stage[PICTURE_MAX_STAGES];
    bool done;
};

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct run *r = ctx;

    if (ev->type == ENGINE_STAGE)
        r->stage[ev->stage] = ev->stage_seconds;
    if (ev->type == ENGINE_DONE || ev->type == ENGINE_FAILED)
        r->done = true;
}

static enum err draw(struct engine *g, const char *preset, uint64_t seed, struct run *r,
                     struct fault *why)
{
    const struct picture_request request = {
        .prompt = "a red ball next to a blue cube on the grass", .preset = preset, .seed = seed};
    int slot;
    enum err e = engine_admit(g, &request, NULL, &slot, why);

    while (!e && !r->done)
        e = engine_step(g, on_event, r, why);
    return e;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(const struct run *runs, int count, int stage)
{
    double v[MAX_RUNS];

    for (int i = 0; i < count; i++) {
        v[i] = 0;
        for (int k = 0; k < PICTURE_MAX_STAGES; k++)
            v[i] += stage < 0 || k == stage ? runs[i].stage[k] : 0;
    }
    qsort(v, (size_t)count, sizeof *v, ascending);
    return v[count / 2];
}

static void report_memory(struct engine *g)
{
    struct rusage usage;
    struct engine_stats stats;

    engine_stats(g, &stats);
    getrusage(RUSAGE_SELF, &usage);
    printf("memory     %.1f MB of the device at most, %.1f MB resident at most\n",
           (double)stats.device_peak_bytes / 1e6, (double)usage.ru_maxrss * 1024 / 1e6);
}

static void report(struct engine *g, const struct run *runs, int count)
{
    const struct model_info *info = engine_info(g);
    char *profile = engine_profile(g);

    for (int i = 0; i < info->stages; i++)
        printf("%-10s %5d px %3d steps   %7.3f s, median of %d\n", info->stage[i].name,
               info->stage[i].size, info->stage[i].steps, median(runs, count, i), count);
    printf("%-10s                    %7.3f s\n", "picture", median(runs, count, -1));
    report_memory(g);
    printf("%s", profile ? profile : "");
    free(profile);
}

static void report_preset(const struct engine *g, int preset, const struct run *runs, int count,
                          double full)
{
    const struct model_info *info = engine_info(g);
    const struct model_preset *p = &info->preset[preset];
    const double whole = median(runs, count, -1);

    printf("preset %s:", p->name);
    for (int i = 0; i < info->stages; i++)
        printf(" %d px %d steps %.3f s,", info->stage[i].size, p->steps[i], median(runs, count, i));
    printf(" picture %.3f s, %.2f of the full settings' time\n", whole, whole / full);
}

// The first picture is a warm-up.
static enum err draw_runs(struct engine *g, const char *preset, struct run *runs, int count,
                          struct fault *why)
{
    struct run first = {0};
    enum err e = draw(g, preset, 0, &first, why);

    free(engine_profile(g));
    for (int i = 0; !e && i < count; i++) {
        runs[i] = (struct run){0};
        e = draw(g, preset, (uint64_t)i + 1, &runs[i], why);
    }
    return e;
}

static enum err bench(struct engine *g, struct run *runs, int count, struct fault *why)
{
    enum err e = draw_runs(g, NULL, runs, count, why);

    if (e)
        return e;
    report(g, runs, count);
    const double full = median(runs, count, -1);
    for (int i = 0; !e && i < engine_info(g)->presets; i++) {
        e = draw_runs(g, engine_info(g)->preset[i].name, runs, count, why);
        if (!e)
            report_preset(g, i, runs, count, full);
    }
    if (!e && engine_info(g)->presets)
        report_memory(g);
    return e;
}

int main(int argc, char **argv)
{
    const char *model = argc > 1 ? argv[1] : "models/default";
    const int count = argc > 2 ? atoi(argv[2]) : 3;
    struct run *runs = calloc(MAX_RUNS, sizeof *runs);
    struct engine *g = NULL;
    struct fault why = {0};
    const double began = clock_seconds();
    enum err e = ERR_INVALID;

    if (argc > 3 || count < 1 || count > MAX_RUNS || !runs) {
        fputs("usage: bench_cascade [MODEL [RUNS, 1 to 100]]\n", stderr);
        free(runs);
        return 2;
    }
    e = engine_open(&(struct engine_params){.model = model, .profile = true}, &g, &why);
    if (!e) {
        printf("device     %s, %s\nready      %.3f s after the start, caches as they were\n",
               engine_info(g)->device, engine_info(g)->dtype, clock_seconds() - began);
        e = bench(g, runs, count, &why);
    }
    if (e)
        fprintf(stderr, "bench_cascade: %s\n", why.msg);
    engine_close(&g);
    free(runs);
    return e ? 1 : 0;
}
