// Version 1 of the database: what an image was made with lay in columns and in a text of numbers.
// Called once, when the store is opened; a later version's rows are store_sqlite.c's.
#include "store_upgrade.h"

#include "log.h"
#include "store.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_IMAGE = 256 << 20, MAX_EDGE = 65536 };

const char store_schema_1[] =
    "CREATE TABLE IF NOT EXISTS job ("
    " id TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,"
    " model TEXT NOT NULL, sampler TEXT NOT NULL, size INTEGER NOT NULL, stages INTEGER NOT NULL,"
    " steps TEXT NOT NULL, created INTEGER NOT NULL, started INTEGER NOT NULL,"
    " finished INTEGER NOT NULL, expires INTEGER NOT NULL, fault INTEGER NOT NULL,"
    " message TEXT NOT NULL, pictures TEXT NOT NULL, webhook_tries INTEGER NOT NULL,"
    " webhook_next INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS job_created ON job (created);"
    "PRAGMA user_version = 1;";

static const char *column(sqlite3_stmt *row, int i)
{
    const char *s = (const char *)sqlite3_column_text(row, i);
    return s ? s : "";
}

// Numbers by spaces. False where there is none, so that damage does not read as 0.
static bool take_int(const char **at, long long *out)
{
    char *end;
    errno = 0;
    *out = strtoll(*at, &end, 10);
    if (end == *at || errno)
        return false;
    *at = end;
    return true;
}

static bool read_numbers(const char *s, struct picture_used *u)
{
    long long steps, noise, tokens = 0;
    for (int i = 0; i < PICTURE_MAX_STAGES; i++) {
        char *end;
        if (!take_int(&s, &steps) || steps < 0 || steps > INT32_MAX)
            return false;
        u->guidance_scale[i] = strtof(s, &end);
        if (end == s)
            return false;
        s = end;
        if (!take_int(&s, &noise) || noise < -1 || noise > INT32_MAX)
            return false;
        u->steps[i] = (int)steps;
        u->noise_level[i] = (int)noise;
    }
    // Rows of older programs end before it.
    if (*s && (!take_int(&s, &tokens) || tokens < 0 || tokens > INT32_MAX))
        return false;
    u->tokens = (int)tokens;
    return !*s;
}

static bool read_pictures(const char *s, struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        struct job_picture *p = &j->picture[i];
        long long bytes, width;
        if (!take_int(&s, &bytes) || !take_int(&s, &width) || bytes < 0 || bytes > MAX_IMAGE ||
            width < 0 || width > MAX_EDGE)
            return false;
        p->bytes = (size_t)bytes;
        p->width = p->height = (int)width;
        p->state = p->bytes ? JOB_DONE : j->state == JOB_DONE ? JOB_FAILED : j->state;
    }
    return !*s;
}

static enum err read_row(sqlite3_stmt *row, struct job *j, struct fault *why)
{
    snprintf(j->id, sizeof j->id, "%s", column(row, 0));
    snprintf(j->token, sizeof j->token, "%s", column(row, 1));
    if (job_state_find(column(row, 2), &j->state))
        return fault_set(why, ERR_FORMAT, "store", "unknown state \"%.40s\"", column(row, 2));
    const enum err err = job_spec_read(column(row, 3), &j->spec, &j->spec_text, why);
    if (err)
        return err;
    if (j->spec.request.preset)
        snprintf(j->used.preset, sizeof j->used.preset, "%s", j->spec.request.preset);
    snprintf(j->used.model, sizeof j->used.model, "%s", column(row, 4));
    snprintf(j->used.sampler, sizeof j->used.sampler, "%s", column(row, 5));
    j->used.size.width = j->used.size.height = sqlite3_column_int(row, 6);
    j->used.drawn = j->used.size;
    j->used.stages = sqlite3_column_int(row, 7);
    if (j->used.stages < 0 || j->used.stages > PICTURE_MAX_STAGES)
        return fault_set(why, ERR_FORMAT, "store", "invalid number of stages: %d", j->used.stages);
    if (!read_numbers(column(row, 8), &j->used))
        return fault_set(why, ERR_FORMAT, "store", "its settings are malformed");
    j->created = sqlite3_column_int64(row, 9);
    j->started = sqlite3_column_int64(row, 10);
    j->finished = sqlite3_column_int64(row, 11);
    j->expires = sqlite3_column_int64(row, 12);
    if (j->state == JOB_FAILED)
        fault_set(&j->fault, (enum err)sqlite3_column_int(row, 13), "", "%s", column(row, 14));
    fault_hide_paths(&j->fault);
    if (job_ended(j) && !read_pictures(column(row, 15), j))
        return fault_set(why, ERR_FORMAT, "store", "its list of images is malformed");
    j->webhook_tries = sqlite3_column_int(row, 16);
    j->webhook_next = sqlite3_column_int64(row, 17);
    return ERR_OK;
}

static enum err upgrade_row(sqlite3_stmt *row,
                            enum err (*put)(struct store *s, const struct job *j,
                                            struct fault *why),
                            struct store *s, bool *damaged, struct fault *why)
{
    struct job *j = job_create();
    enum err err = ERR_NO_MEMORY;
    if (!j)
        return fault_set(why, err, "", "%s", err_text(err));
    err = read_row(row, j, why);
    *damaged = err && err != ERR_NO_MEMORY;
    if (*damaged)
        log_msg(LOG_ERROR, "store", "the damaged job %.40s stays in the table job_1: %s",
                column(row, 0), why->msg);
    if (!err)
        err = put(s, j, why);
    job_free(&j);
    return *damaged ? ERR_OK : err;
}

enum err store_upgrade(sqlite3 *db,
                       enum err (*put)(struct store *s, const struct job *j, struct fault *why),
                       struct store *s, struct fault *why)
{
    sqlite3_stmt *st = NULL;
    enum err err = ERR_OK;
    int jobs = 0, left = 0, rc = sqlite3_prepare_v2(db, "SELECT * FROM job_1", -1, &st, NULL);
    while (!err && rc != SQLITE_DONE) {
        bool damaged = false;
        rc = st ? sqlite3_step(st) : rc;
        if (rc == SQLITE_ROW)
            err = upgrade_row(st, put, s, &damaged, why);
        else if (rc != SQLITE_DONE)
            err = fault_set(why, ERR_IO, "store", "cannot read the jobs: %s", sqlite3_errmsg(db));
        jobs += rc == SQLITE_ROW;
        left += damaged;
    }
    sqlite3_finalize(st);
    if (!err && sqlite3_exec(db,
                             left ? "DELETE FROM job_1 WHERE id IN (SELECT id FROM job)"
                                  : "DROP TABLE job_1",
                             NULL, NULL, NULL))
        err = fault_set(why, ERR_IO, "store", "cannot remove the old jobs: %s", sqlite3_errmsg(db));
    if (!err)
        log_msg(LOG_INFO, "store", "converted %d jobs from the store of an older version",
                jobs - left);
    return err;
}
