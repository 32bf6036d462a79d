// GET /v1/models and /v1/models/{id}: the models under all their names. Loop thread.
#include "openai.h"

#include "buf.h"
#include "conf.h"
#include "text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_SIZE = 256 };

// OpenAI's model names. New models appear often, so its image models are recognized by prefix.
static const char *const families[] = {"gpt-image-", "chatgpt-image-"};
static const char *const url_models[] = {"dall-e-2", "dall-e-3"};

// Removes a date such as "-2026-04-21".
static void cut_date(char *name)
{
    static const char form[] = "-dddd-dd-dd";
    const size_t n = strlen(name), width = sizeof form - 1;
    if (n <= width)
        return;
    for (size_t i = 0; i < width; i++) {
        const char c = name[n - width + i];
        if (form[i] == 'd' ? c < '0' || c > '9' : c != form[i])
            return;
    }
    name[n - width] = 0;
}

// Routers such as LiteLLM prepend the provider's name.
static const char *skip_provider(const char *name)
{
    static const char provider[] = "openai/";
    return strncmp(name, provider, sizeof provider - 1) ? name : name + sizeof provider - 1;
}

static bool is_family(const char *name)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const size_t n = strlen(families[i]);
        if (!strncmp(name, families[i], n) && name[n])
            return !name[n + strspn(name + n, "abcdefghijklmnopqrstuvwxyz0123456789.-")];
    }
    return false;
}

bool openai_model_gives_urls(const char *name)
{
    char base[NAME_SIZE];
    snprintf(base, sizeof base, "%s", name ? skip_provider(name) : "");
    cut_date(base);
    for (size_t i = 0; i < sizeof url_models / sizeof *url_models; i++)
        if (!strcmp(url_models[i], base))
            return true;
    return false;
}

// Iterates over the names in model-aliases: *at = the option's text first; false at the end.
static bool next_alias(const char **at, char out[NAME_SIZE])
{
    *at += strspn(*at, ", ");
    const size_t n = strcspn(*at, ", ");
    snprintf(out, NAME_SIZE, "%.*s", (int)n, *at);
    *at += n;
    return n;
}

static bool is_alias(const struct app *app, const char *name)
{
    char alias[NAME_SIZE];
    for (const char *at = app->conf->model_aliases; next_alias(&at, alias);)
        if (!strcmp(alias, name))
            return true;
    return false;
}

bool openai_model_find(struct app *app, const char *name, const char **model)
{
    if (draw_find_model(app, name, model))
        return true;
    const char *plain = skip_provider(name);
    if (*plain && draw_find_model(app, plain, model))
        return true;
    draw_find_model(app, NULL, model);
    return is_alias(app, name) || is_alias(app, plain) || is_family(plain) ||
           openai_model_gives_urls(name);
}

// root: the model behind an alias.
static void add_model(struct buf *b, const struct app *app, const struct jobs_model *m,
                      const char *id)
{
    buf_puts(b, "{\"id\":");
    text_json(b, id);
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"imagend\",\"root\":",
               (long long)(app->started / 1000));
    text_json(b, m->name);
    draw_add_state(b, m);
    buf_puts(b, "}");
}

void openai_models_list(struct call *c)
{
    const struct app *app = c->app;
    const char *at = app->conf->model_aliases;
    char alias[NAME_SIZE];
    struct buf b = {0};
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    for (int i = 0; i < jobs_models(app->jobs); i++) {
        const struct jobs_model m = jobs_model_at(app->jobs, i);
        if (!m.name)
            continue;
        buf_puts(&b, i ? "," : "");
        add_model(&b, app, &m, m.name);
    }
    const struct jobs_model first = jobs_model_at(app->jobs, 0);
    while (first.name && next_alias(&at, alias)) {
        buf_puts(&b, ",");
        add_model(&b, app, &first, alias);
    }
    buf_puts(&b, "]}");
    call_json(c, 200, &b);
}

void openai_models_get(struct call *c)
{
    struct app *app = c->app;
    char name[NAME_SIZE];
    const char *model;
    struct buf b = {0};
    // A name that contains a slash is two path segments.
    snprintf(name, sizeof name, "%s%s%s", c->arg[0], c->arg[1] ? "/" : "",
             c->arg[1] ? c->arg[1] : "");
    if (!jobs_model_at(app->jobs, 0).name || !openai_model_find(app, name, &model)) {
        draw_no_model(c, name);
        return;
    }
    const struct jobs_model m = jobs_model_at(app->jobs, jobs_model_find(app->jobs, model));
    add_model(&b, app, &m, name);
    call_json(c, 200, &b);
}
