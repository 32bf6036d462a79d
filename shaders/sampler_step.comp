// One sampler step: guidance, x0, threshold, the new state, and x0 into the history.
//   x0 = threshold(px x + pm m),  x' = cx x + cm m + c0 x0 + c1 h1 + c2 h2 + noise s z
// Terms with a zero coefficient are not read: a slot's history may be another picture's.
// Grid: x pixel blocks, z lanes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "math.glsl"
#include "lanes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint GUIDED = 0;

layout(push_constant) uniform push_block { push_sampler p; };
INPUT(1, m);
layout(std430, binding = 2) buffer x_block { vec4 v[]; } x;
layout(std430, binding = 3) buffer history0_block { vec4 v[]; } history0;
layout(std430, binding = 4) buffer history1_block { vec4 v[]; } history1;
layout(std430, binding = 5) buffer history2_block { vec4 v[]; } history2;
INPUT_F32X4(6, noise);
INPUT_F32(7, limit);

vec3 history_load(uint which, uint pixel)
{
    if (which == 0)
        return history0.v[p.h0.base + pixel * p.h0.cs].xyz;
    if (which == 1)
        return history1.v[p.h1.base + pixel * p.h1.cs].xyz;
    return history2.v[p.h2.base + pixel * p.h2.cs].xyz;
}

void history_store(uint which, uint pixel, vec4 v)
{
    if (which == 0)
        history0.v[p.h0.base + pixel * p.h0.cs] = v;
    else if (which == 1)
        history1.v[p.h1.base + pixel * p.h1.cs] = v;
    else
        history2.v[p.h2.base + pixel * p.h2.cs] = v;
}

// By how much z is scaled besides lane.noise: the model's variance channels 3..5.
vec3 deviation(lane l, uint m_at)
{
    vec3 v = vec3(LOAD(m, m_at).w, LOAD(m, m_at + 1).xy);
    if (l.learned == 2)
        return sqrt(max(v, vec3(0)));
    vec3 f = (v + 1) * 0.5;
    vec3 h = 0.5 * (f * l.logvar_max + (1 - f) * l.logvar_min);
    return vec3(exact_exp(h.x), exact_exp(h.y), exact_exp(h.z));
}

void step_pixel(lane l, float s, uint i)
{
    uint at = l.slot * p.pixels + i;
    uint m_at = p.m.base + (gl_WorkGroupID.z * p.pixels + i) * p.m.cs;
    vec3 v = LOAD(m, m_at).xyz, old = x.v[p.x.base + at * p.x.cs].xyz;
    if (GUIDED != 0) {
        m_at += p.count * p.pixels * p.m.cs;
        v = guide(v, LOAD(m, m_at).xyz, l.guidance);
    }
    vec3 x0 = predict(l, old, v);
    if (l.threshold != 0)
        x0 = clamp(x0, -s, s);
    if (l.threshold == THRESHOLD_DYNAMIC)
        x0 /= s;
    precise vec3 next = l.cx * old + l.cm * v + l.c0 * x0;
    if (l.c1 != 0)
        next += l.c1 * history_load((l.history + 2) % 3, at);
    if (l.c2 != 0)
        next += l.c2 * history_load((l.history + 1) % 3, at);
    if (l.noise != 0) {
        vec3 z = l.noise * noise.v[p.noise.base + at * p.noise.cs].xyz;
        next += l.learned != 0 ? z * deviation(l, m_at) : z;
    }
    x.v[p.x.base + at * p.x.cs] = vec4(next, 0);
    history_store(l.history, at, vec4(x0, 0));
}

void main()
{
    lane l = lanes.v[gl_WorkGroupID.z];
    float s = l.threshold == THRESHOLD_DYNAMIC ? limit.v[gl_WorkGroupID.z] : l.max_value;
    uint i = gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x + gl_LocalInvocationID.x;

    for (uint k = 0; k < p.run && i < p.pixels; k++, i += gl_WorkGroupSize.x)
        step_pixel(l, s, i);
}
