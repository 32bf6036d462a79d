// GET /openapi.json: the API description (OpenAPI 3.1), generated from the route table, the
// field tables that validate requests, and the schemas of responses in responses*.json, which the
// tests compare with real responses. Loop thread.
#include "app.h"

#include "buf.h"
#include "models_file.h"
#include "page_data.h"
#include "program.h"
#include "text.h"

#include <stdio.h>
#include <string.h>

enum { LIVE_MAX = MODELS_MAX }; // the longest list
_Static_assert((int)PICTURE_KNOWN_LORAS <= (int)LIVE_MAX, "it has room for all LoRAs");

// Lists that only the models know.
struct live {
    const struct jobs *jobs;
    const struct model_info *model; // the default
    char text[LIVE_MAX][48];
    const char *list[LIVE_MAX + 1];
};

static const char *const *live_sizes(struct live *l)
{
    int n = 0;
    snprintf(l->text[n++], sizeof l->text[0], "auto");
    for (int i = 0; i < l->model->stages; i++, n++)
        snprintf(l->text[n], sizeof l->text[0], "%dx%d", l->model->stage[i].size,
                 l->model->stage[i].size);
    for (int i = 0; i < n; i++)
        l->list[i] = l->text[i];
    l->list[n] = NULL;
    return l->list;
}

static const char *const *live_list(void *ctx, const char *name)
{
    struct live *l = ctx;
    int n = 0;
    if (!l->model)
        return NULL;
    if (!strcmp(name, "sizes"))
        return live_sizes(l);
    for (int i = 0; !strcmp(name, "models") && i < jobs_models(l->jobs); i++)
        l->list[n++] = jobs_model_at(l->jobs, i).name;
    for (int i = 0; !strcmp(name, "samplers") && l->model->samplers[i]; i++)
        l->list[n++] = l->model->samplers[i];
    for (int i = 0; !strcmp(name, "timesteps") && l->model->timesteps[i]; i++)
        l->list[n++] = l->model->timesteps[i];
    for (int i = 0; !strcmp(name, "presets") && i < l->model->presets; i++)
        l->list[n++] = l->model->preset[i].name;
    for (int i = 0; !strcmp(name, "loras") && i < l->model->loras; i++)
        l->list[n++] = l->model->lora[i].name;
    l->list[n] = NULL;
    return l->list;
}

static void add_parameters(struct buf *b, const struct route *r)
{
    const char *comma = "";
    buf_puts(b, ",\"parameters\":[");
    for (const char *at = strchr(r->path, '{'); at; at = strchr(at + 1, '{')) {
        buf_printf(b,
                   "%s{\"name\":\"%.*s\",\"in\":\"path\",\"required\":true,\"schema\":{"
                   "\"type\":\"string\"}}",
                   comma, (int)strcspn(at + 1, "}"), at + 1);
        comma = ",";
    }
    const struct check_field *f;
    for (int row = 0; r->query && (f = check_next(r->query, &row, NULL));) {
        buf_printf(b, "%s{\"name\":\"%s\",\"in\":\"query\",\"required\":false,\"schema\":", comma,
                   f->name);
        check_schema_value(f, b);
        buf_puts(b, ",\"description\":");
        text_json(b, f->help);
        buf_puts(b, "}");
        comma = ",";
    }
    buf_puts(b, "]");
}

// The media type of a response and its schema.
static void add_content(struct buf *b, const struct route_answer *a)
{
    buf_printf(b, "\"%s\":{\"schema\":", a->type);
    if (a->schema)
        buf_printf(b, "{\"$ref\":\"#/components/schemas/%s\"}}", a->schema);
    else if (!strncmp(a->type, "text/", strlen("text/")))
        buf_puts(b, "{\"type\":\"string\"}}");
    else
        buf_printf(b, "{\"type\":\"string\",\"contentMediaType\":\"%s\"}}", a->type);
}

static void add_answers(struct buf *b, const struct route *r)
{
    buf_puts(b, ",\"responses\":{");
    for (int i = 0; i < 4 && r->answer[i].status; i++) {
        const struct route_answer *a = &r->answer[i];
        // The table lists the media types of one status next to each other.
        const bool same = i && r->answer[i - 1].status == a->status;
        if (same) {
            buf_puts(b, ",");
        } else {
            buf_printf(b, "%s\"%d\":{\"description\":", i ? "}}," : "", a->status);
            text_json(b, a->help);
            buf_puts(b, ",\"content\":{");
        }
        if (a->type)
            add_content(b, a);
    }
    buf_puts(b, "}},\"default\":{\"description\":\"an error\",\"content\":{\"application/json\":{"
                "\"schema\":{\"$ref\":\"#/components/schemas/");
    buf_puts(b, r->errors == ERRORS_A1111 ? "A1111Error" : "Error");
    buf_puts(b, "\"}}}}}");
}

static void add_body(struct buf *b, const struct route *r)
{
    static const char *const types[] = {"application/json", "multipart/form-data"};
    buf_printf(b, ",\"requestBody\":{\"required\":%s,\"content\":{",
               r->flags & ROUTE_EMPTY_BODY ? "false" : "true");
    for (int i = 0; i < (r->flags & ROUTE_FORM ? 2 : 1); i++)
        buf_printf(b, "%s\"%s\":{\"schema\":{\"$ref\":\"#/components/schemas/%s\"}}", i ? "," : "",
                   types[i], r->body->name);
    buf_puts(b, "}}");
}

static void add_operation(struct buf *b, const struct route *r)
{
    for (const char *m = r->method; *m; m++)
        buf_printf(b, m == r->method ? "\"%c" : "%c", *m - 'A' + 'a');
    buf_printf(b, "\":{\"tags\":[\"%s\"],\"summary\":", r->tag);
    text_json(b, r->summary);
    add_parameters(b, r);
    if (r->body)
        add_body(b, r);
    if (r->scope)
        buf_printf(b, ",\"security\":[{\"key\":[\"%s\"]}]", scope_name(r->scope));
    else
        buf_puts(b, ",\"security\":[]");
    add_answers(b, r);
    buf_puts(b, "}");
}

// Operations of one path form one object: the first route of a path writes them all.
static void add_paths(struct call *c, struct buf *b)
{
    const struct route *r, *other;
    bool first = true;
    for (int at = 0; (r = router_next(c->router, &at));) {
        bool seen = r->flags & ROUTE_HIDDEN, open = false;
        for (int k = 0; !seen && (other = router_next(c->router, &k)) && other != r;)
            seen = !strcmp(other->path, r->path);
        if (seen)
            continue;
        buf_printf(b, "%s\"%s\":{", first ? "" : ",", r->path);
        first = false;
        for (int k = 0; (other = router_next(c->router, &k));) {
            if (strcmp(other->path, r->path))
                continue;
            buf_puts(b, open ? "," : "");
            add_operation(b, other);
            open = true;
        }
        buf_puts(b, "}");
    }
}

// The schemas of responses, without the braces of their files.
static void add_response_schemas(struct buf *b)
{
    for (const struct page_file *f = response_files; f->name; f++) {
        const char *text = (const char *)f->data, *open = memchr(text, '{', f->size);
        size_t end = f->size;
        while (end && text[end - 1] != '}')
            end--;
        buf_puts(b, f == response_files ? "" : ",");
        buf_add(b, open + 1, (size_t)(text + end - 1 - (open + 1)));
    }
}

static void openapi_get(struct call *c)
{
    const struct app *app = c->app;
    struct live live = {.jobs = app->jobs, .model = jobs_model(app->jobs, NULL)};
    struct buf b = {0};
    const struct route *r;
    buf_puts(
        &b,
        "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"imagend\",\"summary\":\"Image generation, "
        "editing and upscaling\",\"version\":");
    text_json(&b, program_version);
    buf_puts(&b, "},\"paths\":{");
    add_paths(c, &b);
    buf_puts(&b, "},\"components\":{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":"
                 "\"bearer\"}},\"schemas\":{");
    add_response_schemas(&b);
    for (int at = 0; (r = router_next(c->router, &at));) {
        if (!r->body)
            continue;
        buf_printf(&b, ",\"%s\":", r->body->name);
        check_schema(r->body, live_list, &live, &b);
    }
    buf_puts(&b, "}}}");
    call_json(c, 200, &b);
}

const struct route routes_openapi[] = {
    {"GET", "/openapi.json", openapi_get, SCOPE_NONE, 0, ERRORS_OPENAI, "operations",
     "This OpenAPI document", .answer = {{200, "application/json", "OpenAPI 3.1", "OpenAPI"}}},
    {0},
};
