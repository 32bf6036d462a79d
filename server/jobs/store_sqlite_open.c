// Opens the database of the SQLite store: schema, migrations from older versions, and exclusive
// locking. Called once, on the loop thread, before anything else runs.
#include "store_sqlite_impl.h"

#include "buf.h"
#include "store_files.h"
#include "store_salvage.h"
#include "store_upgrade.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { STORE_VERSION = 3 };

#define SCHEMA_2                                                                                   \
    "CREATE TABLE IF NOT EXISTS job ("                                                             \
    " id TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL, spec TEXT NOT NULL,"          \
    " used TEXT NOT NULL, images TEXT NOT NULL, created INTEGER NOT NULL,"                         \
    " started INTEGER NOT NULL, finished INTEGER NOT NULL, expires INTEGER NOT NULL,"              \
    " fault INTEGER NOT NULL, message TEXT NOT NULL, webhook_tries INTEGER NOT NULL,"              \
    " webhook_next INTEGER NOT NULL) WITHOUT ROWID;"                                               \
    "CREATE INDEX IF NOT EXISTS job_created ON job (created);"                                     \
    "PRAGMA user_version = 2;"

// Columns for queries on a job's spec, and the order of acceptance. If two jobs have the same key,
// it belongs to the newer one. The index of expiry has only ended jobs, which changes it once.
#define SCHEMA_3                                                                                   \
    "ALTER TABLE job ADD COLUMN owner TEXT NOT NULL DEFAULT '';"                                   \
    "ALTER TABLE job ADD COLUMN idempotency_key TEXT;"                                             \
    "ALTER TABLE job ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;"                                   \
    "UPDATE job SET owner = coalesce(json_extract(spec, '$.owner'), ''),"                          \
    " idempotency_key = json_extract(spec, '$.idempotency_key')"                                   \
    " WHERE typeof(spec) = 'text' AND json_valid(spec);"                                           \
    "UPDATE job SET seq = n.seq FROM (SELECT id,"                                                  \
    " row_number() OVER (ORDER BY created, id) AS seq FROM job) AS n WHERE n.id = job.id;"         \
    "UPDATE job SET idempotency_key = NULL FROM (SELECT owner, idempotency_key AS key,"            \
    " max(seq) AS seq FROM job GROUP BY owner, idempotency_key) AS n"                              \
    " WHERE job.owner = n.owner AND job.idempotency_key = n.key AND job.seq < n.seq;"              \
    "CREATE UNIQUE INDEX job_key ON job (owner, idempotency_key)"                                  \
    " WHERE idempotency_key IS NOT NULL;"                                                          \
    "CREATE INDEX job_page ON job (owner, created, seq);"                                          \
    "CREATE INDEX job_expires ON job (expires) WHERE state IN ('done', 'failed', 'cancelled');"    \
    "PRAGMA user_version = 3;"

// The migrations from each version to the next. Version 2 has other tables than version 1, so its
// jobs are copied (store_upgrade.c).
static const struct {
    int version;
    const char *sql;
} migrations[] = {{2, SCHEMA_2}, {STORE_VERSION, SCHEMA_3}};

#define ENDED "state IN ('done', 'failed', 'cancelled') AND (NOT ?1 OR webhook_next = 0)"
static const char *const statements[SQL_STATEMENTS] = {
    [SQL_BEGIN] = "BEGIN",
    [SQL_COMMIT] = "COMMIT",
    [SQL_INSERT] = "INSERT INTO job (id, state, used, images, started, finished, expires, fault,"
                   " message, webhook_tries, webhook_next, token, spec, created, owner,"
                   " idempotency_key, seq)"
                   " VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17)",
    [SQL_UPDATE] = "UPDATE job SET state = ?2, used = ?3, images = ?4, started = ?5,"
                   " finished = ?6, expires = ?7, fault = ?8, message = ?9, webhook_tries = ?10,"
                   " webhook_next = ?11 WHERE id = ?1",
    [SQL_DELETE] = "DELETE FROM job WHERE id = ?1",
    [SQL_BY_ID] = "SELECT " SQL_COLUMNS " FROM job WHERE id = ?1",
    [SQL_BY_KEY] = "SELECT " SQL_COLUMNS " FROM job WHERE owner = ?1 AND idempotency_key = ?2",
    [SQL_DROP_KEY] =
        "UPDATE job SET idempotency_key = NULL WHERE owner = ?1 AND idempotency_key = ?2",
    [SQL_PAGE] = "SELECT " SQL_COLUMNS " FROM job WHERE owner = ?1 AND (?2 = '' OR state = ?2 OR"
                 " (?2 = 'unfinished' AND state IN ('queued', 'running')))"
                 " AND (created, seq) < (?3, ?4) ORDER BY created DESC, seq DESC LIMIT ?5",
    [SQL_EXPIRED] = "SELECT " SQL_COLUMNS " FROM job WHERE " ENDED " AND expires <= ?2",
    [SQL_OLDEST] =
        "SELECT " SQL_COLUMNS " FROM job WHERE " ENDED " AND +expires > ?2 ORDER BY created, seq",
    [SQL_ALL] = "SELECT " SQL_COLUMNS " FROM job ORDER BY created, seq",
};

enum err sqlite_fault(sqlite3 *db, const char *what, struct fault *why)
{
    const int code = db ? sqlite3_errcode(db) : SQLITE_NOMEM;
    const enum err err = code == SQLITE_BUSY || code == SQLITE_LOCKED ? ERR_BUSY : ERR_IO;
    return fault_set(why, err, "store", "%s: %s", what, db ? sqlite3_errmsg(db) : "no memory");
}

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

// Opens and locks the database and checks that its version is known.
static enum err db_lock(struct store_sqlite *q, const char *path, int *version, struct fault *why)
{
    if (sqlite3_open(path, &q->db))
        return sqlite_fault(q->db, "cannot open the job store", why);
    sqlite3_busy_timeout(q->db, 1000);
    // Exclusive before WAL: the first write below takes a lock that is kept until the end. The log
    // is merged after 16 MB, not 4, because that waits for the disk; a page that changes often is
    // then written less often. The cache, 8 MB, contains the pages of some thousand jobs.
    if (sqlite3_exec(q->db,
                     "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL;"
                     "PRAGMA synchronous = NORMAL; PRAGMA cache_size = -8000;"
                     "PRAGMA wal_autocheckpoint = 4000; BEGIN EXCLUSIVE; COMMIT",
                     NULL, NULL, NULL)) {
        const enum err err = sqlite_fault(q->db, "cannot lock the job store", why);
        if (err == ERR_BUSY)
            fault_set(why, err, "data-dir", "the data folder %.100s is in use by another process",
                      q->dir);
        return err;
    }
    *version = db_version(q->db);
    if (*version < 0 || *version > STORE_VERSION)
        return fault_set(why, ERR_FORMAT, "data-dir",
                         "the job store in %.100s has version %d, but this program supports "
                         "version %d; use the program that wrote it, or another data-dir",
                         q->dir, *version, STORE_VERSION);
    return ERR_OK;
}

static enum err migrate(struct store_sqlite *q, int version, struct fault *why)
{
    static const char rename_sql[] = "DROP INDEX IF EXISTS job_created;"
                                     "ALTER TABLE job RENAME TO job_1";
    enum err err = ERR_OK;
    if (version == STORE_OLDEST && sqlite3_exec(q->db, rename_sql, NULL, NULL, NULL))
        return sqlite_fault(q->db, "cannot set up the job store", why);
    for (size_t i = 0; !err && i < sizeof migrations / sizeof migrations[0]; i++) {
        if (migrations[i].version <= version)
            continue;
        if (sqlite3_exec(q->db, migrations[i].sql, NULL, NULL, NULL))
            err = sqlite_fault(q->db, "cannot set up the job store", why);
        else if (version == STORE_OLDEST && migrations[i].version == STORE_OLDEST + 1)
            err = store_upgrade(q->db, why);
    }
    return err;
}

// In one transaction, so that an interrupted program leaves the old version.
static enum err db_set_up(struct store_sqlite *q, int version, struct fault *why)
{
    if (sqlite3_exec(q->db, "BEGIN", NULL, NULL, NULL))
        return sqlite_fault(q->db, "cannot set up the job store", why);
    enum err err = migrate(q, version, why);
    for (int i = 0; !err && i < SQL_STATEMENTS; i++)
        if (sqlite3_prepare_v2(q->db, statements[i], -1, &q->st[i], NULL))
            err = sqlite_fault(q->db, "cannot set up the job store", why);
    if (!err && sqlite3_exec(q->db, "COMMIT", NULL, NULL, NULL))
        err = sqlite_fault(q->db, "cannot set up the job store", why);
    return err;
}

enum err sqlite_open_database(struct store_sqlite *q, struct fault *why)
{
    struct buf path = {0};
    int version = 0;
    enum err err = make_folders(q->dir, "images", why);
    if (!err)
        err = make_folders(q->dir, STORE_INPUTS, why);
    if (err)
        return err;
    buf_printf(&path, "%s/jobs.sqlite", q->dir);
    if (path.failed)
        err = fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    else
        err = db_lock(q, path.data, &version, why);
    if (!err && salvage_needed(q->db)) {
        const char *schema = version == STORE_OLDEST       ? store_schema_1
                             : version == STORE_OLDEST + 1 ? SCHEMA_2
                                                           : SCHEMA_2 SCHEMA_3;
        err = salvage_run(&q->db, path.data, schema, why);
        if (!err)
            err = db_lock(q, path.data, &version, why);
    }
    buf_deinit(&path);
    return err ? err : db_set_up(q, version, why);
}
