// The sampler step against the reference: guidance, thresholds, learned variance, history, slots;
// the dynamic threshold's quantile by itself; and a lane's bits alone and beside others.
#include "op_test.h"
#include "ref_maps.h"

enum { SLOTS = 5, MAX_LANES = 4 };

struct world {
    struct ops_device *dev;
    enum dtype dtype;
    uint32_t h, w, mc, lanes;
    bool guided, dynamic;
    bool keeps;  // every third pixel of x
    bool latent; // 4 channels; else 3, and the mark of kept pixels in x
    struct op_lane lane[MAX_LANES];
    float *state[5]; // x, three histories, noise: [SLOTS, h, w, 4]
    float *m;        // [lanes (* 2), h, w, mc]
};

static struct ref_shape state_shape(const struct world *w)
{
    return (struct ref_shape){SLOTS, w->h, w->w, 4};
}

static uint32_t channels_of(const struct world *w)
{
    return w->latent ? 4 : 3;
}

static void clear_padding(float *v, size_t n)
{
    for (size_t i = 3; i < n; i += 4)
        v[i] = 0;
}

static void world_make(struct world *w)
{
    size_t n = ref_count(state_shape(w));
    for (uint32_t i = 0; i < 5; i++) {
        w->state[i] = op_random(DT_F32, n, 10 + i);
        if (!w->latent)
            clear_padding(w->state[i], n);
    }
    for (size_t i = 3; w->keeps && i < n; i += 12)
        w->state[0][i] = 1;
    w->m = op_random(w->dtype, (size_t)w->lanes * (w->guided ? 2 : 1) * w->h * w->w * w->mc, 3);
}

static void world_free(struct world *w)
{
    for (int i = 0; i < 5; i++)
        free(w->state[i]);
    free(w->m);
}

// Runs the step for lanes first .. first+count; out[0..3]: x and the histories after it. Returns
// the lanes that met NaN or infinity, a bit each.
static unsigned run_step(const struct world *w, uint32_t first, uint32_t count, float *out[4])
{
    unsigned bad = 0;
    struct ref_shape s = state_shape(w), ms = {count * (w->guided ? 2 : 1), w->h, w->w, w->mc};
    size_t sample = (size_t)w->h * w->w * w->mc;
    float *m = malloc(ref_count(ms) * sizeof *m);
    struct op_array state[5];
    if (!m)
        abort();
    memcpy(m, w->m + first * sample, count * sample * sizeof *m);
    if (w->guided)
        memcpy(m + count * sample, w->m + (w->lanes + first) * sample, count * sample * sizeof *m);
    struct tensor view[5];
    for (int i = 0; i < 5; i++) {
        state[i] = op_array(w->dev, DT_F32, s, w->state[i], false);
        view[i] = tensor_channels(&state[i].t, 0, channels_of(w));
    }
    struct op_array am = op_array(w->dev, w->dtype, ms, m, false);
    struct tensor table;
    CHECK_INT(tensor_create_mapped(w->dev, DT_U32, count, 1, 1, 32, &table), ERR_OK);
    memcpy(tensor_map(&table), w->lane + first, count * sizeof w->lane[0]);
    struct ops *o = op_begin(w->dev, w->dtype);
    struct op_sampler_params p = {.lanes = &table,
                                  .m = &am.t,
                                  .guided = w->guided,
                                  .dynamic = w->dynamic,
                                  .x = &view[0],
                                  .history = {&view[1], &view[2], &view[3]},
                                  .noise = &view[4]};
    op_sampler_step(o, &p);
    op_finish(o);
    const struct op_lane *lanes = tensor_map(&table);
    for (uint32_t i = 0; i < count; i++)
        bad |= (unsigned)(lanes[i].not_finite != 0) << i;
    for (int i = 0; i < 5; i++) {
        if (i < 4) {
            out[i] = malloc(ref_count(s) * sizeof *out[i]);
            CHECK_INT(tensor_download(&state[i].t, out[i]), ERR_OK);
        }
        op_array_free(&state[i]);
    }
    op_array_free(&am);
    tensor_destroy(&table);
    free(m);
    return bad;
}

// [pixels, 4] <-> [pixels, c]
static void to_dense(const float *from, float *to, size_t pixels, size_t c)
{
    for (size_t i = 0; i < pixels * c; i++)
        to[i] = from[i / c * 4 + i % c];
}

static void to_slot(const float *from, double *to, size_t pixels, size_t c)
{
    for (size_t i = 0; i < pixels * c; i++)
        to[i / c * 4 + i % c] = from[i];
}

// want[0]: x, want[1..3]: histories, all slots, after every lane's step.
static void expect(const struct world *w, double *want[4])
{
    size_t pixels = (size_t)w->h * w->w, slot = pixels * 4, n = ref_count(state_shape(w));
    const size_t c = channels_of(w), values = pixels * c;
    for (int i = 0; i < 4; i++) {
        want[i] = calloc(n, sizeof *want[i]);
        for (size_t j = 0; j < n; j++)
            want[i][j] = w->state[i][j];
    }
    float *d = malloc(values * 5 * sizeof *d);
    if (!d)
        abort();
    float *x = d, *h1 = x + values, *h2 = h1 + values, *z = h2 + values, *x0 = z + values;
    for (uint32_t i = 0; i < w->lanes; i++) {
        const struct op_lane *l = &w->lane[i];
        size_t at = l->slot * slot, sample = pixels * w->mc;
        to_dense(w->state[0] + at, x, pixels, c);
        to_dense(w->state[1 + (l->history + 2) % 3] + at, h1, pixels, c);
        to_dense(w->state[1 + (l->history + 1) % 3] + at, h2, pixels, c);
        to_dense(w->state[4] + at, z, pixels, c);
        struct ref_step_params p = {.lane = l,
                                    .pixels = (uint32_t)pixels,
                                    .channels = (uint32_t)c,
                                    .mc = w->mc,
                                    .u = w->guided ? w->m + i * sample : NULL,
                                    .m = w->m + (i + (w->guided ? w->lanes : 0)) * sample,
                                    .h1 = h1,
                                    .h2 = h2,
                                    .z = z,
                                    .x = x,
                                    .x0 = x0};
        ref_sampler_step(&p);
        const float *old = w->state[0] + at;
        for (size_t k = 0; !w->latent && k < values; k++)
            if (old[k / 3 * 4 + 3] != 0)
                x[k] = x0[k] = old[k / 3 * 4 + k % 3];
        to_slot(x, want[0] + at, pixels, c);
        to_slot(x0, want[1 + l->history] + at, pixels, c);
    }
    free(d);
}

// No term is above 8: a rounding is 8 eps at most. There are six terms to add; a guided output has
// gone through three roundings before, two of which cancel in part, and the threshold adds two.
static void check_world(struct world *w, const char *name)
{
    size_t n = ref_count(state_shape(w));
    double *want[4], *bound = calloc(n, sizeof *bound);
    float *got[4], *alone[4];
    char what[96];
    world_make(w);
    expect(w, want);
    CHECK_INT(run_step(w, 0, w->lanes, got), 0);
    for (size_t i = 0; i < n; i++)
        bound[i] = 12 * 8 * OP_EPS;
    for (int i = 0; i < 4; i++) {
        snprintf(what, sizeof what, "%s, %s %d %s", name, i ? "history" : "x", i,
                 op_test_variant(w->dev, w->dtype));
        op_compare(what, got[i], want[i], bound, n);
    }
    for (uint32_t l = 0; l < w->lanes; l++) {
        run_step(w, l, 1, alone);
        size_t slot = n / SLOTS, at = w->lane[l].slot * slot;
        for (int i = 0; i < 4; i++)
            CHECK_MSG(!memcmp(alone[i] + at, got[i] + at, slot * sizeof(float)),
                      "%s: lane %u alone and in a batch differ", name, l);
        for (int i = 0; i < 4; i++)
            free(alone[i]);
    }
    for (int i = 0; i < 4; i++) {
        free(got[i]);
        free(want[i]);
    }
    free(bound);
    world_free(w);
}

static struct op_lane plain_lane(uint32_t slot)
{
    return (struct op_lane){.slot = slot,
                            .guidance = 4,
                            .history = slot % 3,
                            .px = 1.25f,
                            .pm = -0.75f,
                            .cx = 0.5f,
                            .cm = 0.25f,
                            .c0 = 0.75f,
                            .max_value = 1};
}

static void check_steps(struct ops_device *dev, enum dtype dtype)
{
    struct world w = {.dev = dev, .dtype = dtype, .h = 5, .w = 7, .mc = 3, .lanes = 1};
    w.lane[0] = plain_lane(2);
    check_world(&w, "plain");

    w = (struct world){.dev = dev, .dtype = dtype, .h = 9, .w = 8, .mc = 6, .lanes = 3};
    for (uint32_t i = 0; i < 3; i++) {
        w.lane[i] = plain_lane(4 - i);
        w.lane[i].threshold = 1;
        w.lane[i].noise = 0.5f * (float)i;
        w.lane[i].learned = (float)i;
        w.lane[i].logvar_min = -4;
        w.lane[i].logvar_max = -1;
    }
    check_world(&w, "clip, variance");

    w = (struct world){.dev = dev,
                       .dtype = dtype,
                       .h = 16,
                       .w = 15,
                       .mc = 6,
                       .lanes = 4,
                       .guided = true,
                       .dynamic = true,
                       .keeps = true};
    for (uint32_t i = 0; i < 4; i++) {
        w.lane[i] = plain_lane((3 * i + 1) % SLOTS);
        w.lane[i].threshold = i == 1 ? 1 : 2;
        w.lane[i].guidance = i == 2 ? 1 : 3.0f + (float)i;
        w.lane[i].quantile = 0.95f;
        w.lane[i].max_value = i == 3 ? 1.0f : 2.5f;
        w.lane[i].c1 = i % 2 ? -0.5f : 0;
        w.lane[i].c2 = i > 1 ? 0.25f : 0;
        w.lane[i].noise = 0.25f;
        w.lane[i].learned = 1;
        w.lane[i].logvar_min = -5;
    }
    check_world(&w, "dynamic, guided, history, kept pixels");

    w = (struct world){.dev = dev,
                       .dtype = dtype,
                       .h = 6,
                       .w = 11,
                       .mc = 4,
                       .lanes = 3,
                       .guided = true,
                       .latent = true};
    for (uint32_t i = 0; i < 3; i++) {
        w.lane[i] = plain_lane(4 - i);
        w.lane[i].threshold = i == 1;
        w.lane[i].c1 = -0.5f;
        w.lane[i].c2 = i == 2 ? 0.25f : 0;
        w.lane[i].noise = 0.5f * (float)i;
    }
    check_world(&w, "latents, guided, history, noise");
}

// A slot whose history is another picture's, and not even finite, while no coefficient asks for it.
static void check_stale(struct ops_device *dev)
{
    struct world w = {.dev = dev, .dtype = DT_F32, .h = 3, .w = 3, .mc = 3, .lanes = 1};
    w.lane[0] = plain_lane(1);
    world_make(&w);
    for (int i = 1; i < 5; i++)
        for (size_t j = 0; j < ref_count(state_shape(&w)); j++)
            w.state[i][j] = NAN;
    float *got[4];
    CHECK_INT(run_step(&w, 0, 1, got), 0);
    for (size_t j = 36; j < 72; j++)
        CHECK(isfinite(got[0][j]));
    for (int i = 0; i < 4; i++)
        free(got[i]);
    world_free(&w);
}

// NaN and infinity, wherever they come from, are found in their lane and in no other: also where a
// threshold would hide them, and in the last pixel.
static void check_not_finite(struct ops_device *dev, enum dtype dtype)
{
    enum { X, NOISE = 4, M = 5, VARIANCE };
    static const struct {
        int where; // a state, or the model's output
        bool guided, dynamic;
        uint32_t threshold;
        float value;
    } rows[] = {
        {M, false, false, 0, NAN},      {M, false, false, 1, NAN},
        {M, false, false, 1, INFINITY}, {M, true, false, 0, -INFINITY},
        {M, true, true, 2, NAN},        {M, true, true, 2, INFINITY},
        {X, false, false, 1, NAN},      {X, false, false, 1, INFINITY},
        {NOISE, false, false, 0, NAN},  {VARIANCE, false, false, 0, NAN},
    };
    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
        for (uint32_t bad = 0; bad < 3; bad++) {
            struct world w = {.dev = dev,
                              .dtype = dtype,
                              .h = 5,
                              .w = 7,
                              .mc = 6,
                              .lanes = 3,
                              .guided = rows[k].guided,
                              .dynamic = rows[k].dynamic};
            float *got[4];
            world_make(&w);
            for (uint32_t i = 0; i < 3; i++) {
                w.lane[i] = plain_lane(3 - i);
                w.lane[i].threshold = rows[k].threshold;
                w.lane[i].quantile = 0.9f;
                w.lane[i].noise = 0.5f;
                w.lane[i].learned = 1;
            }
            const size_t pixels = 35, last = pixels - 1;
            const size_t sample = bad + (w.guided ? 3 * (k % 2) : 0);
            float *state = w.state[rows[k].where == NOISE ? 4 : 0] + w.lane[bad].slot * pixels * 4;
            float *m = w.m + sample * pixels * 6;
            if (rows[k].where == M || rows[k].where == VARIANCE)
                m[(k % 3 ? last : 0) * 6 + (rows[k].where == VARIANCE ? 5 : 1)] = rows[k].value;
            else
                state[(k % 3 ? last : 0) * 4 + 2] = rows[k].value;
            CHECK_MSG(run_step(&w, 0, 3, got) == 1u << bad, "row %zu, lane %u", k, bad);
            for (int i = 0; i < 4; i++)
                free(got[i]);
            world_free(&w);
        }
}

enum values { UNIFORM, HEAVY, FEW, SAME, ZERO, TWO_SCALES };

static float value(enum values kind, float u, size_t i)
{
    switch (kind) {
    case UNIFORM: return 4 * u;
    case HEAVY: return copysignf(1 / powf(fabsf(u) + 1e-6f, 0.7f), u);
    case FEW: return rintf(3 * u);
    case SAME: return 1.75f;
    case ZERO: return 0;
    case TWO_SCALES: return i % 20 ? u : 1000 + u; // the 95 % rank falls between two scales
    }
    return 0;
}

// x0 = x, and one pixel holds 2^-10 / s after the step. All of x is at least one spacing of the
// quantile apart from a wrong rank's result, or equal to it.
static void check_quantile(struct ops_device *dev, uint32_t side, float q, enum values kind)
{
    struct world w = {
        .dev = dev, .dtype = DT_F32, .h = side, .w = side, .mc = 3, .lanes = 1, .dynamic = true};
    size_t pixels = (size_t)side * side, count = 0;
    const float small = 0x1p-10f;
    float *got[4], *v = malloc(pixels * 3 * sizeof *v);
    if (!v)
        abort();
    w.lane[0] = (struct op_lane){
        .slot = 0, .px = 1, .c0 = 1, .threshold = 2, .max_value = 1e9f, .quantile = q};
    world_make(&w);
    for (size_t i = 0; i < pixels * 4; i++) {
        if (i % 4 < 3) {
            w.state[0][i] = value(kind, w.state[0][i], i / 4 * 3 + i % 4);
            if (!i)
                w.state[0][i] = small;
            v[count++] = fabsf(w.state[0][i]);
        }
    }
    float s = fmaxf(ref_quantile(v, count, q), 1);
    run_step(&w, 0, 1, got);
    CHECK_MSG(fabs((double)small / got[0][0] - s) <= 6 * OP_EPS * s,
              "quantile %g of %ux%u, values %d: %.9g, expected %.9g", (double)q, side, side,
              (int)kind, (double)small / got[0][0], (double)s);
    for (int i = 0; i < 4; i++)
        free(got[i]);
    free(v);
    world_free(&w);
}

static void check_quantiles(struct ops_device *dev)
{
    static const uint32_t sides[] = {1, 2, 7, 64, 100};
    static const float qs[] = {0, 0.5f, 0.95f, 0.995f, 1};
    for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++)
        for (size_t j = 0; j < sizeof qs / sizeof qs[0]; j++)
            for (int kind = UNIFORM; kind <= TWO_SCALES; kind++)
                if (sides[i] <= 7 || j > 1)
                    check_quantile(dev, sides[i], qs[j], (enum values)kind);
    check_quantile(dev, 256, 0.995f, HEAVY);
    check_quantile(dev, 1024, 0.995f, HEAVY);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    check_steps(dev, dtype);
    check_not_finite(dev, dtype);
    if (dtype == DT_F16)
        return;
    check_stale(dev);
    check_quantiles(dev);
}

int main(void)
{
    return op_test_run(body);
}
