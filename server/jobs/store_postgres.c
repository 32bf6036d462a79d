// The store of a fleet: jobs, images and input images in PostgreSQL, where every replica finds
// them. Opening, closing, the schema, and hints between replicas; store_postgres_calls.c has the
// calls. Loop thread; store.h says what a call means, pg.h what happens while the database is away.
#include "store_postgres_impl.h"

#include "buf.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define CHANNEL "imagend"

// A call on its way.
struct on_way {
    struct store_postgres *s;
    struct store_call *c;
};

// ---- hints --------------------------------------------------------------------------------------

static void on_hinted(struct pg_call *q)
{
    pg_call_free(q);
}

// Committing a NOTIFY waits for every other one, so many changes share one.
static void on_hint(uv_timer_t *t)
{
    struct store_postgres *s = t->data;
    struct pg_call *q = s->changed && pg_up(s->pg) ? pg_call_create(on_hinted, s) : NULL;
    if (!s->changed)
        return;
    s->changed = false;
    uv_timer_start(&s->hint, on_hint, POSTGRES_HINT_MS, 0);
    if (!q)
        return;
    pg_query(q, "SELECT pg_notify('" CHANNEL "', $1)", false);
    pg_text(q, s->replica);
    pg_send(s->pg, q);
}

static void tell_others(struct store_postgres *s)
{
    s->changed = true;
    if (!s->closing && !uv_is_active((uv_handle_t *)&s->hint))
        uv_timer_start(&s->hint, on_hint, 0, 0);
}

static void on_notified(void *ctx, const char *channel, const char *replica)
{
    struct store_postgres *s = ctx;
    if (strcmp(replica, s->replica) && s->store.changed)
        s->store.changed(s->store.ctx);
}

// ---- a session ----------------------------------------------------------------------------------

static void on_lost(void *ctx)
{
    struct store_postgres *s = ctx;
    fault_set(&s->store.away, ERR_BUSY, "store", "the database is not available");
}

static void on_set_up(struct pg_call *q)
{
    struct store_postgres *s = q->ctx;
    char why[400] = "";
    const int64_t oldest = q->why.code ? 0 : pg_get_int(q, 1, 0, 0);
    if (q->why.code)
        snprintf(why, sizeof why, "cannot set up the schema: %s", q->why.msg);
    else if (oldest > POSTGRES_VERSION)
        snprintf(why, sizeof why,
                 "the database requires a program of schema version %d, but this one supports "
                 "version %d; upgrade it",
                 (int)oldest, POSTGRES_VERSION);
    else if (strcmp(pg_get(q, 1, 0, 1), "UTF8"))
        snprintf(why, sizeof why, "the database has the encoding %.40s; create it with UTF8",
                 pg_get(q, 1, 0, 1));
    if (!*why)
        postgres_take_stats(s, q, 4);
    pg_call_free(q);
    if (*why) {
        pg_reject(s->pg, why);
        return;
    }
    s->store.away = (struct fault){0};
    pg_ready(s->pg);
    if (s->store.changed)
        s->store.changed(s->store.ctx); // hints may have been lost
}

static void on_opened(void *ctx)
{
    struct store_postgres *s = ctx;
    struct pg_call *q = pg_call_create(on_set_up, s);
    if (!q) {
        pg_reject(s->pg, err_text(ERR_NO_MEMORY));
        return;
    }
    pg_query(q, s->migration, false);
    pg_query(q, "SELECT max(oldest), current_setting('server_encoding') FROM imagend.migration",
             false);
    pg_query(q, "SELECT imagend.tend($1)", false);
    pg_int(q, postgres_span_ms(s));
    pg_query(q, "LISTEN " CHANNEL, false);
    postgres_ask_stats(q, true);
    pg_send_first(s->pg, q);
}

// ---- calls --------------------------------------------------------------------------------------

static void read_fault(struct store_postgres *s, struct store_call *c, const struct pg_call *q)
{
    c->why = q->why;
    if (s->leaving && c->op == STORE_DRAWN && c->why.code == ERR_BUSY)
        c->why.code = ERR_STALE; // another replica generates the image again
    if (!strcmp(q->state, "IMG01")) {
        fault_set(&c->why, ERR_BUSY, "queue", "the queue is full");
        const int least = c->quota.queued - c->job->spec.n + 1;
        s->stats.queued = s->stats.queued < least ? least : s->stats.queued;
    } else if (!strcmp(q->state, "IMG02"))
        fault_set(&c->why, ERR_BUSY, "queue", "this API key has too many images in the queue");
}

static void on_called(struct pg_call *q)
{
    struct on_way *w = q->ctx;
    struct store_postgres *s = w->s;
    struct store_call *c = w->c;
    const struct postgres_op *op = &postgres_ops[c->op];
    free(w);
    if (q->why.code)
        read_fault(s, c, q);
    else if (op->take)
        op->take(s, c, q);
    pg_call_free(q);
    if (op->changes && !c->why.code)
        tell_others(s);
    c->stats = s->stats;
    c->done(c);
}

static void postgres_call(struct store *store, struct store_call *c)
{
    struct store_postgres *s = (struct store_postgres *)store;
    const struct postgres_op *op = &postgres_ops[c->op];
    struct on_way *w = malloc(sizeof *w);
    struct pg_call *q = w ? pg_call_create(on_called, w) : NULL;
    if (!q) {
        free(w);
        fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        c->done(c);
        return;
    }
    *w = (struct on_way){s, c};
    q->patient = op->patient;
    op->ask(s, c, q);
    pg_send(s->pg, q);
}

// ---- opening and closing ------------------------------------------------------------------------

static void postgres_free(struct store_postgres *s)
{
    free(s->replica);
    free(s->migration);
    free(s);
}

void postgres_part_closed(struct store_postgres *s)
{
    if (--s->closing_parts)
        return;
    void (*closed)(void *ctx) = s->closed;
    void *ctx = s->ctx;
    postgres_free(s);
    if (closed)
        closed(ctx);
}

static void on_hint_closed(uv_handle_t *h)
{
    postgres_part_closed(h->data);
}

static void on_pg_closed(void *ctx)
{
    struct store_postgres *s = ctx;
    postgres_files_close(s);
    s->closing_parts++;
    uv_close((uv_handle_t *)&s->hint, on_hint_closed);
    postgres_part_closed(s);
}

static void postgres_leave(struct store *store)
{
    struct store_postgres *s = (struct store_postgres *)store;
    s->leaving = true;
    pg_leave(s->pg);
}

static void postgres_close(struct store *store, void (*closed)(void *ctx), void *ctx)
{
    struct store_postgres *s = (struct store_postgres *)store;
    s->closed = closed;
    s->ctx = ctx;
    s->closing_parts = 1;
    if (s->changed)
        on_hint(&s->hint);
    s->closing = true;
    uv_timer_stop(&s->hint);
    pg_close(s->pg, on_pg_closed, s);
}

static const struct store_ops ops = {
    .name = "postgres",
    .call = postgres_call,
    .close = postgres_close,
    .leave = postgres_leave,
    .put_file = postgres_put_file,
    .get_file = postgres_get_file,
};

// A lease names the process: a name and digits, so that two with the same name are two.
static char *process_name(const char *name)
{
    struct buf b = {0};
    unsigned char bytes[4] = {0};
    if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes)
        return NULL;
    buf_printf(&b, "%s/%02x%02x%02x%02x", name, bytes[0], bytes[1], bytes[2], bytes[3]);
    return buf_take(&b);
}

enum err store_postgres_open(const struct store_postgres_params *params, struct store **out,
                             struct fault *why)
{
    struct store_postgres *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s || !(s->replica = process_name(params->replica)) ||
        !(s->migration = postgres_migration()) || uv_timer_init(params->loop, &s->hint)) {
        if (s)
            postgres_free(s);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    s->loop = params->loop;
    s->hint.data = s;
    s->keep_ms = params->keep_ms;
    s->store.ops = &ops;
    s->store.shared = true;
    on_lost(s);
    const struct pg_params p = {
        .loop = params->loop,
        .database = params->database,
        .password_file = params->password_file,
        .name = params->replica,
        .connect_seconds = 5,
        .statement_seconds = POSTGRES_STATEMENT_MS / 1000.0,
        .backoff_seconds = 0.1,
        .patience_seconds = 5,
        .waiting_bytes = POSTGRES_WAITING,
        .opened = on_opened,
        .lost = on_lost,
        .notified = on_notified,
        .ctx = s,
    };
    enum err err = postgres_files_open(s, why);
    if (!err)
        err = pg_open(&p, &s->pg, why);
    if (err) {
        s->closing_parts = 1;
        on_pg_closed(s);
        return err;
    }
    *out = &s->store;
    return ERR_OK;
}
