// A client for PostgreSQL on the event loop: one connection in libpq's pipeline mode, which is made
// again when it is lost. Used by store_postgres*.c, which alone know tables. Never logs or returns
// the connection string. Thread: loop.
#ifndef IMAGEND_PG_H
#define IMAGEND_PG_H

#include "blob.h"
#include "err.h"

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

struct pg;
struct pg_statement;
struct uv_loop_s;

enum { PG_MAX_STATEMENTS = 8, PG_MAX_VALUES = 24 };

// One transaction: its statements succeed together, or none does. done is called after COMMIT.
// Calls must be repeatable: one whose connection was lost before the database answered is made
// again, because it may or may not have been committed.
struct pg_call {
    struct pg_call *next;
    void (*done)(struct pg_call *c); // frees the call with pg_call_free
    void *ctx;
    bool patient;         // waits until the database is back
    const char *expected; // first letters of a SQLSTATE that is not logged, or NULL
    // Results
    struct fault why; // code 0: committed. BUSY: the database is away or overloaded; IO: it refused
    char state[6];    // SQLSTATE of the error, or ""
    PGresult *result[PG_MAX_STATEMENTS];
    // Private to pg*.c
    struct pg_statement *statement[PG_MAX_STATEMENTS];
    int statements, answered, losses, tries;
    size_t bytes;         // of the values
    bool limited, failed; // its time limit is set; out of memory
};

// NULL if out of memory.
struct pg_call *pg_call_create(void (*done)(struct pg_call *c), void *ctx);
void pg_call_free(struct pg_call *c);
// Adds a statement; sql must stay. binary: the format of its result. The values of $1, $2, ...
// follow.
void pg_query(struct pg_call *c, const char *sql, bool binary);
void pg_text(struct pg_call *c, const char *s); // copied; NULL is SQL's NULL
void pg_int(struct pg_call *c, int64_t v);
void pg_blob(struct pg_call *c, struct blob *b); // bytea. Owner: takes a new reference
// Result of a statement: the text of a field, "" for NULL.
const char *pg_get(const struct pg_call *c, int statement, int row, int column);
int64_t pg_get_int(const struct pg_call *c, int statement, int row, int column);
int pg_rows(const struct pg_call *c, int statement);

struct pg_params {
    struct uv_loop_s *loop;
    const char *database;      // libpq connection string or URI without a password; copied
    const char *password_file; // read for each connection; NULL or "": none; copied
    const char *name;          // for application_name; copied
    double connect_seconds;    // for one attempt, unless the connection string says another
    double statement_seconds;  // limit of each statement
    double backoff_seconds;    // after the first failure; later ones double it
    double patience_seconds;   // that a call waits for a lost connection, unless it is patient
    size_t waiting_bytes;      // most bytes of waiting calls
    // A connection was made; waiting calls are sent after pg_ready. pg_send_first sends what must
    // come before. NULL: they are sent at once.
    void (*opened)(void *ctx);
    void (*lost)(void *ctx); // the connection that opened announced
    void (*notified)(void *ctx, const char *channel, const char *payload);
    void *ctx;
};

// Begins to connect. Errors: INVALID (the connection string), IO (the password file), NO_MEMORY.
enum err pg_open(const struct pg_params *p, struct pg **out, struct fault *why);
void pg_ready(struct pg *p);
// Drops the connection and tries again later; why is logged.
void pg_reject(struct pg *p, const char *why);
// Sends a call, or lets it wait for the connection. done is called later, in the order of the
// calls; calls that fail because the database is away overtake patient ones. Owner: takes c until
// done.
void pg_send(struct pg *p, struct pg_call *c);
void pg_send_first(struct pg *p, struct pg_call *c); // between opened and pg_ready
bool pg_up(const struct pg *p);                      // connected and ready
int pg_connections(const struct pg *p);              // made so far
size_t pg_waiting(const struct pg *p);               // bytes of waiting calls
// The program ends: patient calls, too, fail if the database is away for patience_seconds more.
void pg_leave(struct pg *p);
// Finishes all calls, or fails those that cannot be sent within patience_seconds.
void pg_close(struct pg *p, void (*closed)(void *ctx), void *ctx);

#endif
