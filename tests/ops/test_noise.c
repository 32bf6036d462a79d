// Noise, gathering of the U-Net's input, mixing noise in, and the conversion to bytes.
#include "op_test.h"
#include "ref_maps.h"
#include "rng.h"

enum { MAX_LANES = 4, SLOTS = 5 };

// The known answers that come with Random123 (kat_vectors, philox4x32 10).
static void known_answers(void)
{
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } v[] = {
        {{0}, {0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof v / sizeof v[0]; i++) {
        uint32_t got[4];
        ref_philox(v[i].counter, v[i].key, got);
        CHECK(!memcmp(got, v[i].want, sizeof got));
        rng_philox(v[i].counter, v[i].key, got);
        CHECK(!memcmp(got, v[i].want, sizeof got));
    }
}

static struct tensor lane_table(struct ops_device *dev, const struct op_lane *lanes, uint32_t n)
{
    struct tensor t;
    CHECK_INT(tensor_create_mapped(dev, DT_U32, n, 1, 1, 32, &t), ERR_OK);
    memcpy(tensor_map(&t), lanes, n * sizeof *lanes);
    return t;
}

static void some_lanes(struct op_lane lane[MAX_LANES])
{
    static const uint32_t slots[MAX_LANES] = {3, 0, 4, 1};
    for (uint32_t i = 0; i < MAX_LANES; i++)
        lane[i] = (struct op_lane){.slot = slots[i],
                                   .seed_lo = 0x9e3779b9u * (i + 1),
                                   .seed_hi = i,
                                   .picture = i % 2,
                                   .stage = i / 2,
                                   .step = 7 * i,
                                   .cx = 0.5f + 0.25f * (float)i,
                                   .noise = 1.5f - 0.5f * (float)i};
}

// A slot's pixels, dense, of a state tensor [SLOTS, h, w, 4] downloaded whole.
static const float *slot_of(const float *state, struct ref_shape s, uint32_t slot)
{
    return state + (size_t)slot * s.h * s.w * 4;
}

// The device's logarithm, sine, cosine and root are right to a few ulps of their result; the
// smallest radius keeps its relative precision, because log(1 - d) is taken of d.
static void check_noise(struct ops_device *dev, uint32_t h, uint32_t w, uint32_t lanes, uint32_t c)
{
    struct ref_shape s = {SLOTS, h, w, 4};
    struct op_lane lane[MAX_LANES];
    some_lanes(lane);
    float *before = op_random(DT_F32, ref_count(s), 1), *got = op_random(DT_F32, ref_count(s), 1);
    struct op_array z = op_array(dev, DT_F32, s, before, false);
    struct tensor table = lane_table(dev, lane, lanes), state = tensor_channels(&z.t, 0, c);
    struct ops *o = op_begin(dev, DT_F32);
    op_noise(o, &table, &state);
    op_finish(o);
    CHECK_INT(tensor_download(&z.t, got), ERR_OK);
    double worst = 0;
    uint32_t used = 0, padding = 0;
    for (uint32_t i = 0; i < lanes; i++) {
        const float *v = slot_of(got, s, lane[i].slot);
        struct rng_place place = {(uint64_t)lane[i].seed_hi << 32 | lane[i].seed_lo, lane[i].step,
                                  lane[i].stage, lane[i].picture};
        used |= 1u << lane[i].slot;
        for (uint32_t e = 0; e < h * w * c; e++) {
            double want = ref_normal(&lane[i], e), d = v[e / c * 4 + e % c] - want;
            worst = fmax(worst, fabs(d) / (8 * 2 * OP_EPS * fabs(want) + 1e-7));
            if (e % 97 == 0)
                CHECK_NEAR(rng_normal(&place, e), want, 2 * OP_EPS * fabs(want));
        }
        for (uint32_t p = 0; c == 3 && p < h * w; p++)
            padding += v[4 * p + 3] != 0;
    }
    CHECK_MSG(worst <= 1, "noise %ux%ux%u: error %.2f of what is allowed", h, w, c, worst);
    CHECK_INT(padding, 0);
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if (!(used >> slot & 1))
            CHECK(!memcmp(slot_of(got, s, slot), slot_of(before, s, slot), 16ul * h * w));
    tensor_destroy(&table);
    op_array_free(&z);
    free(before);
    free(got);
}

// Moments of n normals: each estimate within five of its own standard deviations.
static void check_moments(struct ops_device *dev)
{
    enum { SIDE = 512, N = SIDE * SIDE * 3 };
    struct op_lane lane = {.seed_lo = 42, .step = 3};
    struct ref_shape s = {1, SIDE, SIDE, 4};
    struct op_array z = op_array(dev, DT_F32, s, NULL, false);
    struct tensor table = lane_table(dev, &lane, 1);
    float *v = malloc(ref_count(s) * sizeof *v);
    double m[5] = {0}, neighbours = 0, last = 0, most = 0;
    struct tensor state = tensor_channels(&z.t, 0, 3);
    struct ops *o = op_begin(dev, DT_F32);
    op_noise(o, &table, &state);
    op_finish(o);
    if (!v)
        abort();
    CHECK_INT(tensor_download(&z.t, v), ERR_OK);
    for (size_t i = 0; i < N; i++) {
        double x = v[i / 3 * 4 + i % 3], p = 1;
        for (int k = 1; k < 5; k++)
            m[k] += (p *= x) / N;
        neighbours += x * last / N;
        last = x;
        most = fmax(most, fabs(x));
    }
    CHECK_NEAR(m[1], 0, 5 / sqrt(N));
    CHECK_NEAR(m[2], 1, 5 * sqrt(2.0 / N));
    CHECK_NEAR(m[3], 0, 5 * sqrt(15.0 / N));
    CHECK_NEAR(m[4], 3, 5 * sqrt(96.0 / N));
    CHECK_NEAR(neighbours, 0, 5 / sqrt(N));
    CHECK_MSG(most > 4 && most < 6.7, "largest of %d normals: %g", N, most);
    tensor_destroy(&table);
    op_array_free(&z);
    free(v);
}

struct gather_row {
    uint32_t h, w, patch, lanes; // h, w: of the image
    bool low, guided, latent;
};

static void check_gather(struct ops_device *dev, enum dtype dtype, const struct gather_row *r)
{
    const uint32_t state = r->latent ? 4 : 3;
    struct ref_shape s = {SLOTS, r->h, r->w, 4}, whole = {1, r->h, r->w, state + (r->low ? 3 : 0)};
    struct ref_shape ys = {r->lanes * (r->guided ? 2 : 1), r->h / r->patch, r->w / r->patch,
                           whole.c * r->patch * r->patch};
    struct op_lane lane[MAX_LANES];
    some_lanes(lane);
    // The fourth channel of pixels holds what must never be read.
    float *x = op_random(dtype, ref_count(s), 1), *low = op_random(dtype, ref_count(s), 2);
    float *picture = calloc(ref_count(whole), sizeof *picture);
    double *want = calloc(ref_count(ys), sizeof *want),
           *bound = calloc(ref_count(ys), sizeof *bound);
    size_t sample = ref_count(ys) / ys.n;
    for (uint32_t n = 0; n < ys.n; n++) {
        const float *xs = slot_of(x, s, lane[n % r->lanes].slot);
        const float *ls = slot_of(low, s, lane[n % r->lanes].slot);
        for (size_t i = 0; i < ref_count(whole); i++) {
            size_t p = i / whole.c, c = i % whole.c;
            picture[i] = c < state ? xs[4 * p + c] : ls[4 * p + c - state];
        }
        ref_pixel_unshuffle(picture, whole, r->patch, want + n * sample);
    }
    for (size_t i = 0; i < ref_count(ys); i++)
        bound[i] = 1e-30; // a copy of storable values
    struct op_array ax = op_array(dev, DT_F32, s, x, false),
                    al = op_array(dev, DT_F32, s, low, false);
    struct op_array ay = op_array(dev, dtype, ys, NULL, false);
    struct tensor table = lane_table(dev, lane, r->lanes);
    struct tensor vx = tensor_channels(&ax.t, 0, state), vl = tensor_channels(&al.t, 0, 3);
    struct ops *o = op_begin(dev, dtype);
    op_gather_input(o, &table, &vx, r->low ? &vl : NULL, r->patch, r->guided, &ay.t);
    op_finish(o);
    char what[64];
    snprintf(what, sizeof what, "gather %ux%u by %u %s", r->h, r->w, r->patch,
             op_test_variant(dev, dtype));
    op_compare_tensor(what, &ay.t, want, bound);
    tensor_destroy(&table);
    op_array_free(&ax);
    op_array_free(&al);
    op_array_free(&ay);
    free(x);
    free(low);
    free(picture);
    free(want);
    free(bound);
}

static void check_add_noise(struct ops_device *dev, uint32_t c)
{
    struct ref_shape s = {SLOTS, 9, 7, 4};
    struct op_lane lane[MAX_LANES];
    some_lanes(lane);
    size_t n = ref_count(s), slot = n / SLOTS;
    float *x = op_random(DT_F32, n, 1), *z = op_random(DT_F32, n, 2);
    double *want = calloc(n, sizeof *want), *bound = calloc(n, sizeof *bound);
    for (size_t i = 3; i < n; i += 4) // two pixels of three are not kept
        x[i] = i % 12 == 3 ? x[i] : 0;
    for (size_t i = 0; i < n; i++) {
        want[i] = x[i];
        bound[i] = 4 * OP_EPS;
    }
    for (uint32_t l = 0; l < 3; l++) {
        for (size_t i = lane[l].slot * slot; i < (lane[l].slot + 1) * slot; i++)
            if (c == 4 || x[i / 4 * 4 + 3] == 0)
                want[i] = i % 4 >= c ? 0 : (double)lane[l].cx * x[i] + (double)lane[l].noise * z[i];
    }
    struct op_array ax = op_array(dev, DT_F32, s, x, false),
                    az = op_array(dev, DT_F32, s, z, false);
    struct tensor table = lane_table(dev, lane, 3);
    struct ops *o = op_begin(dev, DT_F32);
    struct tensor vx = tensor_channels(&ax.t, 0, c), vz = tensor_channels(&az.t, 0, c);
    op_add_noise(o, &table, &vx, &vz, &vx);
    op_finish(o);
    op_compare_tensor("add_noise", &ax.t, want, bound);
    tensor_destroy(&table);
    op_array_free(&ax);
    op_array_free(&az);
    free(x);
    free(z);
    free(want);
    free(bound);
}

// Every byte value and every boundary between two, and what lies outside of the range.
static void check_rgb8(struct ops_device *dev, enum dtype dtype, uint32_t h, uint32_t w, uint32_t n)
{
    struct ref_shape s = {n, h, w, 3};
    size_t count = ref_count(s), wrong = 0;
    float *x = op_random(dtype, count, 1);
    uint8_t *got = calloc(count + 4, 1);
    for (size_t i = 0; i < count; i++) {
        float v = i % 3 ? 1.25f * x[i] : (float)(i % 511) / 255 - 1;
        x[i] = dtype == DT_F16 ? float_from_half(half_from_float(v)) : v;
    }
    struct op_array ax = op_array(dev, dtype, s, x, false);
    struct tensor y;
    CHECK_INT(tensor_create_mapped(dev, DT_U8, n, h, w, 3, &y), ERR_OK);
    memset(tensor_map(&y), 0xa5, (count + 3) / 4 * 4);
    struct ops *o = op_begin(dev, dtype);
    op_to_rgb8(o, &ax.t, &y);
    op_finish(o);
    memcpy(got, tensor_map(&y), (count + 3) / 4 * 4);
    for (size_t i = count; i % 4; i++)
        CHECK_INT(got[i], 0xa5);
    for (size_t i = 0; i < count; i++)
        wrong += got[i] != ref_to_u8(x[i]);
    CHECK_MSG(!wrong, "to_rgb8 %ux%ux%u: %zu of %zu bytes differ", n, h, w, wrong, count);
    tensor_destroy(&y);
    op_array_free(&ax);
    free(x);
    free(got);
}

// Kept pixels of the lanes that ask for it; all else stays.
static void check_keep(struct ops_device *dev)
{
    struct ref_shape s = {SLOTS, 9, 7, 4};
    struct op_lane lane[MAX_LANES];
    some_lanes(lane);
    size_t n = ref_count(s), slot = n / SLOTS;
    float *x = op_random(DT_F32, n, 1), *from = op_random(DT_F32, n, 2);
    double *want = calloc(n, sizeof *want), *bound = calloc(n, sizeof *bound);
    for (size_t i = 3; i < n; i += 4) { // every second pixel is kept
        x[i] = 0;
        from[i] = i % 8 == 3;
    }
    for (size_t i = 0; i < n; i++) {
        want[i] = x[i];
        bound[i] = 1e-30; // exactly
    }
    for (uint32_t l = 0; l < 3; l++) {
        struct op_lane counter = lane[l];
        counter.step = LANE_STEP_KEPT;
        lane[l].kept_signal = l == 1 ? 0 : 1 / (1.0f + (float)l);
        lane[l].kept_noise = l == 1 ? 0 : 0.5f * (float)l;
        for (size_t i = 0; l != 1 && i < slot; i++) {
            const size_t at = lane[l].slot * slot + i;
            if (i % 4 == 3 || from[at / 4 * 4 + 3] == 0)
                continue;
            const double z = ref_normal(&counter, (uint32_t)i);
            want[at] = (double)lane[l].kept_signal * from[at] + (double)lane[l].kept_noise * z;
            if (lane[l].kept_noise != 0)
                bound[at] = (8 + 2 * fabs(z)) * 4 * OP_EPS;
        }
    }
    struct op_array ax = op_array(dev, DT_F32, s, x, false),
                    af = op_array(dev, DT_F32, s, from, false);
    struct tensor table = lane_table(dev, lane, 3);
    struct ops *o = op_begin(dev, DT_F32);
    struct tensor vx = tensor_channels(&ax.t, 0, 3), vf = tensor_channels(&af.t, 0, 3);
    op_keep(o, &table, &vf, &vx);
    op_finish(o);
    op_compare_tensor("keep", &ax.t, want, bound);
    tensor_destroy(&table);
    op_array_free(&ax);
    op_array_free(&af);
    free(x);
    free(from);
    free(want);
    free(bound);
}

static void body(struct ops_device *dev, enum dtype dtype)
{
    static const struct gather_row gathers[] = {
        {5, 7, 1, 3, .guided = true},
        {8, 8, 1, 2, .low = true},
        {6, 10, 2, 4, .low = true},
        {16, 12, 4, 1, .low = true, .guided = true},
        {4, 20, 2, 3, .guided = true},
        {9, 6, 3, 2, .low = true, .guided = true},
        {16, 16, 8, 1},
        {5, 7, 1, 3, .low = true, .guided = true, .latent = true},
        {4, 3, 1, 2, .latent = true},
    };
    known_answers();
    for (size_t i = 0; i < sizeof gathers / sizeof gathers[0]; i++)
        check_gather(dev, dtype, &gathers[i]);
    check_rgb8(dev, dtype, 5, 3, 1);
    check_rgb8(dev, dtype, 7, 9, 3);
    check_rgb8(dev, dtype, 1, 1, 1);
    check_rgb8(dev, dtype, 1, 2, 1);
    check_rgb8(dev, dtype, 64, 64, 2);
    if (dtype == DT_F16)
        return;
    for (uint32_t c = 3; c <= 4; c++) {
        check_noise(dev, 1, 1, 1, c);
        check_noise(dev, 5, 3, 4, c);
        check_noise(dev, 16, 16, 3, c);
        check_noise(dev, 64, 65, 2, c);
        check_add_noise(dev, c);
    }
    check_moments(dev);
    check_keep(dev);
}

int main(void)
{
    return op_test_run(body);
}
