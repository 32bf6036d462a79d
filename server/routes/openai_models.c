// GET /v1/models and /v1/models/{id}: the one model that is loaded.
#include "openai.h"

#include "buf.h"
#include "text.h"

#include <string.h>

static const char *const their_names[] = {"gpt-image-1", "gpt-image-1-mini", "gpt-image-1.5",
                                          "gpt-image-2", "dall-e-2",         "dall-e-3",
                                          NULL};

bool openai_model_known(struct app *app, const char *name)
{
    const struct model_info *m = jobs_model(app->jobs);
    if (!m || !*name || !strcmp(m->name, name))
        return true;
    for (int i = 0; their_names[i]; i++)
        if (!strcmp(their_names[i], name))
            return true;
    return false;
}

static void add_model(struct buf *b, const struct app *app, const struct model_info *m)
{
    buf_puts(b, "{\"id\":");
    text_json(b, m->name);
    buf_printf(b, ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"imagend\"}",
               (long long)(app->started / 1000));
}

void openai_models_list(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs);
    struct buf b = {0};
    buf_puts(&b, "{\"object\":\"list\",\"data\":[");
    if (m)
        add_model(&b, app, m);
    buf_puts(&b, "]}");
    call_json(c, 200, &b);
}

void openai_models_get(struct call *c)
{
    const struct app *app = c->app;
    const struct model_info *m = jobs_model(app->jobs);
    struct buf b = {0};
    if (!m || strcmp(m->name, c->arg[0])) {
        call_error(c, 404, "model_not_found", "model", "the model \"%.80s\" does not exist",
                   c->arg[0]);
        return;
    }
    add_model(&b, app, m);
    call_json(c, 200, &b);
}
