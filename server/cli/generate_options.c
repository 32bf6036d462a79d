// The arguments of `imagend generate`. Called by generate.c on the only thread.
#include "generate.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PICTURES = 1000 };

int generate_complain(const char *fmt, ...)
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

static bool read_dtype(const char *text, const char **out)
{
    *out = text;
    return !strcmp(text, "f32") || !strcmp(text, "f16");
}

enum option_code {
    OPT_OUTPUT,
    OPT_PROMPTS,
    OPT_MODEL,
    OPT_VARIANT,
    OPT_SIZE,
    OPT_SEED,
    OPT_PICTURE,
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
_Static_assert((int)OPT_COUNT <= (int)GENERATE_MOST_OPTIONS, "given[] needs one entry per option");

static const struct cli_option options[OPT_COUNT + 1] = {
    [OPT_OUTPUT] =
        {"output", 'o', "FILE",
         "output file (default out.png), in the format of its extension: png, jpg or webp; several "
         "images become FILE-1.png, FILE-2.png, ...; - writes a PNG to standard output"},
    [OPT_PROMPTS] =
        {"prompts", 0, "FILE",
         "generate one image per line of FILE (- reads standard input); line K uses seed N+K-1 and "
         "writes FILE-K; blank lines are skipped"},
    [OPT_MODEL] = {"model", 0, "DIR",
                   "a cascade folder, or diffusers pipeline folders in stage order, separated by "
                   "commas (default: the installed model)"},
    [OPT_VARIANT] = {"variant", 0, "NAME", "use the weight files of this variant, such as fp16"},
    [OPT_SIZE] = {"size", 0, "N|WxH",
                  "edge in pixels or WIDTHxHEIGHT (default: the model's largest size); a size that "
                  "no stage generates is cropped and scaled down from the next larger stage",
                  .field = "size", .legal = "a number of pixels, such as 64, or two like 512x768"},
    [OPT_SEED] = {"seed", 0, "N", "seed, 0 to 18446744073709551615 (default: a random one)",
                  .legal = "0 to 18446744073709551615"},
    [OPT_PICTURE] = {"picture", 0, "K",
                     "index of the first image within the seed, from 0; after --n 4, --picture 2 "
                     "generates only the third image again",
                     .field = "picture", .legal = "0 or a larger number"},
    [OPT_N] = {"n", 0, "K", "number of images, 1 to 1000", .legal = "1 to 1000"},
    [OPT_PRESET] = {"preset", 0, "NAME",
                    "a named preset of the model, such as fast; explicit options override it",
                    .field = "preset"},
    [OPT_STEPS] = {"steps", 0, "A[,B[,C]]", "denoising steps per stage", .field = "steps",
                   .legal = "1 to 1000 for each stage, separated by commas"},
    [OPT_GUIDANCE] = {"guidance", 0, "A[,B[,C]]",
                      "guidance scale per stage, 1 to 100; 0 or 1 disables guidance",
                      .field = "guidance_scale",
                      .legal =
                          "1 to 100 for each stage, separated by commas, or 0 for no guidance"},
    [OPT_NOISE] = {"noise-level", 0, "B[,C]",
                   "noise added to the input of the super-resolution stages, 0 to 999",
                   .field = "noise_level",
                   .legal = "0 to 999 for each super-resolution stage, separated by commas"},
    [OPT_NEGATIVE] = {"negative", 0, "TEXT", "negative prompt: what the image should not show",
                      .field = "negative_prompt"},
    [OPT_SAMPLER] = {"sampler", 0, "NAME",
                     "sampler of the base stage, such as ddpm, ddim or dpm++2m",
                     .field = "sampler"},
    [OPT_TIMESTEPS] = {"timesteps", 0, "NAME",
                       "named timestep list for the base stage, such as fast27 or smart100",
                       .field = "timesteps"},
    [OPT_DEVICE] = {"device", 0, "NAME", "Vulkan device, by index or part of its name"},
    [OPT_DTYPE] = {"dtype", 0, "f32|f16", "storage type of weights and activations",
                   .legal = "f32 or f16"},
    [OPT_MEMORY] = {"memory-limit", 0, "BYTES",
                    "device memory to use, such as 12G (default: all of it)",
                    .legal = "a number of bytes, such as 800M or 12G"},
    [OPT_SLOTS] = {"slots", 0, "K", "number of images generated together", .legal = "1 to 256"},
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
            "Generate images from PROMPT and write them as PNG, JPEG or WebP files. Unset options "
            "default to the "
            "preset, then to the model's own recommendation, which \"imagend inspect\" shows. The "
            "settings that reproduce an image are stored in the text chunks of a PNG.",
            NULL},
    .options = options,
};

// The text options need no reading; false when the option is another one.
static bool take_text(struct generate_options *o, int option, const char *value)
{
    switch (option) {
    case OPT_OUTPUT: o->output.path = value; return true;
    case OPT_MODEL: o->engine.model = value; return true;
    case OPT_VARIANT: o->engine.variant = value; return true;
    case OPT_PROMPTS: o->prompts_file = value; return true;
    case OPT_DEVICE: o->engine.device = value; return true;
    case OPT_VALIDATION: o->engine.validation = true; return true;
    case OPT_PROFILE: o->engine.profile = true; return true;
    case OPT_QUIET: o->quiet = true; return true;
    default: return false;
    }
}

static bool take_number(struct generate_options *o, int option, const char *value)
{
    switch (option) {
    case OPT_SEED: return read_seed(value, &o->request.seed);
    case OPT_N: o->counted = true; return read_int(value, 1, MAX_PICTURES, &o->pictures);
    case OPT_MEMORY: return read_bytes(value, &o->engine.memory_limit);
    case OPT_SLOTS: return read_int(value, 1, 256, &o->engine.slots);
    case OPT_DTYPE: return read_dtype(value, &o->engine.dtype);
    default: return false;
    }
}

// A value for a field of the request, by the field's own rules.
static bool take_field(struct generate_options *o, int option, const char *value)
{
    char text[256];

    // The base stage takes no noise level, so the values begin at the next.
    if (option == OPT_NOISE && strchr(value, '-'))
        return false;
    if (snprintf(text, sizeof text, "-1,%s", value) < (int)sizeof text && option == OPT_NOISE)
        value = text;
    o->given[option] = option != OPT_NOISE;
    for (const char *s = value; *s; s++)
        o->given[option] += *s == ',';
    return !check_query(&picture_table, options[option].field, value, &o->request, NULL);
}

static bool take(struct generate_options *o, int option, const char *value)
{
    return options[option].field ? take_field(o, option, value)
                                 : take_text(o, option, value) || take_number(o, option, value);
}

// Returns an exit status, or GENERATE_PROCEED. words: arguments that are no options.
static int read_prompts(struct generate_options *o, int words)
{
    struct fault why = {0};

    if (words || o->counted)
        return generate_complain("--prompts cannot be combined with %s",
                                 words ? "a prompt" : "--n");
    if (cli_prompts_read(&o->prompts, o->prompts_file, &why))
        return generate_complain("%s", why.msg);
    o->pictures = o->prompts.count;
    return GENERATE_PROCEED;
}

int generate_parse(int argc, char **argv, struct generate_options *o)
{
    int option;

    check_defaults(&picture_table, &o->request);
    optind = 0;
    while ((option = cli_next_option(argc, argv, &cli_about_generate)) != CLI_END) {
        if (option == CLI_HELP)
            return CLI_HELP;
        if (option == CLI_WRONG)
            return 2;
        if (!take(o, option, optarg))
            return generate_complain(
                "--%s cannot be \"%.100s\"; use %s", options[option].name, optarg,
                options[option].legal ? options[option].legal : "another value");
    }
    if (o->prompts_file)
        return read_prompts(o, argc - optind);
    if (optind == argc)
        return generate_complain("a prompt is missing; see imagend generate --help");
    if (optind + 1 < argc)
        return generate_complain(
            "unexpected argument \"%.100s\"; a prompt of several words needs quotes",
            argv[optind + 1]);
    o->request.prompt = argv[optind];
    return GENERATE_PROCEED;
}

// More values of an option than stages that take one.
static enum err too_many(int option, int given, int stages, struct fault *why)
{
    const bool noise = option == OPT_NOISE;

    if (given <= stages - noise)
        return ERR_OK;
    if (noise && stages == 1)
        return fault_set(why, ERR_INVALID, options[option].name,
                         "--noise-level applies to super-resolution stages, but an image of this "
                         "size uses only the base stage");
    return fault_set(why, ERR_INVALID, options[option].name,
                     "--%s has %d values, but an image of this size uses %d %s; give at most %d",
                     options[option].name, given, stages, stages > 1 ? "stages" : "stage",
                     stages - noise);
}

enum err generate_check_values(const struct generate_options *o, int stages, struct fault *why)
{
    enum err e = too_many(OPT_STEPS, o->given[OPT_STEPS], stages, why);

    if (!e)
        e = too_many(OPT_GUIDANCE, o->given[OPT_GUIDANCE], stages, why);
    return e ? e : too_many(OPT_NOISE, o->given[OPT_NOISE], stages, why);
}
