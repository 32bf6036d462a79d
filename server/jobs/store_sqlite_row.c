// Jobs as SQLite rows, and the check of the files that a row refers to. Called by the store's
// thread, and by the loop thread while the store is opened.
#include "store_sqlite_impl.h"

#include "buf.h"
#include "json.h"
#include "log.h"
#include "store_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// An image whose file does not match its row.
struct damaged_image {
    struct damaged_image *next;
    char id[JOB_ID_SIZE];
    int picture;
};

static char *images_text(const struct job *j)
{
    struct buf b = {0};
    for (int i = 0; i < j->spec.n; i++)
        buf_printf(&b, "%s[%zu,%d,%d]", i ? "," : "[", j->picture[i].bytes, j->picture[i].width,
                   j->picture[i].height);
    buf_puts(&b, "]");
    return buf_take(&b);
}

bool sqlite_texts_make(struct sqlite_texts *t, const struct job *j)
{
    struct buf used = {0};
    check_write(&picture_used_table, &j->used, &used);
    t->spec = job_spec_write(&j->spec);
    t->used = buf_take(&used);
    t->images = images_text(j);
    return t->spec && t->used && t->images;
}

void sqlite_texts_deinit(struct sqlite_texts *t)
{
    free(t->spec);
    free(t->used);
    free(t->images);
}

const char *sqlite_text(sqlite3_stmt *row, int i)
{
    const char *s = (const char *)sqlite3_column_text(row, i);
    return s ? s : "";
}

// Reads [[bytes, width, height], ...]; 0 bytes: no image.
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
        p->bytes = (size_t)v[0];
        p->width = (int)v[1];
        p->height = (int)v[2];
    }
    json_destroy(&doc);
    return ok;
}

static bool is_damaged(const struct store_sqlite *q, const char *id, int picture)
{
    for (const struct damaged_image *d = q->damaged; d; d = d->next)
        if (d->picture == picture && !strcmp(d->id, id))
            return true;
    return false;
}

void sqlite_replaced(struct store_sqlite *q, const char *id, int picture)
{
    struct damaged_image **at = &q->damaged;
    while (*at && ((*at)->picture != picture || strcmp((*at)->id, id)))
        at = &(*at)->next;
    struct damaged_image *d = *at;
    if (!d)
        return;
    *at = d->next;
    free(d);
}

// A lost image is not offered; the other images of its job are. If the job is unfinished, it is
// generated again.
static void set_picture_states(const struct store_sqlite *q, struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        struct job_picture *p = &j->picture[i];
        if (p->bytes && is_damaged(q, j->id, i))
            p->bytes = 0;
        p->state = p->bytes               ? JOB_DONE
                   : !job_ended(j)        ? JOB_QUEUED
                   : j->state == JOB_DONE ? JOB_FAILED
                                          : j->state;
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

enum err sqlite_read_common(sqlite3_stmt *row, struct job *j, struct fault *why)
{
    snprintf(j->id, sizeof j->id, "%s", sqlite_text(row, COL_ID));
    snprintf(j->token, sizeof j->token, "%s", sqlite_text(row, COL_TOKEN));
    if (job_state_find(sqlite_text(row, COL_STATE), &j->state))
        return fault_set(why, ERR_FORMAT, "store", "unknown state \"%.40s\"",
                         sqlite_text(row, COL_STATE));
    const enum err err = job_spec_read(sqlite_text(row, COL_SPEC), &j->spec, &j->spec_text, why);
    if (err)
        return err;
    j->created = sqlite3_column_int64(row, COL_CREATED);
    j->started = sqlite3_column_int64(row, COL_STARTED);
    j->finished = sqlite3_column_int64(row, COL_FINISHED);
    j->expires = sqlite3_column_int64(row, COL_EXPIRES);
    if (j->state == JOB_FAILED)
        fault_set(&j->fault, (enum err)sqlite3_column_int(row, COL_FAULT), "", "%s",
                  sqlite_text(row, COL_MESSAGE));
    fault_hide_paths(&j->fault); // rows of older versions may contain paths
    j->webhook_tries = sqlite3_column_int(row, COL_WEBHOOK_TRIES);
    j->webhook_next = j->spec.webhook_url ? sqlite3_column_int64(row, COL_WEBHOOK_NEXT) : 0;
    return ERR_OK;
}

static enum err read_job(const struct store_sqlite *q, sqlite3_stmt *row, struct job *j,
                         struct fault *why)
{
    if (!is_random(sqlite_text(row, COL_ID), "job_") || !is_random(sqlite_text(row, COL_TOKEN), ""))
        return fault_set(why, ERR_FORMAT, "store", "its id or token is malformed");
    enum err err = sqlite_read_common(row, j, why);
    if (!err)
        err = read_used(sqlite_text(row, COL_USED), &j->used, why);
    if (err)
        return err;
    if (!read_images(sqlite_text(row, COL_IMAGES), j))
        return fault_set(why, ERR_FORMAT, "store", "its list of images is malformed");
    set_picture_states(q, j);
    j->seq = sqlite3_column_int64(row, COL_SEQ);
    return ERR_OK;
}

enum err sqlite_read_row(const struct store_sqlite *q, sqlite3_stmt *row, struct job **out,
                         struct fault *why)
{
    *out = job_create();
    if (!*out)
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    const enum err err = read_job(q, row, *out, why);
    if (err)
        job_free(out);
    return err;
}

// ---- files of images ----------------------------------------------------------------------------

char *sqlite_image_path(const struct store_sqlite *q, const char *id, int picture,
                        enum job_format format)
{
    struct buf b = {0};
    buf_printf(&b, "%s/images/%s-%d.%s", q->dir, id, picture, job_format_name(format));
    return buf_take(&b);
}

// Whether a file begins with its format's signature: after a power failure it may be all zeros.
static bool is_image(const uint8_t head[12], enum job_format format)
{
    switch (format) {
    case JOB_PNG: return !memcmp(head, "\x89PNG\r\n\x1a\n", 8);
    case JOB_JPEG: return !memcmp(head, "\xff\xd8\xff", 3);
    default: return !memcmp(head, "RIFF", 4) && !memcmp(head + 8, "WEBP", 4);
    }
}

static const char *image_damage(const char *path, enum job_format format, size_t bytes)
{
    uint8_t head[12] = {0};
    struct stat st;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return strerror(errno);
    const bool ok = !fstat(fd, &st) && S_ISREG(st.st_mode);
    const ssize_t n = ok ? read(fd, head, sizeof head) : -1;
    close(fd);
    if (n < 0)
        return "it cannot be read";
    if ((uint64_t)st.st_size != bytes)
        return "its size is wrong";
    return n == sizeof head && is_image(head, format) ? NULL : "it is not an image";
}

static void note_damage(struct store_sqlite *q, const struct job *j, int picture)
{
    struct damaged_image *d = calloc(1, sizeof *d);
    if (!d)
        return; // reading the file will report its error
    memcpy(d->id, j->id, sizeof d->id);
    d->picture = picture;
    d->next = q->damaged;
    q->damaged = d;
}

void sqlite_check_images(struct store_sqlite *q, struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        if (!j->picture[i].bytes)
            continue;
        char *path = sqlite_image_path(q, j->id, i, j->spec.format);
        const char *damage = path ? image_damage(path, j->spec.format, j->picture[i].bytes) : NULL;
        if (damage) {
            log_msg(LOG_ERROR, "store", "skipped the damaged image %s: %s", path, damage);
            note_damage(q, j, i);
        }
        free(path);
    }
    set_picture_states(q, j);
}

void sqlite_damaged_free(struct store_sqlite *q)
{
    for (struct damaged_image *d = q->damaged, *next; d; d = next) {
        next = d->next;
        free(d);
    }
    q->damaged = NULL;
}
