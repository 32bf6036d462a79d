// Shared by store_postgres*.c. Private to these files.
#ifndef IMAGEND_STORE_POSTGRES_IMPL_H
#define IMAGEND_STORE_POSTGRES_IMPL_H

#include "pg.h"
#include "store.h"
#include "store_row.h"

#include <uv.h>

enum {
    POSTGRES_VERSION = 4, // of the schema; see store_postgres_schema.c
    POSTGRES_STATEMENT_MS = 10000,
    POSTGRES_HINT_MS = 250,       // at most one NOTIFY in this time
    POSTGRES_CACHE = 64 << 20,    // bytes of input images kept at hand
    POSTGRES_WAITING = 512 << 20, // bytes of images that wait for the database
};

// The advisory locks, see store_postgres_schema.c.
#define POSTGRES_LOCK "1768776039"

struct postgres_files;

struct store_postgres {
    struct store store;
    struct pg *pg;
    uv_loop_t *loop;
    char *replica;            // name of this process among those that share the database
    char *migration;          // SQL
    struct store_stats stats; // of the last count, with what this process changed since then
    int64_t count;            // its number
    bool counted;             // by this process, which then removes the surplus
    int64_t keep_ms;          // for which finished jobs are kept, as seen last
    struct postgres_files *files;
    uv_timer_t hint; // runs while a NOTIFY is due
    bool changed;    // since the last NOTIFY
    bool leaving, closing;
    int closing_parts;
    void (*closed)(void *ctx);
    void *ctx;
};

// store_postgres_schema.c
// The statement that brings the schema to this program's version. Owner: the caller. NULL if out of
// memory.
char *postgres_migration(void);

// store_postgres_calls.c: what a call asks the database, and what comes back.
struct postgres_op {
    // Adds the statements. Errors are recorded in q or c->why.
    void (*ask)(struct store_postgres *s, struct store_call *c, struct pg_call *q);
    void (*take)(struct store_postgres *s, struct store_call *c, struct pg_call *q);
    bool patient; // waits for a database that is away
    bool changes; // others want to know
};
extern const struct postgres_op postgres_ops[STORE_OPS];
#define POSTGRES_ENDED "state IN ('done', 'failed', 'cancelled')"
#define POSTGRES_UNFINISHED "state IN ('queued', 'running')"
// Adds the statement that says how many jobs the fleet has, and takes its result. again: counts
// them also if that was done a moment ago. True: this very statement has counted them.
void postgres_ask_stats(struct pg_call *q, bool again);
bool postgres_take_stats(struct store_postgres *s, const struct pg_call *q, int statement);
// The width of a partition of images, in milliseconds.
int64_t postgres_span_ms(const struct store_postgres *s);

// store_postgres_read.c: the same for the calls that change nothing.
void postgres_ask_find(struct store_postgres *s, struct store_call *c, struct pg_call *q);
void postgres_ask_list(struct store_postgres *s, struct store_call *c, struct pg_call *q);
void postgres_take_found(struct store_postgres *s, struct store_call *c, struct pg_call *q);
void postgres_ask_image(struct store_postgres *s, struct store_call *c, struct pg_call *q);
void postgres_take_image(struct store_postgres *s, struct store_call *c, struct pg_call *q);
void postgres_ask_watch(struct store_postgres *s, struct store_call *c, struct pg_call *q);
void postgres_take_watch(struct store_postgres *s, struct store_call *c, struct pg_call *q);

// store_postgres_row.c
// SQL_COLUMNS and those of leases.
#define POSTGRES_COLUMNS SQL_COLUMNS ", lease, replica, claims, cancel, progress"
enum postgres_column {
    PCOL_LEASE = COL_SEQ + 1,
    PCOL_REPLICA,
    PCOL_CLAIMS,
    PCOL_CANCEL,
    PCOL_PROGRESS
};
// Adds the jobs that a statement found. A damaged row is logged and skipped.
void postgres_take_jobs(struct store_postgres *s, struct store_call *c, const struct pg_call *q,
                        int statement);
// Reads one row. NULL: damaged, or out of memory, see why.
struct job *postgres_read_job(struct store_postgres *s, const struct pg_call *q, int statement,
                              int row, struct fault *why);
// The progress of a running job as a text. Owner: the caller. NULL if out of memory.
char *postgres_progress(const struct job *j);

// store_postgres_files.c: input images. Their functions in store_ops are called on any thread.
enum err postgres_files_open(struct store_postgres *s, struct fault *why);
void postgres_files_close(struct store_postgres *s); // counts in closing_parts
enum err postgres_put_file(struct store *s, const char *name, const struct blob *file,
                           struct fault *why);
enum err postgres_get_file(struct store *s, const char *name, struct blob **out, struct fault *why);

// store_postgres.c
void postgres_part_closed(struct store_postgres *s);

#endif
