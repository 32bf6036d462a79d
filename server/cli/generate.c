// `imagend generate`: pictures from the command line, with a progress bar per stage on a terminal.
// Called by main on its only thread.
#include "cli.h"

#include "engine.h"
#include "program.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { MAX_PICTURES = 1000, BAR = 24, LONGEST_PATH = 4096, PROCEED = -2 };

struct options {
    struct engine_params engine;
    struct picture_request request;
    struct cli_prompts prompts;
    const char *output, *prompts_file;
    int pictures;
    bool seeded, counted, quiet;
};

struct drawing {
    const struct options *o;
    struct engine *engine;
    bool bar;
    int done, started;
    double seconds[PICTURE_MAX_STAGES];
    int failed;
};

static int complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int complain(const char *fmt, ...)
{
    va_list ap;
    fputs("imagend: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return 2;
}

// ---- arguments --------------------------------------------------------------------------------

static bool read_int(const char *text, long min, long max, int *out)
{
    char *end;
    long v;

    errno = 0;
    v = strtol(text, &end, 10);
    if (end == text || *end || errno || v < min || v > max)
        return false;
    *out = (int)v;
    return true;
}

// "A,B,C" into out[first ..]; false when an element is no number or there are too many.
static bool read_list(const char *text, int first, int *ints, float *floats)
{
    int i = first;

    for (;; i++) {
        char *end;
        errno = 0;
        const double v = strtod(text, &end);
        if (i == PICTURE_MAX_STAGES || end == text || errno || (*end && *end != ','))
            return false;
        if (ints && (v < 0 || v > 100000 || v != (double)(int)v))
            return false;
        if (ints)
            ints[i] = (int)v;
        else
            floats[i] = (float)v;
        if (!*end)
            return true;
        text = end + 1;
    }
}

static bool read_bytes(const char *text, size_t *out)
{
    static const char units[] = "KMGT";
    char *end;
    double v = strtod(text, &end);
    const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;

    if (unit)
        v = ldexp(v, 10 * (int)(unit - units + 1));
    if (end == text || end[unit ? 1 : 0] || !(v >= 1 && v <= 1e15))
        return false;
    *out = (size_t)v;
    return true;
}

static bool read_seed(const char *text, uint64_t *out)
{
    char *end;

    errno = 0;
    *out = strtoull(text, &end, 10);
    return isdigit((unsigned char)*text) && !*end && !errno;
}

enum option_code {
    OPT_OUTPUT,
    OPT_PROMPTS,
    OPT_MODEL,
    OPT_VARIANT,
    OPT_SIZE,
    OPT_SEED,
    OPT_N,
    OPT_PRESET,
    OPT_STEPS,
    OPT_GUIDANCE,
    OPT_NOISE,
    OPT_NEGATIVE,
    OPT_SAMPLER,
    OPT_TIMESTEPS,
    OPT_DEVICE,
    OPT_DTYPE,
    OPT_MEMORY,
    OPT_SLOTS,
    OPT_VALIDATION,
    OPT_PROFILE,
    OPT_QUIET,
    OPT_COUNT,
};

static const struct cli_option generate_options[OPT_COUNT + 1] = {
    [OPT_OUTPUT] =
        {"output", 'o', "FILE",
         "output file (default out.png); several images become FILE-1.png, FILE-2.png, ..."},
    [OPT_PROMPTS] =
        {"prompts", 0, "FILE",
         "generate one image per line of FILE; line K uses seed N+K-1 and writes FILE-K"},
    [OPT_MODEL] = {"model", 0, "DIR",
                   "a cascade folder, or diffusers pipeline folders in stage order, separated by "
                   "commas (default: the installed model)"},
    [OPT_VARIANT] = {"variant", 0, "NAME", "use the weight files of this variant, such as fp16"},
    [OPT_SIZE] = {"size", 0, "N", "64, 256 or 1024: stop after the stage with this size"},
    [OPT_SEED] = {"seed", 0, "N", "seed, 0 to 18446744073709551615 (default: a random one)"},
    [OPT_N] = {"n", 0, "K", "number of images, 1 to 1000"},
    [OPT_PRESET] = {"preset", 0, "NAME",
                    "a named preset of the model, such as fast; explicit options override it"},
    [OPT_STEPS] = {"steps", 0, "A[,B[,C]]", "denoising steps per stage"},
    [OPT_GUIDANCE] = {"guidance", 0, "A[,B[,C]]",
                      "guidance scale per stage, 1 to 100; 1 disables guidance"},
    [OPT_NOISE] = {"noise-level", 0, "B[,C]",
                   "noise added to the input of the super-resolution stages, 0 to 999"},
    [OPT_NEGATIVE] = {"negative", 0, "TEXT", "negative prompt: what the image should not show"},
    [OPT_SAMPLER] = {"sampler", 0, "NAME",
                     "sampler of the base stage, such as ddpm, ddim or dpm++2m"},
    [OPT_TIMESTEPS] = {"timesteps", 0, "NAME",
                       "named timestep list for the base stage, such as fast27 or smart100"},
    [OPT_DEVICE] = {"device", 0, "NAME", "Vulkan device, by index or part of its name"},
    [OPT_DTYPE] = {"dtype", 0, "f32|f16", "storage type of weights and activations"},
    [OPT_MEMORY] = {"memory-limit", 0, "BYTES",
                    "device memory to use, such as 12G (default: all that the device has)"},
    [OPT_SLOTS] = {"slots", 0, "K", "number of images generated together"},
    [OPT_VALIDATION] = {"validation", 0, NULL, "enable the Vulkan validation layers"},
    [OPT_PROFILE] = {"profile", 0, NULL, "print the time per operator class at the end"},
    [OPT_QUIET] = {"quiet", 0, NULL, "print errors only"},
};

const struct cli_about cli_about_generate = {
    .name = "generate",
    .summary = "generate images from a prompt",
    .synopsis = (const char *const[]){"generate \"PROMPT\" [options]",
                                      "generate --prompts FILE [options]", NULL},
    .text =
        (const char *const[]){
            "Generate images from PROMPT and write them as PNG files. Unset options default to the "
            "preset, then to the model's own recommendation, which \"imagend inspect\" shows. The "
            "settings that reproduce an image are stored in the PNG's text chunks.",
            NULL},
    .options = generate_options,
};

// The text options need no reading; false when the option is another one.
static bool take_text(struct options *o, int option, const char *value)
{
    switch (option) {
    case OPT_OUTPUT: o->output = value; return true;
    case OPT_MODEL: o->engine.model = value; return true;
    case OPT_VARIANT: o->engine.variant = value; return true;
    case OPT_PROMPTS: o->prompts_file = value; return true;
    case OPT_NEGATIVE: o->request.negative_prompt = value; return true;
    case OPT_PRESET: o->request.preset = value; return true;
    case OPT_SAMPLER: o->request.sampler = value; return true;
    case OPT_TIMESTEPS: o->request.timesteps = value; return true;
    case OPT_DEVICE: o->engine.device = value; return true;
    case OPT_DTYPE: o->engine.dtype = value; return true;
    case OPT_VALIDATION: o->engine.validation = true; return true;
    case OPT_PROFILE: o->engine.profile = true; return true;
    case OPT_QUIET: o->quiet = true; return true;
    default: return false;
    }
}

static bool take_number(struct options *o, int option, const char *value)
{
    struct picture_request *r = &o->request;

    switch (option) {
    case OPT_SIZE: return read_int(value, 1, 1 << 20, &r->size);
    case OPT_SEED: o->seeded = true; return read_seed(value, &r->seed);
    case OPT_N: o->counted = true; return read_int(value, 1, MAX_PICTURES, &o->pictures);
    case OPT_MEMORY: return read_bytes(value, &o->engine.memory_limit);
    case OPT_SLOTS: return read_int(value, 1, 256, &o->engine.slots);
    case OPT_STEPS: return read_list(value, 0, r->steps, NULL);
    case OPT_GUIDANCE: return read_list(value, 0, NULL, r->guidance_scale);
    case OPT_NOISE: r->set_noise_level = true; return read_list(value, 1, r->noise_level, NULL);
    default: return false;
    }
}

// Returns an exit status, or PROCEED. words: arguments that are no options.
static int read_prompts(struct options *o, int words)
{
    struct fault why = {0};

    if (words || o->counted)
        return complain("--prompts goes without %s", words ? "a prompt" : "--n");
    if (cli_prompts_read(&o->prompts, o->prompts_file, &why))
        return complain("%s", why.msg);
    o->pictures = o->prompts.count;
    return PROCEED;
}

// Returns an exit status, CLI_HELP or PROCEED.
static int read_options(int argc, char **argv, struct options *o)
{
    int option;

    optind = 0;
    while ((option = cli_next_option(argc, argv, &cli_about_generate)) != CLI_END) {
        if (option == CLI_HELP)
            return CLI_HELP;
        if (option == CLI_WRONG)
            return 2;
        if (take_text(o, option, optarg))
            continue;
        if (!take_number(o, option, optarg)) {
            fprintf(stderr, "imagend: --%s cannot be \"%s\"\n", generate_options[option].name,
                    optarg);
            return 2;
        }
    }
    if (o->prompts_file)
        return read_prompts(o, argc - optind);
    if (optind + 1 != argc)
        return complain("%s; see imagend generate --help",
                        optind == argc ? "a prompt is missing" : "give one prompt, in quotes");
    o->request.prompt = argv[optind];
    return PROCEED;
}

// ---- drawing ----------------------------------------------------------------------------------

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

// What is asked of the engine for the picture with this index.
static struct picture_request request_of(const struct options *o, int index)
{
    struct picture_request r = o->request;

    if (!o->prompts_file)
        return picture_at(&r, index);
    r.prompt = o->prompts.line[index];
    r.seed += (uint64_t)index;
    return r;
}

// FILE for one picture; FILE-K before the extension for several.
static void file_name(const struct options *o, int index, char *out, size_t n)
{
    const char *dot = strrchr(o->output, '.'), *slash = strrchr(o->output, '/');

    if (o->pictures == 1 && !o->prompts_file)
        snprintf(out, n, "%s", o->output);
    else if (dot && (!slash || dot > slash))
        snprintf(out, n, "%.*s-%d%s", (int)(dot - o->output), o->output, index + 1, dot);
    else
        snprintf(out, n, "%s-%d", o->output, index + 1);
}

static enum err write_file(const char *path, const void *data, size_t size)
{
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(data, 1, size, f) == size;

    if (f && fclose(f))
        ok = false;
    if (!ok)
        fprintf(stderr, "imagend: cannot write %s: %s\n", path, strerror(errno));
    return ok ? ERR_OK : ERR_IO;
}

static void save(struct drawing *d, const struct engine_event *ev)
{
    const int index = (int)(intptr_t)ev->tag;
    const struct picture_request r = request_of(d->o, index);
    struct picture_used used;
    struct fault why = {0};
    char path[LONGEST_PATH];
    uint8_t *png = NULL;
    size_t size = 0;
    enum err e;

    e = engine_resolve(d->engine, &r, &used, &why);
    if (!e)
        e = engine_png(&ev->image, &r, &used, &png, &size);
    if (e)
        fprintf(stderr, "imagend: the PNG cannot be made: %s\n", err_text(e));
    file_name(d->o, index, path, sizeof path);
    if (!e)
        e = write_file(path, png, size);
    if (!e && !d->o->quiet)
        printf("%s  %dx%d  seed %llu\n", path, ev->image.width, ev->image.height,
               (unsigned long long)r.seed);
    free(png);
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
    case ENGINE_PREVIEW: break;
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

// Every line of a file of prompts, before any is drawn.
static enum err check_all(const struct drawing *d, struct fault *why)
{
    enum err e = ERR_OK;

    for (int i = 0; !e && i < d->o->prompts.count; i++) {
        const struct picture_request r = request_of(d->o, i);
        struct fault wrong = {0};
        e = engine_check(d->engine, &r, &wrong);
        if (e)
            fault_set(why, e, wrong.param, "%s, line %d: %.200s", fault_path(d->o->prompts_file),
                      i + 1, wrong.msg);
    }
    return e;
}

static enum err draw_all(struct drawing *d, struct fault *why)
{
    enum err e = ERR_OK;

    while (!e && d->done < d->o->pictures) {
        while (!e && d->started < d->o->pictures && engine_free(d->engine) > 0) {
            const struct picture_request r = request_of(d->o, d->started);
            int slot;
            e = engine_admit(d->engine, &r, (void *)(intptr_t)d->started, &slot, why);
            d->started++;
        }
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
    fprintf(stderr, "%-12s          %7.1f MB at most\n", "device memory",
            (double)stats.device_peak_bytes / 1e6);
}

static int generate(struct options *o)
{
    struct drawing d = {.o = o};
    struct fault why = {0};
    enum err e;

    if (!o->engine.model)
        o->engine.model = program_default_model();
    if (!o->seeded && getrandom(&o->request.seed, sizeof o->request.seed, 0) < 0)
        return complain("%s", "no random seed can be had; give --seed");
    d.bar = !o->quiet && o->pictures == 1 && isatty(STDERR_FILENO);
    e = engine_open(&o->engine, &d.engine, &why);
    if (!e && *engine_info(d.engine)->notice)
        fprintf(stderr, "imagend: notice: %s\n", engine_info(d.engine)->notice);
    if (!e)
        e = check_all(&d, &why);
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
    return e || d.failed ? 1 : 0;
}

int cli_generate(int argc, char **argv)
{
    struct options o = {.output = "out.png", .pictures = 1};
    int status = read_options(argc, argv, &o);

    if (status == PROCEED)
        status = generate(&o);
    cli_prompts_deinit(&o.prompts);
    return status;
}
