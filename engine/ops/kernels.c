// The rows of the kernel table with their SPIR-V, and what a device must have for each. Called by
// the recorder and the choice of a path. It knows names and bytes, not what a kernel computes.
#include "kernels.h"

#include "spirv.h"

#include <stdio.h>
#include <string.h>

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

bool kernel_reads_operand(char letter)
{
    return strchr("xms", letter) != NULL;
}

// Returns need > have.
static bool too_few(const struct kernel *k, const char *what, uint32_t need, uint32_t have,
                    char *text)
{
    if (need > have)
        snprintf(text, KERNEL_LACK, "%s needs %u %s, but the device allows only %u", k->name, need,
                 what, have);
    return need > have;
}

bool kernel_lacks(const struct kernel *k, const struct vk_caps *caps, enum load_path load,
                  char text[KERNEL_LACK])
{
    uint32_t texel = 0, all = (uint32_t)strlen(k->bindings);
    for (uint32_t i = 0; load == LOAD_TEXEL && i < all; i++)
        texel += kernel_reads_operand(k->bindings[i]);
    if ((k->needs & NEED_SUBGROUP) && !caps->subgroup_shuffle) {
        snprintf(text, KERNEL_LACK, "%s needs subgroup shuffles, which the device does not support",
                 k->name);
        return true;
    }
    if (texel && !(caps->texel_f32 && caps->texel_f16)) {
        snprintf(text, KERNEL_LACK, "%s needs uniform texel buffers of RGBA32F and RGBA16F",
                 k->name);
        return true;
    }
    return too_few(k, "bytes of push constants", k->push_bytes, caps->max_push_bytes, text) ||
           too_few(k, "storage buffers", all - texel, caps->max_storage_bindings, text) ||
           too_few(k, "texel buffers", texel, caps->max_texel_bindings, text) ||
           too_few(k, "buffers", all, caps->max_bindings, text);
}
