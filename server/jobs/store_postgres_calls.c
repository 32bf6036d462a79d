// The calls of the PostgreSQL store: their statements and results. Each call is one transaction
// that may be repeated, see pg.h. store_postgres_read.c has those that find, list and watch. Loop
// thread.
#include "store_postgres_impl.h"

#include "buf.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

// Adds the statement that counts what waits and runs, and takes its result, as part of a call that
// changes it: the next request must not be refused by an older count.
static void ask_load(struct pg_call *q)
{
    pg_query(q,
             "SELECT coalesce(sum(queued + backlog), 0), coalesce(sum(running - backlog), 0)"
             " FROM imagend.load",
             false);
}

static void take_load(struct store_postgres *s, const struct pg_call *q, int statement)
{
    s->stats.queued = (int)pg_get_int(q, statement, 0, 0);
    s->stats.running = (int)pg_get_int(q, statement, 0, 1);
}

// ---- counting -----------------------------------------------------------------------------------

// Whether it can be read when it has ended; others are not counted then.
static bool is_kept(const struct job *j)
{
    return j->spec.keep || j->spec.durable || j->spec.idempotency_key;
}

static void count_less(struct store_postgres *s, const struct job *j)
{
    const size_t bytes = job_bytes(j);
    s->stats.jobs -= s->stats.jobs > 0;
    s->stats.bytes -= bytes < s->stats.bytes ? bytes : s->stats.bytes;
}

static void count_ended(struct store_postgres *s, const struct job *j)
{
    if (is_kept(j))
        s->stats.ended++;
    else
        count_less(s, j);
}

static void count_removed(struct store_postgres *s, struct job *const *jobs, int n)
{
    for (int i = 0; i < n; i++) {
        if (job_ended(jobs[i]) && !is_kept(jobs[i]))
            continue;
        count_less(s, jobs[i]);
        s->stats.ended -= job_ended(jobs[i]) && s->stats.ended > 0;
    }
}

// ---- accepting ----------------------------------------------------------------------------------

// A list of models as an array.
#define MODELS(value) "ARRAY(SELECT json_array_elements_text($" #value "::json))"

static void add_models(const struct store_call *c, struct pg_call *q)
{
    pg_text(q, c->models ? c->models : "[\"\"]");
}

static int images_waiting(const struct job *j)
{
    int n = 0;
    for (int i = 0; i < j->spec.n && !job_ended(j); i++)
        n += !j->picture[i].bytes;
    return n;
}

static void ask_accept(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    const struct job *j = c->job;
    const struct job_spec *spec = &j->spec;
    struct store_texts t = {0};
    if (!store_texts_make(&t, j))
        q->failed = true;
    q->expected = "IMG"; // a full queue
    pg_query(q, "SELECT imagend.check_room($1, $2, $3, $4, $5, $6)", false);
    pg_text(q, j->id);
    pg_text(q, spec->owner);
    pg_text(q, spec->idempotency_key);
    pg_int(q, spec->n);
    pg_int(q, c->quota.queued);
    pg_int(q, c->quota.queued_per_owner);
    pg_query(q,
             "INSERT INTO imagend.job (id, token, state, spec, used, images, created, started,"
             " finished, expires, fault, message, webhook_tries, webhook_next, owner,"
             " idempotency_key, priority, deadline, input_image, input_mask, waiting, brief,"
             " wanted_until, model, span)"
             " SELECT $1, $2, 'queued', $3, $4, $5, $6, 0, 0, 0, 0, '', 0, 0, $7, $8, $9, $10, $11,"
             " $12, $13, $14, clock_timestamp() + $15::int * interval '1 ms', $16, max(span)"
             " FROM imagend.span ON CONFLICT DO NOTHING",
             false);
    pg_text(q, j->id);
    pg_text(q, j->token);
    pg_text(q, t.spec);
    pg_text(q, t.used);
    pg_text(q, t.images);
    pg_int(q, j->created);
    pg_text(q, spec->owner);
    pg_text(q, spec->idempotency_key);
    pg_int(q, spec->priority);
    pg_int(q, spec->deadline);
    pg_text(q, spec->input.image);
    pg_text(q, spec->input.mask);
    pg_int(q, images_waiting(j));
    pg_text(q, is_kept(j) ? "false" : "true");
    if (spec->durable || spec->idempotency_key)
        pg_text(q, NULL);
    else
        pg_int(q, STORE_LEASE_MS);
    pg_text(q, spec->model ? spec->model : "");
    pg_query(q, "SELECT imagend.start($1, $2, $3, $4, $5, " MODELS(6) ")", false);
    pg_text(q, j->id);
    pg_text(q, s->replica);
    pg_int(q, c->room);
    pg_int(q, c->quota.running_per_owner);
    pg_int(q, STORE_LEASE_MS);
    add_models(c, q);
    pg_query(q,
             "SELECT " POSTGRES_COLUMNS " FROM imagend.job WHERE id = $1"
             " OR (owner = $2 AND idempotency_key = $3)",
             false);
    pg_text(q, j->id);
    pg_text(q, spec->owner);
    pg_text(q, spec->idempotency_key);
    store_texts_deinit(&t);
    ask_load(q);
}

// The row is the new job, also if an earlier try was committed, or another one with its key.
static void take_accept(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    struct fault why = {0};
    take_load(s, q, 4);
    struct job *j = pg_rows(q, 3) ? postgres_read_job(s, q, 3, 0, &why) : NULL;
    if (!j) {
        if (!why.code)
            fault_set(&why, ERR_IO, "store", "the database has not stored the job");
        c->why = why;
    } else if (strcmp(j->id, c->job->id)) {
        store_call_add(c, j);
    } else {
        c->job->seq = j->seq;
        c->job->lease = j->lease;
        c->job->claims = j->claims;
        s->stats.jobs++;
        job_free(&j);
    }
}

// ---- leases -------------------------------------------------------------------------------------

static void ask_claim(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(
        q, "SELECT " POSTGRES_COLUMNS " FROM imagend.claim($1, $2, $3, $4, $5, $6, " MODELS(7) ")",
        false);
    pg_text(q, s->replica);
    pg_int(q, c->room);
    pg_int(q, c->quota.running_per_owner);
    pg_text(q, c->keep.webhooks ? "true" : "false");
    pg_int(q, STORE_LEASE_MS);
    pg_int(q, JOB_MAX_CLAIMS);
    add_models(c, q);
    ask_load(q);
}

static void take_claim(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    postgres_take_jobs(s, c, q, 0);
    take_load(s, q, 1);
}

// [{"id", "token", "wanted", "backlog", "started", "progress"}, ...]
static char *lease_list(const struct store_call *c)
{
    struct buf b = {0};
    buf_puts(&b, "[");
    for (int i = 0; i < c->n_lease; i++) {
        const struct store_lease *l = &c->lease[i];
        char *progress = l->progress ? postgres_progress(l->progress) : NULL;
        b.failed |= l->progress && !progress;
        buf_printf(&b, "%s{\"id\":", i ? "," : "");
        text_json(&b, l->id);
        buf_printf(&b,
                   ",\"token\":%lld,\"wanted\":%s,\"backlog\":%d,\"started\":%lld,\"progress\":",
                   (long long)l->token, l->wanted ? "true" : "false", l->backlog,
                   l->progress ? (long long)l->progress->started : 0);
        text_json(&b, progress);
        buf_puts(&b, "}");
        free(progress);
    }
    buf_puts(&b, "]");
    return buf_take(&b);
}

static void add_leases(const struct store_call *c, struct pg_call *q)
{
    char *list = lease_list(c);
    q->failed |= !list;
    pg_text(q, list);
    free(list);
}

static void on_preview_stored(struct pg_call *q)
{
    pg_call_free(q); // it may be lost
}

static void send_preview(struct store_postgres *s, const struct store_lease *l, int picture)
{
    const struct job_picture *p = &l->progress->picture[picture];
    struct pg_call *q = pg_call_create(on_preview_stored, NULL);
    if (!q)
        return;
    pg_query(q,
             "INSERT INTO imagend.preview AS p (job, picture, number, width, height, bytes)"
             " SELECT id, $3, $4, $5, $6, $7 FROM imagend.job WHERE id = $1 AND lease = $2"
             " ON CONFLICT (job, picture) DO UPDATE SET number = EXCLUDED.number,"
             " width = EXCLUDED.width, height = EXCLUDED.height, bytes = EXCLUDED.bytes",
             false);
    pg_text(q, l->id);
    pg_int(q, l->token);
    pg_int(q, picture);
    pg_int(q, p->previews);
    pg_int(q, p->preview.width);
    pg_int(q, p->preview.height);
    pg_blob(q, p->latest);
    pg_send(s->pg, q);
}

static void ask_beat(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    for (int i = 0; i < c->n_lease; i++)
        for (int k = 0; c->lease[i].progress && k < c->lease[i].progress->spec.n; k++)
            if (c->lease[i].progress->picture[k].latest)
                send_preview(s, &c->lease[i], k);
    pg_query(q,
             "UPDATE imagend.job j SET lease_until = clock_timestamp() + $2::int * interval '1 ms',"
             " state = CASE WHEN j.state = 'queued' THEN 'running' ELSE j.state END,"
             " started = CASE WHEN b.started > 0 THEN b.started ELSE j.started END,"
             " progress = coalesce(b.progress, j.progress), wanted_until = CASE WHEN b.wanted"
             " AND j.wanted_until IS NOT NULL THEN clock_timestamp() + $2::int * interval '1 ms'"
             " ELSE j.wanted_until END, backlog = b.backlog"
             " FROM json_to_recordset($1::json)"
             " AS b (id text, token bigint, wanted boolean, backlog int, started bigint,"
             " progress text)"
             " WHERE j.id = b.id AND j.lease = b.token"
             " AND (j.lease_until IS NOT NULL OR j.state = 'queued')"
             " RETURNING j.id, j.cancel OR coalesce(j.wanted_until < clock_timestamp()"
             " AND imagend.up_ms() > $2::int, false),"
             " coalesce(j.previews_until > clock_timestamp(), false)",
             false);
    add_leases(c, q);
    pg_int(q, STORE_LEASE_MS);
    ask_load(q);
}

static void take_beat(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    take_load(s, q, 1);
    for (int i = 0; i < c->n_lease; i++) {
        struct store_lease *l = &c->lease[i];
        l->lost = true;
        for (int row = 0; row < pg_rows(q, 0) && l->lost; row++) {
            if (strcmp(pg_get(q, 0, row, 0), l->id))
                continue;
            l->lost = false;
            l->cancel = *pg_get(q, 0, row, 1) == 't';
            l->previews = *pg_get(q, 0, row, 2) == 't';
        }
    }
}

static void ask_release(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q,
             "UPDATE imagend.job j SET lease = 0, lease_until = NULL, replica = '', progress = '',"
             " state = CASE WHEN j.state = 'running' THEN 'queued' ELSE j.state END,"
             " claims = j.claims - CASE WHEN j.state = 'running' THEN 1 ELSE 0 END"
             " FROM json_to_recordset($1::json) AS b (id text, token bigint)"
             " WHERE j.id = b.id AND j.lease = b.token",
             false);
    add_leases(c, q);
}

// ---- what changes -------------------------------------------------------------------------------

// $1: id, $2: lease, then the values of add_changes. The lease decides whether a job runs.
#define CHANGES                                                                                    \
    "UPDATE imagend.job j SET state = CASE WHEN $3::text IN ('done', 'failed', 'cancelled')"       \
    " THEN $3::text ELSE j.state END, used = $4, images = $5, started = $6, finished = $7,"        \
    " expires = $8, fault = $9, message = $10, webhook_tries = $11, webhook_next = $12::bigint,"   \
    " waiting = $13, bytes = $14, lease_until = CASE WHEN $3::text IN ('done', 'failed',"          \
    " 'cancelled') AND $12::bigint = 0 THEN NULL ELSE j.lease_until END,"                          \
    " progress = CASE WHEN $3::text IN ('done', 'failed', 'cancelled') THEN '' ELSE j.progress "   \
    "END"

static void add_changes(struct store_postgres *s, const struct job *j, struct pg_call *q)
{
    struct store_texts t = {0};
    q->failed |= !store_texts_change(&t, j);
    pg_text(q, j->id);
    pg_int(q, j->lease);
    pg_text(q, job_state_name(j->state));
    pg_text(q, t.used);
    pg_text(q, t.images);
    pg_int(q, j->started);
    pg_int(q, j->finished);
    pg_int(q, j->expires);
    pg_int(q, j->fault.code);
    pg_text(q, j->fault.msg);
    pg_int(q, j->webhook_tries);
    pg_int(q, j->webhook_next);
    pg_int(q, images_waiting(j));
    pg_int(q, (int64_t)job_bytes(j));
    store_texts_deinit(&t);
    if (job_ended(j) && j->expires > j->finished)
        s->keep_ms = j->expires - j->finished;
}

// The second statement of a change: is the job there, though under another lease?
static void ask_there(const struct store_call *c, struct pg_call *q)
{
    pg_query(q, "SELECT FROM imagend.job WHERE id = $1 AND lease <> $2", false);
    pg_text(q, c->job->id);
    pg_int(q, c->job->lease);
}

static void take_change(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    const bool changed = atoi(PQcmdTuples(q->result[0]));
    if (!changed && pg_rows(q, 1))
        fault_set(&c->why, ERR_STALE, "store", "another replica has the job %s", c->job->id);
    else if (changed && c->op != STORE_NOTE && job_ended(c->job) && !c->again)
        count_ended(s, c->job);
}

static void ask_change(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q, CHANGES " WHERE j.id = $1 AND j.lease = $2", false);
    add_changes(s, c->job, q);
    ask_there(c, q);
}

static void ask_drawn(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    if (c->job->picture[c->picture].object) { // the bytes are elsewhere
        ask_change(s, c, q);
        return;
    }
    pg_query(q,
             "WITH changed AS (" CHANGES " WHERE j.id = $1 AND j.lease = $2 RETURNING span, id)"
             " INSERT INTO imagend.image (span, job, picture, bytes)"
             " SELECT span, id, $15, $16 FROM changed"
             " ON CONFLICT (span, job, picture) DO UPDATE SET bytes = EXCLUDED.bytes",
             false);
    add_changes(s, c->job, q);
    pg_int(q, c->picture);
    pg_blob(q, c->image);
    ask_there(c, q);
}

static void take_drawn(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    take_change(s, c, q);
    if (!c->why.code && (is_kept(c->job) || !job_ended(c->job)))
        s->stats.bytes += c->image->size;
}

static void ask_cancel(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q,
             CHANGES ", lease = nextval('imagend.lease') WHERE j.id = $1 AND j." POSTGRES_UNFINISHED
                     " AND (j.lease_until IS NULL OR j.lease_until < clock_timestamp()"
                     " OR j.lease = $2)",
             false);
    add_changes(s, c->job, q);
    pg_query(q, "UPDATE imagend.job SET cancel = true WHERE id = $1 AND " POSTGRES_UNFINISHED,
             false);
    pg_text(q, c->job->id);
    pg_query(q, "SELECT " POSTGRES_COLUMNS " FROM imagend.job WHERE id = $1", false);
    pg_text(q, c->job->id);
    ask_load(q);
}

static void take_cancel(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    take_load(s, q, 3);
    c->ended = atoi(PQcmdTuples(q->result[0]));
    postgres_take_jobs(s, c, q, 2);
    if (c->ended)
        count_ended(s, c->job);
}

// ---- removing -----------------------------------------------------------------------------------

// Removes jobs with the rows of their images, whose partition stays.
#define REMOVE_BEGIN "WITH gone AS (DELETE FROM imagend.job WHERE "
#define REMOVE_END                                                                                 \
    " RETURNING *), images AS (DELETE FROM imagend.image i USING gone g WHERE i.span = g.span"     \
    " AND i.job = g.id) SELECT " POSTGRES_COLUMNS " FROM gone"                                     \
    " ORDER BY created, seq"

static void ask_remove(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q, REMOVE_BEGIN "id = $1" REMOVE_END, false);
    pg_text(q, c->id);
    ask_load(q);
}

static void take_remove(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    postgres_take_jobs(s, c, q, 0);
    count_removed(s, c->jobs, c->n);
    take_load(s, q, 1);
}

void postgres_ask_stats(struct pg_call *q, bool again)
{
    pg_query(q,
             "SELECT l.queued, l.running, s.jobs, s.ended, s.bytes, s.number, s.fresh"
             " FROM imagend.stats($1) s, (SELECT coalesce(sum(queued + backlog), 0) AS queued,"
             " coalesce(sum(running - backlog), 0) AS running FROM imagend.load) l",
             false);
    pg_text(q, again ? "true" : "false");
}

bool postgres_take_stats(struct store_postgres *s, const struct pg_call *q, int statement)
{
    const int64_t count = pg_get_int(q, statement, 0, 5);
    take_load(s, q, statement);
    if (count == s->count)
        return false; // this process has changed something since then
    s->count = count;
    s->stats.jobs = (int)pg_get_int(q, statement, 0, 2);
    s->stats.ended = (int)pg_get_int(q, statement, 0, 3);
    s->stats.bytes = (size_t)pg_get_int(q, statement, 0, 4);
    s->counted = *pg_get(q, statement, 0, 6) == 't';
    return s->counted;
}

int64_t postgres_span_ms(const struct store_postgres *s)
{
    const int64_t day = 86400000, minute = 60000, quarter = s->keep_ms / 4;
    return quarter < minute ? minute : quarter > day ? day : quarter;
}

// A clock that is fast must not remove what the fleet still keeps. The images of expired jobs go
// with their partition.
static void ask_expire(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q,
             "WITH gone AS (DELETE FROM imagend.job WHERE id IN (SELECT id FROM imagend.job "
             "WHERE " POSTGRES_ENDED " AND expires <= least($2::bigint, (SELECT imagend.now_ms()))"
             " AND (NOT $1::boolean OR webhook_next = 0) LIMIT 500 FOR UPDATE SKIP LOCKED)"
             " RETURNING *) SELECT " POSTGRES_COLUMNS " FROM gone ORDER BY created, seq",
             false);
    pg_text(q, c->keep.webhooks ? "true" : "false");
    pg_int(q, c->keep.now);
    postgres_ask_stats(q, false);
    pg_query(q, "SELECT imagend.tend($1)", false);
    pg_int(q, postgres_span_ms(s));
    if (!s->counted || (s->stats.ended <= c->keep.jobs && s->stats.bytes <= c->keep.bytes))
        return;
    pg_query(q,
             REMOVE_BEGIN
             "id IN (SELECT id FROM (SELECT id, row_number() OVER w AS place,"
             " sum(bytes) OVER w AS total FROM imagend.job WHERE NOT brief AND " POSTGRES_ENDED
             " WINDOW w AS (ORDER BY created DESC, seq DESC)) AS t WHERE place > $2::bigint"
             " OR total > $3::bigint - (SELECT coalesce(sum(bytes), 0) FROM imagend.job "
             "WHERE " POSTGRES_UNFINISHED ")) AND (NOT $1::boolean OR webhook_next = 0)" REMOVE_END,
             false);
    pg_text(q, c->keep.webhooks ? "true" : "false");
    pg_int(q, c->keep.jobs);
    pg_int(q, c->keep.bytes > INT64_MAX ? INT64_MAX : (int64_t)c->keep.bytes);
}

static void take_expire(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    const bool counted = postgres_take_stats(s, q, 1);
    postgres_take_jobs(s, c, q, 0);
    if (!counted)
        count_removed(s, c->jobs, c->n);
    if (!q->result[3])
        return;
    const int expired = c->n;
    postgres_take_jobs(s, c, q, 3);
    if (c->n > expired)
        count_removed(s, c->jobs + expired, c->n - expired);
}

static void ask_oldest(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q, "SELECT coalesce(min(created), 0) FROM imagend.job", false);
}

static void take_oldest(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    c->oldest = pg_get_int(q, 0, 0, 0);
}

// ---- rates --------------------------------------------------------------------------------------

static void add_number(struct pg_call *q, double v)
{
    char text[40];
    snprintf(text, sizeof text, "%.17g", v);
    pg_text(q, text);
}

static void ask_spend(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    pg_query(q, "SELECT imagend.spend($1, $2, $3)", false);
    pg_text(q, c->owner);
    add_number(q, c->rate.per_second);
    add_number(q, c->rate.burst);
}

static void take_spend(struct store_postgres *s, struct store_call *c, struct pg_call *q)
{
    c->rate.wait = strtod(pg_get(q, 0, 0, 0), NULL);
}

const struct postgres_op postgres_ops[STORE_OPS] = {
    [STORE_ACCEPT] = {ask_accept, take_accept, .changes = true},
    [STORE_CLAIM] = {ask_claim, take_claim},
    [STORE_BEAT] = {ask_beat, take_beat, .changes = true},
    [STORE_RELEASE] = {ask_release, NULL, .changes = true},
    [STORE_DRAWN] = {ask_drawn, take_drawn, .patient = true, .changes = true},
    [STORE_FINISH] = {ask_change, take_change, .patient = true, .changes = true},
    [STORE_NOTE] = {ask_change, take_change, .patient = true},
    [STORE_CANCEL] = {ask_cancel, take_cancel, .changes = true},
    [STORE_WATCH] = {postgres_ask_watch, postgres_take_watch},
    [STORE_FIND] = {postgres_ask_find, postgres_take_found},
    [STORE_LIST] = {postgres_ask_list, postgres_take_found},
    [STORE_IMAGE] = {postgres_ask_image, postgres_take_image},
    [STORE_REMOVE] = {ask_remove, take_remove},
    [STORE_EXPIRE] = {ask_expire, take_expire},
    [STORE_AGE] = {ask_oldest, take_oldest},
    [STORE_SPEND] = {ask_spend, take_spend},
};
