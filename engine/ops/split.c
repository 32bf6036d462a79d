// Operators on maps that are larger than one storage buffer may be: sample by sample, or in pieces
// of whole rows. Called by the operators while they record. Thread: the engine's worker.
#include "ops_internal.h"

static size_t bytes_of(const struct tensor *t)
{
    return tensor_span(t) * tensor_dtype_bytes(t->dtype);
}

bool ops_by_sample(struct ops *o, const struct tensor *const t[], int count, ops_part_fn *one,
                   const void *params)
{
    const struct vk_caps *caps = ops_recorder_device(o)->caps;
    uint32_t samples = 0;
    for (int i = 0; i < count; i++)
        if (t[i] && t[i]->n > 1 && bytes_of(t[i]) > caps->max_storage_range)
            samples = t[i]->n;
    for (uint32_t n = 0; n < samples; n++) {
        struct tensor cut[OPS_MAX_SPLIT];
        const struct tensor *at[OPS_MAX_SPLIT] = {0};
        for (int i = 0; i < count; i++)
            if (t[i]) {
                cut[i] = tensor_samples(t[i], n, 1);
                at[i] = &cut[i];
            }
        one(o, at, params);
    }
    return samples > 0;
}

struct tensor ops_rows(const struct tensor *t, uint32_t first, uint32_t rows)
{
    struct tensor v = *t;
    v.offset += (size_t)first * t->w * t->cs;
    v.h = rows;
    return v;
}

uint32_t ops_piece_rows(const struct ops *o, const struct tensor *const t[], int count)
{
    const struct ops_device *dev = ops_recorder_device(o);
    const size_t most = dev->caps->max_storage_range, align = dev->caps->offset_alignment;
    size_t row = 0;
    bool whole = true;
    for (int i = 0; i < count; i++) {
        if (!t[i])
            continue;
        const size_t bytes = (size_t)t[i]->w * t[i]->cs * tensor_dtype_bytes(t[i]->dtype);
        row = bytes > row ? bytes : row;
        whole = whole && (t[i]->n > 1 || ops_bound_bytes(dev, t[i]) <= most);
    }
    // A piece is not the largest possible, so that a copy of one is small.
    const size_t room = most > align ? most - align : 0, rows = room / 4 / (row ? row : 1);
    return whole || row > room ? 0 : rows > 1 ? (uint32_t)rows : 1;
}

bool ops_by_rows(struct ops *o, const struct tensor *const t[], int count, ops_part_fn *one,
                 const void *params)
{
    struct tensor map[OPS_MAX_SPLIT];
    const struct tensor *maps[OPS_MAX_SPLIT] = {0}, *at[OPS_MAX_SPLIT] = {0};
    uint32_t height = 0;
    // A map of one row has rows of one pixel.
    for (int i = 0; i < count; i++)
        if (t[i] && t[i]->h * t[i]->w > 1) {
            map[i] = t[i]->h > 1 ? *t[i] : tensor_reshape(t[i], t[i]->n, t[i]->w, 1);
            maps[i] = &map[i];
            height = map[i].h;
        }
    const uint32_t rows = ops_piece_rows(o, maps, count);
    for (uint32_t first = 0; rows && first < height; first += rows) {
        struct tensor cut[OPS_MAX_SPLIT];
        for (int i = 0; i < count; i++) {
            at[i] = t[i];
            if (!maps[i])
                continue;
            cut[i] = ops_rows(maps[i], first, height - first < rows ? height - first : rows);
            at[i] = &cut[i];
        }
        one(o, at, params);
    }
    return rows > 0;
}
