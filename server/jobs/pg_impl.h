// Shared by pg*.c. Private to these files.
#ifndef IMAGEND_PG_IMPL_H
#define IMAGEND_PG_IMPL_H

#include "pg.h"

#include <uv.h>

enum pg_phase { PG_DOWN, PG_RESOLVING, PG_CONNECTING, PG_OPENING, PG_UP };

struct pg_statement {
    const char *sql;
    bool binary; // format of the result
    int n;
    const char *value[PG_MAX_VALUES];
    char *text[PG_MAX_VALUES]; // owned by the statement, or NULL
    struct blob *blob[PG_MAX_VALUES];
    int length[PG_MAX_VALUES], format[PG_MAX_VALUES];
};

// Calls in order.
struct pg_line {
    struct pg_call *first, **last;
    int n;
    size_t bytes;
};

struct pg_poll;
struct pg_names;

struct pg {
    struct pg_params p;
    char *database, *password_file, *application;
    enum pg_phase phase;
    PGconn *conn;
    struct pg_poll *poll; // of the connection's socket
    struct pg_names *names;
    uv_timer_t timer;
    struct pg_line waiting, first, sent; // first: before pg_ready
    double next_try, down_since, heard, backoff, give_up, connect_seconds;
    int connections, failures;
    bool told;   // opened was called for this connection
    bool inside; // results are being delivered: what a callback sends waits until they are
    bool leaving, closing;
    void (*closed)(void *ctx);
    void *ctx;
};

// pg_names.c: what a connection string says, with the addresses of its hosts.
// Errors: INVALID, NO_MEMORY.
enum err pg_names_check(const char *database, struct fault *why);
// Looks up the hosts without blocking the loop. done gets the parameters of PQconnectStartParams,
// which are valid during the call, or the reason why there are none.
struct pg_settings {
    const char *keyword[80], *value[80];
    int n;
    double connect_seconds; // 0: not set
};
typedef void pg_names_fn(void *ctx, const struct pg_settings *s, const struct fault *why);
enum err pg_names_find(uv_loop_t *loop, const char *database, pg_names_fn *done, void *ctx,
                       struct pg_names **out);
// done will not be called.
void pg_names_forget(struct pg_names **n);

// pg_call.c
void pg_line_init(struct pg_line *l);
void pg_line_add(struct pg_line *l, struct pg_call *c);
struct pg_call *pg_line_take(struct pg_line *l);
// Puts the calls of from before those of l.
void pg_line_put_back(struct pg_line *l, struct pg_line *from);
void pg_call_reset(struct pg_call *c); // forgets results
// Fills in why and state from a failed result.
void pg_call_fault(struct pg_call *c, const PGresult *r);

#endif
