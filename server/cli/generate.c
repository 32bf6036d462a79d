// `imagend generate` and `imagend upscale`: generates images from the command line, with a progress
// bar per stage on a terminal. Called by main on its only thread.
#include "generate.h"

#include "program.h"
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BAR = 24, QUALITY = 95, LONGEST_PATH = 4096 };

struct drawing {
    const struct generate_options *o;
    struct engine *engine;
    bool bar;
    int done, started; // numbers of images done, and of prompt lines started
    double seconds[PICTURE_MAX_STAGES];
    int failed;
    bool stop; // writing failed; generate no more
};

static void draw_bar(const struct engine_event *ev)
{
    const int filled = ev->step * BAR / ev->steps;

    fprintf(stderr, "\rstage %d/%d  %4d px  [", ev->stage + 1, ev->stages, ev->image.width);
    for (int i = 0; i < BAR; i++)
        fputc(i < filled ? '#' : '.', stderr);
    fprintf(stderr, "] %d/%d ", ev->step, ev->steps);
    if (ev->step == ev->steps)
        fputc('\n', stderr);
}

// The engine's request for the image with this index.
static struct picture_request request_of(const struct generate_options *o, int index)
{
    struct picture_request r = o->request;

    if (!o->prompts_file)
        return picture_at(&r, index);
    r.prompt = o->prompts.line[index];
    r.seed += (uint64_t)index;
    return r;
}

static enum err encode(const struct drawing *d, const struct engine_event *ev,
                       const struct picture_request *r, struct buf *out, struct fault *why)
{
    struct buf xmp = {0};
    if (!d->o->no_provenance)
        picture_xmp(&xmp, r);
    const struct codec_params file = {
        .format = d->o->output.format,
        .quality = QUALITY,
        .width = ev->image.width,
        .height = ev->image.height,
        .rgb = ev->image.rgb,
        .xmp = xmp.len ? xmp.data : NULL,
    };
    const enum err e = picture_encode(&file, r, engine_used(d->engine, ev->slot), out, why);
    buf_deinit(&xmp);
    return e;
}

// Prints the lines for a finished image.
static void tell(const struct drawing *d, const struct engine_event *ev, const char *path,
                 const struct picture_request *r)
{
    const struct picture_used *used = engine_used(d->engine, ev->slot);
    char warning[PICTURE_WARNING], number[24] = "";

    if (r->picture)
        snprintf(number, sizeof number, "  image %d", r->picture);
    if (!d->o->quiet)
        fprintf(d->o->output.standard ? stderr : stdout, "%s  %dx%d  seed %llu%s\n", path,
                used->size.width, used->size.height, (unsigned long long)r->seed, number);
    for (int i = 0; !d->o->quiet && picture_warning(used, i, warning); i++)
        fprintf(stderr, "imagend: notice: %s\n", warning);
}

static void save(struct drawing *d, const struct engine_event *ev)
{
    const int index = (int)(intptr_t)ev->tag;
    const struct picture_request r = request_of(d->o, index);
    struct fault why = {0};
    char path[LONGEST_PATH];
    struct buf file = {0};
    enum err e = encode(d, ev, &r, &file, &why);

    cli_output_name(&d->o->output, index, path, sizeof path);
    if (!e && file.failed)
        e = fault_set(&why, ERR_NO_MEMORY, NULL, "%s", err_text(ERR_NO_MEMORY));
    if (!e) {
        e = cli_output_write(&d->o->output, path, file.data, file.len, &why);
        // Later images could not be written either.
        d->stop = e != ERR_OK;
    }
    if (e)
        fprintf(stderr, "imagend: %s\n", why.msg);
    else
        tell(d, ev, path, &r);
    buf_deinit(&file);
    d->failed += e != ERR_OK;
}

static void on_event(void *ctx, const struct engine_event *ev)
{
    struct drawing *d = ctx;

    switch (ev->type) {
    case ENGINE_STEP:
        if (d->bar)
            draw_bar(ev);
        break;
    case ENGINE_STAGE: d->seconds[ev->stage] += ev->stage_seconds; break;
    case ENGINE_DONE:
        save(d, ev);
        d->done++;
        break;
    case ENGINE_FAILED:
        fprintf(stderr, "imagend: %s\n", ev->fault->msg);
        d->done++;
        d->failed++;
        break;
    }
}

// Checks the request of every image before the weights are read.
static enum err check_all(const struct generate_options *o, struct fault *why)
{
    struct engine_plan *plan = NULL;
    struct picture_used used;
    enum err e = engine_plan_open(&o->engine, &plan, why);

    for (int i = 0; !e && i < (o->prompts_file ? o->pictures : 1); i++) {
        const struct picture_request r = request_of(o, i);
        struct fault wrong = {0};
        if (!r.prompt)
            continue;
        e = engine_plan_resolve(plan, &r, &used, &wrong);
        if (e && (!o->prompts_file || strcmp(wrong.param, "prompt")))
            *why = wrong;
        else if (e)
            fault_set(why, e, wrong.param, "%s, line %d: %.200s", fault_path(o->prompts_file),
                      i + 1, wrong.msg);
    }
    engine_plan_close(&plan);
    return e;
}

static enum err admit(struct drawing *d, struct fault *why)
{
    const int index = d->started++;
    const struct picture_request r = request_of(d->o, index);
    int slot;

    if (r.prompt)
        return engine_admit(d->engine, &r, (void *)(intptr_t)index, &slot, why);
    d->done++; // a blank line
    return ERR_OK;
}

static enum err draw_all(struct drawing *d, struct fault *why)
{
    enum err e = ERR_OK;

    while (!e && !d->stop && d->done < d->o->pictures) {
        while (!e && d->started < d->o->pictures && engine_free(d->engine) > 0)
            e = admit(d, why);
        if (!e)
            e = engine_step(d->engine, on_event, d, why);
    }
    return e;
}

static void report(const struct drawing *d)
{
    const struct model_info *info = engine_info(d->engine);
    struct engine_stats stats;
    double total = 0;

    for (int i = 0; i < info->stages; i++) {
        if (d->seconds[i] > 0)
            fprintf(stderr, "%-12s %4d px  %7.2f s\n", info->stage[i].name, info->stage[i].size,
                    d->seconds[i]);
        total += d->seconds[i];
    }
    fprintf(stderr, "%-12s          %7.2f s on %s\n", "all stages", total, info->device);
    engine_stats(d->engine, &stats);
    fprintf(stderr, "%-12s          %7.1f MB peak\n", "device memory",
            (double)stats.device_peak_bytes / 1e6);
}

static int generate(struct generate_options *o)
{
    struct drawing d = {.o = o};
    struct fault why = {0};
    enum err e;

    if (!o->engine.model)
        o->engine.model = program_default_model();
    o->output.many = o->pictures > 1 || o->prompts_file;
    d.bar = !o->quiet && o->pictures == 1 && isatty(STDERR_FILENO);
    e = cli_output_check(&o->output, &why);
    if (!e)
        e = generate_read_input(o, &why);
    if (!e)
        e = check_all(o, &why);
    const bool usage = e == ERR_INVALID;
    if (!e && o->trace)
        e = trace_open(o->trace, &why);
    if (!e)
        e = engine_open(&o->engine, &d.engine, &why);
    if (!e && *engine_info(d.engine)->notice)
        fprintf(stderr, "imagend: notice: %s\n", engine_info(d.engine)->notice);
    if (!e)
        e = draw_all(&d, &why);
    if (e)
        fprintf(stderr, "imagend: %s\n", why.msg);
    if (!e && !o->quiet)
        report(&d);
    if (!e && o->engine.profile) {
        char *text = engine_profile(d.engine);
        fputs(text ? text : "", stderr);
        free(text);
    }
    engine_close(&d.engine);
    if (trace_close(&why) && !e) {
        fprintf(stderr, "imagend: %s\n", why.msg);
        e = why.code;
    }
    return usage ? 2 : e || d.failed ? 1 : 0;
}

static int run(int argc, char **argv, int (*parse)(int, char **, struct generate_options *))
{
    struct generate_options o = {.output = {.path = "out.png"}, .pictures = 1};
    int status = parse(argc, argv, &o);

    if (status == GENERATE_PROCEED)
        status = generate(&o);
    cli_prompts_deinit(&o.prompts);
    picture_edit_destroy(&o.edit);
    return status;
}

int cli_generate(int argc, char **argv)
{
    return run(argc, argv, generate_parse);
}

int cli_upscale(int argc, char **argv)
{
    return run(argc, argv, generate_parse_upscale);
}
