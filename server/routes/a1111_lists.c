// A1111's options and model, and empty lists of features that a cascade lacks; front ends request
// them at startup. Called through the route table in a1111.c. Loop thread.
#include "a1111.h"

#include "json.h"
#include "text.h"

#include <string.h>

static const char *model_name(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs);
    return m ? m->name : "";
}

void a1111_options_get(struct call *c)
{
    struct buf b = {0};
    buf_puts(&b, "{\"sd_model_checkpoint\":");
    text_json(&b, model_name(c));
    buf_puts(&b, ",\"sd_checkpoint_hash\":\"\",\"sd_vae\":\"None\",\"samples_format\":\"png\","
                 "\"CLIP_stop_at_last_layers\":1}");
    call_json(c, 200, &b);
}

void a1111_options_post(struct call *c)
{
    const char *model = json_text(json_find(c->body, "sd_model_checkpoint"), NULL);
    struct buf b = {0};
    // Clients send the whole object back; only another model would be a change.
    if (model && strcmp(model, model_name(c))) {
        call_error(c, 404, NULL, NULL,
                   "the model \"%.80s\" is not loaded; this server offers \"%.80s\"", model,
                   model_name(c));
        return;
    }
    buf_puts(&b, "{}");
    call_json(c, 200, &b);
}

void a1111_sd_models_get(struct call *c)
{
    struct buf b = {0};
    buf_puts(&b, "[{\"title\":");
    text_json(&b, model_name(c));
    buf_puts(&b, ",\"model_name\":");
    text_json(&b, model_name(c));
    buf_puts(&b, ",\"hash\":null,\"sha256\":null,\"filename\":\"\",\"config\":null}]");
    call_json(c, 200, &b);
}

void a1111_upscalers_get(struct call *c)
{
    static const char rest[] = "\"model_name\":null,\"model_path\":null,\"model_url\":null";
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs);
    struct buf b = {0};
    buf_printf(&b, "[{\"name\":\"None\",%s,\"scale\":4}", rest);
    if (m && m->scale[0])
        buf_printf(&b, ",{\"name\":\"%s\",%s,\"scale\":%d}", a1111_upscaler, rest, m->scale[0]);
    buf_puts(&b, "]");
    call_json(c, 200, &b);
}

static const struct {
    const char *path, *json;
} fixed[] = {
    {"/sdapi/v1/latent-upscale-modes", "[{\"name\":\"None\"}]"},
    {"/sdapi/v1/embeddings", "{\"loaded\":{},\"skipped\":{}}"},
    {"/sdapi/v1/scripts", "{\"txt2img\":[],\"img2img\":[]}"},
    {"/sdapi/v1/cmd-flags", "{}"},
    {"/sdapi/v1/memory", "{\"ram\":{},\"cuda\":{}}"},
};

void a1111_fixed_get(struct call *c)
{
    struct buf b = {0};
    const char *json = "[]";
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        if (!strcmp(fixed[i].path, c->route->path))
            json = fixed[i].json;
    buf_puts(&b, json);
    call_json(c, 200, &b);
}

void a1111_refresh_post(struct call *c)
{
    struct buf b = {0};
    buf_puts(&b, "null");
    call_json(c, 200, &b);
}
