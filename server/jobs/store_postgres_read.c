// Reading the jobs of the PostgreSQL store: finding, listing and watching them, and their images.
// Loop thread; store_postgres_calls.c has the calls that change something.
#include "store_postgres_impl.h"

#include "buf.h"
#include "text.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

static void no_memory(struct store_call *c)
{
    fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
}

static struct blob *copy_bytes(const struct pg_call *q, int statement, int row, int column)
{
    const PGresult *r = q->result[statement];
    const size_t n = (size_t)PQgetlength(r, row, column);
    uint8_t *data = malloc(n ? n : 1);
    if (!data)
        return NULL;
    memcpy(data, PQgetvalue(r, row, column), n);
    return blob_create(data, n);
}

// ---- reading ------------------------------------------------------------------------------------

// Ended jobs that nobody keeps are there for those who watch them.
#define FOUND " AND NOT (brief AND " POSTGRES_ENDED ")"

// Adds the statement that finds the positions of those jobs that wait among some, which follow as
// an array, and takes its result.
#define POSITIONS "SELECT which, ahead FROM imagend.positions("

static void take_positions(const struct pg_call *q, int statement, struct job *j)
{
    j->position = -1;
    for (int i = 0; i < pg_rows(q, statement) && j->state == JOB_QUEUED; i++)
        if (!strcmp(pg_get(q, statement, i, 0), j->id))
            j->position = (int)pg_get_int(q, statement, i, 1);
}

void postgres_ask_find(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    if (c->key) {
        static const char *const statements[] = {
            "SELECT " POSTGRES_COLUMNS
            " FROM imagend.job WHERE owner = $1 AND idempotency_key = $2",
            POSITIONS
            "ARRAY(SELECT id FROM imagend.job WHERE owner = $1 AND idempotency_key = $2))"};
        for (int i = 0; i < 2; i++) {
            pg_query(q, statements[i], false);
            pg_text(q, c->owner);
            pg_text(q, c->key);
        }
        return;
    }
    pg_query(q, "SELECT " POSTGRES_COLUMNS " FROM imagend.job WHERE id = $1" FOUND, false);
    pg_text(q, c->id);
    pg_query(q, POSITIONS "ARRAY[$1])", false);
    pg_text(q, c->id);
}

static void add_page(const struct store_call *c, struct pg_call *q)
{
    pg_text(q, c->owner);
    pg_text(q, c->page.state == STORE_UNFINISHED ? "unfinished"
               : c->page.state < 0               ? ""
                                                 : job_state_name((enum job_state)c->page.state));
    pg_int(q, c->page.created);
    pg_int(q, c->page.seq);
    pg_int(q, c->page.limit);
}

#define PAGE                                                                                       \
    " FROM imagend.job WHERE owner = $1 AND ($2::text = '' OR state = $2::text"                    \
    " OR ($2::text = 'unfinished' AND " POSTGRES_UNFINISHED "))" FOUND                             \
    " AND (created, seq) < ($3, $4) ORDER BY created DESC, seq DESC LIMIT $5"

void postgres_ask_list(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q, "SELECT " POSTGRES_COLUMNS PAGE, false);
    add_page(c, q);
    pg_query(q, POSITIONS "ARRAY(SELECT id" PAGE "))", false);
    add_page(c, q);
}

void postgres_take_found(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    postgres_take_jobs(s, c, q, 0);
    for (int i = 0; i < c->n; i++)
        take_positions(q, 1, c->jobs[i]);
}

void postgres_ask_image(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q,
             "SELECT bytes FROM imagend.image WHERE span = (SELECT span FROM imagend.job"
             " WHERE id = $1) AND job = $1 AND picture = $2",
             true);
    pg_text(q, c->id);
    pg_int(q, c->picture);
}

void postgres_take_image(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    if (!pg_rows(q, 0))
        fault_set(&c->why, ERR_NOT_FOUND, "", "image %d of this job is missing from the store",
                  c->picture);
    else if (!(c->image = copy_bytes(q, 0, 0, 0)))
        no_memory(c);
}

// ---- watching -----------------------------------------------------------------------------------

// [{"id", "picture", "seen"}, ...]; previews: only the jobs whose previews are watched.
static char *watched_list(const struct store_call *c, bool previews)
{
    struct buf b = {0};
    const char *comma = "";
    buf_puts(&b, "[");
    for (int i = 0; i < c->n_watched; i++) {
        const struct store_watched *w = &c->watched[i];
        for (int k = 0; k < (previews ? JOB_MAX_PICTURES : 1) && (w->previews || !previews); k++) {
            buf_printf(&b, "%s{\"id\":", comma);
            text_json(&b, w->id);
            buf_printf(&b, ",\"picture\":%d,\"seen\":%d}", k, w->seen[k]);
            comma = ",";
        }
    }
    buf_puts(&b, "]");
    return buf_take(&b);
}

static void add_watched(const struct store_call *c, struct pg_call *q, bool previews)
{
    char *list = watched_list(c, previews);
    q->failed |= !list;
    pg_text(q, list);
    free(list);
}

#define WATCHED "json_to_recordset($1::json) AS w (id text, picture int, seen int)"

// Renews what ends on its own only now and then: that clients wait for a job, and the wish for
// previews.
#define WANTED                                                                                     \
    "UPDATE imagend.job SET wanted_until = clock_timestamp() + $2::int * interval '1 ms'"          \
    " WHERE id IN (SELECT w.id FROM " WATCHED ") AND " POSTGRES_UNFINISHED                         \
    " AND wanted_until < clock_timestamp() + $2::int * interval '0.6 ms'"

enum { PREVIEWS = 3 }; // its statement

static void ask_previews(const struct store_call *c, struct pg_call *q)
{
    pg_query(q,
             "UPDATE imagend.job j SET previews_until = clock_timestamp() + interval '10 s'"
             " FROM (SELECT DISTINCT w.id FROM " WATCHED ") AS v WHERE j.id = v.id"
             " AND j." POSTGRES_UNFINISHED " AND (j.previews_until IS NULL"
             " OR j.previews_until < clock_timestamp() + interval '5 s')",
             false);
    add_watched(c, q, true);
    pg_query(q,
             "SELECT p.job, p.picture, p.number, p.width, p.height, p.bytes"
             " FROM imagend.preview p JOIN " WATCHED
             " ON p.job = w.id AND p.picture = w.picture AND p.number <> w.seen",
             true);
    add_watched(c, q, true);
}

void postgres_ask_watch(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    bool previews = false, leaves = false;
    pg_query(q,
             "SELECT " POSTGRES_COLUMNS " FROM imagend.job WHERE id IN (SELECT w.id FROM " WATCHED
             ")",
             false);
    add_watched(c, q, false);
    pg_query(q, POSITIONS "ARRAY(SELECT w.id FROM " WATCHED "))", false);
    add_watched(c, q, false);
    for (int i = 0; i < c->n_watched; i++) {
        previews |= c->watched[i].previews;
        leaves |= c->watched[i].leaves;
    }
    if (previews)
        ask_previews(c, q);
    if (leaves) { // last, as nothing comes back
        pg_query(q, WANTED, false);
        add_watched(c, q, false);
        pg_int(q, STORE_LEASE_MS);
    }
}

static struct store_watched *find_watched(struct store_call *c, const char *id)
{
    for (int i = 0; i < c->n_watched; i++)
        if (!strcmp(c->watched[i].id, id))
            return &c->watched[i];
    return NULL;
}

static int binary_int(const struct pg_call *q, int statement, int row, int column)
{
    uint32_t v;
    memcpy(&v, pg_get(q, statement, row, column), sizeof v);
    return (int)ntohl(v);
}

static void take_preview(struct store_call *c, const struct pg_call *q, int row)
{
    const struct store_watched *w = find_watched(c, pg_get(q, PREVIEWS, row, 0));
    const int picture = binary_int(q, PREVIEWS, row, 1);
    if (!w || !w->now || picture < 0 || picture >= w->now->spec.n)
        return;
    struct job_picture *p = &w->now->picture[picture];
    blob_unref(&p->latest);
    p->latest = copy_bytes(q, PREVIEWS, row, 5);
    p->previews = binary_int(q, PREVIEWS, row, 2);
    p->preview =
        (struct check_size){binary_int(q, PREVIEWS, row, 3), binary_int(q, PREVIEWS, row, 4)};
}

void postgres_take_watch(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    for (int i = 0; i < pg_rows(q, 0); i++) {
        struct store_watched *w = find_watched(c, pg_get(q, 0, i, COL_ID));
        struct fault why = {0};
        struct job *j = w && !w->now ? postgres_read_job(s, q, 0, i, &why) : NULL;
        if (why.code == ERR_NO_MEMORY)
            c->why = why;
        if (!j)
            continue;
        take_positions(q, 1, j);
        w->now = j;
    }
    for (int i = 0; q->result[PREVIEWS] && i < pg_rows(q, PREVIEWS); i++)
        take_preview(c, q, i);
}
