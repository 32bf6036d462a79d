// A1111's options and models, and empty lists of features that a cascade lacks; front ends request
// them at startup. Called through the route table in a1111.c. Loop thread.
#include "a1111.h"

#include "json.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

// ---- the model ----------------------------------------------------------------------------------

// The model that an API key has selected through the options; without keys, everybody.
struct a1111_choice {
    struct a1111_choice *next;
    char *owner;
    const char *model; // the job core's
};

const char *a1111_selected_model(const struct call *c)
{
    const struct app *app = c->app;
    for (const struct a1111_choice *k = app->a1111_choices; k; k = k->next)
        if (!strcmp(k->owner, c->owner))
            return k->model;
    return NULL;
}

static enum err choose(struct call *c, const char *model)
{
    struct app *app = c->app;
    struct a1111_choice *k = app->a1111_choices;
    while (k && strcmp(k->owner, c->owner))
        k = k->next;
    if (!k) {
        k = calloc(1, sizeof *k);
        if (!k || !(k->owner = strdup(c->owner))) {
            free(k);
            return ERR_NO_MEMORY;
        }
        k->next = app->a1111_choices;
        app->a1111_choices = k;
    }
    k->model = model;
    return ERR_OK;
}

void a1111_forget_choices(struct app *app)
{
    for (struct a1111_choice *k = app->a1111_choices, *next; k; k = next) {
        next = k->next;
        free(k->owner);
        free(k);
    }
    app->a1111_choices = NULL;
}

bool a1111_find_model(struct call *c, const char **model)
{
    const struct app *app = c->app;
    const struct json_t *settings = json_find(c->body, "override_settings");
    const char *name = json_text(json_find(settings, "sd_model_checkpoint"), NULL);
    *model = a1111_selected_model(c);
    // With a single model, clients that name another one get it, as they always have.
    if (jobs_models(app->jobs) == 1 || !name || !*name || draw_find_model(app, name, model))
        return true;
    draw_no_model(c, name);
    return false;
}

static const char *model_name(const struct call *c)
{
    const struct app *app = c->app;
    const char *name = a1111_selected_model(c);
    if (!name)
        name = jobs_model_at(app->jobs, 0).name;
    return name ? name : "";
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
    const struct app *app = c->app;
    const char *name = json_text(json_find(c->body, "sd_model_checkpoint"), NULL);
    const char *model = NULL;
    struct buf b = {0};
    // Clients send the whole object back; only another model would be a change.
    if (name && strcmp(name, model_name(c))) {
        const int i = *name ? jobs_model_find(app->jobs, name) : -1;
        if (i < 0) {
            draw_no_model(c, name);
            return;
        }
        draw_find_model(app, name, &model);
        if (choose(c, model)) {
            call_error(c, 500, NULL, NULL, "%s", err_text(ERR_NO_MEMORY));
            return;
        }
    }
    buf_puts(&b, "{}");
    call_json(c, 200, &b);
}

void a1111_sd_models_get(struct call *c)
{
    const struct app *app = c->app;
    struct buf b = {0};
    buf_puts(&b, "[");
    for (int i = 0; i < jobs_models(app->jobs); i++) {
        const char *name = jobs_model_at(app->jobs, i).name;
        buf_puts(&b, i ? ",{\"title\":" : "{\"title\":");
        text_json(&b, name ? name : "");
        buf_puts(&b, ",\"model_name\":");
        text_json(&b, name ? name : "");
        buf_puts(&b, ",\"hash\":null,\"sha256\":null,\"filename\":\"\",\"config\":null}");
    }
    buf_puts(&b, "]");
    call_json(c, 200, &b);
}

// ---- lists --------------------------------------------------------------------------------------

void a1111_upscalers_get(struct call *c)
{
    static const char rest[] = "\"model_name\":null,\"model_path\":null,\"model_url\":null";
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs, a1111_selected_model(c));
    struct buf b = {0};
    buf_printf(&b, "[{\"name\":\"None\",%s,\"scale\":4}", rest);
    if (m && m->scale[0])
        buf_printf(&b, ",{\"name\":\"%s\",%s,\"scale\":%d}", a1111_upscaler, rest, m->scale[0]);
    buf_puts(&b, "]");
    call_json(c, 200, &b);
}

void a1111_loras_get(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs, a1111_selected_model(c));
    struct buf b = {0};
    buf_puts(&b, "[");
    for (int i = 0; m && i < m->loras; i++) {
        buf_puts(&b, i ? ",{\"name\":" : "{\"name\":");
        text_json(&b, m->lora[i].name);
        buf_puts(&b, ",\"alias\":");
        text_json(&b, m->lora[i].name);
        buf_puts(&b, ",\"path\":\"\",\"metadata\":{}}");
    }
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
