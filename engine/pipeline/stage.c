// The sampling state of one stage and its recordings. Called by the engine and the golden program,
// on the engine's worker. Knows nothing about prompt texts, files or other stages.
#include "stage_priv.h"

#include "clock.h"
#include "trace.h"

#include <stdlib.h>
#include <string.h>

static enum err slot_tensor(struct stage *s, uint32_t channels, struct tensor *t)
{
    return tensor_create(s->p.dev, DT_F32, s->p.entries, s->p.height, s->p.width, channels, t);
}

static enum err create_decode(struct stage *s)
{
    return decode_create(
        &(struct decode_params){
            .dev = s->p.dev, .decoder = s->p.decoder, .height = s->p.height, .width = s->p.width},
        &s->decode);
}

static enum err create_state(struct stage *s)
{
    struct ops_device *dev = s->p.dev;
    const uint32_t n = s->p.entries;
    enum err e = tensor_create(dev, DT_F32, n, s->p.height, s->p.width, 4, &s->x);

    if (!e)
        s->state = tensor_channels(&s->x, 0, s->channels);
    // A step reads its history before writing it, and an entering image's noise is used before its
    // first step.
    for (int i = 0; !e && i < (s->p.lean ? 1 : HISTORY); i++)
        e = slot_tensor(s, s->channels, &s->history[i]);
    if (s->p.lean)
        s->history[1] = s->history[2] = s->noise = s->history[0];
    else if (!e)
        e = slot_tensor(s, s->channels, &s->noise);
    if (!e && s->p.low_height)
        e = slot_tensor(s, RGB, &s->low);
    if (!e && s->p.low_height)
        e = tensor_create_mapped(dev, DT_F32, 1, s->p.low_height, s->p.low_width, RGB,
                                 &s->low_source);
    if (!e)
        e = tensor_create_mapped(dev, DT_F32, 2, 1, s->p.text_length, s->p.text_dim, &s->states);
    if (!e)
        e = tensor_create_mapped(dev, DT_U32, n, 1, 1, LANE_WORDS, &s->lanes);
    for (int i = 0; !e && i < 2; i++)
        e = tensor_create_mapped(dev, DT_U32, 1, 1, 1, LANE_WORDS, &s->prepare[i]);
    if (!e)
        e = tensor_create_mapped(dev, DT_F32, 2 * n, 1, 1, 1, &s->timestep);
    if (!e)
        e = tensor_create_mapped(dev, DT_F32, 2 * n, 1, 1, 1, &s->level);
    if (!e)
        e = tensor_create_mapped(dev, DT_U32, 2 * n, 1, 1, 1, &s->level_index);
    if (!e)
        e = tensor_create_mapped(dev, DT_U32, 2 * n, 1, 1, 1, &s->text_index);
    if (!e && s->p.decoder)
        e = create_decode(s);
    else if (!e)
        e = tensor_create_mapped(dev, DT_U8, 1, s->p.height, s->p.width, RGB, &s->rgb);
    return e;
}

enum err stage_create(const struct stage_params *p, struct stage **out)
{
    struct stage *s = calloc(1, sizeof *s);
    enum err e = ERR_NO_MEMORY;

    if (!s)
        return e;
    s->p = *p;
    s->channels = p->decoder ? (uint32_t)p->decoder->config.channels : RGB;
    s->entry = calloc(p->entries, sizeof *s->entry);
    s->step = calloc((size_t)p->entries * KINDS, sizeof *s->step);
    s->scratch = p->noise ? malloc(sizeof(float) * s->channels * p->height * p->width) : NULL;
    if (!s->entry || !s->step || (p->noise && !s->scratch))
        goto fail;
    e = create_state(s);
    if (!e)
        e = denoiser_text_create(p->denoiser, 2 * p->entries, p->text_length, &s->text);
    if (e)
        goto fail;
    *out = s;
    return ERR_OK;
fail:
    stage_destroy(&s);
    return e;
}

void stage_destroy(struct stage **out)
{
    struct stage *s = *out;

    if (!s)
        return;
    for (uint32_t i = 0; s->entry && i < s->p.entries; i++) {
        ops_destroy(&s->entry[i].enter[0]);
        ops_destroy(&s->entry[i].enter[1]);
        for (int k = 0; k <= HISTORY; k++)
            ops_destroy(&s->entry[i].rgb[k]);
        sampler_destroy(&s->entry[i].sampler);
    }
    for (uint32_t i = 0; s->step && i < s->p.entries * KINDS; i++)
        ops_destroy(&s->step[i].ops);
    denoiser_text_destroy(&s->text);
    decode_destroy(&s->decode);
    if (s->p.lean)
        s->history[1] = s->history[2] = s->noise = (struct tensor){0};
    struct tensor *tensors[] = {
        &s->x,          &s->low,        &s->noise, &s->history[0], &s->history[1],  &s->history[2],
        &s->states,     &s->low_source, &s->lanes, &s->prepare[0], &s->prepare[1],  &s->timestep,
        &s->text_index, &s->level,      &s->rgb,   &s->original,   &s->level_index,
    };
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
        tensor_destroy(tensors[i]);
    free(s->scratch);
    free(s->step);
    free(s->entry);
    free(s);
    *out = NULL;
}

void stage_sleep(struct stage *s)
{
    for (uint32_t i = 0; i < s->p.entries; i++)
        for (int k = 0; k < 2; k++)
            ops_destroy(&s->entry[i].enter[k]);
    for (uint32_t i = 0; i < s->p.entries * KINDS; i++)
        ops_destroy(&s->step[i].ops);
    s->last = NULL;
    decode_destroy(&s->decode);
    s->p.denoiser = NULL;
    s->p.decoder = NULL;
}

enum err stage_wake(struct stage *s, const struct denoiser *denoiser, const struct decoder *decoder)
{
    s->p.denoiser = denoiser;
    s->p.decoder = decoder;
    return decoder ? create_decode(s) : ERR_OK;
}

int stage_free(const struct stage *s)
{
    int n = 0;

    for (uint32_t i = 0; i < s->p.entries; i++)
        n += !s->entry[i].used;
    return n;
}

bool stage_is_empty(const struct stage *s)
{
    return stage_free(s) == (int)s->p.entries;
}

static void key_lane(const struct stage *s, int entry, struct op_lane *lane)
{
    const struct entry *t = &s->entry[entry];

    lane->slot = (uint32_t)entry;
    lane->seed_lo = (uint32_t)t->seed;
    lane->seed_hi = (uint32_t)(t->seed >> 32);
    lane->picture = t->picture;
    lane->stage = s->p.index;
    lane->guidance = t->guidance;
    lane->noise_level = t->noise_level;
}

static enum err give_noise(struct stage *s, int entry, enum stage_noise kind, int step,
                           const struct tensor *slots)
{
    const uint32_t channels = kind == STAGE_NOISE_AUGMENT ? RGB : s->channels;
    struct tensor slot = stage_slot(slots, entry, channels);

    s->p.noise(s->p.noise_ctx, entry, kind, step, s->scratch);
    return tensor_upload(&slot, s->scratch);
}

// Records the entry of an image: its text passes through the text part of the U-Net, its low-res
// image is enlarged and noised, and x is set to noise, or to an edit's image with noise. That noise
// is stored in the history, which no first step reads.
static enum err record_enter(struct stage *s, int entry, bool edit)
{
    struct tensor low = s->p.low_height ? tensor_samples(&s->low, (uint32_t)entry, 1) : s->x;
    struct tensor states = s->states, noise = tensor_channels(&s->noise, 0, RGB);
    struct ops *o;
    enum err e = ops_begin(s->p.dev, s->p.dtype, &o);

    if (e)
        return e;
    if (s->p.dtype != states.dtype) {
        states = ops_temp(o, states.n, states.h, states.w, states.c);
        op_copy(o, &s->states, &states);
    }
    denoiser_record_text(s->p.denoiser, o, &states, s->text, 2 * (uint32_t)entry);
    if (s->p.low_height) {
        op_upsample_bilinear(o, denoiser_get_config(s->p.denoiser)->align_corners, &s->low_source,
                             &low);
        if (!s->p.noise)
            op_noise(o, &s->prepare[STAGE_NOISE_AUGMENT], &noise);
        op_add_noise(o, &s->prepare[STAGE_NOISE_AUGMENT], &s->low, &noise, &s->low);
    }
    if (!s->p.noise)
        op_noise(o, &s->prepare[STAGE_NOISE_INIT], edit ? &s->history[0] : &s->state);
    if (edit)
        op_add_noise(o, &s->prepare[STAGE_NOISE_INIT], &s->state, &s->history[0], &s->state);
    e = ops_end(o);
    if (e)
        ops_destroy(&o);
    else
        s->entry[entry].enter[edit] = o;
    return e;
}

// Stores kept pixels apart from x, which is noised entirely; they are put into x after each step.
static enum err upload_noised(struct stage *s, int entry, const float *original)
{
    struct tensor slot = stage_slot(&s->x, entry, RGB);
    const size_t pixels = (size_t)s->p.height * s->p.width;
    float *rgb;
    enum err e = ERR_OK;

    if (!s->original.buf)
        e = tensor_create(s->p.dev, DT_F32, s->p.entries, s->p.height, s->p.width, 4, &s->original);
    // Only this image fails.
    if (e)
        return ERR_NO_MEMORY;
    rgb = malloc(3 * pixels * sizeof *rgb);
    if (!rgb)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < 3 * pixels; i++)
        rgb[i] = original[i / 3 * 4 + i % 3];
    e = tensor_upload(&slot, rgb);
    slot = tensor_samples(&s->original, (uint32_t)entry, 1);
    if (!e)
        e = tensor_upload(&slot, original);
    free(rgb);
    return e;
}

static enum err upload_start(struct stage *s, int entry, const struct stage_start *start)
{
    struct tensor half = tensor_samples(&s->states, 0, 1), x;
    enum err e = tensor_upload(&half, start->negative ? start->negative : start->text);

    half = tensor_samples(&s->states, 1, 1);
    if (!e)
        e = tensor_upload(&half, start->text);
    if (!e && s->p.low_height)
        e = tensor_upload(&s->low_source, start->low);
    if (!e && s->p.noise && s->p.low_height)
        e = give_noise(s, entry, STAGE_NOISE_AUGMENT, 0, &s->noise);
    if (!e && s->p.noise)
        e = give_noise(s, entry, STAGE_NOISE_INIT, 0, start->original ? &s->history[0] : &s->x);
    if (e || !start->original)
        return e;
    x = tensor_samples(&s->x, (uint32_t)entry, 1);
    return start->noised ? upload_noised(s, entry, start->original)
                         : tensor_upload(&x, start->original);
}

bool stage_is_lean_sampler(const struct sampler *sampler)
{
    bool lean = !sampler->stochastic;

    for (int i = 0; i < sampler->steps; i++)
        lean = lean && sampler->step[i].c2 == 0;
    return lean;
}

enum err stage_enter(struct stage *s, const struct stage_start *start, int *out, struct fault *why)
{
    struct sampler *sampler = start->sampler;
    double a = 1, b = 0;
    int i = 0;
    enum err e;

    while (i < (int)s->p.entries && s->entry[i].used)
        i++;
    if (i == (int)s->p.entries) {
        e = ERR_BUSY;
        goto fail;
    }
    if (start->original && s->p.decoder) {
        e = fault_set(why, ERR_UNSUPPORTED, "image",
                      "stage %u works on latents and cannot start from an image", s->p.index + 1);
        goto fail;
    }
    if (s->p.lean && !stage_is_lean_sampler(sampler)) {
        e = fault_set(why, ERR_UNSUPPORTED, "sampler", "this stage does not support the sampler %s",
                      sampler->name);
        goto fail;
    }
    if (s->p.low_height) {
        e = sampler_noise_mix(s->p.noising, start->noise_level, &a, &b, why);
        if (e)
            goto fail;
    }
    struct entry *t = &s->entry[i];
    t->done = 0;
    t->finite = true;
    t->guidance = start->guidance;
    memcpy(t->guidance_interval, start->guidance_interval, sizeof t->guidance_interval);
    t->noise_level = (float)start->noise_level;
    t->noised = start->original && start->noised;
    t->seed = start->seed;
    t->picture = start->picture;
    const bool edit = start->original;
    for (int k = 0; k < 2; k++) {
        const bool init = k == STAGE_NOISE_INIT;
        struct op_lane lane = {.step = init ? STEP_INIT : STEP_AUGMENT};
        key_lane(s, i, &lane);
        lane.cx = (float)(init ? sampler->start_signal : a);
        lane.noise = (float)(init ? sampler->start_noise : b);
        memcpy(tensor_map(&s->prepare[k]), &lane, sizeof lane);
    }
    e = t->enter[edit] ? ERR_OK : record_enter(s, i, edit);
    if (!e)
        e = upload_start(s, i, start);
    if (!e)
        e = ops_run(t->enter[edit]);
    if (e)
        goto fail;
    t->used = true;
    t->sampler = sampler;
    *out = i;
    return ERR_OK;
fail:
    sampler_destroy(&sampler);
    return e;
}

void stage_leave(struct stage *s, int entry)
{
    sampler_destroy(&s->entry[entry].sampler);
    s->entry[entry].used = false;
}

int stage_steps(const struct stage *s, int entry)
{
    return s->entry[entry].sampler->steps;
}

int stage_steps_done(const struct stage *s, int entry)
{
    return s->entry[entry].done;
}

static enum err record_step(struct stage *s, uint32_t count, unsigned kind,
                            struct step_recording *out)
{
    const struct denoiser_config *c = denoiser_get_config(s->p.denoiser);
    const bool guided = kind & KIND_GUIDED;
    const uint32_t batch = guided ? 2 * count : count, p = (uint32_t)c->patch;
    struct tensor lanes = tensor_samples(&s->lanes, 0, count);
    struct tensor timestep = tensor_samples(&s->timestep, 0, batch);
    struct tensor level = tensor_samples(&s->level, 0, batch);
    struct tensor level_index = tensor_samples(&s->level_index, 0, batch);
    struct tensor index = tensor_samples(&s->text_index, 0, batch);
    struct tensor input;
    struct ops *o;
    enum err e = ops_begin(s->p.dev, s->p.dtype, &o);

    if (e)
        return e;
    input = ops_temp(o, batch, s->p.height / p, s->p.width / p, (uint32_t)c->in_channels * p * p);
    op_gather_input(o, &lanes, &s->state, s->p.low_height ? &s->low : NULL, p, guided, &input);
    out->output = denoiser_record(s->p.denoiser, o,
                                  &(struct denoiser_inputs){
                                      .sample = &input,
                                      .timestep = &timestep,
                                      .noise_level = &level,
                                      .noise_index = &level_index,
                                      .text_index = &index,
                                      .text = s->text,
                                  });
    ops_release(o, &input);
    if ((kind & KIND_NOISE) && !s->p.noise)
        op_noise(o, &lanes, &s->noise);
    op_sampler_step(o, &(struct op_sampler_params){
                           .lanes = &lanes,
                           .m = &out->output,
                           .guided = guided,
                           .dynamic = kind & KIND_DYNAMIC,
                           .x = &s->state,
                           .history = {&s->history[0], &s->history[1], &s->history[2]},
                           .noise = &s->noise,
                       });
    if (kind & KIND_KEEP) {
        const struct tensor original = tensor_channels(&s->original, 0, 3);
        op_keep(o, &lanes, &original, &s->state);
    }
    e = ops_end(o);
    if (e)
        ops_destroy(&o);
    out->ops = o;
    return e;
}

// The kind of a sampler's step with or without added noise.
static unsigned sampler_kind(const struct sampler *sampler, bool guided, bool noise)
{
    return (guided ? KIND_GUIDED : 0) | (noise ? KIND_NOISE : 0) |
           (sampler->threshold == THRESHOLD_DYNAMIC ? KIND_DYNAMIC : 0);
}

static float guidance_at(float guidance, const int interval[2], int timestep)
{
    return timestep >= interval[0] && timestep <= interval[1] ? guidance : 1;
}

enum err stage_warm(struct stage *s, const struct sampler *sampler, float guidance,
                    const int interval[2])
{
    enum err e = s->entry[0].enter[0] ? ERR_OK : record_enter(s, 0, false);

    for (int i = 0; !e && i < sampler->steps; i++) {
        const struct sampler_step *step = &sampler->step[i];
        const bool guided = guidance_at(guidance, interval, step->timestep) != 1;
        const unsigned kind = sampler_kind(sampler, guided, step->noise != 0);
        struct step_recording *r = &s->step[kind];
        if (!r->ops)
            e = record_step(s, 1, kind, r);
    }
    return e || !s->decode ? e : decode_warm(s->decode);
}

enum err stage_warm_most(struct stage *s)
{
    struct step_recording *r = &s->step[(s->p.entries - 1) * KINDS + KIND_GUIDED];

    const enum err e = r->ops ? ERR_OK : record_step(s, s->p.entries, KIND_GUIDED, r);
    return e || !s->decode ? e : decode_warm(s->decode);
}

// Writes this step's parameters where the recording reads them; returns the kind of step.
static unsigned fill_step(struct stage *s, const int *entry, int count)
{
    struct op_lane *lanes = tensor_map(&s->lanes);
    unsigned kind = 0;

    for (int i = 0; i < count; i++) {
        const struct entry *t = &s->entry[entry[i]];
        memset(&lanes[i], 0, sizeof lanes[i]);
        sampler_fill_lane(t->sampler, t->done, &lanes[i]);
        key_lane(s, entry[i], &lanes[i]);
        lanes[i].guidance =
            guidance_at(t->guidance, t->guidance_interval, t->sampler->step[t->done].timestep);
        kind |= sampler_kind(t->sampler, lanes[i].guidance != 1, lanes[i].noise != 0);
        if (!t->noised)
            continue;
        kind |= KIND_KEEP;
        lanes[i].kept_signal = (float)t->sampler->step[t->done].next_signal;
        lanes[i].kept_noise = (float)t->sampler->step[t->done].next_noise;
    }
    float *timestep = tensor_map(&s->timestep), *level = tensor_map(&s->level);
    uint32_t *index = tensor_map(&s->text_index), *level_index = tensor_map(&s->level_index);
    const int samples = kind & KIND_GUIDED ? 2 * count : count;
    for (int i = 0; i < samples; i++) {
        const int lane = i % count;
        const bool negative = (kind & KIND_GUIDED) && i < count;
        timestep[i * s->timestep.cs] = lanes[lane].timestep;
        level[i * s->level.cs] = lanes[lane].noise_level;
        level_index[i * s->level_index.cs] =
            lanes[lane].noise_level > 0 ? (uint32_t)lanes[lane].noise_level : 0;
        index[i * s->text_index.cs] = 2 * (uint32_t)entry[lane] + !negative;
    }
    return kind;
}

static void add_timings(struct stage *s, struct ops *o)
{
    struct ops_timing t[MAX_TIMINGS];
    const int found = ops_timings(o, t, MAX_TIMINGS);

    s->flops += ops_flops(o);
    for (int k = 0; k < found; k++) {
        int at = 0;
        while (at < s->timings && strcmp(s->timing[at].name, t[k].name))
            at++;
        if (at == MAX_TIMINGS)
            continue;
        if (at == s->timings)
            s->timing[s->timings++] = (struct ops_timing){.name = t[k].name};
        s->timing[at].calls += t[k].calls;
        s->timing[at].seconds += t[k].seconds;
        s->timing[at].flops += t[k].flops;
    }
}

enum err stage_step(struct stage *s, const int *entry, int count)
{
    const unsigned kind = fill_step(s, entry, count);
    struct step_recording *r = &s->step[(count - 1) * KINDS + (int)kind];
    enum err e = r->ops ? ERR_OK : record_step(s, (uint32_t)count, kind, r);

    for (int i = 0; !e && s->p.noise && (kind & KIND_NOISE) && i < count; i++)
        e = give_noise(s, entry[i], STAGE_NOISE_STEP, s->entry[entry[i]].done, &s->noise);
    const double began = clock_seconds();
    if (!e)
        e = ops_run(r->ops);
    if (e)
        return e;
    trace_span("forward", began, TRACE_OWN, "stage %u, %.3g GFLOP", s->p.index + 1,
               ops_flops(r->ops) / 1e9);
    s->last = r;
    add_timings(s, r->ops);
    const struct op_lane *lanes = tensor_map(&s->lanes);
    for (int i = 0; i < count; i++) {
        s->entry[entry[i]].done++;
        s->entry[entry[i]].finite = !lanes[i].not_finite;
    }
    return ERR_OK;
}
