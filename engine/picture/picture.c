// The field tables of an image: requested settings and resolved ones. The APIs, stores, command
// line and metadata handle a setting from its row here alone.
#include "picture.h"

#include "buf.h"

#include <stdio.h>

_Static_assert((int)CHECK_LIST == (int)PICTURE_MAX_STAGES, "a list has a value for each stage");
_Static_assert((int)CHECK_SCALED == (int)PICTURE_MAX_LORAS, "a list has room for all LoRAs");

#define R(field) offsetof(struct picture_request, field)
static const struct check_field request_fields[] = {
    {"prompt", CHECK_TEXT, CHECK_REQUIRED, R(prompt), 1, PICTURE_MAX_PROMPT,
     .help = "what the image shows"},
    {"negative_prompt", CHECK_TEXT, CHECK_NULL, R(negative_prompt), 0, PICTURE_MAX_PROMPT,
     .help = "what the image must not show"},
    {"size", CHECK_SIZE, CHECK_NULL, R(size), 1, 65536, .live = "sizes", .def = "auto",
     .help = "edge in pixels, WIDTHxHEIGHT, or auto for the model's largest size; a size that no "
             "stage generates is cropped and scaled down from the next larger stage"},
    {"seed", CHECK_SEED, CHECK_NULL, R(seed), .def = "-1",
     .help = "the same seed generates the same image; -1, the default, selects a random seed",
     .label = "Seed"},
    {"picture", CHECK_INT, CHECK_NULL, R(picture), 0, 1 << 30, .def = "0",
     .help = "index of the first image within the seed; with the seed, it reproduces one image of "
             "a batch",
     .label = "Picture"},
    {"preset", CHECK_TEXT, CHECK_NULL, R(preset), 1, 31, .live = "presets",
     .help = "a named preset of the model; explicit fields override it", .label = "Preset"},
    {"sampler", CHECK_TEXT, CHECK_NULL, R(sampler), 1, 64, .live = "samplers",
     .help = "sampler of the first stage", .label = "Sampler"},
    {"timesteps", CHECK_TEXT, CHECK_NULL, R(timesteps), 1, 32, .live = "timesteps",
     .help = "a named list of timesteps for the first stage, instead of steps"},
    {"steps", CHECK_INTS, CHECK_NULL, R(steps), 1, PICTURE_MAX_STEPS,
     .help = "denoising steps of the first stage, or a list with one number per stage",
     .label = "Steps"},
    {"guidance_scale", CHECK_NUMBERS, CHECK_NULL, R(guidance_scale), 1, 100, .zero = 1,
     .help = "how closely the image follows the prompt, as one number or a list with one number "
             "per stage; 0 or 1 disables guidance",
     .key = "guidance", .label = "CFG scale"},
    {"noise_level", CHECK_INTS, CHECK_NULL, R(noise_level), -1, 999, .def = "-1",
     .help = "noise level added to the input of the super-resolution stages, per stage; -1 selects "
             "the model's own"},
    {"strength", CHECK_NUMBERS, CHECK_NULL, R(strength), 0.01, 1,
     .help =
         "how much of an input image to change: the fraction of the steps that runs, as one number "
         "for the first stage or a list with one per stage; defaults to 0.7, or 1 with a mask, and "
         "to 1 for further stages",
     .label = "Denoising strength"},
    {"loras", CHECK_SCALES, CHECK_NULL, R(loras), -PICTURE_MAX_LORA_SCALE, PICTURE_MAX_LORA_SCALE,
     .live = "loras",
     .help =
         "LoRAs of the model to apply, each with a scale that defaults to the model's; an empty "
         "list applies none, and without the field those that are the model's default are "
         "applied"},
    {"scale", CHECK_INT, CHECK_NULL, R(scale), 2, 64, .live = "scales",
     .help = "factor by which to enlarge the input image instead of editing it",
     .label = "Upscale by"},
    {"set_noise_level", CHECK_BOOL, CHECK_HIDDEN, R(set_noise_level), .def = "true",
     .help = "whether noise_level overrides the model"},
};
#undef R
const struct check_table picture_table = CHECK_TABLE("Image", request_fields, true);

#define U(field) offsetof(struct picture_used, field)
#define CHARS(field) sizeof(((struct picture_used *)0)->field) - 1
static const struct check_field used_fields[] = {
    {"model", CHECK_CHARS, 0, U(model), 0, CHARS(model), .key = "model"},
    {"preset", CHECK_CHARS, 0, U(preset), 0, CHARS(preset)},
    {"sampler", CHECK_CHARS, 0, U(sampler), 0, CHARS(sampler)},
    {"size", CHECK_SIZE, CHECK_REQUIRED, U(size), 0, 65536},
    {"drawn", CHECK_SIZE, CHECK_REQUIRED, U(drawn), 0, 65536, .key = "drawn"},
    {"stages", CHECK_INT, CHECK_REQUIRED, U(stages), 0, PICTURE_MAX_STAGES},
    {"steps", CHECK_INTS, 0, U(steps), 0, PICTURE_MAX_STEPS},
    {"guidance_scale", CHECK_NUMBERS, 0, U(guidance_scale), 0, 100},
    {"noise_level", CHECK_INTS, 0, U(noise_level), -1, 999, .def = "-1"},
    {"strength", CHECK_NUMBERS, 0, U(strength), 0.01, 1},
    {"scale", CHECK_INT, 0, U(scale), 2, 64},
    {"first", CHECK_INT, 0, U(first), 0, PICTURE_MAX_STAGES},
    {"run", CHECK_INTS, 0, U(run), 0, 1 << 24},
    {"loras", CHECK_CHARS, 0, U(loras), 0, CHARS(loras)},
    {"modules", CHECK_CHARS, 0, U(modules), 0, CHARS(modules), .key = "modules"},
    {"tokens", CHECK_INT, 0, U(tokens), 0, 1 << 20, .key = "tokens"},
    {"tokens_cut", CHECK_INT, 0, U(tokens_cut), 0, 1 << 20, .key = "tokens_cut"},
    {"negative_tokens", CHECK_INT, 0, U(negative_tokens), 0, 1 << 20, .key = "negative_tokens"},
    {"negative_tokens_cut", CHECK_INT, 0, U(negative_tokens_cut), 0, 1 << 20,
     .key = "negative_tokens_cut"},
    {"nearest", CHECK_CHARS, 0, U(nearest), 0, CHARS(nearest)},
};
#undef U
#undef CHARS
const struct check_table picture_used_table = CHECK_TABLE("ImageUsed", used_fields, false);

const struct check_field *picture_value(const struct check_field *f,
                                        const struct picture_request *r,
                                        const struct picture_used *u, const void **at)
{
    const struct check_field *used = check_find(&picture_used_table, f->name, NULL);
    const bool list = f->type == CHECK_INTS || f->type == CHECK_NUMBERS;
    *at = used ? (const char *)u + used->offset : (const char *)r + f->offset;
    // In a request's list, zero means that a stage has no value: those before `first` have none.
    return used && !list ? used : f;
}

const char *picture_warning(const struct picture_used *u, int i, char text[static PICTURE_WARNING])
{
    const struct {
        const char *name;
        int read, cut;
    } texts[] = {{"prompt", u->tokens, u->tokens_cut},
                 {"negative prompt", u->negative_tokens, u->negative_tokens_cut}};
    for (size_t k = 0; k < sizeof texts / sizeof texts[0]; k++) {
        if (!texts[k].cut || i--)
            continue;
        snprintf(text, PICTURE_WARNING,
                 "the %s has %d tokens, but the text encoder reads only the first %d; the other %d "
                 "were cut off",
                 texts[k].name, texts[k].read + texts[k].cut, texts[k].read, texts[k].cut);
        return text;
    }
    if (!*u->nearest || i)
        return NULL;
    snprintf(text, PICTURE_WARNING,
             "the model knows nothing that the prompt names, so it draws something else; it knows "
             "%s",
             u->nearest);
    return text;
}

void picture_json(struct buf *b, const struct picture_request *r, const struct picture_used *u)
{
    const struct check_field *f;
    const void *at;
    const char *comma = "";
    for (int row = 0; (f = check_next(&picture_table, &row, NULL));) {
        const struct check_field *value = picture_value(f, r, u, &at);
        if (f->flags & CHECK_HIDDEN)
            continue;
        buf_printf(b, "%s\"%s\":", comma, f->name);
        check_write_value(value, at, u->stages, b);
        comma = ",";
    }
    for (int row = 0; (f = check_next(&picture_used_table, &row, NULL));) {
        if (!f->key)
            continue;
        buf_printf(b, ",\"%s\":", f->name);
        check_write_value(f, (const char *)u + f->offset, u->stages, b);
    }
}
