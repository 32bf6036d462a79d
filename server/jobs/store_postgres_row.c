// Rows of PostgreSQL as jobs, and the progress of running ones. Called by store_postgres_calls.c on
// the loop thread.
#include "store_postgres_impl.h"

#include "buf.h"
#include "json.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>

struct pg_row {
    const struct pg_call *q;
    int statement, row;
};

static const char *row_text(const void *row, int column)
{
    const struct pg_row *r = row;
    return pg_get(r->q, r->statement, r->row, column);
}

static int64_t row_number(const void *row, int column)
{
    const struct pg_row *r = row;
    return pg_get_int(r->q, r->statement, r->row, column);
}

// ---- progress -----------------------------------------------------------------------------------

// [[stage, stages, step, steps, attempts], ...]; an image that waits has zeros.
char *postgres_progress(const struct job *j)
{
    struct buf b = {0};
    for (int i = 0; i < j->spec.n; i++) {
        const struct job_picture *p = &j->picture[i];
        buf_printf(&b, "%s[%d,%d,%d,%d,%d]", i ? "," : "[", p->stage, p->stages, p->step, p->steps,
                   p->attempts);
    }
    buf_puts(&b, "]");
    return buf_take(&b);
}

// Another replica wrote it; a part that is out of range is ignored.
static void read_progress(const char *text, struct job *j)
{
    struct json_t *doc = NULL;
    if (!*text || json_parse(text, strlen(text), "progress", ERR_FORMAT, &doc, NULL))
        return;
    for (int i = 0; i < j->spec.n; i++) {
        const struct json_t *item = json_item(doc, (size_t)i);
        struct job_picture *p = &j->picture[i];
        int v[5];
        bool ok = json_count(item) == 5;
        for (size_t k = 0; ok && k < 5; k++) {
            const int64_t n = json_int(json_item(item, k));
            ok = n >= 0 && n <= 1000000;
            v[k] = (int)n;
        }
        if (!ok || p->state == JOB_DONE || !v[4])
            continue;
        p->state = JOB_RUNNING;
        p->stage = v[0];
        p->stages = v[1];
        p->step = v[2];
        p->steps = v[3];
        p->attempts = v[4];
    }
    json_destroy(&doc);
}

// ---- rows ---------------------------------------------------------------------------------------

struct job *postgres_read_job(struct store_postgres *s, const struct pg_call *q, int statement,
                              int row, struct fault *why)
{
    const struct pg_row at = {q, statement, row};
    const struct store_row r = {row_text, row_number, &at};
    struct job *j = NULL;
    if (store_row_read(&r, &j, why)) {
        if (why->code != ERR_NO_MEMORY)
            log_msg(LOG_ERROR, "store", "skipped the damaged job %.40s: %s", row_text(&at, COL_ID),
                    why->msg);
        return NULL;
    }
    j->claims = (int)row_number(&at, PCOL_CLAIMS);
    j->cancel = *row_text(&at, PCOL_CANCEL) == 't';
    if (!strcmp(row_text(&at, PCOL_REPLICA), s->replica))
        j->lease = row_number(&at, PCOL_LEASE);
    if (j->state == JOB_RUNNING)
        read_progress(row_text(&at, PCOL_PROGRESS), j);
    return j;
}

void postgres_take_jobs(struct store_postgres *s, struct store_call *c, const struct pg_call *q,
                        int statement)
{
    for (int i = 0; i < pg_rows(q, statement) && !c->why.code; i++) {
        struct fault why = {0};
        struct job *j = postgres_read_job(s, q, statement, i, &why);
        if (j)
            store_call_add(c, j);
        else if (why.code == ERR_NO_MEMORY)
            c->why = why;
    }
}
