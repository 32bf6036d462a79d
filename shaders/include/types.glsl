// The storage dialect. Four consecutive channels are the unit of every load and store: vec4 when
// the activations are f32, uvec2 of packed halves when they are f16 (DT_F16 = 1). Arithmetic is
// always f32.
//   INPUT(b, x)      an activation operand: a texel buffer (LOAD_TEXEL = 1) or a storage buffer
//   INPUT_WEIGHT     the same for a matrix product's weights, whose storage is WT's choice; formats
//                    that no texel has are always a storage buffer
//   LOAD(x, i)       its i-th vec4;  LOAD_WEIGHT(x, i)
//   INPUT_STATE(b, x), LOAD_STATE(x, i)    the same for a slot's state, which is always f32
//   BUFFER(b, x)     an activation operand that is always a storage buffer; BUFFER_LOAD(x, i)
//   OUTPUT(b, y), STORE(y, i, v)
//   UPDATE(b, y)     read and written: UPDATE_LOAD(y, i), STORE(y, i, v)
//   INPUT_F32 / INPUT_U32(b, x), OUTPUT_F32 / UPDATE_F32(b, x)    scalars: x.v[i]
//   INPUT_F32X4(b, x)                                   vec4s of f32: x.v[i]
//   PUSH(type)       the push constants p, which main copies first, by READ_PUSH(): inside loops and
//                    conditions, software rasterizers read them once for each lane
#ifndef DT_F16
#define DT_F16 0
#endif
#define WT_F32 0
#define WT_F16 1
#define WT_BF16 2
#define WT_Q8 3  // signed bytes, a half as scale for every 32
#define WT_Q4 4  // four bits less 8, likewise
#ifndef WT
#define WT DT_F16
#endif
#ifndef LOAD_TEXEL
#define LOAD_TEXEL 0
#endif

vec4 unpack4(vec4 v) { return v; }
vec4 unpack4(uvec2 v) { return vec4(unpackHalf2x16(v.x), unpackHalf2x16(v.y)); }

// Whether packHalf2x16 and conversions round or truncate is the driver's choice: round here, to
// nearest even, to a value that a half holds exactly.
uint round_half_bits(uint u) { return (u + 0xfffu + ((u >> 13) & 1u)) & 0xffffe000u; }
vec4 round_half4(vec4 v)
{
    uvec4 u = floatBitsToUint(v);
    bvec4 finite = lessThan(u & 0x7f800000u, uvec4(0x7f800000u));
    uvec4 r = uvec4(round_half_bits(u.x), round_half_bits(u.y), round_half_bits(u.z),
                    round_half_bits(u.w));
    return uintBitsToFloat(mix(u, r, finite));
}
uvec2 pack_half4(vec4 v)
{
    vec4 f = round_half4(v);
    return uvec2(packHalf2x16(f.xy), packHalf2x16(f.zw));
}

#if DT_F16
#define ACT4 uvec2
#define PACK_ACT(v) pack_half4(v)
#else
#define ACT4 vec4
#define PACK_ACT(v) (v)
#endif
#if WT == WT_F32
#define WEIGHT4 vec4
#elif WT == WT_F16 || WT == WT_BF16
#define WEIGHT4 uvec2
#else
#define WEIGHT4 uint
#endif

vec4 unpack_bf16(uvec2 v)
{
    return uintBitsToFloat(uvec4(v.x << 16, v.x & 0xffff0000u, v.y << 16, v.y & 0xffff0000u));
}
vec4 unpack_q8(uint v)
{
    int i = int(v);
    return vec4(bitfieldExtract(i, 0, 8), bitfieldExtract(i, 8, 8), bitfieldExtract(i, 16, 8),
                bitfieldExtract(i, 24, 8));
}
vec4 unpack_q4(uint v)
{
    return vec4(v & 15u, v >> 4 & 15u, v >> 8 & 15u, v >> 12 & 15u) - 8.0;
}

// Which scale vec4 number i of the weights has: WEIGHT_LANES outputs, in front of them WEIGHT_ROWS
// taps, lie between two inputs; 8 vec4s share a scale. See engine/ops/weight_format.c.
#ifndef WEIGHT_LANES
#define WEIGHT_LANES 1
#endif
#ifndef WEIGHT_ROWS
#define WEIGHT_ROWS 1
#endif
#define WEIGHT_SCALE(i)                                                                            \
    (((i) / (WEIGHT_LANES * WEIGHT_ROWS * 8) * WEIGHT_ROWS + (i) / WEIGHT_LANES % WEIGHT_ROWS) *   \
         WEIGHT_LANES +                                                                            \
     (i) % WEIGHT_LANES)
#define LOAD_SCALE(name, s) unpackHalf2x16(name.v[p.scales + (s) / 2])[(s) % 2]

#define BUFFER(b, name)                                                                            \
    layout(std430, binding = b) readonly buffer name##_block { ACT4 v[]; } name
#define BUFFER_LOAD(name, i) unpack4(name.v[i])
// Of f16 builds that read buffers: the four halves as they are stored.
#define LOAD_HALVES(name, i) name.v[i]

#if LOAD_TEXEL
#define INPUT(b, name) layout(binding = b) uniform samplerBuffer name
#define INPUT_STATE(b, name) layout(binding = b) uniform samplerBuffer name
#define LOAD(name, i) texelFetch(name, int(i))
#define LOAD_STATE(name, i) texelFetch(name, int(i))
#else
#define INPUT(b, name) BUFFER(b, name)
#define INPUT_STATE(b, name)                                                                       \
    layout(std430, binding = b) readonly buffer name##_block { vec4 v[]; } name
#define LOAD(name, i) unpack4(name.v[i])
#define LOAD_STATE(name, i) name.v[i]
#endif

#if LOAD_TEXEL && WT <= WT_F16
#define INPUT_WEIGHT(b, name) layout(binding = b) uniform samplerBuffer name
#define LOAD_WEIGHT(name, i) texelFetch(name, int(i))
#else
#define INPUT_WEIGHT(b, name)                                                                      \
    layout(std430, binding = b) readonly buffer name##_block { WEIGHT4 v[]; } name
#if WT == WT_BF16
#define LOAD_WEIGHT(name, i) unpack_bf16(name.v[i])
#elif WT == WT_Q8
#define LOAD_WEIGHT(name, i) (unpack_q8(name.v[i]) * LOAD_SCALE(name, WEIGHT_SCALE(i)))
#elif WT == WT_Q4
#define LOAD_WEIGHT(name, i)                                                                       \
    (unpack_q4(name.v[(i) / 2] >> (i) % 2 * 16) * LOAD_SCALE(name, WEIGHT_SCALE(i)))
#else
#define LOAD_WEIGHT(name, i) unpack4(name.v[i])
#endif
#endif

// A weight's four halves; of other formats, rounded.
#if WT == WT_F16
#define LOAD_WEIGHT_HALVES(name, i) name.v[i]
#else
#define LOAD_WEIGHT_HALVES(name, i) pack_half4(LOAD_WEIGHT(name, i))
#endif

#define OUTPUT(b, name)                                                                            \
    layout(std430, binding = b) writeonly buffer name##_block { ACT4 v[]; } name
#define UPDATE(b, name) layout(std430, binding = b) buffer name##_block { ACT4 v[]; } name
#define UPDATE_LOAD(name, i) unpack4(name.v[i])
#define STORE(name, i, value) name.v[i] = PACK_ACT(value)

#define INPUT_F32(b, name)                                                                         \
    layout(std430, binding = b) readonly buffer name##_block { float v[]; } name
#define INPUT_F32X4(b, name)                                                                       \
    layout(std430, binding = b) readonly buffer name##_block { vec4 v[]; } name
#define INPUT_U32(b, name)                                                                         \
    layout(std430, binding = b) readonly buffer name##_block { uint v[]; } name
#define OUTPUT_F32X4(b, name)                                                                      \
    layout(std430, binding = b) writeonly buffer name##_block { vec4 v[]; } name
#define OUTPUT_F32(b, name)                                                                        \
    layout(std430, binding = b) writeonly buffer name##_block { float v[]; } name
#define UPDATE_F32(b, name) layout(std430, binding = b) buffer name##_block { float v[]; } name

#define PUSH(type)                                                                                 \
    layout(push_constant) uniform push_block { type given; } push;                                 \
    type p
#define READ_PUSH() p = push.given

// The place of this invocation in a one-dimensional grid made by ops_groups. A macro, because
// gl_WorkGroupSize means nothing before the shader has declared its local size.
#define linear_id()                                                                                \
    ((gl_WorkGroupID.y * gl_NumWorkGroups.x + gl_WorkGroupID.x) * gl_WorkGroupSize.x +             \
     gl_LocalInvocationIndex)

// channels of vec4 number c4 beyond the tensor's c must stay zero.
vec4 mask_channels(vec4 v, uint c4, uint c)
{
    return mix(vec4(0), v, lessThan(uvec4(0, 1, 2, 3) + 4 * c4, uvec4(c)));
}
