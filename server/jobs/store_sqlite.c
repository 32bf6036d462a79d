// The durable store: rows in SQLite (WAL), pictures as files beside it. Rows are written by the
// loop thread, files by the thread pool; a picture is on disk before its job is said to be done.
// The database is locked for this process alone, so nobody can make a write wait.
#include "store.h"

#include "buf.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STORE_VERSION = 1, STORE_MAX_IMAGE = 256 << 20 };

struct store_sqlite {
    struct store store;
    char *dir;
    sqlite3 *db;
    sqlite3_stmt *put, *del;
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS job ("
    " id TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,"
    " model TEXT NOT NULL, sampler TEXT NOT NULL, size INTEGER NOT NULL, stages INTEGER NOT NULL,"
    " steps TEXT NOT NULL, created INTEGER NOT NULL, started INTEGER NOT NULL,"
    " finished INTEGER NOT NULL, expires INTEGER NOT NULL, fault INTEGER NOT NULL,"
    " message TEXT NOT NULL, pictures TEXT NOT NULL, webhook_tries INTEGER NOT NULL,"
    " webhook_next INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS job_created ON job (created);"
    "PRAGMA user_version = 1;";

static const char put_sql[] =
    "INSERT OR REPLACE INTO job VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,"
    "?17,?18)";

static enum err sql_fault(sqlite3 *db, const char *what, struct fault *why)
{
    const int code = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    const enum err err = code == SQLITE_BUSY || code == SQLITE_LOCKED ? ERR_BUSY : ERR_IO;
    return fault_set(why, err, "store", "%s: %s", what, db ? sqlite3_errmsg(db) : "no memory");
}

// ---- rows ---------------------------------------------------------------------------------------

static void add_numbers(struct buf *b, const struct picture_used *u)
{
    for (int i = 0; i < PICTURE_MAX_STAGES; i++)
        buf_printf(b, "%s%d %.9g %d", i ? " " : "", u->steps[i], (double)u->guidance_scale[i],
                   u->noise_level[i]);
    buf_printf(b, " %d", u->tokens);
}

static void add_pictures(struct buf *b, const struct job *j)
{
    for (int i = 0; i < j->spec.n; i++)
        buf_printf(b, "%s%zu %d", i ? " " : "", j->picture[i].bytes, j->picture[i].width);
}

static int put_row(struct store_sqlite *q, const struct job *j, const char *spec,
                   const char *numbers, const char *pictures)
{
    sqlite3_stmt *p = q->put;
    const char *const texts[] = {j->id, j->token,      job_state_name(j->state),
                                 spec,  j->used.model, j->used.sampler};
    const sqlite3_int64 times[] = {j->created, j->started, j->finished, j->expires};
    for (int i = 0; i < 6; i++)
        sqlite3_bind_text(p, i + 1, texts[i], -1, SQLITE_STATIC);
    sqlite3_bind_int(p, 7, j->used.size);
    sqlite3_bind_int(p, 8, j->used.stages);
    sqlite3_bind_text(p, 9, numbers, -1, SQLITE_STATIC);
    for (int i = 0; i < 4; i++)
        sqlite3_bind_int64(p, i + 10, times[i]);
    sqlite3_bind_int(p, 14, j->fault.code);
    sqlite3_bind_text(p, 15, j->fault.msg, -1, SQLITE_STATIC);
    sqlite3_bind_text(p, 16, pictures, -1, SQLITE_STATIC);
    sqlite3_bind_int(p, 17, j->webhook_tries);
    sqlite3_bind_int64(p, 18, j->webhook_next);
    const int rc = sqlite3_step(p);
    sqlite3_reset(p);
    sqlite3_clear_bindings(p);
    return rc;
}

static enum err sqlite_put(struct store *s, const struct job *j, struct fault *why)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    struct buf numbers = {0}, pictures = {0};
    char *spec = job_spec_write(&j->spec);
    int rc = SQLITE_NOMEM;
    add_numbers(&numbers, &j->used);
    add_pictures(&pictures, j);
    if (spec && !numbers.failed && !pictures.failed)
        rc = put_row(q, j, spec, numbers.data, pictures.data);
    buf_deinit(&numbers);
    buf_deinit(&pictures);
    free(spec);
    return rc == SQLITE_DONE ? ERR_OK : sql_fault(q->db, "cannot store the job", why);
}

static const char *column(sqlite3_stmt *row, int i)
{
    const char *s = (const char *)sqlite3_column_text(row, i);
    return s ? s : "";
}

static void read_numbers(const char *s, struct picture_used *u)
{
    char *end = (char *)s;
    for (int i = 0; i < PICTURE_MAX_STAGES; i++) {
        u->steps[i] = (int)strtol(end, &end, 10);
        u->guidance_scale[i] = strtof(end, &end);
        u->noise_level[i] = (int)strtol(end, &end, 10);
    }
    u->tokens = (int)strtol(end, &end, 10); // rows of older programs end before it
}

static void read_pictures(const char *s, struct job *j)
{
    char *end = (char *)s;
    for (int i = 0; i < j->spec.n; i++) {
        struct job_picture *p = &j->picture[i];
        p->bytes = strtoull(end, &end, 10);
        p->width = p->height = (int)strtol(end, &end, 10);
        p->state = p->bytes ? JOB_DONE : j->state;
    }
}

static enum err read_row(sqlite3_stmt *row, struct job *j, struct fault *why)
{
    snprintf(j->id, sizeof j->id, "%s", column(row, 0));
    snprintf(j->token, sizeof j->token, "%s", column(row, 1));
    if (job_state_find(column(row, 2), &j->state))
        return fault_set(why, ERR_FORMAT, "store", "job %s is in no known state", j->id);
    const enum err err = job_spec_read(column(row, 3), &j->spec, &j->spec_text, why);
    if (err)
        return err;
    if (j->spec.request.preset)
        snprintf(j->used.preset, sizeof j->used.preset, "%s", j->spec.request.preset);
    snprintf(j->used.model, sizeof j->used.model, "%s", column(row, 4));
    snprintf(j->used.sampler, sizeof j->used.sampler, "%s", column(row, 5));
    j->used.size = sqlite3_column_int(row, 6);
    j->used.stages = sqlite3_column_int(row, 7);
    if (j->used.stages < 0 || j->used.stages > PICTURE_MAX_STAGES)
        return fault_set(why, ERR_FORMAT, "store", "job %s has %d stages", j->id, j->used.stages);
    read_numbers(column(row, 8), &j->used);
    j->created = sqlite3_column_int64(row, 9);
    j->started = sqlite3_column_int64(row, 10);
    j->finished = sqlite3_column_int64(row, 11);
    j->expires = sqlite3_column_int64(row, 12);
    if (j->state == JOB_FAILED)
        fault_set(&j->fault, (enum err)sqlite3_column_int(row, 13), "", "%s", column(row, 14));
    fault_hide_paths(&j->fault); // rows of older programs
    if (job_ended(j))
        read_pictures(column(row, 15), j);
    j->webhook_tries = sqlite3_column_int(row, 16);
    j->webhook_next = sqlite3_column_int64(row, 17);
    return ERR_OK;
}

static enum err sqlite_load(struct store *s, void (*row)(void *ctx, struct job *j), void *ctx,
                            struct fault *why)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    sqlite3_stmt *st = NULL;
    enum err err = ERR_OK;
    int rc = sqlite3_prepare_v2(q->db, "SELECT * FROM job ORDER BY created", -1, &st, NULL);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
            break;
        struct job *j = job_create();
        err = j ? read_row(st, j, why) : ERR_NO_MEMORY;
        if (err) {
            job_free(&j);
            break;
        }
        row(ctx, j);
    }
    sqlite3_finalize(st);
    if (!err && rc != SQLITE_DONE)
        err = sql_fault(q->db, "cannot read the jobs", why);
    return err;
}

// ---- pictures -----------------------------------------------------------------------------------

static char *image_path(const struct store_sqlite *q, const char *id, int picture,
                        enum job_format format, const char *suffix)
{
    struct buf b = {0};
    buf_printf(&b, "%s/images/%s-%d.%s%s", q->dir, id, picture, job_format_name(format), suffix);
    return buf_take(&b);
}

static bool write_all(int fd, const uint8_t *data, size_t n)
{
    while (n) {
        const ssize_t w = write(fd, data, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        data += w;
        n -= (size_t)w;
    }
    return true;
}

static enum err sqlite_put_image(struct store *s, const char *id, int picture,
                                 enum job_format format, const struct blob *image,
                                 struct fault *why)
{
    const struct store_sqlite *q = (struct store_sqlite *)s;
    char *path = image_path(q, id, picture, format, "");
    char *part = image_path(q, id, picture, format, ".part");
    enum err err = ERR_NO_MEMORY;
    if (path && part) {
        const int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        // Closing may be where a full disk shows.
        const bool written = fd >= 0 && write_all(fd, image->data, image->size);
        const bool closed = fd >= 0 && !close(fd);
        err = written && closed && !rename(part, path) ? ERR_OK : ERR_IO;
    }
    if (err) {
        fault_set(why, err, "store", "cannot write the picture: %s", strerror(errno));
        if (part)
            unlink(part);
    }
    free(path);
    free(part);
    return err;
}

static enum err sqlite_get_image(struct store *s, const char *id, int picture,
                                 enum job_format format, struct blob **out, struct fault *why)
{
    const struct store_sqlite *q = (struct store_sqlite *)s;
    char *path = image_path(q, id, picture, format, "");
    struct buf b = {0};
    enum err err = path ? buf_read_file(&b, path, STORE_MAX_IMAGE, why)
                        : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    const size_t n = b.len;
    if (err == ERR_NOT_FOUND) {
        log_msg(LOG_ERROR, "store", "%s", why->msg);
        fault_set(why, err, "", "the file of image %d of this job is missing from the store",
                  picture);
    }
    if (!err && !(*out = blob_create((uint8_t *)buf_take(&b), n)))
        err = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    buf_deinit(&b);
    free(path);
    return err;
}

static enum err sqlite_remove(struct store *s, const struct job *j, struct fault *why)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    for (int i = 0; i < j->spec.n; i++) {
        char *path = image_path(q, j->id, i, j->spec.format, "");
        if (path)
            unlink(path);
        free(path);
    }
    sqlite3_bind_text(q->del, 1, j->id, -1, SQLITE_STATIC);
    const int rc = sqlite3_step(q->del);
    sqlite3_reset(q->del);
    return rc == SQLITE_DONE ? ERR_OK : sql_fault(q->db, "cannot remove the job", why);
}

// ---- opening ------------------------------------------------------------------------------------

static void sqlite_close(struct store **s)
{
    struct store_sqlite *q = (struct store_sqlite *)*s;
    *s = NULL;
    if (!q)
        return;
    sqlite3_finalize(q->put);
    sqlite3_finalize(q->del);
    sqlite3_close(q->db);
    free(q->dir);
    free(q);
}

static const struct store_ops sqlite_ops = {
    .name = "sqlite",
    .holds_images = true,
    .put = sqlite_put,
    .remove = sqlite_remove,
    .put_image = sqlite_put_image,
    .get_image = sqlite_get_image,
    .load = sqlite_load,
    .close = sqlite_close,
};

static enum err make_folders(const char *dir, struct fault *why)
{
    struct buf b = {0};
    buf_printf(&b, "%s/images", dir);
    bool ok = !b.failed;
    for (char *at = b.data; ok && at;) {
        at = strchr(at + 1, '/');
        if (at)
            *at = 0;
        ok = !mkdir(b.data, 0700) || errno == EEXIST;
        if (at)
            *at = '/';
    }
    buf_deinit(&b);
    return ok ? ERR_OK
              : fault_set(why, ERR_IO, "data-dir", "cannot make the folder %.100s: %s", dir,
                          strerror(errno));
}

static int db_version(sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    int version = -1;
    if (!sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &st, NULL) &&
        sqlite3_step(st) == SQLITE_ROW)
        version = sqlite3_column_int(st, 0);
    sqlite3_finalize(st);
    return version;
}

static enum err db_open(struct store_sqlite *q, struct fault *why)
{
    struct buf path = {0};
    buf_printf(&path, "%s/jobs.sqlite", q->dir);
    const int rc = path.failed ? SQLITE_NOMEM : sqlite3_open(path.data, &q->db);
    buf_deinit(&path);
    if (rc)
        return sql_fault(q->db, "cannot open the job store", why);
    sqlite3_busy_timeout(q->db, 1000);
    // Exclusive before WAL: the first write below takes a lock that is kept until the end.
    if (sqlite3_exec(q->db,
                     "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                     "PRAGMA synchronous = NORMAL; BEGIN EXCLUSIVE; COMMIT",
                     NULL, NULL, NULL)) {
        const enum err err = sql_fault(q->db, "cannot lock the job store", why);
        if (err == ERR_BUSY)
            fault_set(why, err, "data-dir", "another process uses the data folder %.100s", q->dir);
        return err;
    }
    const int version = db_version(q->db);
    if (version != 0 && version != STORE_VERSION)
        return fault_set(why, ERR_FORMAT, "data-dir",
                         "the job store has version %d; this program knows %d", version,
                         STORE_VERSION);
    if (sqlite3_exec(q->db, schema, NULL, NULL, NULL) ||
        sqlite3_prepare_v2(q->db, put_sql, -1, &q->put, NULL) ||
        sqlite3_prepare_v2(q->db, "DELETE FROM job WHERE id = ?1", -1, &q->del, NULL))
        return sql_fault(q->db, "cannot set up the job store", why);
    return ERR_OK;
}

enum err store_sqlite_open(const char *dir, struct store **out, struct fault *why)
{
    struct store_sqlite *q = calloc(1, sizeof *q);
    struct store *s = (struct store *)q;
    enum err err = ERR_NO_MEMORY;
    *out = NULL;
    if (!q || !(q->dir = strdup(dir))) {
        fault_set(why, err, "", "%s", err_text(err));
        goto fail;
    }
    q->store.ops = &sqlite_ops;
    err = make_folders(dir, why);
    if (!err)
        err = db_open(q, why);
    if (err)
        goto fail;
    *out = s;
    return ERR_OK;
fail:
    sqlite_close(&s);
    return err;
}
