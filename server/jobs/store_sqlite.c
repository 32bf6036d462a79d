// The durable store: rows in SQLite (WAL), images in separate files. Runs on its own thread, calls
// that arrive together in one transaction; an image is on disk before its row refers to it. The
// database is locked for this process, so no other process can delay a write.
#include "store_sqlite_impl.h"

#include "buf.h"
#include "log.h"
#include "store_files.h"
#include "store_recent.h"
#include "store_thread.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool fold_log(struct store_sqlite *q)
{
    return !sqlite3_wal_checkpoint_v2(q->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
}

// Runs a statement that writes. On a full disk the write-ahead log, which contains a page once per
// write, is merged into the database, and the statement is tried once more. If that was in vain,
// the next statement first merges the log: a failing write would use the space that removing an
// image has just freed.
static int write_row(struct store_sqlite *q, sqlite3_stmt *st)
{
    int rc = SQLITE_FULL;
    for (int i = 0; i < 2 && rc == SQLITE_FULL; i++) {
        if (q->full && !fold_log(q)) // impossible within a transaction
            break;
        rc = sqlite3_step(st);
        sqlite3_reset(st);
        q->full = rc == SQLITE_FULL;
    }
    sqlite3_clear_bindings(st);
    return rc;
}

static void bind_text(sqlite3_stmt *st, int i, const char *s)
{
    sqlite3_bind_text(st, i, s, -1, SQLITE_STATIC);
}

// Binds the columns that change, from parameter 2 on.
static void bind_changes(sqlite3_stmt *st, const struct job *j, const struct store_texts *t)
{
    bind_text(st, 2, job_state_name(j->state));
    bind_text(st, 3, t->used);
    bind_text(st, 4, t->images);
    sqlite3_bind_int64(st, 5, j->started);
    sqlite3_bind_int64(st, 6, j->finished);
    sqlite3_bind_int64(st, 7, j->expires);
    sqlite3_bind_int(st, 8, j->fault.code);
    bind_text(st, 9, j->fault.msg);
    sqlite3_bind_int(st, 10, j->webhook_tries);
    sqlite3_bind_int64(st, 11, j->webhook_next);
}

static void lost(struct store_sqlite *q, struct store_call *c, const char *what)
{
    sqlite_fault(q->db, what, &c->why);
}

static void log_skipped(const char *id, const char *why)
{
    struct buf name = {0};
    text_json(&name, id);
    log_msg(LOG_ERROR, "store", "skipped the damaged job %s: %s", name.data ? name.data : "", why);
    buf_deinit(&name);
}

// Adds the jobs that a query finds. Skips damaged rows, which were reported when the store was
// opened and stay for manual recovery.
static void read_rows(struct store_sqlite *q, sqlite3_stmt *st, struct store_call *c)
{
    struct fault why;
    struct job *j;
    int rc = SQLITE_ROW;
    while (!c->why.code && (rc = sqlite3_step(st)) == SQLITE_ROW) {
        const enum err err = sqlite_read_row(q, st, &j, &why);
        if (!err)
            store_call_add(c, j);
        else if (err == ERR_NO_MEMORY)
            c->why = why;
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        lost(q, c, "cannot read the jobs");
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
}

// ---- the calls ----------------------------------------------------------------------------------

static void sqlite_claim(struct store_sqlite *q, struct store_call *c)
{
    c->jobs = q->claim;
    c->n = q->claims;
    for (int i = 0; i < c->n; i++)
        c->jobs[i]->lease = 1;
    q->claim = NULL;
    q->claims = 0;
}

// Every job is leased when it is accepted or claimed, and stays so.
static void sqlite_nothing(struct store_sqlite *q, struct store_call *c) {}

static void find_key(struct store_sqlite *q, struct store_call *c, const char *owner,
                     const char *key)
{
    bind_text(q->st[SQL_BY_KEY], 1, owner);
    bind_text(q->st[SQL_BY_KEY], 2, key);
    read_rows(q, q->st[SQL_BY_KEY], c);
}

static int insert(struct store_sqlite *q, struct job *j, const struct store_texts *t)
{
    sqlite3_stmt *st = q->st[SQL_INSERT];
    bind_text(st, 1, j->id);
    bind_changes(st, j, t);
    bind_text(st, 12, j->token);
    bind_text(st, 13, t->spec);
    sqlite3_bind_int64(st, 14, j->created);
    bind_text(st, 15, j->spec.owner);
    bind_text(st, 16, j->spec.idempotency_key);
    sqlite3_bind_int64(st, 17, j->seq);
    return write_row(q, st);
}

static void sqlite_accept(struct store_sqlite *q, struct store_call *c)
{
    const struct job_spec *s = &c->job->spec;
    struct store_texts t = {0};
    c->job->seq = q->seq + 1;
    int rc = store_texts_make(&t, c->job) ? insert(q, c->job, &t) : SQLITE_NOMEM;
    if (rc == SQLITE_CONSTRAINT && s->idempotency_key) {
        find_key(q, c, s->owner, s->idempotency_key);
        if (!c->n && !c->why.code) { // the row with the key is damaged
            bind_text(q->st[SQL_DROP_KEY], 1, s->owner);
            bind_text(q->st[SQL_DROP_KEY], 2, s->idempotency_key);
            write_row(q, q->st[SQL_DROP_KEY]);
            rc = insert(q, c->job, &t);
        }
    }
    store_texts_deinit(&t);
    if (rc == SQLITE_DONE) {
        c->job->lease = 1;
        q->seq++;
        q->stats.jobs++;
    } else if (!c->n && !c->why.code) {
        lost(q, c, "cannot store the job");
    }
}

static void sqlite_update(struct store_sqlite *q, struct store_call *c)
{
    sqlite3_stmt *st = q->st[SQL_UPDATE];
    struct store_texts t = {0};
    int rc = SQLITE_NOMEM;
    if (store_texts_change(&t, c->job)) {
        bind_text(st, 1, c->job->id);
        bind_changes(st, c->job, &t);
        rc = write_row(q, st);
    }
    store_texts_deinit(&t);
    if (rc != SQLITE_DONE)
        lost(q, c, "cannot store the job");
    else if (c->op != STORE_NOTE && job_ended(c->job) && !c->again)
        q->stats.ended += sqlite3_changes(q->db);
}

// Writes an image, unless that was done on another thread; once more when the log has been merged,
// which may have filled the disk.
static bool write_image(struct store_sqlite *q, struct store_call *c, const char *path)
{
    if (c->written || !store_file_write(path, c->image, &c->why))
        return true;
    if (!fold_log(q) || store_file_write(path, c->image, &c->why))
        return false;
    c->why = (struct fault){0};
    return true;
}

static void sqlite_drawn(struct store_sqlite *q, struct store_call *c)
{
    char *path = sqlite_image_path(q, c->id, c->picture, c->job->spec.format);
    if (!path)
        fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    else if (write_image(q, c, path))
        sqlite_update(q, c);
    free(path);
    if (c->why.code)
        return;
    sqlite_replaced(q, c->id, c->picture);
    q->stats.bytes += c->image->size;
}

static void sqlite_find(struct store_sqlite *q, struct store_call *c)
{
    if (c->key) {
        find_key(q, c, c->owner, c->key);
        return;
    }
    bind_text(q->st[SQL_BY_ID], 1, c->id);
    read_rows(q, q->st[SQL_BY_ID], c);
}

static void sqlite_watch(struct store_sqlite *q, struct store_call *c)
{
    for (int i = 0; i < c->n_watched && !c->why.code; i++) {
        struct store_call found = {0};
        bind_text(q->st[SQL_BY_ID], 1, c->watched[i].id);
        read_rows(q, q->st[SQL_BY_ID], &found);
        c->watched[i].now = found.n ? found.jobs[0] : NULL;
        free(found.jobs);
        c->why = found.why;
    }
}

static void sqlite_list(struct store_sqlite *q, struct store_call *c)
{
    sqlite3_stmt *st = q->st[SQL_PAGE];
    const char *state = c->page.state == STORE_UNFINISHED ? "unfinished"
                        : c->page.state < 0               ? ""
                                            : job_state_name((enum job_state)c->page.state);
    bind_text(st, 1, c->owner);
    bind_text(st, 2, state);
    sqlite3_bind_int64(st, 3, c->page.created);
    sqlite3_bind_int64(st, 4, c->page.seq);
    sqlite3_bind_int(st, 5, c->page.limit);
    read_rows(q, st, c);
}

static void sqlite_image(struct store_sqlite *q, struct store_call *c)
{
    char *path = sqlite_image_path(q, c->id, c->picture, c->format);
    enum err err = path ? store_file_read(path, &c->image, &c->why)
                        : fault_set(&c->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    if (err == ERR_NOT_FOUND) {
        log_msg(LOG_ERROR, "store", "%s", c->why.msg);
        fault_set(&c->why, err, "", "the file of image %d of this job is missing from the store",
                  c->picture);
    }
    free(path);
}

static void remove_job(struct store_sqlite *q, struct store_call *c, const struct job *j)
{
    for (int i = 0; i < j->spec.n; i++) {
        char *path = sqlite_image_path(q, j->id, i, j->spec.format);
        if (path)
            unlink(path);
        free(path);
    }
    bind_text(q->st[SQL_DELETE], 1, j->id);
    if (write_row(q, q->st[SQL_DELETE]) != SQLITE_DONE) {
        lost(q, c, "cannot remove the job");
        return;
    }
    q->stats.jobs--;
    q->stats.ended -= job_ended(j);
    q->stats.bytes -= job_bytes(j);
}

static void sqlite_remove(struct store_sqlite *q, struct store_call *c)
{
    sqlite_find(q, c);
    if (c->n)
        remove_job(q, c, c->jobs[0]);
}

// Finds the oldest jobs to remove until the others are within the limits.
static void read_surplus(struct store_sqlite *q, struct store_call *c)
{
    sqlite3_stmt *st = q->st[SQL_OLDEST];
    int ended = q->stats.ended - c->n;
    size_t bytes = q->stats.bytes;
    struct fault why;
    struct job *j;
    for (int i = 0; i < c->n; i++)
        bytes -= job_bytes(c->jobs[i]);
    sqlite3_bind_int(st, 1, c->keep.webhooks);
    sqlite3_bind_int64(st, 2, c->keep.now);
    while ((ended > c->keep.jobs || bytes > c->keep.bytes) && !c->why.code &&
           sqlite3_step(st) == SQLITE_ROW) {
        if (sqlite_read_row(q, st, &j, &why))
            continue;
        ended--;
        bytes -= job_bytes(j);
        store_call_add(c, j);
    }
    sqlite3_reset(st);
    sqlite3_clear_bindings(st);
}

static void sqlite_expire(struct store_sqlite *q, struct store_call *c)
{
    sqlite3_stmt *st = q->st[SQL_EXPIRED];
    sqlite3_bind_int(st, 1, c->keep.webhooks);
    sqlite3_bind_int64(st, 2, c->keep.now);
    read_rows(q, st, c);
    if (q->stats.ended > c->keep.jobs || q->stats.bytes > c->keep.bytes)
        read_surplus(q, c);
    for (int i = 0; i < c->n && !c->why.code; i++)
        remove_job(q, c, c->jobs[i]);
}

// ---- transactions -------------------------------------------------------------------------------

typedef void run_fn(struct store_sqlite *q, struct store_call *c);

static void run_call(struct store_sqlite *q, struct store_call *c)
{
    static run_fn *const run[STORE_OPS] = {
        [STORE_ACCEPT] = sqlite_accept, [STORE_CLAIM] = sqlite_claim,
        [STORE_BEAT] = sqlite_nothing,  [STORE_RELEASE] = sqlite_nothing,
        [STORE_DRAWN] = sqlite_drawn,   [STORE_FINISH] = sqlite_update,
        [STORE_NOTE] = sqlite_update,   [STORE_CANCEL] = sqlite_find,
        [STORE_WATCH] = sqlite_watch,   [STORE_FIND] = sqlite_find,
        [STORE_LIST] = sqlite_list,     [STORE_IMAGE] = sqlite_image,
        [STORE_REMOVE] = sqlite_remove, [STORE_EXPIRE] = sqlite_expire,
    };
    run[c->op](q, c);
    c->stats = q->stats;
}

// Whether a call only reads; its errors concern nobody else.
static bool only_reads(const struct store_call *c)
{
    return c->op == STORE_FIND || c->op == STORE_LIST || c->op == STORE_IMAGE ||
           c->op == STORE_WATCH || c->op == STORE_CANCEL;
}

static bool run_calls(struct store_sqlite *q, struct store_call *c)
{
    bool ok = true;
    for (; c && ok; c = c->next) {
        run_call(q, c);
        ok = only_reads(c) || !c->why.code;
    }
    return ok;
}

// Takes back the result of a call, which is to run again.
static void undo_call(struct store_sqlite *q, struct store_call *c)
{
    if (c->op == STORE_CLAIM && c->jobs) {
        q->claim = c->jobs;
        q->claims = c->n;
    } else {
        for (int i = 0; i < c->n; i++)
            job_free(&c->jobs[i]);
        free(c->jobs);
    }
    for (int i = 0; i < c->n_watched; i++)
        job_free(&c->watched[i].now);
    c->jobs = NULL;
    c->n = 0;
    c->why = (struct fault){0};
    if (c->op == STORE_IMAGE)
        blob_unref(&c->image);
}

// Runs calls in one transaction, which costs much less than one for each. False: one of them
// failed, and none has had an effect.
static bool run_together(struct store_sqlite *q, struct store_call *first)
{
    const struct store_stats stats = q->stats;
    const int64_t seq = q->seq;
    if (q->full || write_row(q, q->st[SQL_BEGIN]) != SQLITE_DONE)
        return false;
    if (run_calls(q, first) && write_row(q, q->st[SQL_COMMIT]) == SQLITE_DONE)
        return true;
    if (!sqlite3_get_autocommit(q->db)) // it may have ended by itself
        sqlite3_exec(q->db, "ROLLBACK", NULL, NULL, NULL);
    q->stats = stats;
    q->seq = seq;
    for (struct store_call *c = first; c; c = c->next)
        undo_call(q, c);
    return false;
}

static void sqlite_run(struct store *s, struct store_call *first)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    if (first->next && run_together(q, first))
        return;
    for (struct store_call *c = first; c; c = c->next)
        run_call(q, c);
}

static void sqlite_call(struct store *s, struct store_call *c)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    if (!store_recent_find(q->recent, c)) {
        store_thread_post(q->thread, c);
        return;
    }
    c->stats = q->answered;
    c->done(c);
}

static void sqlite_answered(struct store *s, struct store_call *c)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    q->answered = c->stats;
    store_recent_learn(q->recent, c);
}

// ---- images ahead of their calls ----------------------------------------------------------------

// Creating a file takes longer than writing a row, and the store has one thread.
static bool sqlite_write_image(struct store *s, const struct job *j, int picture,
                               const struct blob *image)
{
    struct fault why; // the call may find room, or says what is wrong
    char *path = sqlite_image_path((struct store_sqlite *)s, j->id, picture, j->spec.format);
    const bool written = path && !store_file_fill(path, image, &why);
    free(path);
    return written;
}

static void sqlite_drop_image(struct store *s, const struct job *j, int picture)
{
    char *path = sqlite_image_path((struct store_sqlite *)s, j->id, picture, j->spec.format);
    if (path)
        unlink(path);
    free(path);
}

// ---- input images -------------------------------------------------------------------------------

static const char *dir_of(struct store *s)
{
    return ((struct store_sqlite *)s)->dir;
}

static enum err sqlite_put_file(struct store *s, const char *name, const struct blob *file,
                                struct fault *why)
{
    return store_input_put(dir_of(s), name, file, why);
}

static enum err sqlite_get_file(struct store *s, const char *name, struct blob **out,
                                struct fault *why)
{
    return store_input_get(dir_of(s), name, out, why);
}

static void sqlite_remove_file(struct store *s, const char *name)
{
    store_input_remove(dir_of(s), name);
}

static size_t sqlite_file_size(struct store *s, const char *name)
{
    return store_input_size(dir_of(s), name);
}

static void sqlite_sweep_files(struct store *s, bool (*wanted)(void *ctx, const char *name),
                               void *ctx)
{
    store_input_sweep(dir_of(s), wanted, ctx);
}

// ---- opening ------------------------------------------------------------------------------------

static void sqlite_free(struct store_sqlite *q)
{
    if (!q)
        return;
    for (int i = 0; i < SQL_STATEMENTS; i++)
        sqlite3_finalize(q->st[i]);
    sqlite3_close(q->db);
    for (int i = 0; i < q->claims; i++)
        job_free(&q->claim[i]);
    free(q->claim);
    sqlite_damaged_free(q);
    store_recent_destroy(&q->recent);
    free(q->dir);
    free(q);
}

static void sqlite_on_closed(void *ctx)
{
    struct store_sqlite *q = ctx;
    void (*closed)(void *ctx) = q->closed;
    void *closed_ctx = q->ctx;
    sqlite_free(q);
    if (closed)
        closed(closed_ctx);
}

static void sqlite_close(struct store *s, void (*closed)(void *ctx), void *ctx)
{
    struct store_sqlite *q = (struct store_sqlite *)s;
    q->closed = closed;
    q->ctx = ctx;
    store_thread_close(q->thread, sqlite_on_closed, q);
}

static const struct store_ops sqlite_ops = {
    .name = "sqlite",
    .call = sqlite_call,
    .close = sqlite_close,
    .write_image = sqlite_write_image,
    .drop_image = sqlite_drop_image,
    .put_file = sqlite_put_file,
    .get_file = sqlite_get_file,
    .remove_file = sqlite_remove_file,
    .file_size = sqlite_file_size,
    .sweep_files = sqlite_sweep_files,
};

// Handles a job found when opening the store: checks it, counts it, and keeps it for STORE_CLAIM if
// something is left to do. A job whose client was waiting is abandoned.
static void take_stock(struct store_sqlite *q, struct store_call *c, struct job *j)
{
    sqlite_check_images(q, j);
    q->stats.jobs++;
    q->stats.ended += job_ended(j);
    q->stats.bytes += job_bytes(j);
    q->seq = j->seq > q->seq ? j->seq : q->seq;
    if (!job_ended(j) && !j->spec.durable) {
        remove_job(q, c, j);
        job_free(&j);
    } else if (!job_ended(j) || j->webhook_next || j->spec.input.image) {
        store_call_add(c, j);
    } else {
        job_free(&j);
    }
}

// A damaged row affects only its own job. Its files stay for manual recovery.
static enum err read_stock(struct store_sqlite *q, struct fault *why)
{
    sqlite3_stmt *st = q->st[SQL_ALL];
    struct store_call found = {0};
    int rc;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW && !found.why.code) {
        struct job *j;
        const enum err err = sqlite_read_row(q, st, &j, why);
        if (!err)
            take_stock(q, &found, j);
        else if (err == ERR_NO_MEMORY)
            found.why = *why;
        else
            log_skipped(sqlite_text(st, 0), why->msg);
    }
    if (rc != SQLITE_ROW && rc != SQLITE_DONE)
        lost(q, &found, "cannot read the jobs");
    sqlite3_reset(st);
    q->claim = found.jobs;
    q->claims = found.n;
    *why = found.why;
    return why->code;
}

enum err store_sqlite_open(const char *dir, struct uv_loop_s *loop, struct store **out,
                           struct fault *why)
{
    struct store_sqlite *q = calloc(1, sizeof *q);
    enum err err = ERR_NO_MEMORY;
    *out = NULL;
    if (!q || !(q->dir = strdup(dir)) || !(q->recent = store_recent_create()))
        fault_set(why, err, "", "%s", err_text(err));
    else
        err = sqlite_open_database(q, why);
    if (!err)
        err = read_stock(q, why);
    if (!err)
        err = store_thread_create(
            &(struct store_thread_params){loop, &q->store, sqlite_run, sqlite_answered}, &q->thread,
            why);
    if (err) {
        sqlite_free(q);
        return err;
    }
    q->store.ops = &sqlite_ops;
    *out = &q->store;
    return ERR_OK;
}
