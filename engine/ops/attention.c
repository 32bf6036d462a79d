// Attention: shape checks, the choice of kernel, one dispatch. The choice looks at one sample's
// shape, never at the batch. Called by engine/model while it records. Thread: the engine's worker.
#include "ops_internal.h"

enum { MAX_HEAD = 128 };

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

static void choose_lane(const struct ops_device *dev, struct ops_call *call,
                        const struct push_attention *push)
{
    uint32_t sg = dev->caps->subgroup_size, p = 1;
    // Queries per lane: as many as the unrolled body bears, but no more than there are. Its machine
    // code grows with p * d, and so does the time to compile it.
    while (p < 4 && 2 * p * push->d <= 128 && p * sg < push->queries)
        p *= 2;
    call->kernel = K_ATTENTION_LANE;
    call->specs = 5;
    uint32_t spec[] = {sg, sg, push->d / 4, p, call->spec[0]};
    for (int i = 0; i < call->specs; i++)
        call->spec[i] = spec[i];
    call->groups[0] = (push->queries + p * sg - 1) / (p * sg);
    call->groups[1] = push->heads;
    call->groups[2] = push->n;
}

static void choose_tile(struct ops_call *call, const struct push_attention *push)
{
    enum { LOCAL = 64, BLOCK = 16 };
    call->kernel = K_ATTENTION_TILE;
    call->specs = 4;
    uint32_t spec[] = {LOCAL, push->d / 4, BLOCK, call->spec[0]};
    for (int i = 0; i < call->specs; i++)
        call->spec[i] = spec[i];
    call->groups[0] = (push->queries + LOCAL - 1) / LOCAL;
    call->groups[1] = push->heads;
    call->groups[2] = push->n;
    call->shared_bytes = (size_t)2 * BLOCK * (push->d / 4) * 16; // k_tile and v_tile
}

// Fails the recording when the sequence is too long for one invocation's loops.
static void choose_any(struct ops *o, struct ops_call *call, const struct push_attention *push,
                       const struct tensor *q)
{
    const struct ops_device *dev = ops_recorder_device(o);
    uint32_t local = dev->caps->cpu ? dev->caps->subgroup_size : 64;
    size_t keys = (size_t)push->keys0 + push->keys1, vectors = vec4s(push->heads * push->d);
    call->kernel = K_ATTENTION_ANY;
    call->specs = 2;
    call->spec[1] = call->spec[0];
    call->spec[0] = local;
    ops_groups(o, push->n * push->queries * vectors, local, call->groups);
    size_t trips = 4 * (keys * (push->d + 2) + 2);
    if (dev->caps->cpu)
        ops_require_trips(o, "attention", q, trips);
}

void op_attention(struct ops *o, const struct op_attention_params *p)
{
    const struct ops_device *dev = ops_recorder_device(o);
    if (!ops_require(o, fits(p)))
        return;
    bool second = p->segments > 1;
    struct push_attention push = make_push(o, p);
    struct ops_call call = {
        .dtype = p->q->dtype,
        .spec = {parts(p)},
        .arg = {p->q, p->segment[0].k, p->segment[0].v, second ? p->segment[1].k : NULL,
                second ? p->segment[1].v : NULL, p->segment[0].index,
                second ? p->segment[1].index : NULL, p->bias, p->valid, p->y},
        .push = &push,
    };
    double keys = (double)push.keys0 + push.keys1;
    call.flops = 4.0 * push.n * push.queries * keys * p->q->c;
    bool fits_vectors = push.d % 4 == 0 && push.d <= MAX_HEAD;
    bool tile = dev->path == PATH_TILE && (!dev->caps->cpu || keys < QUIRK_MAX_TRIPS);
    if (fits_vectors && tile)
        choose_tile(&call, &push);
    else if (fits_vectors && dev->path != PATH_TILE &&
             keys / dev->caps->subgroup_size + 4 < QUIRK_MAX_TRIPS)
        choose_lane(dev, &call, &push);
    else
        choose_any(o, &call, &push, p->q);
    ops_dispatch(o, &call);
}
