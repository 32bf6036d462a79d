// Reads the images of a stage: its state as it is, or decoded. Called by the engine and the golden
// program, on the engine's worker.
#include "stage_priv.h"

#include <string.h>

bool stage_is_finite(const struct stage *s, int entry)
{
    return s->entry[entry].finite;
}

enum err stage_state(struct stage *s, int entry, float *out)
{
    struct tensor slot = stage_slot(&s->x, entry, s->channels);

    return tensor_download(&slot, out);
}

enum err stage_picture(struct stage *s, int entry, float *out)
{
    struct tensor slot = stage_slot(&s->x, entry, s->channels);

    return s->decode ? decode_run(s->decode, &slot, out) : tensor_download(&slot, out);
}

static enum err show(struct stage *s, int entry, int which, const uint8_t **rgb)
{
    const struct tensor *slots = which ? &s->history[which - 1] : &s->x;
    struct tensor slot = tensor_samples(slots, (uint32_t)entry, 1);
    struct ops **o = &s->entry[entry].rgb[which];
    enum err e = ERR_OK;

    if (s->decode)
        return decode_rgb(s->decode, &slot, rgb);
    if (!*o) {
        e = ops_begin(s->p.dev, s->p.dtype, o);
        if (e)
            return e;
        op_to_rgb8(*o, &slot, &s->rgb);
        e = ops_end(*o);
        if (e)
            ops_destroy(o);
    }
    if (!e)
        e = ops_run(*o);
    *rgb = tensor_map(&s->rgb);
    return e;
}

enum err stage_rgb(struct stage *s, int entry, const uint8_t **rgb)
{
    return show(s, entry, 0, rgb);
}

enum err stage_preview(struct stage *s, int entry, const uint8_t **rgb)
{
    struct op_lane lane = {0};

    if (s->entry[entry].done == 0)
        return show(s, entry, 0, rgb);
    sampler_fill_lane(s->entry[entry].sampler, s->entry[entry].done - 1, &lane);
    return show(s, entry, 1 + (int)lane.history, rgb);
}

const struct tensor *stage_output(const struct stage *s)
{
    return s->last ? &s->last->output : NULL;
}

enum err stage_low(struct stage *s, int entry, float *out)
{
    struct tensor slot = tensor_samples(&s->low, (uint32_t)entry, 1);

    return tensor_download(&slot, out);
}

int stage_timings(struct stage *s, struct ops_timing *out, int max, double *flops)
{
    const int n = s->timings < max ? s->timings : max;

    memcpy(out, s->timing, (size_t)n * sizeof *out);
    s->timings = 0;
    *flops = s->flops;
    s->flops = 0;
    return n;
}
