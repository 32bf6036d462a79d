// Shared by store_sqlite*.c. Private to these files.
#ifndef IMAGEND_STORE_SQLITE_IMPL_H
#define IMAGEND_STORE_SQLITE_IMPL_H

#include "store.h"
#include "store_row.h"

#include <sqlite3.h>

enum sql_statement {
    SQL_BEGIN,
    SQL_COMMIT,
    SQL_INSERT,
    SQL_UPDATE,
    SQL_DELETE,
    SQL_BY_ID,
    SQL_BY_KEY,
    SQL_DROP_KEY,
    SQL_PAGE,
    SQL_EXPIRED,
    SQL_OLDEST,
    SQL_ALL,
    SQL_STATEMENTS
};

struct damaged_image;
struct store_recent;
struct store_thread;

struct store_sqlite {
    struct store store;
    char *dir;
    sqlite3 *db;
    sqlite3_stmt *st[SQL_STATEMENTS];
    struct store_thread *thread;
    // the loop thread's
    struct store_recent *recent;
    struct store_stats answered; // as of the last answer
    // the store's thread's, once it runs
    struct store_stats stats;
    int64_t seq;
    struct job **claim; // jobs found when opening, until STORE_CLAIM
    int claims;
    struct damaged_image *damaged; // found when it was opened
    bool full;                     // the last write failed on a full disk
    void (*closed)(void *ctx);
    void *ctx;
};

// store_sqlite_open.c
// Opens and locks dir/jobs.sqlite, brings it to this program's version and prepares the statements.
// Errors: as store_sqlite_open.
enum err sqlite_open_database(struct store_sqlite *q, struct fault *why);
enum err sqlite_fault(sqlite3 *db, const char *what, struct fault *why);

// store_sqlite_row.c
// Reads SQL_COLUMNS. Owner: *out, the caller. Errors: FORMAT, NO_MEMORY.
enum err sqlite_read_row(const struct store_sqlite *q, sqlite3_stmt *row, struct job **out,
                         struct fault *why);
struct store_row sqlite_row(sqlite3_stmt *row);
const char *sqlite_text(sqlite3_stmt *row, int i); // never NULL
// The file of an image. Owner: the caller; NULL: out of memory.
char *sqlite_image_path(const struct store_sqlite *q, const char *id, int picture,
                        enum job_format format);
// Records and logs the images of a job whose files are damaged.
void sqlite_check_images(struct store_sqlite *q, struct job *j);
// An image has a new file, which is not damaged.
void sqlite_replaced(struct store_sqlite *q, const char *id, int picture);
void sqlite_damaged_free(struct store_sqlite *q);

#endif
