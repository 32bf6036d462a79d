// [-1, 1] -> 0..255 rounded to nearest even, three bytes a pixel without gaps: an invocation packs
// four pixels into three words. The bytes after the last pixel stay what they are.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"

layout(local_size_x_id = 0) in;
PUSH(push_rgb8);
INPUT(0, x);
layout(std430, binding = 1) buffer y_block { uint v[]; } y;

uvec3 bytes(uint i)
{
    if (i >= p.pixels)
        return uvec3(0);
    precise vec3 v = LOAD(x, p.x.base + i * p.x.cs).xyz * 0.5 + 0.5;
    return uvec3(roundEven(clamp(v, 0.0, 1.0) * 255.0));
}

// left: bytes from this word on.
void store(uint at, uint left, uint word)
{
    if (left < 4)
        word |= y.v[at] & (0xffffffffu << 8 * left);
    y.v[at] = word;
}

void main()
{
    READ_PUSH();
    uint i = (gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x) + gl_LocalInvocationID.x;

    for (uint k = 0; k < p.run && 4 * i < p.pixels; k++, i += gl_WorkGroupSize.x) {
        uvec3 a = bytes(4 * i), b = bytes(4 * i + 1), c = bytes(4 * i + 2), d = bytes(4 * i + 3);
        uint at = p.y + 3 * i, left = 3 * (p.pixels - 4 * i);
        store(at, left, a.x | a.y << 8 | a.z << 16 | b.x << 24);
        if (left > 4)
            store(at + 1, left - 4, b.y | b.z << 8 | c.x << 16 | c.y << 24);
        if (left > 8)
            store(at + 2, left - 8, c.z | d.x << 8 | d.y << 16 | d.z << 24);
    }
}
