// The names of objects, and how they go: with their row, or when a sweep finds that they have none.
// Such objects are left by a replica that died, or lost its lease, between storing an object and
// its row. Their name has the day on which their job was created; once every job is younger,
// nothing needs them. Loop thread.
#include "store_s3_impl.h"

#include "buf.h"
#include "clock.h"
#include "log.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SWEEP_SECONDS = 3600, SWEEP_AGAIN_SECONDS = 60, SWEEP_LISTED = 100, SWEEP_KEY = 128 };

// ---- names --------------------------------------------------------------------------------------

static void day_of(int64_t unix_ms, char out[S3_DAY])
{
    const time_t t = (time_t)(unix_ms / 1000);
    struct tm tm = {0};
    gmtime_r(&t, &tm);
    strftime(out, S3_DAY, "%Y-%m-%d", &tm);
}

char *store_s3_key(const struct job *j, int picture)
{
    struct buf b = {0};
    char day[S3_DAY];
    day_of(j->created, day);
    buf_printf(&b, "%s/%s-%d-%lld.%s", day, j->id, picture, (long long)j->picture[picture].object,
               job_format_name(j->spec.format));
    return buf_take(&b);
}

// Whether it is a name as above. Others are not the service's to delete.
static bool is_ours(const char *key)
{
    static const char form[] = "dddd-dd-dd/job_hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh-";
    static const char digits[] = "0123456789abcdef";
    const char *f = form;
    for (; *f; f++, key++)
        if (*f == 'd'   ? *key < '0' || *key > '9'
            : *f == 'h' ? !*key || !strchr(digits, *key)
                        : *key != *f)
            return false;
    const size_t picture = strspn(key, "0123456789");
    const size_t lease = key[picture] == '-' ? strspn(key + picture + 1, "0123456789") : 0;
    enum job_format format;
    for (format = JOB_PNG; picture && lease && format <= JOB_WEBP; format++)
        if (key[picture + 1 + lease] == '.' &&
            !strcmp(key + picture + lease + 2, job_format_name(format)))
            return true;
    return false;
}

// ---- deleting -----------------------------------------------------------------------------------

void store_s3_add_gone(struct store_s3 *s, char *key)
{
    struct s3_gone *g = key && s->n_gone < S3_MOST_GONE ? calloc(1, sizeof *g) : NULL;
    if (!g) {
        free(key);
        return;
    }
    g->key = key;
    *s->gone_last = g;
    s->gone_last = &g->next;
    s->n_gone++;
}

static void on_deleted(struct s3_call *c)
{
    struct store_s3 *s = c->ctx;
    if (store_s3_landed(s, c)) {
        store_s3_add_gone(s, c->key);
        c->key = NULL;
    } else if (c->why.code) {
        log_msg(LOG_WARN, "s3", "an object was not deleted: %s", c->why.msg);
    }
    s3_call_free(c);
    store_s3_go_on(s);
}

void store_s3_delete_next(struct store_s3 *s)
{
    struct s3_gone *g = s->gone;
    struct s3_call *c = s3_call_create(S3_DELETE, g->key, on_deleted, s);
    s->gone = g->next;
    if (!s->gone)
        s->gone_last = &s->gone;
    s->n_gone--;
    free(g);
    if (!c)
        return; // the sweep finds it
    s->flying++;
    s3_send(s->s3, c);
}

void store_s3_forget_gone(struct store_s3 *s)
{
    while (s->gone) {
        struct s3_gone *g = s->gone;
        s->gone = g->next;
        free(g->key);
        free(g);
    }
}

// ---- sweeping -----------------------------------------------------------------------------------

static void sweep_ended(struct store_s3 *s, double seconds)
{
    s->sweeping = false;
    s->next_sweep = clock_seconds() + seconds;
    store_s3_go_on(s);
}

static void list(struct store_s3 *s, const char *after);

// Keys come sorted, so that those of the oldest days are first.
static void on_listed(struct s3_call *c)
{
    struct store_s3 *s = c->ctx;
    char key[SWEEP_KEY] = "", last[SWEEP_KEY] = "";
    int found = 0;
    bool old = true;
    const bool failed = store_s3_landed(s, c) || c->why.code;
    for (size_t at = 0; !failed && old && s3_found(c, &at, key, sizeof key); found++) {
        old = strncmp(key, s->sweep_end, S3_DAY - 1) < 0;
        if (old && is_ours(key))
            store_s3_add_gone(s, strdup(key));
        memcpy(last, key, sizeof last);
    }
    s3_call_free(c);
    if (found && old && !s->closing) // there may be more
        list(s, last);
    else
        sweep_ended(s, failed ? SWEEP_AGAIN_SECONDS : SWEEP_SECONDS);
}

static void list(struct store_s3 *s, const char *after)
{
    struct s3_call *c = s3_call_create(S3_LIST, strdup(after), on_listed, s);
    if (!c) {
        sweep_ended(s, SWEEP_AGAIN_SECONDS);
        return;
    }
    c->most = SWEEP_LISTED;
    s->flying++;
    s3_send(s->s3, c);
}

// Keeps the objects of today and yesterday even without a job, because clocks may differ.
static void on_oldest(struct store_call *c)
{
    const int64_t day = 86400000, yesterday = clock_unix_ms() - day;
    struct store_s3 *s = c->ctx;
    const bool failed = c->why.code;
    day_of(c->oldest && c->oldest < yesterday ? c->oldest : yesterday, s->sweep_end);
    store_call_free(c);
    if (failed || s->closing)
        sweep_ended(s, SWEEP_AGAIN_SECONDS);
    else
        list(s, "");
}

void store_s3_sweep(struct store_s3 *s)
{
    if (s->sweeping || clock_seconds() < s->next_sweep || s->base->away.code)
        return;
    struct store_call *c = store_call_create(STORE_AGE, on_oldest, s);
    if (!c)
        return;
    s->sweeping = true;
    s->base->ops->call(s->base, c);
}
