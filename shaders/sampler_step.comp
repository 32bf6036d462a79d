// One sampler step: guidance, x0, threshold, the new state, and x0 into the history.
//   x0 = threshold(px x + pm m),  x' = cx x + cm m + c0 x0 + c1 h1 + c2 h2 + noise s z
// Terms with a zero coefficient are dropped, not multiplied: a slot's history may be another
// image's. Pixels whose fourth channel is not 0 are kept: they stay as they are, and are their own
// x0. Grid: x pixel blocks, z lanes.
#version 450
#extension GL_GOOGLE_include_directive : require
#include "push.h"
#include "types.glsl"
#include "math.glsl"
#define LANES_ACCESS
#include "lanes.glsl"

layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint GUIDED = 0;
layout(constant_id = 2) const uint VARIANCE = 0;  // m has variance channels: three of each
layout(constant_id = 3) const uint CHANNELS = 3;  // of the state; 4: latents, of which none is kept

PUSH(push_sampler);
INPUT(1, m);
INPUT_STATE(2, x_old);
layout(std430, binding = 3) writeonly buffer x_block { vec4 v[]; } x;
layout(std430, binding = 4) buffer history0_block { vec4 v[]; } history0;
layout(std430, binding = 5) buffer history1_block { vec4 v[]; } history1;
layout(std430, binding = 6) buffer history2_block { vec4 v[]; } history2;
INPUT_STATE(7, noise);
INPUT_F32(8, limit);

vec4 history_load(const uint which, uint pixel)
{
    if (which == 0)
        return history0.v[p.h0.base + pixel * p.h0.cs];
    if (which == 1)
        return history1.v[p.h1.base + pixel * p.h1.cs];
    return history2.v[p.h2.base + pixel * p.h2.cs];
}

void history_store(const uint which, uint pixel, vec4 v)
{
    if (which == 0)
        history0.v[p.h0.base + pixel * p.h0.cs] = v;
    else if (which == 1)
        history1.v[p.h1.base + pixel * p.h1.cs] = v;
    else
        history2.v[p.h2.base + pixel * p.h2.cs] = v;
}

// By how much z is scaled besides lane.noise: the model's variance channels 3..5.
vec3 deviation(op_lane l, vec3 v)
{
    vec3 f = (v + 1) * 0.5;
    vec3 h = 0.5 * (f * l.logvar_max + (1 - f) * l.logvar_min);
    vec3 range = vec3(exact_exp(h.x), exact_exp(h.y), exact_exp(h.z));
    return l.learned == 0 ? vec3(1) : l.learned == 1 ? range : sqrt(max(v, vec3(0)));
}

// By the bits, since a compiler may take it for granted that there are none. Returns 0 or 1.
uint not_finite(vec3 v)
{
    const uint exponent = 0x7f800000;
    return any(equal(floatBitsToUint(v) & exponent, uvec3(exponent))) ? 1 : 0;
}

uint state_not_finite(vec4 v)
{
    return CHANNELS == 4 ? not_finite(v.xyz) | not_finite(v.www) : not_finite(v.xyz);
}

// now: the history tensor that receives x0; past: h1 and h2 are used. Returns whether x0, before
// its threshold, the variance or the new x is not finite.
uint step_pixel(op_lane l, float s, uint i, const uint now, const bool past)
{
    uint at = l.slot * p.pixels + i;
    uint m_at = p.m.base + (gl_WorkGroupID.z * p.pixels + i) * p.m.cs;
    vec4 state = LOAD_STATE(x_old, p.x.base + at * p.x.cs);
    vec4 z = LOAD_STATE(noise, p.noise.base + at * p.noise.cs);
    vec4 v = LOAD(m, m_at);
    if (GUIDED != 0) {
        vec4 uncond = v;
        m_at += p.count * p.pixels * p.m.cs;
        v = LOAD(m, m_at);
        v.xyz = guide(uncond.xyz, v.xyz, l.guidance);
        if (CHANNELS == 4)
            v.w = guide(uncond.www, v.www, l.guidance).x;
    }
    vec4 x0 = vec4(predict(l, state.xyz, v.xyz), 0);
    if (CHANNELS == 4)
        x0.w = predict(l, state.www, v.www).x;
    uint bad = state_not_finite(x0);
    if (VARIANCE != 0) {
        vec3 variance = vec3(v.w, LOAD(m, m_at + 1).xy);
        z.xyz *= deviation(l, variance);
        bad |= l.noise != 0 && l.learned != 0 ? not_finite(variance) : 0; // exact_exp may hide it
    }
    x0 = l.threshold != 0 ? clamp(x0, -s, s) : x0;
    x0 = l.threshold == THRESHOLD_DYNAMIC ? x0 / s : x0;
    precise vec4 next = l.cx * state + l.cm * v + l.c0 * x0;
    if (past) {
        vec4 h1 = history_load((now + 2) % 3, at), h2 = history_load((now + 1) % 3, at);
        next = l.c1 != 0 ? next + l.c1 * h1 : next;
        next = l.c2 != 0 ? next + l.c2 * h2 : next;
    }
    next = l.noise != 0 ? next + l.noise * z : next;
    bad |= state_not_finite(next);
    if (CHANNELS == 3) {
        bool kept = state.w != 0;
        next = kept ? state : vec4(next.xyz, 0);
        x0 = vec4(kept ? state.xyz : x0.xyz, 0);
    }
    x.v[p.x.base + at * p.x.cs] = next;
    history_store(now, at, x0);
    return bad;
}

// Software rasterizers run both sides of a branch and discard one; a loop of no trips costs them
// one trip. So the choices that are the same for a whole lane are loops, of which one runs.
uint step_pixels(op_lane l, float s, const uint now, const bool past)
{
    bool mine = l.history == now && (l.c1 != 0 || l.c2 != 0) == past;
    uint i = gl_WorkGroupID.x * p.run * gl_WorkGroupSize.x + gl_LocalInvocationID.x;
    uint end = mine ? min(p.pixels, i + p.run * gl_WorkGroupSize.x) : 0;

    uint bad = 0;
    for (; i < end; i += gl_WorkGroupSize.x)
        bad |= step_pixel(l, s, i, now, past);
    return bad;
}

void main()
{
    READ_PUSH();
    op_lane l = lanes.v[gl_WorkGroupID.z];
    float s = l.threshold == THRESHOLD_DYNAMIC ? limit.v[gl_WorkGroupID.z] : l.max_value;

    uint bad = step_pixels(l, s, 0, false);
    bad |= step_pixels(l, s, 1, false);
    bad |= step_pixels(l, s, 2, false);
    bad |= step_pixels(l, s, 0, true);
    bad |= step_pixels(l, s, 1, true);
    bad |= step_pixels(l, s, 2, true);
    if (bad != 0)
        atomicOr(lanes.v[gl_WorkGroupID.z].not_finite, 1);
}
