// Records the fake engine's parameters, so that tests can see what reaches an engine. Called by
// fake_engine.c.
#include "fake_seen.h"

#include "buf.h"
#include "picture_edit.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fake_see(struct buf *b)
{
    const char *path = getenv("FAKE_SEEN");
    FILE *f = path && *path ? fopen(path, "a") : NULL;
    if (f)
        fprintf(f, "%s\n", b->data);
    if (f)
        fclose(f);
    buf_deinit(b);
}

void fake_see_open(const struct engine_params *p)
{
    const char *const texts[][2] = {{"model", p->model},
                                    {"variant", p->variant},
                                    {"device", p->device},
                                    {"dtype", p->dtype},
                                    {"cache_dir", p->cache_dir},
                                    {"text_encoder", p->text_encoder},
                                    {"lora", p->lora},
                                    {"lora_choices", p->lora_choices},
                                    {"name", p->name},
                                    {"weights", p->weights},
                                    {NULL, NULL}};
    struct buf b = {0};
    buf_printf(&b, "{\"slots\":%d,\"memory_limit\":%zu,\"text_cache\":%zu", p->slots,
               p->memory_limit, p->text_cache);
    for (int i = 0; texts[i][0] && (p->name || strcmp(texts[i][0], "name") != 0); i++) {
        buf_printf(&b, ",\"%s\":", texts[i][0]);
        text_json(&b, texts[i][1]);
    }
    buf_puts(&b, "}");
    fake_see(&b);
}

void fake_see_request(const char *model, const struct picture_request *r)
{
    const struct {
        const char *name, *value;
    } texts[] = {
        {"model_name", model}, {"prompt", r->prompt},   {"negative_prompt", r->negative_prompt},
        {"preset", r->preset}, {"sampler", r->sampler}, {"timesteps", r->timesteps}};
    struct buf b = {0};
    buf_printf(&b, "{\"seed\":%llu,\"picture\":%d,\"size\":[%d,%d]", (unsigned long long)r->seed,
               r->picture, r->size.width, r->size.height);
    for (size_t i = model ? 0 : 1; i < sizeof texts / sizeof texts[0]; i++) {
        buf_printf(&b, ",\"%s\":", texts[i].name);
        text_json(&b, texts[i].value);
    }
    for (int i = 0; i < PICTURE_MAX_STAGES; i++)
        buf_printf(&b, "%s[%d,%.9g,%d]", i ? "," : ",\"stages\":[", r->steps[i],
                   (double)r->guidance_scale[i], r->set_noise_level ? r->noise_level[i] : -1);
    buf_puts(&b, "]");
    if (r->loras.given) {
        buf_puts(&b, ",\"loras\":");
        check_write_value(check_find(&picture_table, "loras", NULL), &r->loras, 0, &b);
    }
    if (r->edit) { // size, number of regenerated pixels, feather, strengths, factor
        int drawn = 0;
        for (int k = 0; r->edit->drawn && k < r->edit->width * r->edit->height; k++)
            drawn += r->edit->drawn[k] != 0;
        buf_printf(&b, ",\"edit\":{\"size\":[%d,%d],\"drawn\":%d,\"feather\":%d,\"scale\":%d",
                   r->edit->width, r->edit->height, r->edit->drawn ? drawn : -1, r->edit->feather,
                   r->scale);
        if (r->edit->fill || r->edit->zoom)
            buf_printf(&b, ",\"fill\":%d,\"zoom\":[%d,%d,%d]", (int)r->edit->fill, r->edit->zoom,
                       r->edit->left, r->edit->top);
        for (int i = 0; i < PICTURE_MAX_STAGES; i++)
            buf_printf(&b, "%s%.9g", i ? "," : ",\"strength\":[", (double)r->strength[i]);
        buf_puts(&b, "]}");
    }
    buf_puts(&b, "}");
    fake_see(&b);
}
