// The rows of the kernel table with their SPIR-V. Called by the recorder and by nothing else. It
// knows names and bytes, not what a kernel computes.
#include "kernels.h"

#include "spirv.h"

// clang-format off
#define CODE(name) {spirv_##name, sizeof spirv_##name}
#define CODES(t00, t01, t10, t11, b00, b01, b10, b11)                                              \
    {{{CODE(t00), CODE(t01)}, {CODE(t10), CODE(t11)}},                                             \
     {{CODE(b00), CODE(b01)}, {CODE(b10), CODE(b11)}}}
// clang-format on

// One macro per axes word of shaders/meson.build: which variant serves which case.
#define AXES_ONE(s) CODES(s, s, s, s, s, s, s, s)
#define AXES_DTYPE(s) CODES(s##_f32, s##_f32, s##_f16, s##_f16, s##_f32, s##_f32, s##_f16, s##_f16)
#define AXES_LOAD(s)                                                                               \
    CODES(s##_f32_texel, s##_f32_texel, s##_f16_texel, s##_f16_texel, s##_f32_buffer,              \
          s##_f32_buffer, s##_f16_buffer, s##_f16_buffer)
#define AXES_MATMUL(s)                                                                             \
    CODES(s##_f32_texel, s##_f32_texel, s##_f16_texel, s##_f16_texel, s##_f32_bufferf32,           \
          s##_f32_bufferf16, s##_f16_bufferf32, s##_f16_bufferf16)
#define AXES_TILE(s)                                                                               \
    CODES(s##_f32_f32, s##_f32_f16, s##_f16_f32, s##_f16_f16, s##_f32_f32, s##_f32_f16,            \
          s##_f16_f32, s##_f16_f16)

static const struct kernel kernels[KERNEL_COUNT] = {
#define X(id, shader, axes, bindings_, push, needs_)                                               \
    [K_##id] = {.name = #shader,                                                                   \
                .bindings = bindings_,                                                             \
                .push_bytes = sizeof(struct push),                                                 \
                .needs = (needs_),                                                                 \
                .code = AXES_##axes(shader)},
    KERNEL_MAP(X)
#undef X
};

const struct kernel *kernel_get(enum kernel_id id)
{
    return &kernels[id];
}
