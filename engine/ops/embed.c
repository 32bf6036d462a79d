// Embeddings: token table, T5's relative position bias, timestep features. Called by engine/model
// while it records. Thread: the engine's worker.
#include "walk.h"

#include <math.h>

enum { LOCAL = 64, PARTS = 4 };

void op_embed(struct ops *o, const struct tensor *ids, const struct tensor *table,
              const struct tensor *y)
{
    bool ok =
        ids->dtype == DT_U32 && ids->c == 1 && ids->n == y->n && ids->h * ids->w == y->h * y->w;
    ok = ok && table->n == 1 && table->h == 1 && table->c == y->c;
    if (!ops_require(o, ok && is_activation(table) && is_activation(y), ids, table, y))
        return;
    struct walk_plan w = walk_plan(o, y->c, tensor_pixels(y), 1);
    struct push_embed push = {
        .ids = ops_view(o, ids),
        .y = ops_view(o, y),
        .cs = table->cs / 4,
        .walk = w.walk,
        .pixels = tensor_pixels(y),
        .c = y->c,
        .rows = table->w,
    };
    size_t row = table->cs * tensor_dtype_bytes(table->dtype);
    size_t most = ops_recorder_device(o)->caps->max_storage_range / row;
    most = most > 1 ? most - 1 : 1; // room for the binding's alignment
    push.part_rows = (uint32_t)(most < table->w ? most : table->w);
    if (blocks_of(table->w, push.part_rows) > PARTS) {
        ops_exceeds(o, "embed", table, "storage bindings (maxStorageBufferRange) for its table",
                    blocks_of(table->w, push.part_rows), PARTS);
        return;
    }
    struct tensor part[PARTS];
    struct ops_call call = {
        .op = OP_EMBED,
        .dtype = y->dtype,
        .weight_dtype = table->dtype,
        .specs = 2,
        .spec = {w.local, w.blocks},
        .arg = {ids, [PARTS + 1] = y},
        .push = &push,
        .groups = {w.groups[0], w.groups[1], w.groups[2]},
    };
    for (uint32_t i = 0; i < PARTS && i * push.part_rows < table->w; i++) {
        uint32_t first = i * push.part_rows, left = table->w - first;
        part[i] = *table;
        part[i].offset += (size_t)first * table->cs;
        part[i].w = left < push.part_rows ? left : push.part_rows;
        push.base[i] = ops_view(o, &part[i]).base;
        call.arg[1 + i] = &part[i];
    }
    ops_dispatch(o, &call);
}

// transformers' T5Attention._relative_position_bucket for one distance, in its f32 steps.
static uint32_t far_bucket(uint32_t d, uint32_t half, uint32_t exact, uint32_t max_distance)
{
    float span = (float)log((double)max_distance / exact);
    float r = logf((float)d / (float)exact) / span * (float)(half - exact);
    uint32_t b = exact + (uint32_t)r;
    return b < half - 1 ? b : half - 1;
}

void op_relative_bias(struct ops *o, const struct tensor *table, uint32_t max_distance,
                      const struct tensor *bias)
{
    uint32_t half = table->w / 2, exact = half / 2;
    struct push_relative_bias push = {
        .table = ops_view(o, table),
        .y = ops_view(o, bias),
        .tokens = bias->w,
        .c4 = vec4s(table->c),
        .half_buckets = half,
        .exact = exact,
    };
    uint32_t most = sizeof push.limit / sizeof push.limit[0];
    bool ok = table->dtype == DT_F32 && bias->dtype == DT_F32 && table->n * table->h == 1 &&
              bias->n == 1 && bias->h == bias->w && bias->c == table->c;
    if (!ops_require(o, ok && exact && max_distance > exact, table, bias))
        return;
    if (half - exact - 1 > most) {
        ops_exceeds(o, "relative_bias", table, "distance buckets", half - exact - 1, most);
        return;
    }
    for (uint32_t d = exact; push.limits < half - exact - 1 && d <= 2 * max_distance; d++)
        while (push.limits < half - exact - 1 &&
               far_bucket(d, half, exact, max_distance) > exact + push.limits)
            push.limit[push.limits++] = d;
    uint32_t local = walk_local(o, LOCAL);
    struct ops_call call = {
        .op = OP_RELATIVE_BIAS,
        .specs = 1,
        .spec = {local},
        .arg = {table, bias},
        .push = &push,
        .groups = {blocks_of(bias->w, local), bias->h, 1},
    };
    ops_dispatch(o, &call);
}

void op_time_embed(struct ops *o, const struct tensor *t, bool flip, float freq_shift,
                   const struct tensor *y)
{
    bool ok = t->dtype == DT_F32 && t->c == 1 && t->h * t->w == 1 && y->h * y->w == 1 &&
              t->n == y->n && y->c >= 2 && is_activation(y);
    if (!ops_require(o, ok, t, y))
        return;
    uint32_t local = walk_local(o, LOCAL);
    struct push_time_embed push = {
        .t = ops_view(o, t),
        .y = ops_view(o, y),
        .dim = y->c,
        .flip = flip,
        .exponent = -(float)log(10000),
        .divisor = (float)(y->c / 2) - freq_shift,
    };
    struct ops_call call = {
        .op = OP_TIME_EMBED,
        .dtype = y->dtype,
        .specs = 1,
        .spec = {local},
        .arg = {t, y},
        .push = &push,
        .groups = {blocks_of(vec4s(y->c), local), 1, y->n},
    };
    ops_dispatch(o, &call);
}
