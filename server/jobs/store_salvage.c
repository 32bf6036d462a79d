// Recovers a database with damaged pages: copies the rows on the other pages into a new one. Called
// once, when the store is opened; knows the table's name and key, but nothing about jobs.
#include "store_salvage.h"

#include "buf.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool salvage_needed(sqlite3 *db)
{
    sqlite3_stmt *st = NULL;
    bool sound = false;
    if (!sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &st, NULL) &&
        sqlite3_step(st) == SQLITE_ROW)
        sound = !strcmp((const char *)sqlite3_column_text(st, 0), "ok");
    sqlite3_finalize(st);
    return !sound;
}

// Copies rows from one end of the table until its end or an error. Skips rows that were already
// copied or violate a constraint.
static int copy_rows(sqlite3 *from, sqlite3 *to, const char *select, const char *insert)
{
    sqlite3_stmt *read = NULL, *write = NULL;
    int copied = 0;
    if (sqlite3_prepare_v2(from, select, -1, &read, NULL) ||
        sqlite3_prepare_v2(to, insert, -1, &write, NULL))
        goto done;
    while (sqlite3_step(read) == SQLITE_ROW) {
        for (int i = 0; i < sqlite3_column_count(read); i++)
            sqlite3_bind_value(write, i + 1, sqlite3_column_value(read, i));
        if (sqlite3_step(write) == SQLITE_DONE)
            copied += sqlite3_changes(to);
        sqlite3_reset(write);
    }
done:
    sqlite3_finalize(read);
    sqlite3_finalize(write);
    return copied;
}

// The statements that copy rows, with the column names of the new table.
struct transfer {
    struct buf forth, back, insert; // read forwards, read backwards, write the new table
};

static bool transfer_init(struct transfer *t, sqlite3 *db)
{
    struct buf names = {0}, places = {0};
    sqlite3_stmt *st = NULL;
    *t = (struct transfer){0};
    sqlite3_prepare_v2(db, "SELECT name FROM pragma_table_info('job')", -1, &st, NULL);
    while (sqlite3_step(st) == SQLITE_ROW) {
        buf_printf(&names, "%s%s", names.len ? ", " : "", (const char *)sqlite3_column_text(st, 0));
        buf_puts(&places, places.len ? ",?" : "?");
    }
    sqlite3_finalize(st);
    const bool named = names.len && !names.failed && !places.failed;
    if (named) {
        buf_printf(&t->forth, "SELECT %s FROM job ORDER BY id ASC", names.data);
        buf_printf(&t->back, "SELECT %s FROM job ORDER BY id DESC", names.data);
        buf_printf(&t->insert, "INSERT OR IGNORE INTO job (%s) VALUES (%s)", names.data,
                   places.data);
    }
    buf_deinit(&names);
    buf_deinit(&places);
    return named && !t->forth.failed && !t->back.failed && !t->insert.failed;
}

static void transfer_deinit(struct transfer *t)
{
    buf_deinit(&t->forth);
    buf_deinit(&t->back);
    buf_deinit(&t->insert);
}

static enum err copy_database(sqlite3 *from, const char *path, const char *schema, int *rows,
                              struct fault *why)
{
    sqlite3 *to = NULL;
    struct transfer t = {0};
    unlink(path);
    enum err err = ERR_IO;
    if (sqlite3_open(path, &to) || sqlite3_exec(to, schema, NULL, NULL, NULL) ||
        sqlite3_exec(to, "BEGIN", NULL, NULL, NULL))
        goto done;
    if (!transfer_init(&t, to))
        goto done;
    // A damaged page stops a pass; rows beyond it are read from the other end.
    *rows = copy_rows(from, to, t.forth.data, t.insert.data) +
            copy_rows(from, to, t.back.data, t.insert.data);
    if (!sqlite3_exec(to, "COMMIT", NULL, NULL, NULL))
        err = ERR_OK;
done:
    if (err)
        fault_set(why, err, "store", "cannot write a new job store: %s",
                  to ? sqlite3_errmsg(to) : err_text(ERR_NO_MEMORY));
    transfer_deinit(&t);
    sqlite3_close(to);
    return err;
}

// Renames the damaged file before the new one takes its name, so that a file always exists.
static bool put_in_place(const char *path, const char *fresh, const char *damaged)
{
    struct buf log = {0}, damaged_log = {0};
    buf_printf(&log, "%s-wal", path);
    buf_printf(&damaged_log, "%s-wal", damaged);
    const bool ok = !log.failed && !damaged_log.failed && !link(path, damaged) &&
                    (!rename(log.data, damaged_log.data) || errno == ENOENT) &&
                    !rename(fresh, path);
    buf_deinit(&log);
    buf_deinit(&damaged_log);
    return ok;
}

enum err salvage_run(sqlite3 **db, const char *path, const char *schema, struct fault *why)
{
    struct buf fresh = {0}, damaged = {0};
    int rows = 0;
    enum err err = ERR_NO_MEMORY;
    buf_printf(&fresh, "%s.new", path);
    buf_printf(&damaged, "%s.damaged-%lld", path, (long long)clock_unix_ms());
    if (fresh.failed || damaged.failed)
        fault_set(why, err, "", "%s", err_text(err));
    else
        err = copy_database(*db, fresh.data, schema, &rows, why);
    if (!err && !rows)
        err = fault_set(why, ERR_FORMAT, "data-dir",
                        "the job store %.200s is damaged and none of its jobs can be read; move it "
                        "away to start with an empty store",
                        path);
    if (!err) {
        sqlite3_close(*db);
        *db = NULL;
        if (!put_in_place(path, fresh.data, damaged.data))
            err = fault_set(why, ERR_IO, "store", "cannot replace the damaged job store: %s",
                            strerror(errno));
    }
    if (!err)
        log_msg(LOG_ERROR, "store",
                "the job store was damaged; recovered %d jobs into a new store and kept the "
                "damaged one as %s",
                rows, damaged.data);
    else if (fresh.data)
        unlink(fresh.data);
    buf_deinit(&fresh);
    buf_deinit(&damaged);
    return err;
}
