// What every part of the job layer knows of a job: names, copies and the written form of a spec.
// Called on the loop thread; knows nothing of queues, engines or HTTP.
#include "job.h"

#include "buf.h"
#include "json.h"
#include "text.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {"queued", "running", "done", "failed", "cancelled", NULL};
static const char *const format_names[] = {"png", "jpeg", "webp", NULL};
static const char *const format_types[] = {"image/png", "image/jpeg", "image/webp"};

const char *job_state_name(enum job_state s)
{
    return state_names[s];
}

enum err job_state_find(const char *name, enum job_state *out)
{
    for (int i = 0; state_names[i]; i++) {
        if (!strcmp(name, state_names[i])) {
            *out = (enum job_state)i;
            return ERR_OK;
        }
    }
    return ERR_NOT_FOUND;
}

const char *job_format_name(enum job_format f)
{
    return format_names[f];
}

const char *job_format_type(enum job_format f)
{
    return format_types[f];
}

// The strings of a spec, once, for copying, writing and reading.
static const struct spec_text {
    const char *name;
    size_t offset;
    const char *absent; // what a reader gives when the text is not there
} spec_texts[] = {
    {"prompt", offsetof(struct job_spec, request.prompt), ""},
    {"negative_prompt", offsetof(struct job_spec, request.negative_prompt), NULL},
    {"preset", offsetof(struct job_spec, request.preset), NULL},
    {"sampler", offsetof(struct job_spec, request.sampler), NULL},
    {"timesteps", offsetof(struct job_spec, request.timesteps), NULL},
    {"owner", offsetof(struct job_spec, owner), ""},
    {"api", offsetof(struct job_spec, api), "jobs"},
    {"request_id", offsetof(struct job_spec, request_id), NULL},
    {"idempotency_key", offsetof(struct job_spec, idempotency_key), NULL},
    {"body_hash", offsetof(struct job_spec, body_hash), NULL},
    {"webhook_url", offsetof(struct job_spec, webhook_url), NULL},
};
enum { SPEC_TEXTS = sizeof spec_texts / sizeof spec_texts[0] };

static const char **spec_text(struct job_spec *s, int i)
{
    return (const char **)((char *)s + spec_texts[i].offset);
}

enum err job_spec_copy(const struct job_spec *from, struct job_spec *to, char **text)
{
    struct job_spec out = *from;
    size_t total = 1;
    for (int i = 0; i < SPEC_TEXTS; i++)
        if (*spec_text(&out, i))
            total += strlen(*spec_text(&out, i)) + 1;
    char *p = *text = malloc(total);
    if (!p)
        return ERR_NO_MEMORY;
    for (int i = 0; i < SPEC_TEXTS; i++) {
        const char **s = spec_text(&out, i);
        if (!*s)
            continue;
        const size_t n = strlen(*s) + 1;
        memcpy(p, *s, n);
        *s = p;
        p += n;
    }
    *to = out;
    return ERR_OK;
}

char *job_spec_write(const struct job_spec *s)
{
    struct job_spec copy = *s;
    struct buf b = {0};
    buf_puts(&b, "{");
    for (int i = 0; i < SPEC_TEXTS; i++) {
        if (!*spec_text(&copy, i))
            continue;
        buf_printf(&b, "\"%s\":", spec_texts[i].name);
        text_json(&b, *spec_text(&copy, i));
        buf_puts(&b, ",");
    }
    // JSON numbers lose 64-bit seeds in many readers; jansson keeps signed ones, hence the cast.
    buf_printf(&b, "\"n\":%d,\"size\":%d,\"seed\":%lld,", s->n, s->request.size,
               (long long)s->request.seed);
    for (int i = 0; i < PICTURE_MAX_STAGES; i++)
        buf_printf(&b, "\"steps%d\":%d,\"guidance%d\":%.9g,\"noise%d\":%d,", i, s->request.steps[i],
                   i, (double)s->request.guidance_scale[i], i, s->request.noise_level[i]);
    buf_printf(&b, "\"set_noise_level\":%s,\"format\":\"%s\",\"quality\":%d,\"previews\":%d,",
               s->request.set_noise_level ? "true" : "false", format_names[s->format], s->quality,
               s->previews);
    buf_printf(&b, "\"preview_format\":\"%s\",\"priority\":%d,\"deadline\":%lld,",
               format_names[s->preview_format], s->priority, (long long)s->deadline);
    buf_printf(&b, "\"durable\":%s,\"keep\":%s}", s->durable ? "true" : "false",
               s->keep ? "true" : "false");
    return buf_take(&b);
}

static void spec_read_stages(struct json_reader *r, struct job_spec *s)
{
    for (int i = 0; i < PICTURE_MAX_STAGES; i++) {
        char steps[] = "steps0", guidance[] = "guidance0", noise[] = "noise0";
        steps[sizeof steps - 2] = guidance[sizeof guidance - 2] = noise[sizeof noise - 2] =
            (char)('0' + i);
        s->request.steps[i] = (int)json_read_int(r, steps, 0, 0, INT32_MAX);
        s->request.guidance_scale[i] = (float)json_read_number(r, guidance, 0, -1e6, 1e6);
        s->request.noise_level[i] = (int)json_read_int(r, noise, 0, -1, INT32_MAX);
    }
}

enum err job_spec_read(const char *json, struct job_spec *to, char **text, struct fault *why)
{
    struct json_t *doc = NULL;
    struct job_spec s = {0};
    enum err err = json_parse(json, strlen(json), "stored job", ERR_FORMAT, &doc, why);
    if (err)
        return err;
    struct json_reader r = json_reader(doc, "stored job", ERR_FORMAT, why);
    if (!r.err && !json_given(doc, "prompt"))
        json_fail(&r, ERR_FORMAT, "prompt", "is missing");
    for (int i = 0; i < SPEC_TEXTS; i++)
        *spec_text(&s, i) = json_read_text(&r, spec_texts[i].name, spec_texts[i].absent);
    s.n = (int)json_read_int(&r, "n", 1, 1, JOB_MAX_PICTURES);
    s.request.size = (int)json_read_int(&r, "size", 0, 0, INT32_MAX);
    s.request.seed = (uint64_t)json_read_int(&r, "seed", 0, INT64_MIN, INT64_MAX);
    spec_read_stages(&r, &s);
    s.request.set_noise_level = json_read_bool(&r, "set_noise_level", false);
    s.format = (enum job_format)json_read_enum(&r, "format", JOB_PNG, format_names);
    s.quality = (int)json_read_int(&r, "quality", 90, 0, 100);
    s.previews = (int)json_read_int(&r, "previews", 0, 0, JOB_MAX_PREVIEWS);
    s.preview_format =
        (enum job_format)json_read_enum(&r, "preview_format", JOB_JPEG, format_names);
    s.priority = (int)json_read_int(&r, "priority", 0, 0, JOB_MAX_PRIORITY);
    s.deadline = json_read_int(&r, "deadline", 0, 0, INT64_MAX);
    s.durable = json_read_bool(&r, "durable", true);
    s.keep = json_read_bool(&r, "keep", true);
    err = r.err ? r.err : job_spec_copy(&s, to, text);
    json_destroy(&doc);
    return err;
}

double job_progress(const struct job *j)
{
    double done = 0;
    for (int i = 0; i < j->spec.n; i++) {
        const struct job_picture *p = &j->picture[i];
        int before = 0, total = 0;
        for (int s = 0; s < j->used.stages; s++) {
            total += j->used.steps[s];
            before += s < p->stage ? j->used.steps[s] : 0;
        }
        if (p->state == JOB_DONE)
            done += 1;
        else if (total)
            done += (double)(before + p->step) / total;
    }
    return done / j->spec.n;
}
