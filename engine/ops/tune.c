// See tune.h: classes of shapes, their measurement, and the table's file.
#include "tune.h"

#include "clock.h"
#include "ops_internal.h"
#include "program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Estimates are off by less than this: slower kernels are not worth measuring.
static const double HOPELESS = 20;
static const char file_kind[] = "kernels";

// ---- classes ----------------------------------------------------------------------------------

// x rounded up to four steps between powers of two.
static uint32_t rounded(uint32_t x)
{
    uint32_t step = 1;
    while (x / step > 8)
        step *= 2;
    return (x + step - 1) / step * step;
}

// n is not among them: who shares a batch must not decide, nor what is fused.
static void class_of(const struct ops_call *call, uint32_t of[TUNE_NUMBERS])
{
    const struct problem *p = call->problem;
    const uint32_t numbers[TUNE_NUMBERS] = {call->op,
                                            call->dtype,
                                            call->weight_dtype,
                                            p->layout,
                                            p->taps,
                                            rounded(p->h * p->w),
                                            rounded(p->in),
                                            rounded(p->out),
                                            rounded(p->keys),
                                            p->heads,
                                            p->d};
    memcpy(of, numbers, sizeof numbers);
}

static const struct tune_choice *find_class(const struct tune_table *t,
                                            const uint32_t of[TUNE_NUMBERS])
{
    for (int i = 0; i < t->count; i++)
        if (!memcmp(t->choice[i].of, of, sizeof t->choice[i].of))
            return &t->choice[i];
    return NULL;
}

// A call that a table may decide: planned, with packed weights, and nobody wishes for kernels.
static bool is_tuned(const struct ops_device *dev, const struct ops_call *call)
{
    const struct problem *p = call->problem;
    return dev->tuner && !dev->tuner->measuring && p &&
           (call->op == OP_ATTENTION || p->layout != LAYOUT_ANY) && !dev->wish.loads &&
           !(dev->wish.ops >> call->op & 1);
}

const struct tune_choice *tune_find(const struct ops_device *dev, const struct ops_call *call)
{
    uint32_t of[TUNE_NUMBERS];
    if (!is_tuned(dev, call))
        return NULL;
    class_of(call, of);
    const struct tune_choice *c = find_class(&dev->tuner->table, of);
    return c && c->row >= 0 ? c : NULL;
}

// ---- measuring --------------------------------------------------------------------------------

enum { REPEAT = 4, RUNS = 5 };
static const double ENOUGH = .05; // seconds of runs

// The tensors of a call of the same shape, which belong to nobody: a result that is live somewhere
// must not be written.
struct stage {
    struct tensor x, y, keys, values;
};

static enum err set_stage(struct ops_device *dev, const struct ops_call *call, struct stage *s)
{
    enum { LARGE = 1 << 24 };
    const struct problem *p = call->problem;
    const bool attention = call->op == OP_ATTENTION;
    const uint32_t in = attention ? p->heads * p->d : p->in, out = attention ? in : p->out;
    // An image and its guidance, where that is not too large. Never the batch that asks: see
    // class_of.
    const uint32_t n = (size_t)p->h * p->w * (in + out) > LARGE ? 1 : 2;
    enum err e = tensor_create(dev, call->dtype, n, p->h, p->w, in, &s->x);
    if (!e)
        e = tensor_create(dev, call->dtype, n, p->h, p->w, out, &s->y);
    if (!e && attention)
        e = tensor_create(dev, call->dtype, n, 1, p->keys, in, &s->keys);
    if (!e && attention)
        e = tensor_create(dev, call->dtype, n, 1, p->keys, in, &s->values);
    return e;
}

static void record(struct ops *o, const struct ops_call *call, const struct stage *s)
{
    const struct problem *p = call->problem;
    if (call->op == OP_ATTENTION) {
        op_attention(o, &(struct op_attention_params){.q = &s->x,
                                                      .segment = {{&s->keys, &s->values, NULL}},
                                                      .segments = 1,
                                                      .heads = p->heads,
                                                      .scale = 1,
                                                      .y = &s->y});
        return;
    }
    const struct push_matmul *push = call->push;
    const struct op_weight w = {.packed = *call->arg[1],
                                .bias = *call->arg[2],
                                .out = p->out,
                                .in = p->in,
                                .kernel = p->taps == 1 ? 1 : 3,
                                .layout = p->layout,
                                .format = call->weight_dtype,
                                .scales = push->scales};
    op_conv2d(o, &s->x, &w, NULL, &s->y);
}

static double fastest_run(struct ops *o)
{
    double best = -1, all = 0;
    for (int i = 0; i < RUNS && all < ENOUGH; i++) {
        const double before = clock_seconds();
        if (ops_run(o))
            return -1;
        const double took = clock_seconds() - before;
        best = best < 0 || took < best ? took : best;
        all += took;
    }
    return best / REPEAT;
}

static struct tune_time measure(struct ops_device *dev, const struct ops_call *call, int row,
                                int build)
{
    enum err e = pipelines_create(dev); // what others have asked for is not this row's time
    const double began = clock_seconds();
    const struct kernel_wish own = dev->wish;
    struct tune_time t = {.seconds = -1};
    struct stage s = {0};
    struct ops *o = NULL;
    dev->wish = (struct kernel_wish){.rows = (uint64_t)1 << row,
                                     .ops = 1u << call->op,
                                     .loads = 1u << kernel_at(row)->build[build].load};
    if (!e)
        e = set_stage(dev, call, &s);
    if (!e)
        e = ops_begin(dev, call->dtype, &o);
    for (int i = 0; !e && i < REPEAT; i++)
        record(o, call, &s);
    if (!e)
        e = ops_end(o);
    if (!e)
        e = ops_run(o); // the first run may compile, and warms caches
    if (!e)
        t.seconds = fastest_run(o);
    dev->wish = own;
    ops_destroy(&o);
    tensor_destroy(&s.x);
    tensor_destroy(&s.y);
    tensor_destroy(&s.keys);
    tensor_destroy(&s.values);
    t.spent = clock_seconds() - began;
    return t;
}

void tune_call(struct ops_device *dev, const struct ops_call *call)
{
    struct kernel_candidate list[KERNEL_CANDIDATES];
    struct tuner *t = dev->tuner;
    struct tune_choice c = {.row = -1};
    // Nothing runs while memory is only counted.
    if (!is_tuned(dev, call) || dev->real)
        return;
    class_of(call, c.of);
    if (find_class(&t->table, c.of) || t->table.count == TUNE_CLASSES)
        return;
    const int count = kernel_candidates(dev, call, list);
    double least = 0, best = -1;
    for (int i = 0; i < count; i++)
        least = i && least < list[i].cost ? least : list[i].cost;
    bool all = count > 1;
    t->dirty = t->dirty || all;
    t->measuring = true;
    for (int i = 0; all && i < count; i++) {
        if (list[i].cost > HOPELESS * least)
            continue;
        // Then the estimates decide, in later processes too, so that a seed gives the same bits.
        if (t->left <= 0 && !t->thorough) {
            all = false;
            break;
        }
        const struct tune_time took = t->measure(dev, call, list[i].row, list[i].build);
        t->left -= took.spent;
        if (took.seconds < 0 || (best >= 0 && took.seconds >= best))
            continue;
        best = took.seconds;
        c.row = list[i].row;
        c.build = list[i].build;
    }
    t->measuring = false;
    if (!all)
        c.row = -1, c.build = 0;
    t->table.choice[t->table.count++] = c;
}

// ---- the file ---------------------------------------------------------------------------------

struct tune_id tune_id_of(const struct ops_device *dev)
{
    struct tune_id id = {.driver = dev->caps->driver_version, .program = program_version};
    memcpy(id.uuid, dev->caps->uuid, sizeof id.uuid);
    for (int row = 0; row < kernel_count(); row++) {
        const struct kernel *k = kernel_at(row);
        id.kernels = hash_join(id.kernels, hash_text(k->name));
        for (int b = 0; b < k->builds; b++)
            id.kernels = hash_join(id.kernels, hash_bytes(k->build[b].words, k->build[b].bytes, 0));
    }
    return id;
}

static void forget_estimates(struct tune_table *t)
{
    int kept = 0;
    for (int i = 0; i < t->count; i++)
        if (t->choice[i].row >= 0)
            t->choice[kept++] = t->choice[i];
    t->count = kept;
}

enum err tune_open(struct ops_device *dev, bool thorough)
{
    size_t n;
    char *text = NULL;
    struct tuner *t = calloc(1, sizeof *t);
    if (!t)
        return ERR_NO_MEMORY;
    t->id = tune_id_of(dev);
    t->measure = measure;
    t->left = TUNE_BUDGET;
    t->thorough = thorough;
    dev->tuner = t;
    dev->info.notice[0] = 0;
    if (!vk_cache_read(dev->vk, file_kind, &text, &n)) {
        const enum err e = tune_parse(text, n, &t->id, &t->table);
        if (e)
            snprintf(dev->info.notice, sizeof dev->info.notice,
                     "kernels are measured again, because the saved choice %s",
                     e == ERR_FORMAT ? "is damaged"
                                     : "was made for another device, driver or version");
    }
    free(text);
    if (thorough)
        forget_estimates(&t->table);
    return ERR_OK;
}

// Adds the choices of this process to those that the file has by now: another process may have
// saved, and the first that is saved stays, so that later starts do not change their kernels. A
// thorough process replaces estimates.
static void join_file(const struct ops_device *dev, struct tune_table *out)
{
    const struct tuner *t = dev->tuner;
    char *text = NULL;
    size_t n;
    if (!vk_cache_read(dev->vk, file_kind, &text, &n))
        (void)tune_parse(text, n, &t->id, out);
    free(text);
    if (t->thorough)
        forget_estimates(out);
    for (int i = 0; i < t->table.count; i++) {
        const struct tune_choice *c = &t->table.choice[i];
        if (out->count < TUNE_CLASSES && !find_class(out, c->of))
            out->choice[out->count++] = *c;
    }
}

void tune_save(struct ops_device *dev)
{
    struct tuner *t = dev->tuner;
    struct tune_table *all;
    struct buf text = {0};
    if (!t || !t->dirty || t->measuring || !(all = calloc(1, sizeof *all)))
        return;
    t->dirty = false;
    join_file(dev, all);
    tune_write(all, &t->id, &text);
    if (!text.failed)
        (void)vk_cache_write(dev->vk, file_kind, text.data, text.len);
    buf_deinit(&text);
    free(all);
}

void tune_close(struct ops_device *dev)
{
    tune_save(dev);
    free(dev->tuner);
    dev->tuner = NULL;
}
