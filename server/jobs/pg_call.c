// Calls of the client for PostgreSQL: statements with their values, and results. See pg.h. Loop
// thread.
#include "pg_impl.h"

#include "buf.h"
#include "log.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct pg_call *pg_call_create(void (*done)(struct pg_call *c), void *ctx)
{
    struct pg_call *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->done = done;
    c->ctx = ctx;
    return c;
}

void pg_call_reset(struct pg_call *c)
{
    for (int i = 0; i < PG_MAX_STATEMENTS; i++) {
        PQclear(c->result[i]);
        c->result[i] = NULL;
    }
    c->why = (struct fault){0};
    c->state[0] = 0;
    c->answered = 0;
    c->limited = false;
}

void pg_call_free(struct pg_call *c)
{
    if (!c)
        return;
    pg_call_reset(c);
    for (int i = 0; i < c->statements; i++) {
        for (int k = 0; k < c->statement[i]->n; k++) {
            free(c->statement[i]->text[k]);
            blob_unref(&c->statement[i]->blob[k]);
        }
        free(c->statement[i]);
    }
    free(c);
}

void pg_query(struct pg_call *c, const char *sql, bool binary)
{
    struct pg_statement *s = c->statements < PG_MAX_STATEMENTS ? calloc(1, sizeof *s) : NULL;
    if (!s) {
        c->failed = true;
        return;
    }
    s->sql = sql;
    s->binary = binary;
    c->statement[c->statements++] = s;
    c->bytes += sizeof *s;
}

// The place of the next value; NULL: out of memory.
static struct pg_statement *next_value(struct pg_call *c)
{
    struct pg_statement *s = c->statements ? c->statement[c->statements - 1] : NULL;
    if (c->failed || !s || s->n == PG_MAX_VALUES) {
        c->failed = true;
        return NULL;
    }
    s->n++;
    return s;
}

void pg_text(struct pg_call *c, const char *text)
{
    struct pg_statement *s = next_value(c);
    if (!s || !text)
        return;
    s->value[s->n - 1] = s->text[s->n - 1] = strdup(text);
    c->failed |= !s->text[s->n - 1];
    c->bytes += strlen(text);
}

void pg_int(struct pg_call *c, int64_t v)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRId64, v);
    pg_text(c, text);
}

void pg_blob(struct pg_call *c, struct blob *b)
{
    struct pg_statement *s = next_value(c);
    if (!s)
        return;
    s->blob[s->n - 1] = blob_ref(b);
    s->value[s->n - 1] = (const char *)b->data;
    s->length[s->n - 1] = (int)b->size;
    s->format[s->n - 1] = 1;
    c->bytes += b->size;
}

const char *pg_get(const struct pg_call *c, int statement, int row, int column)
{
    return PQgetvalue(c->result[statement], row, column);
}

int64_t pg_get_int(const struct pg_call *c, int statement, int row, int column)
{
    return strtoll(pg_get(c, statement, row, column), NULL, 10);
}

int pg_rows(const struct pg_call *c, int statement)
{
    return PQntuples(c->result[statement]);
}

// ---- errors -------------------------------------------------------------------------------------

// Classes and codes after which the same call may succeed later.
static bool is_temporary(const char *state)
{
    static const char *const prefixes[] = {"40", "53", "55P03", "57", "08", "25006"};
    if (!strncmp(state, "53100", 5)) // disk full
        return false;
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (!strncmp(state, prefixes[i], strlen(prefixes[i])))
            return true;
    return false;
}

void pg_call_fault(struct pg_call *c, const PGresult *r)
{
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    snprintf(c->state, sizeof c->state, "%s", state ? state : "");
    if (is_temporary(c->state))
        fault_set(&c->why, ERR_BUSY, "store",
                  "the database cannot answer now (%s); try again later", c->state);
    else
        fault_set(&c->why, ERR_IO, "store", "the database refused the request (%s)", c->state);
    // Clients get the code only.
    if (!c->expected || strncmp(c->state, c->expected, strlen(c->expected)) != 0)
        log_msg(LOG_WARN, "postgres", "%s: %s", c->state, text ? text : "the statement failed");
}

// ---- lines --------------------------------------------------------------------------------------

void pg_line_init(struct pg_line *l)
{
    *l = (struct pg_line){.last = &l->first};
}

void pg_line_add(struct pg_line *l, struct pg_call *c)
{
    c->next = NULL;
    *l->last = c;
    l->last = &c->next;
    l->n++;
    l->bytes += c->bytes;
}

struct pg_call *pg_line_take(struct pg_line *l)
{
    struct pg_call *c = l->first;
    if (!c)
        return NULL;
    l->first = c->next;
    if (!l->first)
        l->last = &l->first;
    l->n--;
    l->bytes -= c->bytes;
    return c;
}

void pg_line_put_back(struct pg_line *l, struct pg_line *from)
{
    struct pg_line all;
    pg_line_init(&all);
    for (struct pg_call *c; (c = pg_line_take(from));)
        pg_line_add(&all, c);
    for (struct pg_call *c; (c = pg_line_take(l));)
        pg_line_add(&all, c);
    *l = all;
    if (!l->first)
        l->last = &l->first;
}
