// GET /v1/capabilities: what this server and its model can do, its limits and its load. Called by
// the router, on the loop thread.
#include "native.h"

#include "buf.h"
#include "codec.h"
#include "picture_edit.h"
#include "program.h"
#include "text.h"

static void add_names(struct buf *b, const char *name, const char *const *list)
{
    buf_printf(b, ",\"%s\":[", name);
    for (int i = 0; list[i]; i++) {
        buf_puts(b, i ? "," : "");
        text_json(b, list[i]);
    }
    buf_puts(b, "]");
}

static void add_stages(struct buf *b, const struct model_info *m)
{
    buf_puts(b, ",\"stages\":[");
    for (int i = 0; i < m->stages; i++) {
        const struct model_stage *s = &m->stage[i];
        buf_printf(b,
                   "%s{\"size\":%d,\"steps\":%d,\"guidance_scale\":%.6g,\"noise_level\":%d,"
                   "\"sampler\":",
                   i ? "," : "", s->size, s->steps, (double)s->guidance_scale, s->noise_level);
        text_json(b, s->sampler);
        buf_puts(b, ",\"name\":");
        text_json(b, s->name);
        buf_puts(b, "}");
    }
    buf_puts(b, "]");
}

// All sizes that the stages generate without cropping.
static void add_sizes(struct buf *b, const struct model_info *m)
{
    struct check_size size;
    buf_puts(b, ",\"native_sizes\":[");
    for (int i = 0; picture_native(&m->sizes, i, &size); i++)
        buf_printf(b, "%s\"%dx%d\"", i ? "," : "", size.width, size.height);
    buf_puts(b, "]");
}

// LoRAs that requests may name, and parts of the folders that are not applied.
static void add_parts(struct buf *b, const struct model_info *m)
{
    const char *comma = "";
    buf_puts(b, ",\"loras\":[");
    for (int i = 0; i < m->loras; i++) {
        buf_printf(b, "%s{\"name\":", i ? "," : "");
        text_json(b, m->lora[i].name);
        buf_printf(b, ",\"scale\":%.6g,\"stage\":%d,\"default\":%s}", m->lora[i].scale,
                   m->lora[i].stage + 1, m->lora[i].applied ? "true" : "false");
    }
    buf_puts(b, "],\"modules\":[");
    for (int i = 0; i < m->stages; i++)
        for (int k = 0; k < 2; k++) {
            if (!(k ? m->stage[i].watermarker : m->stage[i].safety_checker))
                continue;
            buf_printf(b, "%s{\"name\":\"%s\",\"stage\":%d,\"applied\":false}", comma,
                       k ? "watermarker" : "safety_checker", i + 1);
            comma = ",";
        }
    buf_puts(b, "]");
}

static void add_presets(struct buf *b, const struct model_info *m)
{
    buf_puts(b, ",\"presets\":[");
    for (int i = 0; i < m->presets; i++) {
        const struct model_preset *p = &m->preset[i];
        buf_printf(b, "%s{\"name\":", i ? "," : "");
        text_json(b, p->name);
        buf_puts(b, ",\"sampler\":");
        text_json(b, p->sampler);
        buf_puts(b, ",\"steps\":[");
        for (int s = 0; s < m->stages; s++)
            buf_printf(b, "%s%d", s ? "," : "", p->steps[s]);
        buf_puts(b, "],\"guidance_scale\":[");
        for (int s = 0; s < m->stages; s++)
            buf_printf(b, "%s%.6g", s ? "," : "", (double)p->guidance_scale[s]);
        buf_puts(b, "]}");
    }
    buf_puts(b, "]");
}

// The things that the model knows; null if its folder does not say.
static void add_vocabulary(struct buf *b, const struct model_info *m)
{
    buf_puts(b, ",\"vocabulary\":");
    buf_puts(b, m->vocabulary ? vocabulary_json(m->vocabulary) : "null");
}

// The tasks, and what an input image may be.
static void add_input(struct buf *b, const struct model_info *m, const struct jobs_limits *limits)
{
    buf_printf(b, "\"tasks\":[\"generate\",\"edit\"%s],\"scales\":[",
               m->scale[0] ? ",\"upscale\"" : "");
    for (int i = 0; i < 2 && m->scale[i]; i++)
        buf_printf(b, "%s%d", i ? "," : "", m->scale[i]);
    buf_printf(b,
               "],\"input\":{\"formats\":[\"png\",\"jpeg\",\"webp\"],\"bytes\":%zu,\"edge\":%d,"
               "\"pixels\":%d,\"mask_kinds\":[\"light\",\"transparent\"]},\"output\":{\"edge\":%d,"
               "\"pixels\":%d},",
               limits->input_bytes < CODEC_MAX_BYTES ? limits->input_bytes
                                                     : (size_t)CODEC_MAX_BYTES,
               PICTURE_MAX_EDIT_EDGE, CODEC_MAX_PIXELS, CODEC_MAX_EDGE, CODEC_MAX_PIXELS);
}

// All models; the first is the default.
static void add_models(struct buf *b, const struct app *app)
{
    buf_puts(b, ",\"models\":[");
    for (int i = 0; i < jobs_models(app->jobs); i++) {
        const struct jobs_model m = jobs_model_at(app->jobs, i);
        buf_puts(b, i ? ",{\"name\":" : "{\"name\":");
        text_json(b, m.name ? m.name : "");
        draw_add_state(b, &m);
        buf_puts(b, "}");
    }
    buf_puts(b, "]");
}

static const struct check_field query[] = {
    {"model", CHECK_TEXT, 0, offsetof(struct native_capabilities_fields, model), 0, 200,
     .help = "a name from /v1/models; defaults to the first of them"},
    {"vocabulary", CHECK_BOOL, 0, offsetof(struct native_capabilities_fields, vocabulary), 0, 0,
     .def = "true", .help = "whether to list what the model knows"},
};
const struct check_table native_capabilities_check = CHECK_TABLE("CapabilitiesQuery", query, true);

void native_capabilities(struct call *c)
{
    const struct app *app = c->app;
    const struct native_capabilities_fields *f = c->fields;
    const char *model;
    if (!draw_find_model(app, f->model, &model)) {
        draw_no_model(c, f->model);
        return;
    }
    const struct model_info *m = jobs_model(app->jobs, model);
    const struct jobs_limits *limits = jobs_limits(app->jobs);
    const struct jobs_stats s = jobs_stats(app->jobs);
    struct buf b = {0};
    if (!m) {
        struct fault why = {0};
        jobs_ready(app->jobs, &why);
        if (model)
            fault_set(&why, ERR_BUSY, "server", "the model \"%s\" cannot be loaded: %s", model,
                      jobs_model_at(app->jobs, jobs_model_find(app->jobs, model)).why.msg);
        else if (why.code == ERR_BUSY && !app->draining)
            fault_set(&why, ERR_BUSY, "server", "the model is still loading; try again later");
        call_fault(c, &why, 2);
        return;
    }
    buf_puts(&b, "{\"version\":");
    text_json(&b, program_version);
    buf_puts(&b, ",\"model\":");
    text_json(&b, m->name);
    add_models(&b, app);
    buf_puts(&b, ",\"device\":");
    text_json(&b, m->device);
    buf_puts(&b, ",\"sizes\":[");
    for (int i = 0; i < m->stages; i++)
        buf_printf(&b, "%s%d", i ? "," : "", m->stage[i].size);
    buf_puts(&b, "]");
    add_sizes(&b, m);
    add_stages(&b, m);
    add_parts(&b, m);
    add_presets(&b, m);
    if (f->vocabulary)
        add_vocabulary(&b, m);
    add_names(&b, "samplers", m->samplers);
    add_names(&b, "timesteps", m->timesteps);
    buf_printf(&b,
               ",\"formats\":[\"png\",\"jpeg\",\"webp\"],\"limits\":{\"n\":%d,\"prompt_bytes\":%d,"
               "\"steps\":%d,\"loras\":%d,\"previews\":%d,\"priority\":%d,\"queue\":%d,"
               "\"queue_per_key\":%d,\"keep_seconds\":%lld},",
               JOB_MAX_PICTURES, PICTURE_MAX_PROMPT, PICTURE_MAX_STEPS, PICTURE_MAX_LORAS,
               JOB_MAX_PREVIEWS, JOB_MAX_PRIORITY, limits->queued, limits->queued_per_owner,
               (long long)(limits->keep_ms / 1000));
    add_input(&b, m, limits);
    buf_printf(
        &b,
        "\"slots\":%d,\"queued\":%d,\"running\":%d,\"seconds_per_picture\":%.4f,"
        "\"features\":{\"batching\":\"step\",\"streaming\":true,\"cancel\":true,"
        "\"idempotency\":true,\"img2img\":true,\"edit\":true,\"inpaint\":true,\"upscale\":%s}}",
        s.slots, s.queued, s.running, s.seconds_per_picture, m->scale[0] ? "true" : "false");
    call_json(c, 200, &b);
}
