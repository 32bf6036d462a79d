// Version 1 of the database: an image's settings were in columns and in a text of numbers. Called
// once, when the store is opened; store_sqlite_row.c handles later versions.
#include "store_upgrade.h"

#include "log.h"
#include "store_files.h"
#include "store_sqlite_impl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

// As in SQL_COLUMNS where both versions have a column.
enum {
    COL_STEPS = COL_USED,
    COL_PICTURES = COL_IMAGES,
    COL_MODEL = COL_WEBHOOK_NEXT + 1,
    COL_SAMPLER,
    COL_SIZE,
    COL_STAGES
};
static const char select_sql[] =
    "SELECT id, token, state, spec, steps, pictures, created, started, finished, expires, fault,"
    " message, webhook_tries, webhook_next, model, sampler, size, stages FROM job_1";
static const char insert_sql[] =
    "INSERT INTO job (id, token, state, spec, used, images, created, started, finished, expires,"
    " fault, message, webhook_tries, webhook_next)"
    " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)";

// Reads a number from a list separated by spaces. False if there is none, so that damage does not
// read as 0.
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
    // Rows of older versions end before it.
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
        if (!take_int(&s, &bytes) || !take_int(&s, &width) || bytes < 0 ||
            bytes > STORE_MAX_IMAGE || width < 0 || width > STORE_MAX_EDGE)
            return false;
        p->bytes = (size_t)bytes;
        p->width = p->height = (int)width;
        p->state = p->bytes ? JOB_DONE : j->state == JOB_DONE ? JOB_FAILED : j->state;
    }
    return !*s;
}

static enum err read_row(sqlite3_stmt *row, struct job *j, struct fault *why)
{
    const struct store_row r = sqlite_row(row);
    const enum err err = store_row_common(&r, j, why);
    if (err)
        return err;
    if (j->spec.request.preset)
        snprintf(j->used.preset, sizeof j->used.preset, "%s", j->spec.request.preset);
    snprintf(j->used.model, sizeof j->used.model, "%s", sqlite_text(row, COL_MODEL));
    snprintf(j->used.sampler, sizeof j->used.sampler, "%s", sqlite_text(row, COL_SAMPLER));
    j->used.size.width = j->used.size.height = sqlite3_column_int(row, COL_SIZE);
    j->used.drawn = j->used.size;
    j->used.stages = sqlite3_column_int(row, COL_STAGES);
    if (j->used.stages < 0 || j->used.stages > PICTURE_MAX_STAGES)
        return fault_set(why, ERR_FORMAT, "store", "invalid number of stages: %d", j->used.stages);
    if (!read_numbers(sqlite_text(row, COL_STEPS), &j->used))
        return fault_set(why, ERR_FORMAT, "store", "its settings are malformed");
    if (job_ended(j) && !read_pictures(sqlite_text(row, COL_PICTURES), j))
        return fault_set(why, ERR_FORMAT, "store", "its list of images is malformed");
    return ERR_OK;
}

static enum err write_row(sqlite3_stmt *st, const struct job *j, struct fault *why)
{
    const char *const texts[] = {j->id, j->token, job_state_name(j->state)};
    const sqlite3_int64 times[] = {j->created, j->started, j->finished, j->expires};
    struct store_texts t = {0};
    int rc = SQLITE_NOMEM;
    if (store_texts_make(&t, j)) {
        for (int i = 0; i < 3; i++)
            sqlite3_bind_text(st, i + 1, texts[i], -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 4, t.spec, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 5, t.used, -1, SQLITE_STATIC);
        sqlite3_bind_text(st, 6, t.images, -1, SQLITE_STATIC);
        for (int i = 0; i < 4; i++)
            sqlite3_bind_int64(st, i + 7, times[i]);
        sqlite3_bind_int(st, 11, j->fault.code);
        sqlite3_bind_text(st, 12, j->fault.msg, -1, SQLITE_STATIC);
        sqlite3_bind_int(st, 13, j->webhook_tries);
        sqlite3_bind_int64(st, 14, j->webhook_next);
        rc = sqlite3_step(st);
        sqlite3_reset(st);
        sqlite3_clear_bindings(st);
    }
    store_texts_deinit(&t);
    return rc == SQLITE_DONE ? ERR_OK
                             : fault_set(why, ERR_IO, "store", "cannot convert the jobs: %s",
                                         sqlite3_errmsg(sqlite3_db_handle(st)));
}

static enum err upgrade_row(sqlite3_stmt *row, sqlite3_stmt *insert, bool *damaged,
                            struct fault *why)
{
    struct job *j = job_create();
    enum err err = ERR_NO_MEMORY;
    if (!j)
        return fault_set(why, err, "", "%s", err_text(err));
    err = read_row(row, j, why);
    *damaged = err && err != ERR_NO_MEMORY;
    if (*damaged)
        log_msg(LOG_ERROR, "store", "the damaged job %.40s stays in the table job_1: %s",
                sqlite_text(row, COL_ID), why->msg);
    if (!err)
        err = write_row(insert, j, why);
    job_free(&j);
    return *damaged ? ERR_OK : err;
}

static enum err copy_rows(sqlite3 *db, sqlite3_stmt *from, sqlite3_stmt *to, int *jobs, int *left,
                          struct fault *why)
{
    enum err err = ERR_OK;
    int rc = SQLITE_ROW;
    while (!err && (rc = sqlite3_step(from)) == SQLITE_ROW) {
        bool damaged = false;
        err = upgrade_row(from, to, &damaged, why);
        ++*jobs;
        *left += damaged;
    }
    if (!err && rc != SQLITE_DONE)
        err = fault_set(why, ERR_IO, "store", "cannot read the jobs: %s", sqlite3_errmsg(db));
    return err;
}

enum err store_upgrade(sqlite3 *db, struct fault *why)
{
    sqlite3_stmt *from = NULL, *to = NULL;
    enum err err = ERR_OK;
    int jobs = 0, left = 0;
    if (sqlite3_prepare_v2(db, select_sql, -1, &from, NULL) ||
        sqlite3_prepare_v2(db, insert_sql, -1, &to, NULL))
        err = fault_set(why, ERR_IO, "store", "cannot read the jobs: %s", sqlite3_errmsg(db));
    else
        err = copy_rows(db, from, to, &jobs, &left, why);
    sqlite3_finalize(from);
    sqlite3_finalize(to);
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
