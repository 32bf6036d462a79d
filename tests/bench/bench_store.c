// The stores of jobs without the rest of the service: bench_store STORE WHERE MODE REPLICAS LANES
// SECONDS. STORE: memory, sqlite (WHERE: a folder) or postgres (WHERE: a connection string).
// REPLICAS stores are open at once (sqlite and memory: 1), each with LANES calls under way.
//   accept  jobs are accepted, and wait
//   job     a job is accepted, started at once, and its image stored
//   expire  expired jobs are looked for, and the fleet's jobs counted; every replica does it once a
//   second cycle   a job that waits is claimed and finished, and another one is accepted
// Prints a line of JSON: calls, calls per second and times in milliseconds, by kind of call.
#include "blob.h"
#include "clock.h"
#include "job.h"
#include "store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

enum { MAX_REPLICAS = 16, MAX_TIMES = 1 << 20, OWNERS = 100, IMAGE_BYTES = 10000 };

struct lane {
    struct store *store;
    struct job *job;
    int phase;
    double began;
    bool ready; // for its next call
};

struct times {
    float *v;
    size_t n;
};

static struct {
    uv_loop_t loop;
    struct store *store[MAX_REPLICAS];
    int replicas, running;
    const enum store_op *mode; // ends with STORE_OPS
    int room;
    double begin, seconds;
    struct times times[STORE_OPS];
    struct blob *image;
    unsigned made, failed, empty;
    unsigned long long salt;
} bench;

static void fail(const char *what)
{
    fprintf(stderr, "bench_store: %s\n", what);
    exit(1);
}

// ---- jobs ---------------------------------------------------------------------------------------

static struct job *make_job(void)
{
    struct job *j = job_create();
    char owner[16];
    snprintf(owner, sizeof owner, "o%u", bench.made % OWNERS);
    const struct job_spec s = {
        .request = {.prompt = "a red sphere on a wooden table", .size = {64, 64}},
        .n = 1,
        .owner = owner,
        .api = "jobs",
        .durable = true,
        .keep = true};
    if (!j || job_spec_copy(&s, &j->spec, &j->spec_text))
        fail("out of memory");
    snprintf(j->id, sizeof j->id, "job_%016llx%016x", bench.salt, ++bench.made);
    snprintf(j->token, sizeof j->token, "%032x", bench.made);
    snprintf(j->used.model, sizeof j->used.model, "m");
    snprintf(j->used.sampler, sizeof j->used.sampler, "ddim");
    j->used.size = j->used.drawn = j->spec.request.size;
    j->used.stages = 1;
    j->used.steps[0] = 8;
    j->created = clock_unix_ms();
    return j;
}

static void finish_job(struct job *j)
{
    j->state = j->picture[0].state = JOB_DONE;
    j->picture[0].bytes = bench.image->size;
    j->finished = clock_unix_ms();
    j->expires = j->finished + 3600000;
}

// ---- calls --------------------------------------------------------------------------------------

static void on_done(struct store_call *c)
{
    struct lane *l = c->ctx;
    struct times *t = &bench.times[c->op];
    if (c->why.code) {
        if (!bench.failed++)
            fprintf(stderr, "bench_store: %s\n", c->why.msg);
    } else if (t->n < MAX_TIMES) {
        t->v[t->n++] = (float)(clock_seconds() - l->began);
    }
    l->phase++;
    if (c->op == STORE_ACCEPT) {
        l->job->seq = c->job->seq;
        l->job->lease = c->job->lease;
    } else if (c->op == STORE_CLAIM && c->n) {
        l->job = c->jobs[0];
        c->jobs[0] = NULL;
    } else if (c->op == STORE_CLAIM) {
        bench.empty++;
        l->phase = 0;
    }
    const enum store_op next = bench.mode[l->phase];
    if ((next == STORE_OPS || next == STORE_ACCEPT) && l->job)
        job_free(&l->job);
    if (next == STORE_OPS)
        l->phase = 0;
    store_call_free(c);
    l->ready = true;
}

static void next_call(struct lane *l)
{
    const enum store_op op = bench.mode[l->phase];
    l->ready = false;
    if (clock_seconds() - bench.begin >= bench.seconds) {
        job_free(&l->job);
        bench.running--;
        return;
    }
    if (op == STORE_ACCEPT)
        l->job = make_job();
    else if (op == STORE_DRAWN || op == STORE_FINISH)
        finish_job(l->job);
    struct store_call *c =
        l->job ? store_call_about(op, l->job, on_done, l) : store_call_create(op, on_done, l);
    if (!c)
        fail("out of memory");
    if (op == STORE_DRAWN)
        c->image = blob_ref(bench.image);
    c->room = bench.room;
    c->quota = (struct store_quota){10000000, 10000000, 0};
    c->keep = (struct store_keep){clock_unix_ms(), 10000000, (size_t)1 << 40, false};
    l->began = clock_seconds();
    l->store->ops->call(l->store, c);
}

// ---- the run ------------------------------------------------------------------------------------

static void open_stores(const char *kind, const char *where)
{
    struct fault why;
    for (int i = 0; i < bench.replicas; i++) {
        char name[16];
        snprintf(name, sizeof name, "bench%d", i);
        const struct store_postgres_params p = {&bench.loop, where, "", name, 3600000};
        enum err err = !strcmp(kind, "memory") ? store_memory_open(&bench.store[i], &why)
                       : !strcmp(kind, "sqlite")
                           ? store_sqlite_open(where, &bench.loop, &bench.store[i], &why)
                           : store_postgres_open(&p, &bench.store[i], &why);
        if (err)
            fail(why.msg);
        while (bench.store[i]->away.code)
            uv_run(&bench.loop, UV_RUN_ONCE);
    }
}

// Some stores answer within the call, so the next one is made here.
static void run(int lanes)
{
    struct lane *all = calloc((size_t)lanes, sizeof *all);
    if (!all)
        fail("out of memory");
    bench.begin = clock_seconds();
    bench.running = lanes;
    for (int i = 0; i < lanes; i++) {
        all[i].store = bench.store[i % bench.replicas];
        all[i].ready = true;
    }
    while (bench.running) {
        bool more = false;
        for (int i = 0; i < lanes; i++) {
            if (all[i].ready)
                next_call(&all[i]);
            more |= all[i].ready;
        }
        if (bench.running)
            uv_run(&bench.loop, more ? UV_RUN_NOWAIT : UV_RUN_ONCE);
    }
    free(all);
}

static int by_time(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void report(void)
{
    static const char *const names[STORE_OPS] = {[STORE_ACCEPT] = "accept",
                                                 [STORE_CLAIM] = "claim",
                                                 [STORE_DRAWN] = "drawn",
                                                 [STORE_FINISH] = "finish",
                                                 [STORE_EXPIRE] = "expire"};
    const double seconds = clock_seconds() - bench.begin;
    printf("{\"seconds\":%.3f,\"failed\":%u,\"empty\":%u", seconds, bench.failed, bench.empty);
    for (int i = 0; i < STORE_OPS; i++) {
        const struct times *t = &bench.times[i];
        if (!t->n)
            continue;
        qsort(t->v, t->n, sizeof *t->v, by_time);
        printf(",\"%s\":{\"calls\":%zu,\"per_s\":%.1f,\"p50_ms\":%.3f,\"p99_ms\":%.3f}", names[i],
               t->n, (double)t->n / seconds, (double)t->v[t->n / 2] * 1e3,
               (double)t->v[(t->n - 1) * 99 / 100] * 1e3);
    }
    printf("}\n");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        enum store_op ops[4];
        int room;
    } modes[] = {
        {"accept", {STORE_ACCEPT, STORE_OPS}, 0},
        {"job", {STORE_ACCEPT, STORE_DRAWN, STORE_OPS}, 1},
        {"expire", {STORE_EXPIRE, STORE_OPS}, 0},
        {"cycle", {STORE_CLAIM, STORE_FINISH, STORE_ACCEPT, STORE_OPS}, 1},
    };
    for (size_t i = 0; argc == 7 && i < sizeof modes / sizeof *modes; i++) {
        if (!strcmp(argv[3], modes[i].name)) {
            bench.mode = modes[i].ops;
            bench.room = modes[i].room;
        }
    }
    const int lanes = argc == 7 ? atoi(argv[5]) : 0;
    bench.replicas = argc == 7 ? atoi(argv[4]) : 0;
    if (!bench.mode || lanes < 1 || bench.replicas < 1 || bench.replicas > MAX_REPLICAS)
        fail("usage: bench_store STORE WHERE accept|job|expire|cycle REPLICAS LANES SECONDS");
    bench.seconds = atof(argv[6]);
    bench.salt = (unsigned long long)clock_unix_ms();
    uv_loop_init(&bench.loop);
    uint8_t *bytes = malloc(IMAGE_BYTES);
    if (!bytes)
        fail("out of memory");
    for (int i = 0; i < IMAGE_BYTES; i++)
        bytes[i] = (uint8_t)(i * i >> 3);
    bench.image = blob_create(bytes, IMAGE_BYTES);
    for (int i = 0; i < STORE_OPS; i++)
        if (!(bench.times[i].v = malloc(MAX_TIMES * sizeof(float))))
            fail("out of memory");
    open_stores(argv[1], argv[2]);
    run(lanes * bench.replicas);
    report();
    for (int i = 0; i < bench.replicas; i++)
        bench.store[i]->ops->close(bench.store[i], NULL, NULL);
    uv_run(&bench.loop, UV_RUN_DEFAULT);
    return 0;
}
