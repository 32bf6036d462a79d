// Operators that treat every value alike: activation, sum, copy. Called by engine/model and
// engine/pipeline while they record. Thread: the engine's worker.
#include "walk.h"

// Maps without gaps are one run of vec4s: nothing here looks at where a value is. Walked in order
// of memory they also suit the caches best.
enum { FLAT_C = 32 };

static bool is_flat(const struct tensor *t)
{
    return !t || (t->cs == t->c && (size_t)tensor_pixels(t) * t->c % FLAT_C == 0);
}

static struct walk_plan plan(const struct ops *o, struct push_map *push, const struct tensor *y,
                             bool flat, bool samples)
{
    if (flat) {
        push->a.cs = push->b.cs = push->y.cs = FLAT_C / 4;
        push->c = FLAT_C;
        push->pixels = (uint32_t)((size_t)tensor_pixels(y) * y->c / FLAT_C);
    } else {
        push->c = y->c;
        push->pixels = samples ? y->h * y->w : tensor_pixels(y);
    }
    struct walk_plan w = walk_plan(o, push->c, push->pixels, samples ? y->n : 1);
    push->walk = w.walk;
    return w;
}

enum { ADD_NONE, ADD_MAP, ADD_PIXEL };

struct map_params {
    const struct tensor *a, *b, *y;
    enum op_act act;
    uint32_t add;
    float scale;
};

static void map(struct ops *o, const struct map_params *m);

static void map_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    struct map_params one = *(const struct map_params *)params;
    one.a = t[0];
    one.b = t[1];
    one.y = t[2];
    map(o, &one);
}

static void map(struct ops *o, const struct map_params *m)
{
    const struct tensor *split[] = {m->a, m->b, m->y};
    if (ops_by_sample(o, split, 3, map_part, m) || ops_by_rows(o, split, 3, map_part, m))
        return;
    struct push_map push = {
        .a = ops_view(o, m->a),
        .b = ops_view(o, m->b),
        .y = ops_view(o, m->y),
        .scale = m->scale,
    };
    bool flat = m->add != ADD_PIXEL && is_flat(m->a) && is_flat(m->b) && is_flat(m->y);
    struct walk_plan w = plan(o, &push, m->y, flat, m->add == ADD_PIXEL);
    struct ops_call call = {
        .op = OP_MAP,
        .dtype = m->y->dtype,
        .specs = 4,
        .spec = {w.local, w.blocks, m->act, m->add},
        .arg = {m->a, m->b, m->y},
        .push = &push,
        .groups = {w.groups[0], w.groups[1], w.groups[2]},
    };
    ops_dispatch(o, &call);
}

void op_act(struct ops *o, enum op_act act, const struct tensor *x, const struct tensor *y)
{
    if (!ops_require(o, same_shape(x, y) && x->dtype == y->dtype && is_activation(y), x, y))
        return;
    map(o, &(struct map_params){.a = x, .y = y, .act = act, .add = ADD_NONE});
}

void op_add(struct ops *o, const struct tensor *a, const struct tensor *b, float scale,
            const struct tensor *y)
{
    bool pixel = b->h * b->w == 1 && b->n == y->n && b->c == y->c && y->h * y->w > 1;
    bool ok = same_shape(a, y) && (pixel || same_shape(b, y)) && is_activation(y);
    if (!ops_require(o, ok && a->dtype == y->dtype && b->dtype == y->dtype, a, b, y))
        return;
    map(o, &(struct map_params){
               .a = a, .b = b, .y = y, .add = pixel ? ADD_PIXEL : ADD_MAP, .scale = scale});
}

static void copy_part(struct ops *o, const struct tensor *const t[], const void *params)
{
    (void)params;
    op_copy(o, t[0], t[1]);
}

void op_copy(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    const struct tensor *split[] = {x, y};
    if (!ops_require(o, same_shape(x, y) && is_activation(x) && is_activation(y), x, y) ||
        ops_by_rows(o, split, 2, copy_part, NULL))
        return;
    if (x->dtype == y->dtype) {
        map(o, &(struct map_params){.a = x, .y = y, .act = ACT_NONE, .add = ADD_NONE});
        return;
    }
    struct push_map push = {.a = ops_view(o, x), .y = ops_view(o, y)};
    struct walk_plan w = plan(o, &push, y, is_flat(x) && is_flat(y), false);
    struct ops_call call = {
        .op = OP_COPY,
        .dtype = y->dtype,
        .weight_dtype = x->dtype,
        .specs = 2,
        .spec = {w.local, w.blocks},
        .arg = {x, y},
        .push = &push,
        .groups = {w.groups[0], w.groups[1], w.groups[2]},
    };
    ops_dispatch(o, &call);
}
