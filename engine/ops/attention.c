// Attention: shape checks, one dispatch, and the plans of its kernels, which look at one sample's
// shape, never at the batch. Called by engine/model while it records. Thread: the engine's worker.
#include "walk.h"

#include <string.h>

enum { MAX_HEAD = 128, MAX_WIDE_HEAD = 512 };

static uint32_t key_count(const struct tensor *k)
{
    return k->h * k->w;
}

static bool segment_fits(const struct op_attention_params *p, int s)
{
    const struct tensor *k = p->segment[s].k, *v = p->segment[s].v, *index = p->segment[s].index;
    if (!k || !v || !key_count(k))
        return false;
    bool ok = k->c == p->q->c && v->c == p->q->c && k->n == v->n && key_count(k) == key_count(v) &&
              k->dtype == p->q->dtype && v->dtype == p->q->dtype;
    if (index)
        return ok && index->dtype == DT_U32 && index->n == p->q->n;
    return ok && k->n == p->q->n;
}

// One u32 per (sample, key): along w, or along the channels.
static bool valid_fits(const struct tensor *t, uint32_t n, uint32_t keys)
{
    return t->dtype == DT_U32 && t->n == n &&
           ((t->c == 1 && t->h * t->w == keys) || (t->c == keys && t->h * t->w == 1));
}

static bool fits(const struct op_attention_params *p)
{
    const struct tensor *q = p->q, *y = p->y;
    if (p->segments < 1 || p->segments > 2 || !p->heads || q->c % p->heads || q->c != y->c ||
        q->n != y->n || q->h * q->w != y->h * y->w || q->dtype != y->dtype)
        return false;
    uint32_t keys = 0;
    for (int s = 0; s < p->segments; s++) {
        if (!segment_fits(p, s))
            return false;
        keys += key_count(p->segment[s].k);
    }
    const struct tensor *b = p->bias;
    if (b && (b->dtype != DT_F32 || b->n != 1 || b->h != q->h * q->w || b->w != keys ||
              b->c != p->heads))
        return false;
    return !p->valid || valid_fits(p->valid, q->n, key_count(p->segment[0].k));
}

static uint32_t parts(const struct op_attention_params *p)
{
    bool second = p->segments > 1;
    return (p->segment[0].index ? ATTENTION_INDEX0 : 0) |
           (second && p->segment[1].index ? ATTENTION_INDEX1 : 0) | (p->bias ? ATTENTION_BIAS : 0) |
           (p->valid ? ATTENTION_VALID : 0) | (second ? ATTENTION_SECOND : 0);
}

static struct push_attention make_push(const struct ops *o, const struct op_attention_params *p)
{
    const struct tensor *k1 = p->segments > 1 ? p->segment[1].k : NULL;
    const struct tensor *v1 = p->segments > 1 ? p->segment[1].v : NULL;
    struct push_attention push = {
        .q = ops_view(o, p->q),
        .k0 = ops_view(o, p->segment[0].k),
        .v0 = ops_view(o, p->segment[0].v),
        .k1 = ops_view(o, k1),
        .v1 = ops_view(o, v1),
        .y = ops_view(o, p->y),
        .index0 = ops_view(o, p->segment[0].index),
        .index1 = ops_view(o, k1 ? p->segment[1].index : NULL),
        .bias = ops_view(o, p->bias),
        .queries = key_count(p->q),
        .keys0 = key_count(p->segment[0].k),
        .keys1 = k1 ? key_count(k1) : 0,
        .heads = p->heads,
        .d = p->q->c / p->heads,
        .n = p->q->n,
        .scale = p->scale,
    };
    if (p->valid) {
        bool along_w = p->valid->c == 1 && p->valid->h * p->valid->w == push.keys0;
        push.valid = ops_view(o, p->valid).base * 4;
        push.valid_n = p->valid->cs * (along_w ? push.keys0 : 1);
        push.valid_key = along_w ? p->valid->cs : 1;
    }
    return push;
}

// ---- plans ----------------------------------------------------------------------------------

static bool fits_vectors(const struct problem *p)
{
    return p->d % 4 == 0 && p->d <= MAX_HEAD;
}

// The one head of a VAE's attention.
static bool fits_wide(const struct problem *p)
{
    return p->d % 4 == 0 && p->d <= MAX_WIDE_HEAD;
}

static double work(const struct problem *p, double queries)
{
    return 4.0 * p->n * queries * p->keys * p->heads * p->d;
}

bool plan_attention_lane(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    const uint32_t sg = caps->subgroup_size, queries = p->h * p->w;
    uint32_t each = 1;
    // Queries per lane: as many as the unrolled body bears, but no more than there are. Its machine
    // code grows with each * d, and so does the time to compile it.
    while (each < 4 && 2 * each * p->d <= 128 && each * sg < queries)
        each *= 2;
    const uint32_t spec[] = {sg, sg, p->d / 4, each, p->parts};
    call->specs = sizeof spec / sizeof spec[0];
    memcpy(call->spec, spec, sizeof spec);
    call->groups[0] = blocks_of(queries, each * sg);
    call->groups[1] = p->heads;
    call->groups[2] = p->n;
    call->trips = p->keys / sg + 4;
    call->work = work(p, (double)call->groups[0] * each * sg);
    return fits_wide(p);
}

bool plan_attention_tile(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    enum { LOCAL = 64 };
    const uint32_t queries = p->h * p->w, keys = p->d > MAX_HEAD ? 4 : 16;
    const uint32_t spec[] = {LOCAL, p->d / 4, keys, p->parts};
    call->specs = sizeof spec / sizeof spec[0];
    memcpy(call->spec, spec, sizeof spec);
    call->groups[0] = blocks_of(queries, LOCAL);
    call->groups[1] = p->heads;
    call->groups[2] = p->n;
    call->shared_bytes = (size_t)2 * keys * (p->d / 4) * 16; // k_tile and v_tile
    call->trips = p->keys;
    call->work = work(p, (double)call->groups[0] * LOCAL);
    return fits_wide(p);
}

// Four subgroups with `rows` queries each; see attention_matrix.comp. The keys of a block follow
// from the head, never from the device's limits: they decide where sums are rounded. The rows
// change no bit of a result.
static bool plan_matrix(const struct vk_caps *caps, const struct problem *p, uint32_t rows,
                        struct ops_call *call)
{
    enum { SUBGROUPS = 4 };
    const uint32_t m = caps->matrix.m, n = caps->matrix.n, k = caps->matrix.k;
    const uint32_t sg = caps->subgroup_size, local = SUBGROUPS * sg, queries = p->h * p->w;
    if (!m || !n || !k || m % 4 || n % 8 || k % 8 || !fits_vectors(p))
        return false;
    const uint32_t whole = n > k ? n : k, d = blocks_of(p->d, whole) * whole;
    const uint32_t keys = d > 64 ? 16 : 32;
    const uint32_t lanes = sg > rows ? sg / rows : 1, each = rows * lanes / sg;
    if (rows % m || d % n || d % k || keys % n || keys % k || !each || each * sg != rows * lanes)
        return false;
    const uint32_t fetches = blocks_of(keys * (d / 8), local);
    const uint32_t spec[] = {local, p->d / 4, d,     keys, p->parts, m,        n,
                             k,     rows,     lanes, each, fetches,  p->eights};
    const uint32_t all = SUBGROUPS * rows;
    call->specs = sizeof spec / sizeof spec[0];
    memcpy(call->spec, spec, sizeof spec);
    call->groups[0] = blocks_of(queries, all);
    call->groups[1] = p->heads;
    call->groups[2] = p->n;
    // tile, patches and keeps
    call->shared_bytes =
        (all > 2 * keys ? all : 2 * keys) * (d / 8 + 1) * 16 + all * ((keys / 4 + 2) * 16 + n * 4);
    const size_t loads = 2 * fetches + 1, weighs = each * (2 * (keys + n) / lanes + 6);
    const size_t matrices = (size_t)keys / n * (d / k + 2) + (size_t)keys / k * (d / n + 2) + d / n;
    call->trips = (blocks_of(p->keys, keys) + 2) * (loads + weighs + 2 * rows / m * matrices);
    call->work = work(p, (double)call->groups[0] * all);
    return true;
}

bool plan_attention_matrix(const struct vk_caps *caps, const struct problem *p,
                           struct ops_call *call)
{
    return plan_matrix(caps, p, 16, call);
}

bool plan_attention_matrix_wide(const struct vk_caps *caps, const struct problem *p,
                                struct ops_call *call)
{
    return plan_matrix(caps, p, 32, call);
}

bool plan_attention_any(const struct vk_caps *caps, const struct problem *p, struct ops_call *call)
{
    const uint32_t local = caps->cpu ? caps->subgroup_size : 64, queries = p->h * p->w;
    call->specs = 2;
    call->spec[0] = local;
    call->spec[1] = p->parts;
    ops_groups(caps, (size_t)p->n * queries * vec4s(p->heads * p->d), local, call->groups);
    call->trips = 4 * ((size_t)p->keys * (p->d + 2) + 2);
    call->work = work(p, queries);
    return true;
}

// Heads, and the pixels of every map, begin at multiples of eight halves.
static bool in_eights(const struct op_attention_params *p)
{
    bool ok = p->q->c / p->heads % 8 == 0 && tensor_in_eights(p->q);
    for (int s = 0; s < p->segments; s++)
        ok = ok && tensor_in_eights(p->segment[s].k) && tensor_in_eights(p->segment[s].v);
    return ok;
}

// ---- operator -------------------------------------------------------------------------------

static void attention_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    struct op_attention_params one = *(const struct op_attention_params *)params;
    one.q = t[0];
    one.y = t[1];
    op_attention(o, &one);
}

void op_attention(struct ops *o, const struct op_attention_params *p)
{
    const struct tensor *split[] = {p->q, p->y};
    if (!ops_require(o, fits(p), p->q, p->segment[0].k, p->segment[0].v, p->bias, p->valid, p->y))
        return;
    // the bias has rows of its own for the queries
    if (!p->bias && ops_by_rows(o, split, 2, attention_part, p))
        return;
    const bool second = p->segments > 1;
    const struct push_attention push = make_push(o, p);
    const struct problem problem = {
        .n = push.n,
        .h = p->q->h,
        .w = p->q->w,
        .keys = push.keys0 + push.keys1,
        .heads = push.heads,
        .d = push.d,
        .parts = parts(p),
        .eights = in_eights(p),
    };
    ops_dispatch(
        o, &(struct ops_call){
               .op = OP_ATTENTION,
               .dtype = p->q->dtype,
               .problem = &problem,
               .arg = {p->q, p->segment[0].k, p->segment[0].v, second ? p->segment[1].k : NULL,
                       second ? p->segment[1].v : NULL, p->segment[0].index,
                       second ? p->segment[1].index : NULL, p->bias, p->valid, p->y},
               .push = &push,
               .flops = 4.0 * push.n * push.queries * problem.keys * p->q->c,
           });
}
