// The rows of the kernel table. Each gets its builds from shaders/meson.build. Called by the choice
// (choose.c) alone. The rates are measurements on lavapipe (Zen 4, one core) and guesses for GPUs:
// only their order matters.
#include "kernels.h"

#include "spirv.h"

// clang-format off
#define BUILDS(shader) .build = builds_##shader,                                                   \
    .builds = sizeof builds_##shader / sizeof builds_##shader[0]
#define SHADER(shader) .name = #shader, BUILDS(shader)
#define TAKES(operands, push) .bindings = (operands), .push_bytes = sizeof(struct push_##push)
// An operator with one row.
#define ROW(op, shader, operands, push) {SHADER(shader), .ops = 1u << OP_##op, TAKES(operands, push)}

static const struct kernel rows[] = {
    // Matrix products. The unrolled body of a lane kernel grows with the square of the subgroup: at
    // 32 lanes it would take compilers minutes and no longer fit into registers.
    {SHADER(linear_lane), .ops = 1u << OP_LINEAR, TAKES("xmrxxw", matmul),
     .shuffles = true, .subgroup = {4, 16}, .layout = LAYOUT_LANES, .rate = {35, 100},
     .plan = plan_linear_lane},
    {SHADER(conv3_lane), .ops = 1u << OP_CONV3, TAKES("xmrxxw", matmul),
     .shuffles = true, .subgroup = {4, 16}, .layout = LAYOUT_LANES, .rate = {40, 100},
     .plan = plan_conv3_lane},
    // Its rate counts the products of a convolution, four times as many as it computes. llvmpipe
    // creates its pipelines in .2 s, which a network of small maps does not win back.
    {SHADER(conv3_winograd), .ops = 1u << OP_CONV3, TAKES("smrxxw", matmul),
     .shuffles = true, .subgroup = {4, 16}, .layout = LAYOUT_WINOGRAD, .rate = {95, 90}, .start = 60,
     .plan = plan_conv3_winograd},
    {SHADER(matmul_tile), .ops = 1u << OP_LINEAR | 1u << OP_CONV3, TAKES("xmrxxw", matmul),
     .layout = LAYOUT_ROWS, .rate = {2, 3000}, .plan = plan_matmul_tile},

#ifdef HAVE_MATRIX_UNITS
    {SHADER(matmul_matrix), .ops = 1u << OP_LINEAR | 1u << OP_CONV3, TAKES("xmrxxw", matmul),
     .matrix = true, .layout = LAYOUT_ROWS, .rate = {1, 20000}, .plan = plan_matmul_matrix},
    // Half of the loads for each product, for maps that fill its tiles.
    {.name = "matmul_matrix_wide", BUILDS(matmul_matrix), .ops = 1u << OP_LINEAR | 1u << OP_CONV3,
     TAKES("xmrxxw", matmul), .matrix = true, .layout = LAYOUT_ROWS, .rate = {.9f, 26000},
     .plan = plan_matmul_matrix_wide},
    // The same tiles with fewer loads from shared memory, and fewer invocations to hide latency.
    {.name = "matmul_matrix_large", BUILDS(matmul_matrix), .ops = 1u << OP_LINEAR | 1u << OP_CONV3,
     TAKES("xmrxxw", matmul), .matrix = true, .layout = LAYOUT_ROWS, .rate = {.8f, 25000},
     .plan = plan_matmul_matrix_large},
    // Four times as many loads on their way, for maps with too few pixels to keep a GPU busy.
    {.name = "matmul_matrix_shares", BUILDS(matmul_matrix), .ops = 1u << OP_LINEAR | 1u << OP_CONV3,
     TAKES("xmrxxw", matmul), .matrix = true, .layout = LAYOUT_ROWS, .rate = {.7f, 12000},
     .plan = plan_matmul_matrix_shares},
    // f32 activations, as those of text encoders are, in two halves.
    {SHADER(matmul_matrix_split), .ops = 1u << OP_LINEAR, TAKES("xmrxxw", matmul),
     .matrix = true, .layout = LAYOUT_ROWS, .rate = {.5f, 8000}, .plan = plan_matmul_matrix_split},
#endif

    {SHADER(attention_lane), .ops = 1u << OP_ATTENTION, TAKES("xxxxxrrrrw", attention),
     .shuffles = true, .subgroup = {4, 16}, .rate = {20, 100}, .plan = plan_attention_lane},
    {SHADER(attention_tile), .ops = 1u << OP_ATTENTION, TAKES("xxxxxrrrrw", attention),
     .rate = {2, 1000}, .plan = plan_attention_tile},
#ifdef HAVE_MATRIX_UNITS
    {SHADER(attention_matrix), .ops = 1u << OP_ATTENTION, TAKES("xxxxxrrrrw", attention),
     .matrix = true, .shuffles = true, .rate = {1, 6000}, .plan = plan_attention_matrix},
    // Half of the loads of keys and values.
    {.name = "attention_matrix_wide", BUILDS(attention_matrix), .ops = 1u << OP_ATTENTION,
     TAKES("xxxxxrrrrw", attention), .matrix = true, .shuffles = true, .rate = {.9f, 5900},
     .plan = plan_attention_matrix_wide},
#endif
    {SHADER(attention_any), .ops = 1u << OP_ATTENTION, TAKES("xxxxxrrrrw", attention),
     .rate = {.3f, 30}, .plan = plan_attention_any},

    {SHADER(probe), .ops = 1u << OP_PROBE, TAKES("xw", probe), .shuffles = true},
    ROW(WINOGRAD_TILES, winograd_tiles, "xw", winograd),
    ROW(MAP, map, "xxw", map),
    ROW(COPY, copy, "rw", map),
    ROW(GROUP_NORM, group_norm, "xrrrw", group_norm),
    ROW(GROUP_NORM_PARTS, group_norm_parts, "xw", group_norm_parts),
    ROW(GROUP_NORM_FOLD, group_norm_fold, "rrrrw", group_norm_parts),
    ROW(GROUP_NORM_APPLY, group_norm_apply, "xrw", group_norm_parts),
    ROW(ROW_NORM, row_norm, "xrrw", row_norm),
    ROW(MEAN_PIXELS, mean_pixels, "xw", shape),
    ROW(AVG_POOL2, avg_pool2, "xw", shape),
    ROW(UPSAMPLE_NEAREST2, upsample_nearest2, "xw", shape),
    ROW(UPSAMPLE_BILINEAR, upsample_bilinear, "xw", shape),
    ROW(PIXEL_UNSHUFFLE, pixel_unshuffle, "xw", shape),
    ROW(PIXEL_SHUFFLE, pixel_shuffle, "xw", shape),
    ROW(EMBED, embed, "rrrrrw", embed),
    ROW(RELATIVE_BIAS, relative_bias, "rw", relative_bias),
    ROW(TIME_EMBED, time_embed, "rw", time_embed),
    ROW(NOISE, noise, "rw", noise),
    ROW(GATHER_INPUT, gather_input, "rssw", gather),
    ROW(QUANTILE, quantile, "rxsw", sampler),
    ROW(SAMPLER_STEP, sampler_step, "uxsuuuusr", sampler),
    ROW(ADD_NOISE, add_noise, "rssw", sampler),
    ROW(KEEP, keep, "rsu", sampler),
    ROW(TO_RGB8, to_rgb8, "xu", rgb8),
};
// clang-format on

_Static_assert(OP_COUNT <= 32, "operators are bits of a word");
_Static_assert(sizeof rows / sizeof rows[0] <= KERNEL_ROWS && KERNEL_ROWS <= 64,
               "rows are bits of a wish");

bool kernels_have_matrix_units(void)
{
#ifdef HAVE_MATRIX_UNITS
    return true;
#else
    return false;
#endif
}

int kernel_count(void)
{
    return sizeof rows / sizeof rows[0];
}

const struct kernel *kernel_at(int row)
{
    return &rows[row];
}
