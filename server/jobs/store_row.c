// Jobs as rows, see store_row.h. Called by the stores, on their threads.
#include "store_row.h"

#include "buf.h"
#include "json.h"
#include "store_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *images_text(const struct job *j)
{
    struct buf b = {0};
    for (int i = 0; i < j->spec.n; i++) {
        const struct job_picture *p = &j->picture[i];
        buf_printf(&b, "%s[%zu,%d,%d", i ? "," : "[", p->bytes, p->width, p->height);
        if (p->object && p->bytes)
            buf_printf(&b, ",%lld", (long long)p->object);
        buf_puts(&b, "]");
    }
    buf_puts(&b, "]");
    return buf_take(&b);
}

bool store_texts_change(struct store_texts *t, const struct job *j)
{
    struct buf used = {0};
    check_write(&picture_used_table, &j->used, &used);
    t->spec = NULL;
    t->used = buf_take(&used);
    t->images = images_text(j);
    return t->used && t->images;
}

bool store_texts_make(struct store_texts *t, const struct job *j)
{
    const bool ok = store_texts_change(t, j);
    t->spec = job_spec_write(&j->spec);
    return ok && t->spec;
}

void store_texts_deinit(struct store_texts *t)
{
    free(t->spec);
    free(t->used);
    free(t->images);
}

// Reads [[bytes, width, height], ...]; 0 bytes: no image. A fourth number is that of its object.
static bool read_images(const char *text, struct job *j)
{
    struct json_t *doc = NULL;
    bool ok = !json_parse(text, strlen(text), "images", ERR_FORMAT, &doc, NULL) &&
              json_count(doc) == (size_t)j->spec.n;
    for (int i = 0; ok && i < j->spec.n; i++) {
        const struct json_t *item = json_item(doc, (size_t)i);
        struct job_picture *p = &j->picture[i];
        int64_t v[3];
        for (size_t k = 0; k < 3; k++) {
            v[k] = json_int(json_item(item, k));
            ok &= json_kind(json_item(item, k)) == JSON_INT && v[k] >= 0 &&
                  v[k] <= (k ? (int64_t)STORE_MAX_EDGE : (int64_t)STORE_MAX_IMAGE);
        }
        const struct json_t *object = json_item(item, 3);
        ok &= !object || (json_kind(object) == JSON_INT && json_int(object) > 0);
        p->object = object ? json_int(object) : 0;
        p->bytes = (size_t)v[0];
        p->width = (int)v[1];
        p->height = (int)v[2];
    }
    json_destroy(&doc);
    return ok;
}

// A finished image has done all steps of its last stage, which are not stored.
static void set_progress(struct job_picture *p, const struct picture_used *used)
{
    const bool done = p->state == JOB_DONE && used->stages > 0;
    p->stages = done ? used->stages : 0;
    p->stage = done ? used->stages - 1 : 0;
    p->step = p->steps = done ? picture_steps(used, p->stage) : 0;
}

// A lost image is not offered; the other images of its job are. If the job is unfinished, it is
// generated again.
void store_row_states(struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        struct job_picture *p = &j->picture[i];
        p->state = p->bytes               ? JOB_DONE
                   : !job_ended(j)        ? JOB_QUEUED
                   : j->state == JOB_DONE ? JOB_FAILED
                                          : j->state;
        set_progress(p, &j->used);
    }
}

static enum err read_used(const char *text, struct picture_used *out, struct fault *why)
{
    struct json_t *doc = NULL;
    enum err err = json_parse(text, strlen(text), "settings", ERR_FORMAT, &doc, why);
    if (!err)
        err = check_object(&picture_used_table, doc, out, why);
    json_destroy(&doc);
    return err;
}

// Whether an id or token has the job core's form: file names are built from ids, and tokens guard
// results.
static bool is_random(const char *s, const char *prefix)
{
    const size_t n = strlen(prefix);
    return !strncmp(s, prefix, n) && strlen(s + n) == 32 && strspn(s + n, "0123456789abcdef") == 32;
}

enum err store_row_common(const struct store_row *r, struct job *j, struct fault *why)
{
    snprintf(j->id, sizeof j->id, "%s", r->text(r->row, COL_ID));
    snprintf(j->token, sizeof j->token, "%s", r->text(r->row, COL_TOKEN));
    if (job_state_find(r->text(r->row, COL_STATE), &j->state))
        return fault_set(why, ERR_FORMAT, "store", "unknown state \"%.40s\"",
                         r->text(r->row, COL_STATE));
    const enum err err = job_spec_read(r->text(r->row, COL_SPEC), &j->spec, &j->spec_text, why);
    if (err)
        return err;
    j->created = r->number(r->row, COL_CREATED);
    j->started = r->number(r->row, COL_STARTED);
    j->finished = r->number(r->row, COL_FINISHED);
    j->expires = r->number(r->row, COL_EXPIRES);
    if (j->state == JOB_FAILED)
        fault_set(&j->fault, (enum err)r->number(r->row, COL_FAULT), "", "%s",
                  r->text(r->row, COL_MESSAGE));
    fault_hide_paths(&j->fault); // rows of older versions may contain paths
    j->webhook_tries = (int)r->number(r->row, COL_WEBHOOK_TRIES);
    j->webhook_next = j->spec.webhook_url ? r->number(r->row, COL_WEBHOOK_NEXT) : 0;
    return ERR_OK;
}

static enum err read_job(const struct store_row *r, struct job *j, struct fault *why)
{
    if (!is_random(r->text(r->row, COL_ID), "job_") || !is_random(r->text(r->row, COL_TOKEN), ""))
        return fault_set(why, ERR_FORMAT, "store", "its id or token is malformed");
    enum err err = store_row_common(r, j, why);
    if (!err)
        err = read_used(r->text(r->row, COL_USED), &j->used, why);
    if (err)
        return err;
    if (!read_images(r->text(r->row, COL_IMAGES), j))
        return fault_set(why, ERR_FORMAT, "store", "its list of images is malformed");
    store_row_states(j);
    j->seq = r->number(r->row, COL_SEQ);
    return ERR_OK;
}

enum err store_row_read(const struct store_row *r, struct job **out, struct fault *why)
{
    *out = job_create();
    if (!*out)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    const enum err err = read_job(r, *out, why);
    if (err)
        job_free(out);
    return err;
}
