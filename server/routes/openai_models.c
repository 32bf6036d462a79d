// GET /v1/models and /v1/models/{id}: the loaded model under all its names. Loop thread.
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

static bool is_ours(const struct app *app, const char *name)
{
    const struct model_info *m = jobs_model(app->jobs);
    char alias[NAME_SIZE];
    if (m && !strcmp(m->name, name))
        return true;
    for (const char *at = app->conf->model_aliases; next_alias(&at, alias);)
        if (!strcmp(alias, name))
            return true;
    return false;
}

bool openai_model_known(struct app *app, const char *name)
{
    if (!name || !*name || !jobs_model(app->jobs) || is_ours(app, name))
        return true;
    return is_ours(app, skip_provider(name)) || is_family(skip_provider(name)) ||
           openai_model_gives_urls(name);
}

// root: the model behind an alias.
static void add_model(struct buf *b, const struct app *app, const char *id)
{
    buf_puts(b, "{\"id\":");
    text_json(b, id);
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"imagend\",\"root\":",
               (long long)(app->started / 1000));
    text_json(b, jobs_model(app->jobs)->name);
    buf_puts(b, "}");
}

void openai_models_list(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs);
    const char *at = app->conf->model_aliases;
    char alias[NAME_SIZE];
    struct buf b = {0};
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    if (m)
        add_model(&b, app, m->name);
    while (m && next_alias(&at, alias)) {
        buf_puts(&b, ",");
        add_model(&b, app, alias);
    }
    buf_puts(&b, "]}");
    call_json(c, 200, &b);
}

void openai_models_get(struct call *c)
{
    struct app *app = c->app;
    char name[NAME_SIZE];
    struct buf b = {0};
    // A name that contains a slash is two path segments.
    snprintf(name, sizeof name, "%s%s%s", c->arg[0], c->arg[1] ? "/" : "",
             c->arg[1] ? c->arg[1] : "");
    if (!jobs_model(app->jobs) || !openai_model_known(app, name)) {
        call_error(c, 404, "model_not_found", "model", "the model \"%.80s\" does not exist", name);
        return;
    }
    add_model(&b, app, name);
    call_json(c, 200, &b);
}
