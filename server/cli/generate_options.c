// The arguments of `imagend generate` and `imagend upscale`. Called by generate.c on the only
// thread.
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

const char cli_help_lora[] =
    "a LoRA in diffusers' format for a stage of the model, and its strength (default 1); may be "
    "repeated";
const char cli_help_choices[] =
    "a LoRA that is applied only to images that name it; may be repeated";
const char cli_legal_lora[] = "the path of a .safetensors file, with :SCALE or without";

bool generate_add_lora(const char *value, char *list, size_t n)
{
    const size_t length = strlen(list);

    return *value && snprintf(list + length, n - length, "%s%s", length ? "," : "", value) <
                         (int)(n - length);
}

bool generate_read_bytes(const char *text, size_t *out)
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

static bool read_weights(const char *text, const char **out)
{
    static const char *const formats[] = {"f32", "f16", "bf16", "q8", "q4"};

    *out = text;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (!strcmp(text, formats[i]))
            return true;
    return false;
}

static bool read_tune(const char *text, const char **out)
{
    *out = text;
    return !strcmp(text, "auto") || !strcmp(text, "on") || !strcmp(text, "off");
}

enum option_code {
    OPT_OUTPUT,
    OPT_PROMPTS,
    OPT_IMAGE,
    OPT_MASK,
    OPT_STRENGTH,
    OPT_MODEL,
    OPT_VARIANT,
    OPT_ENCODER,
    OPT_LORA,
    OPT_CHOICES,
    OPT_LORAS,
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
    OPT_WEIGHTS,
    OPT_TUNE,
    OPT_TEXT_CACHE,
    OPT_MEMORY,
    OPT_SLOTS,
    OPT_VALIDATION,
    OPT_PROFILE,
    OPT_TRACE,
    OPT_NO_PROVENANCE,
    OPT_QUIET,
    OPT_COUNT, // options of generate
    OPT_SCALE = OPT_COUNT,
    OPT_PROMPT,
    OPT_ALL,
};

// Help texts shared by several commands.
static const char legal_noise[] =
    "0 to 999 for each super-resolution stage, at most 2 numbers separated by commas";
static const char help_model[] = "a cascade folder, or diffusers pipeline folders in stage order, "
                                 "separated by commas (default: the installed model)";
static const char help_variant[] = "use the weight files of this variant, such as fp16";
static const char help_encoder[] = "a GGUF file with a T5 encoder to use instead of the model's";
static const char help_seed[] = "seed, 0 to 18446744073709551615 (default: a random one)";
static const char help_preset[] =
    "a named preset of the model, such as fast; explicit options override it";
static const char help_noise[] =
    "noise added to the input of the super-resolution stages, 0 to 999";
static const char help_device[] = "Vulkan device, by index or part of its name";
static const char help_dtype[] = "storage type of weights and activations";
static const char help_weights[] = "storage format of the weights (default: as --dtype)";
static const char legal_weights[] = "f32, f16, bf16, q8 or q4";
static const char help_tune[] = "measure which GPU programs are fastest (default: auto: for "
                                "seconds, and not on software devices)";
static const char help_memory[] =
    "device memory to use, such as 12G (default: most of what is free)";
static const char help_text_cache[] =
    "encoded prompts to keep in the cache folder, by size, such as 256M (default: none)";
static const char help_validation[] = "enable the Vulkan validation layers";
static const char help_trace[] =
    "write the time of uploads, stages, steps and forward passes for ui.perfetto.dev";
static const char help_profile[] = "print the time per operator class at the end";
static const char help_no_provenance[] =
    "do not mark the image as generated in its XMP metadata (DigitalSourceType)";
static const char help_quiet[] = "print errors only";

static const struct cli_option options[OPT_COUNT + 1] = {
    [OPT_OUTPUT] =
        {"output", 'o', "FILE",
         "output file (default out.png), in the format of its extension: png, jpg or webp; several "
         "images become FILE-1.png, FILE-2.png, ...; - writes a PNG to standard output"},
    [OPT_PROMPTS] =
        {"prompts", 0, "FILE",
         "generate one image per line of FILE (- reads standard input); line K uses seed N+K-1 and "
         "writes FILE-K; blank lines are skipped"},
    [OPT_IMAGE] =
        {"image", 0, "FILE",
         "a PNG, JPEG or WebP image to edit (- reads standard input); without --mask, its "
         "transparent pixels are repainted and the others kept"},
    [OPT_MASK] = {"mask", 0, "FILE",
                  "an image of the same size that marks what to repaint: its transparent pixels, "
                  "or its light "
                  "ones if it has none; every other pixel of --image is kept"},
    [OPT_STRENGTH] =
        {"strength", 0, "A[,B[,C]]",
         "how much of --image to change, 0.01 to 1, per stage (default 0.7, or 1 with a mask; 1 "
         "for further stages)",
         .field = "strength",
         .legal = "0.01 to 1 for each stage, at most 3 numbers separated by commas"},
    [OPT_MODEL] = {"model", 0, "DIR", help_model},
    [OPT_VARIANT] = {"variant", 0, "NAME", help_variant},
    [OPT_ENCODER] = {"text-encoder", 0, "FILE", help_encoder},
    [OPT_LORA] = {"lora", 0, "FILE[:SCALE]", cli_help_lora, .legal = cli_legal_lora},
    [OPT_CHOICES] = {"lora-choices", 0, "FILE[:SCALE]", cli_help_choices, .legal = cli_legal_lora},
    [OPT_LORAS] =
        {"loras", 0, "NAME[:SCALE],...",
         "apply these of the LoRAs of --lora and --lora-choices, by name, instead of those "
         "of --lora",
         .field = "loras",
         .legal = "up to 8 different names, such as fox:0.8,dog; scales are -100 to 100"},
    [OPT_SIZE] =
        {"size", 0, "N|WxH",
         "edge in pixels or WIDTHxHEIGHT (default: the model's largest size); sizes between "
         "those of the stages are cropped from the next larger one and scaled down",
         .field = "size", .legal = "a number of pixels, such as 64, or two like 512x768"},
    [OPT_SEED] = {"seed", 0, "N", help_seed, .legal = "0 to 18446744073709551615"},
    [OPT_PICTURE] = {"picture", 0, "K",
                     "index of the first image within the seed, from 0; after --n 4, --picture 2 "
                     "generates only the third image again",
                     .field = "picture", .legal = "0 or a larger number"},
    [OPT_N] = {"n", 0, "K", "number of images, 1 to 1000", .legal = "1 to 1000"},
    [OPT_PRESET] = {"preset", 0, "NAME", help_preset, .field = "preset"},
    [OPT_STEPS] = {"steps", 0, "A[,B[,C]]", "denoising steps per stage", .field = "steps",
                   .legal = "1 to 1000 for each stage, at most 3 numbers separated by commas"},
    [OPT_GUIDANCE] = {"guidance", 0, "A[,B[,C]]",
                      "guidance scale per stage, 1 to 100; 0 or 1 disables guidance",
                      .field = "guidance_scale",
                      .legal = "1 to 100 for each stage, or 0 for no guidance, at most 3 numbers "
                               "separated by commas"},
    [OPT_NOISE] = {"noise-level", 0, "B[,C]", help_noise, .field = "noise_level",
                   .legal = legal_noise},
    [OPT_NEGATIVE] = {"negative", 0, "TEXT", "negative prompt: what the image should not show",
                      .field = "negative_prompt"},
    [OPT_SAMPLER] = {"sampler", 0, "NAME",
                     "sampler of the base stage, such as ddpm, ddim or dpm++2m",
                     .field = "sampler"},
    [OPT_TIMESTEPS] = {"timesteps", 0, "NAME",
                       "named timestep list for the base stage, such as fast27 or smart100",
                       .field = "timesteps"},
    [OPT_DEVICE] = {"device", 0, "NAME", help_device},
    [OPT_DTYPE] = {"dtype", 0, "f32|f16", help_dtype, .legal = "f32 or f16"},
    [OPT_WEIGHTS] = {"weights", 0, "f32|f16|bf16|q8|q4", help_weights, .legal = legal_weights},
    [OPT_TUNE] = {"tune", 0, "auto|on|off", help_tune, .legal = "auto, on or off"},
    [OPT_TEXT_CACHE] = {"text-cache", 0, "BYTES", help_text_cache,
                        .legal = "a number of bytes, such as 256M"},
    [OPT_MEMORY] = {"memory-limit", 0, "BYTES", help_memory,
                    .legal = "a number of bytes, such as 800M or 12G"},
    [OPT_SLOTS] =
        {"slots", 0, "K",
         "number of images generated together (default: 4 on software devices, 8 on others)",
         .legal = "1 to 256"},
    [OPT_VALIDATION] = {"validation", 0, NULL, help_validation},
    [OPT_PROFILE] = {"profile", 0, NULL, help_profile},
    [OPT_TRACE] = {"trace", 0, "FILE", help_trace},
    [OPT_NO_PROVENANCE] = {"no-provenance", 0, NULL, help_no_provenance},
    [OPT_QUIET] = {"quiet", 0, NULL, help_quiet},
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
            "settings that reproduce an image are stored in its metadata.",
            NULL},
    .options = options,
};

static const struct cli_option upscale_options[] = {
    {"output", 'o', "FILE",
     "output file (default out.png), in the format of its extension: png, jpg or webp; - writes a "
     "PNG to standard output"},
    {"scale", 0, "K",
     "factor, one of those that \"imagend inspect\" shows, such as 4 or 16 (default 4)",
     .field = "scale", .legal = "4 or 16"},
    {"prompt", 0, "TEXT", "what the image shows (default: an empty prompt)"},
    {"model", 0, "DIR", help_model},
    {"variant", 0, "NAME", help_variant},
    {"text-encoder", 0, "FILE", help_encoder},
    {"lora", 0, "FILE[:SCALE]", cli_help_lora, .legal = cli_legal_lora},
    {"seed", 0, "N", help_seed, .legal = "0 to 18446744073709551615"},
    {"preset", 0, "NAME", help_preset, .field = "preset"},
    {"noise-level", 0, "B[,C]", help_noise, .field = "noise_level", .legal = legal_noise},
    {"device", 0, "NAME", help_device},
    {"dtype", 0, "f32|f16", help_dtype, .legal = "f32 or f16"},
    {"weights", 0, "f32|f16|bf16|q8|q4", help_weights, .legal = legal_weights},
    {"tune", 0, "auto|on|off", help_tune, .legal = "auto, on or off"},
    {"memory-limit", 0, "BYTES", help_memory, .legal = "a number of bytes, such as 800M or 12G"},
    {"validation", 0, NULL, help_validation},
    {"profile", 0, NULL, help_profile},
    {"trace", 0, "FILE", help_trace},
    {"no-provenance", 0, NULL, help_no_provenance},
    {"quiet", 0, NULL, help_quiet},
    {0},
};
static const enum option_code upscale_codes[] = {
    OPT_OUTPUT, OPT_SCALE,      OPT_PROMPT,  OPT_MODEL,  OPT_VARIANT,       OPT_ENCODER, OPT_LORA,
    OPT_SEED,   OPT_PRESET,     OPT_NOISE,   OPT_DEVICE, OPT_DTYPE,         OPT_WEIGHTS, OPT_TUNE,
    OPT_MEMORY, OPT_VALIDATION, OPT_PROFILE, OPT_TRACE,  OPT_NO_PROVENANCE, OPT_QUIET,
};
_Static_assert(sizeof upscale_codes / sizeof *upscale_codes ==
                   sizeof upscale_options / sizeof *upscale_options - 1,
               "a code for each option");

const struct cli_about cli_about_upscale = {
    .name = "upscale",
    .summary = "enlarge an image with the model's super-resolution stages",
    .synopsis = (const char *const[]){"upscale IMAGE [-o FILE] [options]", NULL},
    .text =
        (const char *const[]){
            "Enlarge IMAGE (PNG, JPEG or WebP; - reads standard input) 4 or 16 times. An image "
            "that is larger than the input of a stage is processed in overlapping tiles.",
            NULL},
    .options = upscale_options,
    .argument = "FILE",
};

// Sets an option with a plain text value; false for any other option.
static bool take_text(struct generate_options *o, int option, const char *value)
{
    switch (option) {
    case OPT_OUTPUT: o->output.path = value; return true;
    case OPT_MODEL: o->engine.model = value; return true;
    case OPT_VARIANT: o->engine.variant = value; return true;
    case OPT_ENCODER: o->engine.text_encoder = value; return true;
    case OPT_PROMPTS: o->prompts_file = value; return true;
    case OPT_IMAGE: o->image = value; return true;
    case OPT_MASK: o->mask = value; return true;
    case OPT_PROMPT: o->request.prompt = value; return true;
    case OPT_DEVICE: o->engine.device = value; return true;
    case OPT_VALIDATION: o->engine.validation = true; return true;
    case OPT_PROFILE: o->engine.profile = true; return true;
    case OPT_TRACE: o->trace = value; return true;
    case OPT_NO_PROVENANCE: o->no_provenance = true; return true;
    case OPT_QUIET: o->quiet = true; return true;
    default: return false;
    }
}

static bool take_number(struct generate_options *o, int option, const char *value)
{
    switch (option) {
    case OPT_SEED: return read_seed(value, &o->request.seed);
    case OPT_N: o->counted = true; return read_int(value, 1, MAX_PICTURES, &o->pictures);
    case OPT_LORA:
        o->engine.lora = o->lora;
        return generate_add_lora(value, o->lora, sizeof o->lora);
    case OPT_CHOICES:
        o->engine.lora_choices = o->choices;
        return generate_add_lora(value, o->choices, sizeof o->choices);
    case OPT_TEXT_CACHE: return generate_read_bytes(value, &o->engine.text_cache);
    case OPT_MEMORY: return generate_read_bytes(value, &o->engine.memory_limit);
    case OPT_SLOTS: return read_int(value, 1, 256, &o->engine.slots);
    case OPT_DTYPE: return read_dtype(value, &o->engine.dtype);
    case OPT_WEIGHTS: return read_weights(value, &o->engine.weights);
    case OPT_TUNE: return read_tune(value, &o->engine.tune);
    default: return false;
    }
}

// Parses a value for a field of the request by the field's rules.
static bool take_field(struct generate_options *o, int option, const struct cli_option *row,
                       const char *value)
{
    char text[256];

    // The base stage has no noise level, so the values start with the next stage.
    if (option == OPT_NOISE && strchr(value, '-'))
        return false;
    if (snprintf(text, sizeof text, "-1,%s", value) < (int)sizeof text && option == OPT_NOISE)
        value = text;
    return !check_query(&picture_table, row->field, value, &o->request, NULL);
}

static bool take(struct generate_options *o, int option, const struct cli_option *row,
                 const char *value)
{
    return row->field ? take_field(o, option, row, value)
                      : take_text(o, option, value) || take_number(o, option, value);
}

// Returns an exit status, or GENERATE_PROCEED. words: number of arguments that are not options.
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

// Reads the options of one of the commands. Returns an exit status, CLI_HELP or GENERATE_PROCEED.
static int read_options(int argc, char **argv, const struct cli_about *about,
                        const enum option_code *codes, struct generate_options *o)
{
    int index;

    check_defaults(&picture_table, &o->request);
    optind = 0;
    while ((index = cli_next_option(argc, argv, about)) != CLI_END) {
        if (index == CLI_HELP)
            return CLI_HELP;
        if (index == CLI_WRONG)
            return 2;
        const struct cli_option *row = &about->options[index];
        if (!take(o, codes ? (int)codes[index] : index, row, optarg))
            return generate_complain("--%s cannot be \"%.100s\"; use %s", row->name, optarg,
                                     row->legal ? row->legal : "another value");
    }
    return GENERATE_PROCEED;
}

int generate_parse(int argc, char **argv, struct generate_options *o)
{
    const int status = read_options(argc, argv, &cli_about_generate, NULL, o);

    if (status != GENERATE_PROCEED)
        return status;
    if (o->mask && !o->image)
        return generate_complain("--mask needs --image, the image to repaint");
    if (o->request.strength[0] != 0 && !o->image)
        return generate_complain("--strength needs --image, the image to edit");
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

int generate_parse_upscale(int argc, char **argv, struct generate_options *o)
{
    const int status = read_options(argc, argv, &cli_about_upscale, upscale_codes, o);

    if (status != GENERATE_PROCEED)
        return status;
    if (optind == argc)
        return generate_complain("an image is missing; see imagend upscale --help");
    if (optind + 1 < argc)
        return generate_complain("unexpected argument \"%.100s\"; upscale takes one image",
                                 argv[optind + 1]);
    o->image = argv[optind];
    if (!o->request.prompt)
        o->request.prompt = "";
    if (!o->request.scale)
        o->request.scale = 4;
    return GENERATE_PROCEED;
}
