// Input images in PostgreSQL. The thread pool and the workers, which may wait, hand their request
// to the loop thread. The files that this process has just used stay at hand.
#include "store_postgres_impl.h"

#include <stdlib.h>
#include <string.h>

// A request of another thread, on its stack.
struct file_ask {
    struct file_ask *next;
    struct store_postgres *s;
    const char *name;
    const struct blob *put; // NULL: get
    struct blob *got;
    struct fault why;
    uv_sem_t done;
};

// A file at hand.
struct kept_file {
    struct kept_file *older;
    char name[65];
    struct blob *file;
};

struct postgres_files {
    struct store_postgres *s;
    uv_async_t async;
    uv_thread_t loop_thread;
    uv_mutex_t lock; // protects the fields below
    struct file_ask *asked, **last;
    struct kept_file *newest;
    size_t bytes;
};

// ---- files at hand ------------------------------------------------------------------------------

static void drop_oldest(struct postgres_files *f)
{
    struct kept_file **at = &f->newest;
    while (*at && (*at)->older)
        at = &(*at)->older;
    struct kept_file *k = *at;
    if (!k)
        return;
    *at = NULL;
    f->bytes -= k->file->size;
    blob_unref(&k->file);
    free(k);
}

static struct blob *at_hand(struct postgres_files *f, const char *name)
{
    struct blob *file = NULL;
    uv_mutex_lock(&f->lock);
    for (struct kept_file **at = &f->newest; *at && !file; at = &(*at)->older) {
        struct kept_file *k = *at;
        if (strcmp(k->name, name))
            continue;
        file = blob_ref(k->file);
        *at = k->older;
        k->older = f->newest;
        f->newest = k;
        break;
    }
    uv_mutex_unlock(&f->lock);
    return file;
}

static void keep_at_hand(struct postgres_files *f, const char *name, const struct blob *file)
{
    struct blob *old = at_hand(f, name);
    struct kept_file *k = old || file->size > POSTGRES_CACHE ? NULL : calloc(1, sizeof *k);
    blob_unref(&old);
    if (!k)
        return;
    snprintf(k->name, sizeof k->name, "%s", name);
    k->file = blob_ref((struct blob *)(size_t)file);
    uv_mutex_lock(&f->lock);
    k->older = f->newest;
    f->newest = k;
    f->bytes += file->size;
    while (f->bytes > POSTGRES_CACHE)
        drop_oldest(f);
    uv_mutex_unlock(&f->lock);
}

// ---- requests -----------------------------------------------------------------------------------

static void on_answered(struct pg_call *q)
{
    struct file_ask *a = q->ctx;
    a->why = q->why;
    if (!a->why.code && !a->put) {
        const size_t n = pg_rows(q, 0) ? (size_t)PQgetlength(q->result[0], 0, 0) : 0;
        uint8_t *data = n ? malloc(n) : NULL;
        if (data) {
            memcpy(data, PQgetvalue(q->result[0], 0, 0), n);
            a->got = blob_create(data, n);
        }
        if (!n)
            fault_set(&a->why, ERR_NOT_FOUND, "image",
                      "the input image of this job is missing from the store");
        else if (!a->got)
            fault_set(&a->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    pg_call_free(q);
    uv_sem_post(&a->done); // its memory is gone afterwards
}

static void ask_file(struct file_ask *a)
{
    struct pg_call *q = pg_call_create(on_answered, a);
    if (!q) {
        fault_set(&a->why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
        uv_sem_post(&a->done);
        return;
    }
    if (a->put)
        // A file that is there is needed again, so that it must not be cleared away now.
        pg_query(q,
                 "INSERT INTO imagend.input (name, bytes) VALUES ($1, $2)"
                 " ON CONFLICT (name) DO UPDATE SET stored = clock_timestamp()",
                 false);
    else
        pg_query(q, "SELECT bytes FROM imagend.input WHERE name = $1", true);
    pg_text(q, a->name);
    if (a->put)
        pg_blob(q, (struct blob *)(size_t)a->put);
    pg_send(a->s->pg, q);
}

static void on_async(uv_async_t *h)
{
    struct postgres_files *f = h->data;
    uv_mutex_lock(&f->lock);
    struct file_ask *a = f->asked;
    f->asked = NULL;
    f->last = &f->asked;
    uv_mutex_unlock(&f->lock);
    for (struct file_ask *next; a; a = next) {
        next = a->next;
        ask_file(a);
    }
}

static enum err run(struct store_postgres *s, struct file_ask *a, struct fault *why)
{
    struct postgres_files *f = s->files;
    const uv_thread_t self = uv_thread_self();
    a->s = s;
    // The loop must not wait for itself.
    if (uv_thread_equal(&self, &f->loop_thread) || uv_sem_init(&a->done, 0))
        return fault_set(why, ERR_BUSY, "store",
                         "the input image cannot be read now; try again later");
    uv_mutex_lock(&f->lock);
    *f->last = a;
    f->last = &a->next;
    uv_mutex_unlock(&f->lock);
    uv_async_send(&f->async);
    uv_sem_wait(&a->done);
    uv_sem_destroy(&a->done);
    if (a->why.code && why)
        *why = a->why;
    return a->why.code;
}

enum err postgres_put_file(struct store *store, const char *name, const struct blob *file,
                           struct fault *why)
{
    struct store_postgres *s = (struct store_postgres *)store;
    struct file_ask a = {.name = name, .put = file};
    const enum err err = run(s, &a, why);
    if (!err)
        keep_at_hand(s->files, name, file);
    return err;
}

enum err postgres_get_file(struct store *store, const char *name, struct blob **out,
                           struct fault *why)
{
    struct store_postgres *s = (struct store_postgres *)store;
    struct file_ask a = {.name = name};
    *out = at_hand(s->files, name);
    if (*out)
        return ERR_OK;
    const enum err err = run(s, &a, why);
    if (err)
        return err;
    keep_at_hand(s->files, name, a.got);
    *out = a.got;
    return ERR_OK;
}

// ---- opening and closing ------------------------------------------------------------------------

static void on_async_closed(uv_handle_t *h)
{
    struct postgres_files *f = h->data;
    struct store_postgres *s = f->s;
    while (f->newest)
        drop_oldest(f);
    uv_mutex_destroy(&f->lock);
    free(f);
    s->files = NULL;
    postgres_part_closed(s);
}

void postgres_files_close(struct store_postgres *s)
{
    if (!s->files)
        return;
    s->closing_parts++;
    uv_close((uv_handle_t *)&s->files->async, on_async_closed);
}

enum err postgres_files_open(struct store_postgres *s, struct fault *why)
{
    struct postgres_files *f = calloc(1, sizeof *f);
    if (!f || uv_mutex_init(&f->lock)) {
        free(f);
        return fault_set(why, ERR_NO_MEMORY, "", "%s", err_text(ERR_NO_MEMORY));
    }
    if (uv_async_init(s->loop, &f->async, on_async)) {
        uv_mutex_destroy(&f->lock);
        free(f);
        return fault_set(why, ERR_INTERNAL, "store", "cannot open the job store");
    }
    f->s = s;
    f->async.data = f;
    f->loop_thread = uv_thread_self();
    f->last = &f->asked;
    s->files = f;
    return ERR_OK;
}
