// Operators that treat every value alike: activation, sum, copy. Called by engine/model and
// engine/pipeline while they record. Thread: the engine's worker.
#include "walk.h"

// Small batches of small maps are one run of pixels: nothing here looks at which sample a pixel is.
static struct walk_plan plan(const struct ops *o, const struct tensor *y, bool flat,
                             uint32_t *pixels)
{
    uint32_t samples = flat ? 1 : y->n;
    *pixels = flat ? tensor_pixels(y) : y->h * y->w;
    return walk_plan(o, y->c, *pixels, samples);
}

enum { ADD_NONE, ADD_MAP, ADD_PIXEL };

struct map_params {
    const struct tensor *a, *b, *y;
    enum op_act act;
    uint32_t add;
    float scale;
};

static void map(struct ops *o, const struct map_params *m)
{
    struct push_map push = {
        .a = ops_view(o, m->a),
        .b = ops_view(o, m->b),
        .y = ops_view(o, m->y),
        .c = m->y->c,
        .scale = m->scale,
    };
    struct walk_plan w = plan(o, m->y, m->add != ADD_PIXEL, &push.pixels);
    push.walk = w.walk;
    struct ops_call call = {
        .kernel = K_MAP,
        .dtype = m->y->dtype,
        .specs = 3,
        .spec = {w.local, m->act, m->add},
        .arg = {m->a, m->b, m->y},
        .push = &push,
        .groups = {w.groups[0], w.groups[1], w.groups[2]},
    };
    ops_dispatch(o, &call);
}

void op_act(struct ops *o, enum op_act act, const struct tensor *x, const struct tensor *y)
{
    if (!ops_require(o, same_shape(x, y) && x->dtype == y->dtype && is_activation(y)))
        return;
    map(o, &(struct map_params){.a = x, .y = y, .act = act, .add = ADD_NONE});
}

void op_add(struct ops *o, const struct tensor *a, const struct tensor *b, float scale,
            const struct tensor *y)
{
    bool pixel = b->h * b->w == 1 && b->n == y->n && b->c == y->c && y->h * y->w > 1;
    bool ok = same_shape(a, y) && (pixel || same_shape(b, y)) && is_activation(y);
    if (!ops_require(o, ok && a->dtype == y->dtype && b->dtype == y->dtype))
        return;
    map(o, &(struct map_params){
               .a = a, .b = b, .y = y, .add = pixel ? ADD_PIXEL : ADD_MAP, .scale = scale});
}

void op_copy(struct ops *o, const struct tensor *x, const struct tensor *y)
{
    if (!ops_require(o, same_shape(x, y) && is_activation(x) && is_activation(y)))
        return;
    struct push_map push = {.a = ops_view(o, x), .y = ops_view(o, y), .c = y->c};
    struct walk_plan w = plan(o, y, true, &push.pixels);
    push.walk = w.walk;
    struct ops_call call = {
        .kernel = K_COPY,
        .dtype = y->dtype,
        .weight_dtype = x->dtype,
        .specs = 1,
        .spec = {w.local},
        .arg = {x, y},
        .push = &push,
        .groups = {w.groups[0], w.groups[1], w.groups[2]},
    };
    ops_dispatch(o, &call);
}
