// The plans of kernels, asked for without a device; those for matrix units need not be in the
// build.
#include "op_test.h"

typedef bool plan_fn(const struct vk_caps *caps, const struct problem *p, struct ops_call *call);

static const struct problem linear = {.n = 1, .h = 16, .w = 16, .in = 96, .out = 192, .taps = 1};

static struct ops_call call_of(plan_fn *plan, const struct vk_caps *caps)
{
    struct ops_call call = {0};
    CHECK(plan(caps, &linear, &call));
    return call;
}

// Channels and pixels of a workgroup; what its invocations load covers them.
static void check_tile(plan_fn *plan, const struct vk_caps *caps, uint32_t channels,
                       uint32_t pixels, size_t bytes)
{
    const struct ops_call c = call_of(plan, caps);
    const uint32_t members = c.spec[0] / c.spec[11], depth = c.spec[13];
    CHECK_INT(c.groups[0], (192 + channels - 1) / channels);
    CHECK_INT(c.groups[1], 256 / pixels);
    CHECK_INT(c.spec[14] * members * 8, channels * depth);
    CHECK_INT(c.spec[15] * members * 8, pixels * depth);
    CHECK_INT(c.shared_bytes, bytes);
}

// The needs of the plans of matrix units, built or not, for other matrices and subgroups.
static void test_matrix_plans(void)
{
    static const struct {
        uint32_t m, n, k, sg;
        uint32_t local, wide, lanes, each; // each: queries of an invocation
    } devices[] = {
        {8, 8, 8, 8, 32, 64, 1, 2},       // lavapipe
        {16, 16, 16, 32, 128, 256, 2, 1}, // NVIDIA
        {16, 16, 16, 64, 256, 512, 4, 1}, // AMD
        {8, 16, 16, 16, 64, 128, 1, 1},   // Intel
        {16, 8, 16, 32, 128, 256, 2, 1},  // another of NVIDIA's
    };
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        struct vk_caps caps = {.name = "matrix units"};
        struct ops_call call = {0};
        caps.subgroup_size = devices[i].sg;
        caps.matrix.m = devices[i].m;
        caps.matrix.n = devices[i].n;
        caps.matrix.k = devices[i].k;
        caps.max_shared_bytes = 49152;
        check_tile(plan_matmul_matrix, &caps, 64, 64, 20480);
        CHECK_INT(call_of(plan_matmul_matrix, &caps).spec[0], devices[i].local);
        check_tile(plan_matmul_matrix_wide, &caps, 128, 128, 40960);
        CHECK_INT(call_of(plan_matmul_matrix_wide, &caps).spec[0], devices[i].wide);
        check_tile(plan_matmul_matrix_large, &caps, 128, 128, 40960);
        CHECK_INT(call_of(plan_matmul_matrix_large, &caps).spec[0], devices[i].local);
        check_tile(plan_matmul_matrix_shares, &caps, 32, 64, 30720);
        CHECK_INT(call_of(plan_matmul_matrix_shares, &caps).spec[0], devices[i].wide);
        check_tile(plan_matmul_matrix_split, &caps, 64, 64, 30720 + 256);
        CHECK(!plan_matmul_matrix_split(
            &caps, &(struct problem){.n = 1, .h = 4, .w = 4, .in = 8, .out = 8, .taps = 9}, &call));
        caps.max_shared_bytes = 32768; // half of the depth, for no more invocations than it has
        if (devices[i].wide <= 256)
            check_tile(plan_matmul_matrix_wide, &caps, 128, 128, 24576);
        else
            CHECK(!plan_matmul_matrix_wide(&caps, &linear, &call));
        check_tile(plan_matmul_matrix_large, &caps, 128, 128, 24576);
        check_tile(plan_matmul_matrix_shares, &caps, 32, 64, 30720);
        caps.max_shared_bytes = 49152;
        for (uint32_t d = 4; d <= 132; d += 4) {
            const struct problem p = {.n = 2, .h = 13, .w = 5, .keys = 70, .heads = 3, .d = d};
            CHECK_INT(plan_attention_matrix(&caps, &p, &call), d <= 128);
            const uint32_t padded = call.spec[2], keys = call.spec[3];
            if (d > 128)
                continue;
            CHECK_INT(call.spec[0], devices[i].local);
            CHECK_MSG(padded >= d && padded < d + 16 && padded % devices[i].n == 0 &&
                          padded % devices[i].k == 0,
                      "head of %u: %u channels", d, padded);
            CHECK_INT(keys, padded > 64 ? 16 : 32);
            CHECK_INT(call.spec[9], devices[i].lanes);
            CHECK_INT(call.spec[10], devices[i].each);
            CHECK_INT(call.groups[0] * call.groups[1] * call.groups[2], 2 * 3 * 2);
            CHECK_MSG(call.shared_bytes <= 32768, "head of %u: %zu bytes", d, call.shared_bytes);
        }
    }
}

// Every tile of 4 x 4 pixels has a lane, a sample's choice knows nothing about the others, and
// weights that would take too much memory are refused.
static void test_winograd_plans(void)
{
    static const struct {
        uint32_t sg, h, w, n, out, mb, p, groups;
        double tiles; // of one sample, with those that idle lanes would have
    } cases[] = {
        {8, 16, 16, 1, 32, 16, 2, 1, 16}, {8, 16, 16, 3, 32, 16, 2, 3, 16},
        {8, 17, 16, 1, 32, 16, 2, 2, 32}, {8, 8, 8, 2, 32, 16, 2, 1, 16},
        {4, 16, 16, 1, 32, 16, 2, 2, 16}, {16, 16, 16, 1, 24, 16, 1, 1, 16},
        {8, 32, 32, 1, 24, 8, 4, 2, 64},  {4, 16, 16, 1, 24, 8, 4, 1, 16},
        {8, 16, 16, 1, 25, 16, 2, 1, 16}, {8, 16, 16, 1, 16, 16, 2, 1, 16},
        {8, 16, 16, 1, 6, 16, 2, 1, 16},  {8, 256, 256, 1, 32, 16, 2, 256, 4096},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct vk_caps caps = {.name = "lanes"};
        struct ops_call call = {0};
        const struct problem p = {.n = cases[i].n,
                                  .h = cases[i].h,
                                  .w = cases[i].w,
                                  .in = 10,
                                  .out = cases[i].out,
                                  .taps = 9};
        caps.subgroup_size = cases[i].sg;
        CHECK(plan_conv3_winograd(&caps, &p, &call));
        CHECK_INT(call.spec[1], cases[i].sg);
        CHECK_INT(call.spec[2], cases[i].mb);
        CHECK_INT(call.spec[3], cases[i].p);
        CHECK_INT(call.groups[0], (cases[i].out + cases[i].mb - 1) / cases[i].mb);
        CHECK_INT(call.groups[1], cases[i].groups);
        CHECK_INT(call.groups[2], 1);
        CHECK_INT(call.trips, 6 * (6 * 5 + 2));
        CHECK_NEAR(call.work / (2.0 * p.n * call.groups[0] * cases[i].mb * 12 * 9),
                   cases[i].tiles * 16, 0);
    }
    const struct vk_caps caps = {.name = "lanes", .subgroup_size = 8};
    struct ops_call call = {0};
    struct problem p = {.n = 1, .h = 64, .w = 64, .in = 256, .out = 128, .taps = 9};
    CHECK(plan_conv3_winograd(&caps, &p, &call));
    p.in++;
    CHECK(!plan_conv3_winograd(&caps, &p, &call));
}

int main(void)
{
    test_winograd_plans();
    test_matrix_plans();
    return test_end();
}
