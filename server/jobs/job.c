// Jobs as data: names, snapshots, and copying, writing and reading specs. Called on the loop thread
// and by stores; knows nothing about queues, engines or HTTP.
#include "job.h"

#include "buf.h"
#include "codec.h"
#include "json.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[] = {"queued", "running", "done", "failed", "cancelled", NULL};
static const char *const format_names[] = {"png", "jpeg", "webp", NULL};
static const char *const format_types[] = {"image/png", "image/jpeg", "image/webp"};

struct job *job_create(void)
{
    return calloc(1, sizeof(struct job));
}

void job_free(struct job **j)
{
    if (!*j)
        return;
    for (int i = 0; i < JOB_MAX_PICTURES; i++) {
        blob_unref(&(*j)->picture[i].image);
        blob_unref(&(*j)->picture[i].latest);
    }
    for (int i = 0; i < JOB_RING; i++)
        blob_unref(&(*j)->ring[i].blob);
    job_free(&(*j)->news);
    job_free(&(*j)->later);
    free((*j)->spec_text);
    free(*j);
    *j = NULL;
}

struct job *job_snapshot(const struct job *j)
{
    struct job *s = job_create();
    if (!s || job_spec_copy(&j->spec, &s->spec, &s->spec_text)) {
        job_free(&s);
        return NULL;
    }
    memcpy(s->id, j->id, sizeof s->id);
    memcpy(s->token, j->token, sizeof s->token);
    s->created = j->created;
    s->seq = j->seq;
    s->lease = j->lease;
    s->claims = j->claims;
    job_update(s, j);
    return s;
}

void job_update(struct job *to, const struct job *from)
{
    to->state = from->state;
    to->used = from->used;
    to->fault = from->fault;
    to->started = from->started;
    to->finished = from->finished;
    to->expires = from->expires;
    to->webhook_tries = from->webhook_tries;
    to->webhook_next = from->webhook_next;
    for (int i = 0; i < to->spec.n; i++) {
        struct blob *image = to->picture[i].image;
        to->picture[i] = from->picture[i];
        to->picture[i].encoding = NULL;
        to->picture[i].work = NULL;
        to->picture[i].latest = NULL;
        to->picture[i].image = image;
    }
}

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

// The fields of a spec, for copying, writing and reading.
#define S(field) offsetof(struct job_spec, field)
static const struct check_field spec_fields[] = {
    // Unlike in a request, it may be empty.
    {"prompt", CHECK_TEXT, CHECK_REQUIRED, S(request.prompt), 0, PICTURE_MAX_PROMPT},
    {"model", CHECK_TEXT, 0, S(model), 0, 64},
    {"n", CHECK_INT, 0, S(n), 1, JOB_MAX_PICTURES, .def = "1"},
    {"format", CHECK_ENUM, 0, S(format), .choices = format_names, .def = "png"},
    {"quality", CHECK_INT, 0, S(quality), 0, 100, .def = "90"},
    {"previews", CHECK_INT, 0, S(previews), 0, JOB_MAX_PREVIEWS, .def = "0"},
    {"preview_format", CHECK_ENUM, 0, S(preview_format), .choices = format_names, .def = "jpeg"},
    {"priority", CHECK_INT, 0, S(priority), 0, JOB_MAX_PRIORITY, .def = "0"},
    {"deadline", CHECK_TIME, 0, S(deadline)},
    {"owner", CHECK_TEXT, 0, S(owner), 0, 1000, .def = ""},
    {"client", CHECK_TEXT, 0, S(client), 0, 1000},
    {"api", CHECK_TEXT, 0, S(api), 0, 1000, .def = "jobs"},
    {"request_id", CHECK_TEXT, 0, S(request_id), 0, 1000},
    {"idempotency_key", CHECK_TEXT, 0, S(idempotency_key), 0, 1000},
    {"body_hash", CHECK_TEXT, 0, S(body_hash), 0, 1000},
    {"webhook_url", CHECK_TEXT, 0, S(webhook_url), 0, 2000},
    {"image", CHECK_TEXT, 0, S(input.image), 64, 64},
    {"mask", CHECK_TEXT, 0, S(input.mask), 64, 64},
    {"mask_kind", CHECK_INT, 0, S(input.mask_kind), 0, PICTURE_MASK_TRANSPARENT},
    {"mask_invert", CHECK_BOOL, 0, S(input.mask_invert)},
    {"feather", CHECK_INT, 0, S(input.feather), PICTURE_FEATHER_AUTO, PICTURE_MAX_FEATHER,
     .def = "-1"},
    {"fit", CHECK_INT, 0, S(input.options.fit), 0, PICTURE_FIT_PAD},
    {"fill", CHECK_INT, 0, S(input.options.fill), 0, PICTURE_FILL_GRAY},
    {"opaque", CHECK_BOOL, 0, S(input.options.opaque)},
    {"zoom", CHECK_BOOL, 0, S(input.options.zoom)},
    {"padding", CHECK_INT, 0, S(input.options.padding), 0, PICTURE_MAX_PADDING},
    {"input_size", CHECK_SIZE, 0, S(input.size), 1, 65536},
    {"masked", CHECK_BOOL, 0, S(input.masked)},
    {"durable", CHECK_BOOL, 0, S(durable), .def = "true"},
    {"keep", CHECK_BOOL, 0, S(keep), .def = "true"},
};
static const struct check_table spec_table = {CHECK_ROWS("JobSpec", spec_fields),
                                              .more = &picture_table, .more_at = S(request)};
#undef S

void job_spec_link(struct job_spec *s)
{
    const struct job_input *in = &s->input;
    s->shape = (struct picture_edit){
        .width = in->size.width, .height = in->size.height, .masked = in->masked};
    s->request.edit = in->size.width ? &s->shape : NULL;
}

enum err job_spec_copy(const struct job_spec *from, struct job_spec *to, char **text)
{
    enum { MOST_TEXTS = sizeof *to / sizeof(char *) };
    const char **s[MOST_TEXTS]; // of to
    size_t size[MOST_TEXTS], total = 1, at = 0;
    const struct check_field *f;
    int n = 0;
    *to = *from;
    for (int row = 0; (f = check_next(&spec_table, &row, &at));) {
        s[n] = (const char **)(void *)((char *)to + at);
        if (f->type != CHECK_TEXT || !*s[n])
            continue;
        size[n] = strlen(*s[n]) + 1;
        total += size[n++];
    }
    char *p = *text = malloc(total);
    if (!p)
        return ERR_NO_MEMORY;
    for (int i = 0; i < n; i++) {
        *s[i] = memcpy(p, *s[i], size[i]);
        p += size[i];
    }
    job_spec_link(to);
    return ERR_OK;
}

static enum err decode(const struct blob *file, const char *name, struct codec_image *out,
                       struct fault *why)
{
    return codec_decode(file->data, file->size, &(struct codec_limits){.name = name}, out, why);
}

enum err job_input_decode(struct job_input *in, const struct picture_request *r,
                          const struct blob *image, const struct blob *mask,
                          struct picture_edit **out, struct fault *why)
{
    struct codec_image pixels = {0}, light = {0};
    struct picture_edit_params p = {
        .image = &pixels,
        .mask = mask ? &light : NULL,
        .kind = (enum picture_mask)in->mask_kind,
        .invert = in->mask_invert,
        .enlarge = r->scale,
        .size = r->scale ? (struct check_size){0, 0} : r->size,
        .feather = in->feather,
        .options = in->options,
    };
    *out = NULL;
    enum err err = decode(image, "image", &pixels, why);
    if (!err && mask)
        err = decode(mask, "mask", &light, why);
    if (!err)
        err = picture_edit_create(&p, out, why);
    if (!err) {
        in->size = (struct check_size){(*out)->width, (*out)->height};
        in->masked = (*out)->masked;
    }
    codec_image_deinit(&pixels);
    codec_image_deinit(&light);
    return err;
}

char *job_spec_write(const struct job_spec *s)
{
    struct buf b = {0};
    check_write(&spec_table, s, &b);
    return buf_take(&b);
}

// Version 1 of the store had a key per stage, and times in ms.
static enum err read_old(const struct json_t *doc, struct job_spec *s, struct fault *why)
{
    struct json_reader r = json_reader(doc, "stored job", ERR_INVALID, why);
    const bool levels = json_read_bool(&r, "set_noise_level", false);
    for (int i = 0; i < PICTURE_MAX_STAGES; i++) {
        char steps[] = "steps0", guidance[] = "guidance0", noise[] = "noise0";
        steps[sizeof steps - 2] = guidance[sizeof guidance - 2] = noise[sizeof noise - 2] =
            (char)('0' + i);
        s->request.steps[i] = (int)json_read_int(&r, steps, 0, 0, INT32_MAX);
        s->request.guidance_scale[i] = (float)json_read_number(&r, guidance, 0, -1e6, 1e6);
        if (levels)
            s->request.noise_level[i] = (int)json_read_int(&r, noise, -1, -1, INT32_MAX);
    }
    const int edge = (int)json_read_int(&r, "size", 0, 0, INT32_MAX);
    s->request.size = (struct check_size){edge, edge};
    s->deadline = json_read_int(&r, "deadline", 0, 0, INT64_MAX);
    return r.err;
}

static enum err read_spec(const struct json_t *doc, struct job_spec *s, struct fault *why)
{
    static const char *const otherwise[] = {"size", "deadline", NULL};
    struct check_table old = spec_table;
    if (!json_find(doc, "steps0"))
        return check_object(&spec_table, doc, s, why);
    old.without = otherwise;
    const enum err err = check_object(&old, doc, s, why);
    return err ? err : read_old(doc, s, why);
}

enum err job_spec_read(const char *json, struct job_spec *to, char **text, struct fault *why)
{
    struct json_t *doc = NULL;
    struct job_spec s = {0};
    enum err err = json_parse(json, strlen(json), "stored job", ERR_INVALID, &doc, why);
    if (!err)
        err = read_spec(doc, &s, why);
    if (!err)
        err = job_spec_copy(&s, to, text);
    json_destroy(&doc);
    return err == ERR_INVALID ? (why->code = ERR_FORMAT) : err;
}

double job_progress(const struct job *j)
{
    double done = 0;
    for (int i = 0; i < j->spec.n; i++) {
        const struct job_picture *p = &j->picture[i];
        int before = 0, total = 0;
        for (int s = 0; s < j->used.stages; s++) {
            total += picture_steps(&j->used, s);
            before += s < p->stage ? picture_steps(&j->used, s) : 0;
        }
        if (p->state == JOB_DONE)
            done += 1;
        else if (total)
            done += (double)(before + p->step) / total;
    }
    return done / j->spec.n;
}

size_t job_bytes(const struct job *j)
{
    size_t bytes = 0;
    for (int i = 0; i < j->spec.n; i++)
        bytes += j->picture[i].bytes;
    return bytes;
}
