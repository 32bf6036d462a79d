// The durable store: rows in SQLite (WAL), images as files beside it. Rows are written by the
// loop thread, files by the thread pool; an image is on disk before its job is said to be done.
// The database is locked for this process alone, so nobody can make a write wait.
#include "store.h"

#include "buf.h"
#include "json.h"
#include "log.h"
#include "store_files.h"
#include "store_salvage.h"
#include "store_upgrade.h"
#include "text.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { STORE_VERSION = 2, STORE_MAX_EDGE = 65536 };

struct store_sqlite {
    struct store store;
    char *dir;
    sqlite3 *db;
    sqlite3_stmt *put, *del;
    bool full; // the last write found no room
    bool old;  // the database is of an older version
};

static const char schema[] =
    "CREATE TABLE IF NOT EXISTS job ("
    " id TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,"
    " used TEXT NOT NULL, images TEXT NOT NULL, created INTEGER NOT NULL, started INTEGER NOT NULL,"
    " finished INTEGER NOT NULL, expires INTEGER NOT NULL, fault INTEGER NOT NULL,"
    " message TEXT NOT NULL, webhook_tries INTEGER NOT NULL, webhook_next INTEGER NOT NULL)"
    " WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS job_created ON job (created);"
    "PRAGMA user_version = 2;";

#define COLUMNS                                                                                    \
    "id, token, state, spec, used, images, created, started, finished, expires, fault, message, "  \
    "webhook_tries, webhook_next"
static const char put_sql[] = "INSERT OR REPLACE INTO job (" COLUMNS
                              ") VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)";
static const char load_sql[] = "SELECT " COLUMNS " FROM job ORDER BY created";

static enum err sql_fault(sqlite3 *db, const char *what, struct fault *why)
{
    const int code = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    const enum err err = code == SQLITE_BUSY || code == SQLITE_LOCKED ? ERR_BUSY : ERR_IO;
    return fault_set(why, err, "store", "%s: %s", what, db ? sqlite3_errmsg(db) : "no memory");
}

// ---- rows ---------------------------------------------------------------------------------------

static void add_images(struct buf *b, const struct job *j)
{
    for (int i = 0; i < j->spec.n; i++)
        buf_printf(b, "%s[%zu,%d,%d]", i ? "," : "[", j->picture[i].bytes, j->picture[i].width,
                   j->picture[i].height);
    buf_puts(b, "]");
}

static bool fold_log(struct store_sqlite *q)
{
    return !sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

// Run a statement that writes. On a full disk the write-ahead log, which has a page as often as it
// was written, must be folded into the database first: a write that fails would only take the room
// that the removal of an image has just made.
static int write_row(struct store_sqlite *q, sqlite3_stmt *st)
{
    int rc = SQLITE_FULL;
    if (!q->full || fold_log(q)) {
        rc = sqlite3_step(st);
        sqlite3_reset(st);
    }
    q->full = rc == SQLITE_FULL;
    return rc;
}

static int put_row(struct store_sqlite *q, const struct job *j, const char *spec, const char *used,
                   const char *images)
{
    sqlite3_stmt *p = q->put;
    const char *const texts[] = {j->id, j->token, job_state_name(j->state), spec, used, images};
    const sqlite3_int64 times[] = {j->created, j->started, j->finished, j->expires};
    for (int i = 0; i < 6; i++)
        sqlite3_bind_text(p, i + 1, texts[i], -1, SQLITE_STATIC);
    for (int i = 0; i < 4; i++)
        sqlite3_bind_int64(p, i + 7, times[i]);
    sqlite3_bind_int(p, 11, j->fault.code);
    sqlite3_bind_text(p, 12, j->fault.msg, -1, SQLITE_STATIC);
    sqlite3_bind_int(p, 13, j->webhook_tries);
    sqlite3_bind_int64(p, 14, j->webhook_next);
    const int rc = write_row(q, p);
    sqlite3_clear_bindings(p);
    return rc;
}

static enum err sqlite_put(struct store *s, const struct job *j, struct fault *why)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    struct buf used = {0}, images = {0};
    char *spec = job_spec_write(&j->spec);
    int rc = SQLITE_NOMEM;
    check_write(&picture_used_table, &j->used, &used);
    add_images(&images, j);
    if (spec && !used.failed && !images.failed)
        rc = put_row(q, j, spec, used.data, images.data);
    buf_deinit(&used);
    buf_deinit(&images);
    free(spec);
    return rc == SQLITE_DONE ? ERR_OK : sql_fault(q->db, "cannot store the job", why);
}

static const char *column(sqlite3_stmt *row, int i)
{
    const char *s = (const char *)sqlite3_column_text(row, i);
    return s ? s : "";
}

// [[bytes, width, height], ...]; no bytes: there is no image.
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
        p->state = p->bytes ? JOB_DONE : j->state == JOB_DONE ? JOB_FAILED : j->state;
    }
    json_destroy(&doc);
    return ok;
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

// Whether an id or token is one that jobs.c made: file names are built from the one, and the other
// guards results.
static bool is_random(const char *s, const char *prefix)
{
    const size_t n = strlen(prefix);
    return !strncmp(s, prefix, n) && strlen(s + n) == 32 && strspn(s + n, "0123456789abcdef") == 32;
}

static enum err read_row(sqlite3_stmt *row, struct job *j, struct fault *why)
{
    snprintf(j->id, sizeof j->id, "%s", column(row, 0));
    snprintf(j->token, sizeof j->token, "%s", column(row, 1));
    if (!is_random(column(row, 0), "job_") || !is_random(column(row, 1), ""))
        return fault_set(why, ERR_FORMAT, "store", "its id or token is malformed");
    if (job_state_find(column(row, 2), &j->state))
        return fault_set(why, ERR_FORMAT, "store", "unknown state \"%.40s\"", column(row, 2));
    enum err err = job_spec_read(column(row, 3), &j->spec, &j->spec_text, why);
    if (!err)
        err = read_used(column(row, 4), &j->used, why);
    if (err)
        return err;
    if (job_ended(j) && !read_images(column(row, 5), j))
        return fault_set(why, ERR_FORMAT, "store", "its list of images is malformed");
    j->created = sqlite3_column_int64(row, 6);
    j->started = sqlite3_column_int64(row, 7);
    j->finished = sqlite3_column_int64(row, 8);
    j->expires = sqlite3_column_int64(row, 9);
    if (j->state == JOB_FAILED)
        fault_set(&j->fault, (enum err)sqlite3_column_int(row, 10), "", "%s", column(row, 11));
    fault_hide_paths(&j->fault); // rows of older programs
    j->webhook_tries = sqlite3_column_int(row, 12);
    j->webhook_next = j->spec.webhook_url ? sqlite3_column_int64(row, 13) : 0;
    return ERR_OK;
}

static char *image_path(const struct store_sqlite *q, const char *id, int picture,
                        enum job_format format)
{
    struct buf b = {0};
    buf_printf(&b, "%s/images/%s-%d.%s", q->dir, id, picture, job_format_name(format));
    return buf_take(&b);
}

// Whether a file begins as its format does: after a power failure one may be all zeros.
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

// A lost image is not offered; the others of its job are.
static void check_images(const struct store_sqlite *q, struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        struct job_picture *p = &j->picture[i];
        if (!job_ended(j) || !p->bytes)
            continue;
        char *path = image_path(q, j->id, i, j->spec.format);
        const char *damage = path ? image_damage(path, j->spec.format, p->bytes) : NULL;
        if (damage) {
            log_msg(LOG_ERROR, "store", "skipped the damaged image %s: %s", path, damage);
            p->state = JOB_FAILED;
            p->bytes = 0;
        }
        free(path);
    }
}

static void log_skipped(const char *id, const char *why)
{
    struct buf name = {0};
    text_json(&name, id);
    log_msg(LOG_ERROR, "store", "skipped the damaged job %s: %s", name.data ? name.data : "", why);
    buf_deinit(&name);
}

// A damaged row affects only its own job. Its files stay for manual recovery.
static enum err sqlite_load(struct store *s, void (*row)(void *ctx, struct job *j), void *ctx,
                            struct fault *why)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    sqlite3_stmt *st = NULL;
    enum err err = ERR_OK;
    int rc = sqlite3_prepare_v2(q->db, load_sql, -1, &st, NULL);
    while (rc == SQLITE_OK || rc == SQLITE_ROW) {
        rc = sqlite3_step(st);
        if (rc != SQLITE_ROW)
            break;
        struct job *j = job_create();
        err = j ? read_row(st, j, why) : ERR_NO_MEMORY;
        if (!err) {
            check_images(q, j);
            row(ctx, j);
            continue;
        }
        job_free(&j);
        if (err == ERR_NO_MEMORY)
            break;
        log_skipped(column(st, 0), why->msg);
        err = ERR_OK;
    }
    sqlite3_finalize(st);
    if (!err && rc != SQLITE_DONE)
        err = sql_fault(q->db, "cannot read the jobs", why);
    return err;
}

// ---- images -----------------------------------------------------------------------------------

static enum err sqlite_put_image(struct store *s, const char *id, int picture,
                                 enum job_format format, const struct blob *image,
                                 struct fault *why)
{
    char *path = image_path((struct store_sqlite *)s, id, picture, format);
    const enum err err = path ? store_file_write(path, image, why)
                              : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    free(path);
    return err;
}

static enum err sqlite_get_image(struct store *s, const char *id, int picture,
                                 enum job_format format, struct blob **out, struct fault *why)
{
    const struct store_sqlite *q = (struct store_sqlite *)s;
    char *path = image_path(q, id, picture, format);
    enum err err = path ? store_file_read(path, out, why)
                        : fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (err == ERR_NOT_FOUND) {
        log_msg(LOG_ERROR, "store", "%s", why->msg);
        fault_set(why, err, "", "the file of image %d of this job is missing from the store",
                  picture);
    }
    free(path);
    return err;
}

// ---- input images -------------------------------------------------------------------------------

static const char *dir_of(struct store *s)
{
    return ((struct store_sqlite *)s)->dir;
}

static enum err sqlite_put_file(struct store *s, const char *name, const struct blob *file,
                                struct fault *why)
{
    return store_input_put(dir_of(s), name, file, why);
}

static enum err sqlite_get_file(struct store *s, const char *name, struct blob **out,
                                struct fault *why)
{
    return store_input_get(dir_of(s), name, out, why);
}

static void sqlite_remove_file(struct store *s, const char *name)
{
    store_input_remove(dir_of(s), name);
}

static size_t sqlite_file_size(struct store *s, const char *name)
{
    return store_input_size(dir_of(s), name);
}

static void sqlite_sweep_files(struct store *s, bool (*wanted)(void *ctx, const char *name),
                               void *ctx)
{
    store_input_sweep(dir_of(s), wanted, ctx);
}

static enum err sqlite_remove(struct store *s, const struct job *j, struct fault *why)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    for (int i = 0; i < j->spec.n; i++) {
        char *path = image_path(q, j->id, i, j->spec.format);
        if (path)
            unlink(path);
        free(path);
    }
    sqlite3_bind_text(q->del, 1, j->id, -1, SQLITE_STATIC);
    const int rc = write_row(q, q->del);
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
    .put_file = sqlite_put_file,
    .get_file = sqlite_get_file,
    .remove_file = sqlite_remove_file,
    .file_size = sqlite_file_size,
    .sweep_files = sqlite_sweep_files,
    .load = sqlite_load,
    .close = sqlite_close,
};

static enum err make_folders(const char *dir, const char *name, struct fault *why)
{
    struct buf b = {0};
    buf_printf(&b, "%s/%s", dir, name);
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
              : fault_set(why, ERR_IO, "data-dir", "cannot create the folder %.100s: %s", dir,
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

// Opened, locked, and of this program's version.
static enum err db_lock(struct store_sqlite *q, const char *path, struct fault *why)
{
    if (sqlite3_open(path, &q->db))
        return sql_fault(q->db, "cannot open the job store", why);
    sqlite3_busy_timeout(q->db, 1000);
    // Exclusive before WAL: the first write below takes a lock that is kept until the end.
    if (sqlite3_exec(q->db,
                     "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                     "PRAGMA synchronous = NORMAL; BEGIN EXCLUSIVE; COMMIT",
                     NULL, NULL, NULL)) {
        const enum err err = sql_fault(q->db, "cannot lock the job store", why);
        if (err == ERR_BUSY)
            fault_set(why, err, "data-dir", "the data folder %.100s is in use by another process",
                      q->dir);
        return err;
    }
    const int version = db_version(q->db);
    q->old = version == STORE_OLDEST;
    if (version != 0 && version != STORE_VERSION && !q->old)
        return fault_set(why, ERR_FORMAT, "data-dir",
                         "the job store in %.100s has version %d, but this program supports "
                         "version %d; use the program that wrote it, or another data-dir",
                         q->dir, version, STORE_VERSION);
    return ERR_OK;
}

// In one transaction, so that a program that is stopped meanwhile leaves the old version.
static enum err db_set_up(struct store_sqlite *q, struct fault *why)
{
    static const char rename_sql[] = "DROP INDEX IF EXISTS job_created;"
                                     "ALTER TABLE job RENAME TO job_1";
    enum err err = ERR_OK;
    if (sqlite3_exec(q->db, "BEGIN", NULL, NULL, NULL) ||
        (q->old && sqlite3_exec(q->db, rename_sql, NULL, NULL, NULL)) ||
        sqlite3_exec(q->db, schema, NULL, NULL, NULL) ||
        sqlite3_prepare_v2(q->db, put_sql, -1, &q->put, NULL) ||
        sqlite3_prepare_v2(q->db, "DELETE FROM job WHERE id = ?1", -1, &q->del, NULL))
        err = sql_fault(q->db, "cannot set up the job store", why);
    if (!err && q->old)
        err = store_upgrade(q->db, sqlite_put, &q->store, why);
    if (!err && sqlite3_exec(q->db, "COMMIT", NULL, NULL, NULL))
        err = sql_fault(q->db, "cannot set up the job store", why);
    return err;
}

static enum err db_open(struct store_sqlite *q, struct fault *why)
{
    struct buf path = {0};
    buf_printf(&path, "%s/jobs.sqlite", q->dir);
    enum err err = ERR_NO_MEMORY;
    if (path.failed)
        fault_set(why, err, "", "%s", err_text(err));
    else
        err = db_lock(q, path.data, why);
    if (!err && salvage_needed(q->db)) {
        err = salvage_run(&q->db, path.data, q->old ? store_schema_1 : schema, why);
        if (!err)
            err = db_lock(q, path.data, why);
    }
    buf_deinit(&path);
    return err ? err : db_set_up(q, why);
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
    err = make_folders(dir, "images", why);
    if (!err)
        err = make_folders(dir, STORE_INPUTS, why);
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
