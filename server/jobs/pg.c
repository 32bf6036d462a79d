// The connection of the client for PostgreSQL, see pg.h: connecting, sending calls, reading
// results, and beginning again after a loss. Loop thread.
#include "pg_impl.h"

#include "buf.h"
#include "clock.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_SENT = 16, // calls without a result
    MOST_SENT_BYTES = 32 << 20,
    MOST_WAITING = 10000, // calls
    MOST_LOSSES = 20,     // of the connection, with the same call under way
    MOST_TRIES = 4,       // of a call that met another one
    TICK_MS = 50,         // while something can time out
};
static const double MOST_BACKOFF = 5;

struct pg_poll {
    uv_poll_t handle;
    struct pg *p; // NULL: closing
};

static void pg_pump(struct pg *p);
static void pg_lost(struct pg *p, const char *why);
static void pg_try_closed(struct pg *p);
static void on_timer(uv_timer_t *t);

// Time passes only while something waits for it.
static void watch_time(struct pg *p)
{
    const bool idle = p->phase == PG_UP && !p->sent.n && !p->waiting.n && !p->closing;
    const double rest = p->phase == PG_DOWN ? (p->next_try - clock_seconds()) * 1000 : TICK_MS;
    if (idle)
        uv_timer_stop(&p->timer);
    else if (!uv_is_active((uv_handle_t *)&p->timer))
        uv_timer_start(&p->timer, on_timer,
                       rest < 1         ? 1
                       : rest < TICK_MS ? (uint64_t)rest
                                        : TICK_MS,
                       0);
}

// ---- the socket ---------------------------------------------------------------------------------

static void on_poll_closed(uv_handle_t *h)
{
    free(h->data);
}

static void poll_close(struct pg *p)
{
    if (!p->poll)
        return;
    p->poll->p = NULL;
    uv_close((uv_handle_t *)&p->poll->handle, on_poll_closed);
    p->poll = NULL;
}

static void on_poll(uv_poll_t *h, int status, int events);

static bool poll_open(struct pg *p)
{
    struct pg_poll *poll = calloc(1, sizeof *poll);
    if (!poll || uv_poll_init(p->p.loop, &poll->handle, PQsocket(p->conn))) {
        free(poll);
        return false;
    }
    poll->handle.data = poll;
    poll->p = p;
    p->poll = poll;
    return true;
}

static void poll_for(struct pg *p, int events)
{
    if (uv_poll_start(&p->poll->handle, events, on_poll))
        pg_lost(p, "cannot watch the socket");
}

// ---- answers ------------------------------------------------------------------------------------

static void no_answer(struct pg_call *c)
{
    pg_call_reset(c);
    fault_set(&c->why, ERR_BUSY, "store", "the database is not available; try again later");
}

static void answer(struct pg *p, struct pg_call *c)
{
    const bool inside = p->inside;
    p->inside = true;
    c->done(c);
    p->inside = inside;
}

// Fails waiting calls that have waited long enough, or all of them.
static void fail_waiting(struct pg *p, bool all)
{
    struct pg_line old = p->waiting, failed;
    if (!old.n)
        return;
    pg_line_init(&p->waiting);
    pg_line_init(&failed);
    for (struct pg_call *c; (c = pg_line_take(&old));)
        pg_line_add(c->patient && !all ? &p->waiting : &failed, c);
    for (struct pg_call *c; (c = pg_line_take(&failed));) {
        no_answer(c);
        answer(p, c);
    }
}

static bool is_away(const struct pg *p)
{
    return p->phase != PG_UP && clock_seconds() - p->down_since > p->p.patience_seconds;
}

// ---- losing the connection ----------------------------------------------------------------------

// A log line for the first failure, and then for one per minute or so.
static void log_failure(struct pg *p, const char *why)
{
    char line[300];
    size_t n = strcspn(why, "\n");
    snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), why);
    if (p->failures++ % 16 == 0)
        log_msg(LOG_ERROR, "postgres", "no connection to the database: %s", line);
}

static void drop(struct pg *p)
{
    poll_close(p);
    pg_names_forget(&p->names);
    PQfinish(p->conn);
    p->conn = NULL;
}

static void pg_lost(struct pg *p, const char *why)
{
    const double now = clock_seconds();
    if (p->phase == PG_DOWN)
        return;
    log_failure(p, why);
    if (p->phase == PG_UP)
        p->down_since = now;
    p->phase = PG_DOWN;
    drop(p);
    // Spread, so that the replicas of a fleet do not come back in step.
    const double longer = p->backoff * 2, least = p->p.backoff_seconds;
    p->backoff = longer < least ? least : longer < MOST_BACKOFF ? longer : MOST_BACKOFF;
    p->next_try = now + p->backoff * (0.5 + (double)(uv_hrtime() % 1000) / 1000);
    // Calls that belong to the lost session fail; the others are sent again, in order.
    struct pg_line first = p->first, again, over;
    pg_line_init(&p->first);
    pg_line_init(&again);
    pg_line_init(&over);
    for (struct pg_call *c; (c = pg_line_take(&p->sent));) {
        pg_call_reset(c);
        pg_line_add(c->losses < 0 || ++c->losses > MOST_LOSSES ? &over : &again, c);
    }
    pg_line_put_back(&p->waiting, &again);
    for (struct pg_call *c; (c = pg_line_take(&first));)
        pg_line_add(&over, c);
    for (struct pg_call *c; (c = pg_line_take(&over));) {
        no_answer(c);
        answer(p, c);
    }
    if (p->told && p->p.lost)
        p->p.lost(p->p.ctx);
    p->told = false;
    watch_time(p);
}

void pg_reject(struct pg *p, const char *why)
{
    pg_lost(p, why);
}

// ---- results ------------------------------------------------------------------------------------

// The transaction of the oldest call has ended.
static void end_call(struct pg *p)
{
    struct pg_call *c = pg_line_take(&p->sent);
    const bool met = !strcmp(c->state, "40001") || !strcmp(c->state, "40P01");
    if (met && c->losses >= 0 && ++c->tries < MOST_TRIES) {
        struct pg_line one;
        pg_line_init(&one);
        pg_call_reset(c);
        pg_line_add(&one, c);
        pg_line_put_back(&p->waiting, &one);
        return;
    }
    answer(p, c);
}

// The session itself cannot go on: it ends soon, or it has come to a standby.
static bool is_end_of_session(const char *state)
{
    return !strncmp(state, "57P", 3) || !strcmp(state, "25006");
}

// Takes a result. False: the connection is of no use any longer.
static bool take_result(struct pg *p, PGresult *r)
{
    struct pg_call *c = p->sent.first;
    const ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_PIPELINE_SYNC) {
        PQclear(r);
        if (c->answered != c->statements && !c->why.code)
            return false;
        end_call(p);
        return true;
    }
    if (status == PGRES_FATAL_ERROR && !c->why.code) {
        const bool told = PQresultErrorField(r, PG_DIAG_SQLSTATE); // not about the connection
        if (told)
            pg_call_fault(c, r);
        PQclear(r);
        return told && !is_end_of_session(c->state);
    }
    const bool good = status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK;
    if (good && !c->limited) { // the time limit's own statement
        c->limited = true;
        PQclear(r);
        return true;
    }
    if (good && c->answered < c->statements) {
        c->result[c->answered++] = r;
        return true;
    }
    PQclear(r);
    return c->why.code; // the statements after a failed one
}

static void read_results(struct pg *p)
{
    bool empty = false; // PQgetResult returns NULL after each statement
    while (p->sent.n && p->conn && !PQisBusy(p->conn)) {
        PGresult *r = PQgetResult(p->conn);
        if (!r && empty) {
            pg_lost(p, "the database sent results out of order");
            return;
        }
        empty = !r;
        if (r && !take_result(p, r)) {
            pg_lost(p, PQstatus(p->conn) == CONNECTION_BAD ? PQerrorMessage(p->conn)
                                                           : "the database ends the session");
            return;
        }
    }
}

static void read_notices(struct pg *p)
{
    for (PGnotify *n; p->conn && (n = PQnotifies(p->conn)); PQfreemem(n))
        if (p->p.notified)
            p->p.notified(p->p.ctx, n->relname, n->extra);
}

// ---- sending ------------------------------------------------------------------------------------

// The time limit is set for each transaction, because a pooler such as pgbouncer may give each one
// another session.
static bool send_call(struct pg *p, const struct pg_call *c)
{
    char ms[24];
    const char *const limit[] = {ms};
    snprintf(ms, sizeof ms, "%.0f", p->p.statement_seconds * 1000);
    bool ok = PQsendQueryParams(p->conn, "SELECT set_config('statement_timeout', $1, true)", 1,
                                NULL, limit, NULL, NULL, 0);
    for (int i = 0; ok && i < c->statements; i++) {
        const struct pg_statement *s = c->statement[i];
        ok = PQsendQueryParams(p->conn, s->sql, s->n, NULL, s->value, s->length, s->format,
                               s->binary);
    }
    return ok && PQpipelineSync(p->conn);
}

static void pg_pump(struct pg *p)
{
    struct pg_line *line = p->phase == PG_UP ? &p->waiting : &p->first;
    if (p->phase < PG_OPENING)
        return;
    while (line->n && p->sent.n < MOST_SENT && p->sent.bytes < MOST_SENT_BYTES) {
        struct pg_call *c = pg_line_take(line);
        if (!p->sent.n)
            p->heard = clock_seconds();
        pg_line_add(&p->sent, c);
        if (!send_call(p, c)) {
            pg_lost(p, PQerrorMessage(p->conn));
            return;
        }
    }
    const int rest = PQflush(p->conn);
    if (rest < 0)
        pg_lost(p, PQerrorMessage(p->conn));
    else
        poll_for(p, UV_READABLE | (rest ? UV_WRITABLE : 0));
    watch_time(p);
}

void pg_send(struct pg *p, struct pg_call *c)
{
    if (!c->failed && c->statements && p->waiting.n < MOST_WAITING &&
        p->waiting.bytes + c->bytes <= p->p.waiting_bytes && (c->patient || !is_away(p)) &&
        !(p->closing && p->phase != PG_UP && !c->patient)) {
        pg_line_add(&p->waiting, c);
        watch_time(p);
        if (!p->inside)
            pg_pump(p);
        return;
    }
    if (c->failed)
        fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    else
        no_answer(c);
    answer(p, c);
}

void pg_send_first(struct pg *p, struct pg_call *c)
{
    c->losses = -1; // it is not sent again
    if (!c->failed && p->phase == PG_OPENING) {
        pg_line_add(&p->first, c);
        if (!p->inside)
            pg_pump(p);
        return;
    }
    no_answer(c);
    answer(p, c);
}

void pg_ready(struct pg *p)
{
    if (p->phase != PG_OPENING)
        return;
    p->phase = PG_UP;
    p->backoff = 0;
    p->failures = 0;
    if (!p->inside)
        pg_pump(p);
}

// ---- connecting ---------------------------------------------------------------------------------

static void on_notice(void *ctx, const char *text)
{
    log_msg(LOG_DEBUG, "postgres", "%.*s", (int)strcspn(text, "\n"), text);
}

static void connected(struct pg *p)
{
    PQsetNoticeProcessor(p->conn, on_notice, NULL);
    if (PQsetnonblocking(p->conn, 1) || !PQenterPipelineMode(p->conn)) {
        pg_lost(p, PQerrorMessage(p->conn));
        return;
    }
    poll_close(p);
    if (!poll_open(p)) {
        pg_lost(p, "cannot watch the socket");
        return;
    }
    p->phase = PG_OPENING;
    p->heard = clock_seconds();
    p->connections++;
    p->told = true;
    p->inside = true;
    if (p->p.opened)
        p->p.opened(p->p.ctx);
    p->inside = false;
    if (!p->p.opened)
        pg_ready(p);
    pg_pump(p);
}

// libpq may change the socket at each step, so it is watched again.
static void go_on_connecting(struct pg *p)
{
    poll_close(p);
    const PostgresPollingStatusType status = PQconnectPoll(p->conn);
    if (status == PGRES_POLLING_OK) {
        connected(p);
    } else if (status == PGRES_POLLING_FAILED || PQsocket(p->conn) < 0) {
        pg_lost(p, PQerrorMessage(p->conn));
    } else if (!poll_open(p)) {
        pg_lost(p, "cannot watch the socket");
    } else {
        poll_for(p, status == PGRES_POLLING_READING ? UV_READABLE : UV_WRITABLE);
    }
}

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct pg *p = ((struct pg_poll *)h->data)->p;
    if (!p)
        return;
    if (p->phase == PG_CONNECTING) {
        go_on_connecting(p);
        return;
    }
    p->heard = clock_seconds();
    if ((status || events & UV_READABLE) && !PQconsumeInput(p->conn)) {
        // The last results may say more than the lost connection does.
        p->inside = true;
        read_results(p);
        p->inside = false;
        if (p->conn)
            pg_lost(p, PQerrorMessage(p->conn));
    } else {
        p->inside = true;
        read_results(p);
        read_notices(p);
        p->inside = false;
        if (p->conn)
            pg_pump(p);
    }
    pg_try_closed(p);
}

// A secret that is replaced takes effect with the next connection.
static bool add_password(struct pg *p, struct buf *password, struct pg_settings *s)
{
    struct fault why;
    if (!*p->password_file)
        return true;
    if (buf_read_file(password, p->password_file, 4096, &why)) {
        pg_lost(p, why.msg);
        return false;
    }
    if (password->data)
        password->data[strcspn(password->data, "\r\n")] = 0;
    const char *text = password->data ? password->data : "";
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->keyword[i], "password"))
            s->value[i] = text;
    s->keyword[s->n] = "password";
    s->value[s->n++] = text;
    return true;
}

static void on_names(void *ctx, const struct pg_settings *found, const struct fault *why)
{
    struct pg *p = ctx;
    struct buf password = {0};
    p->names = NULL;
    if (!found) {
        pg_lost(p, why->msg);
        return;
    }
    struct pg_settings s = *found;
    if (!add_password(p, &password, &s))
        return;
    s.keyword[s.n] = "client_encoding";
    s.value[s.n++] = "UTF8";
    s.keyword[s.n] = "fallback_application_name";
    s.value[s.n++] = p->application;
    s.keyword[s.n] = NULL;
    p->connect_seconds = s.connect_seconds > 0 ? s.connect_seconds : p->p.connect_seconds;
    p->conn = PQconnectStartParams(s.keyword, s.value, 0);
    if (password.data)
        explicit_bzero(password.data, password.cap);
    buf_deinit(&password);
    if (!p->conn || PQstatus(p->conn) == CONNECTION_BAD) {
        pg_lost(p, p->conn ? PQerrorMessage(p->conn) : err_text(ERR_NO_MEMORY));
        return;
    }
    p->phase = PG_CONNECTING;
    p->heard = clock_seconds();
    // Until the first PQconnectPoll, libpq's documentation says to act as if it had asked to write.
    if (poll_open(p))
        poll_for(p, UV_WRITABLE);
    else
        pg_lost(p, "cannot watch the socket");
}

static void begin_connecting(struct pg *p)
{
    p->phase = PG_RESOLVING;
    p->heard = clock_seconds();
    p->connect_seconds = p->p.connect_seconds;
    if (pg_names_find(p->p.loop, p->database, on_names, p, &p->names))
        pg_lost(p, err_text(ERR_NO_MEMORY));
}

static void on_timer(uv_timer_t *t)
{
    struct pg *p = t->data;
    const double now = clock_seconds();
    const double limit = p->phase == PG_RESOLVING || p->phase == PG_CONNECTING
                             ? p->connect_seconds
                             : p->p.statement_seconds * 1.2 + 1;
    if (p->phase == PG_DOWN && now >= p->next_try && (!p->closing || p->waiting.n))
        begin_connecting(p);
    else if (p->phase != PG_DOWN && (p->phase < PG_UP || p->sent.n) && now - p->heard > limit)
        pg_lost(p, "the database does not answer");
    if (now > p->give_up && (p->closing || (p->leaving && p->phase != PG_UP)))
        fail_waiting(p, true);
    else if (is_away(p))
        fail_waiting(p, false);
    watch_time(p);
    pg_try_closed(p);
}

// ---- opening and closing ------------------------------------------------------------------------

static void pg_free(struct pg *p)
{
    free(p->database);
    free(p->password_file);
    free(p->application);
    free(p);
}

enum err pg_open(const struct pg_params *params, struct pg **out, struct fault *why)
{
    struct buf application = {0}, password = {0};
    const char *file = params->password_file ? params->password_file : "";
    enum err err = pg_names_check(params->database, why);
    *out = NULL;
    if (!err && *file)
        err = buf_read_file(&password, file, 4096, why);
    buf_deinit(&password);
    struct pg *p = err ? NULL : calloc(1, sizeof *p);
    if (err)
        return err;
    buf_printf(&application, "imagend %s", params->name);
    if (!p || !(p->database = strdup(params->database)) || !(p->password_file = strdup(file)) ||
        !(p->application = buf_take(&application)) || uv_timer_init(params->loop, &p->timer)) {
        if (p)
            pg_free(p);
        buf_deinit(&application);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    p->p = *params;
    p->timer.data = p;
    pg_line_init(&p->waiting);
    pg_line_init(&p->first);
    pg_line_init(&p->sent);
    p->down_since = clock_seconds();
    watch_time(p);
    *out = p;
    return ERR_OK;
}

bool pg_up(const struct pg *p)
{
    return p->phase == PG_UP;
}

int pg_connections(const struct pg *p)
{
    return p->connections;
}

size_t pg_waiting(const struct pg *p)
{
    return p->waiting.bytes + p->sent.bytes;
}

static void on_timer_closed(uv_handle_t *h)
{
    struct pg *p = h->data;
    void (*closed)(void *ctx) = p->closed;
    void *ctx = p->ctx;
    pg_free(p);
    if (closed)
        closed(ctx);
}

static void pg_try_closed(struct pg *p)
{
    if (!p->closing || p->inside || p->waiting.n || p->sent.n || p->first.n ||
        uv_is_closing((uv_handle_t *)&p->timer))
        return;
    p->phase = PG_DOWN;
    drop(p);
    uv_close((uv_handle_t *)&p->timer, on_timer_closed);
}

void pg_leave(struct pg *p)
{
    p->leaving = true;
    p->give_up = clock_seconds() + p->p.patience_seconds;
}

void pg_close(struct pg *p, void (*closed)(void *ctx), void *ctx)
{
    p->closing = true;
    p->closed = closed;
    p->ctx = ctx;
    p->give_up = clock_seconds() + p->p.patience_seconds;
    uv_timer_start(&p->timer, on_timer, 0, 0);
}
