// The lane table and the state of slots, for the sampling operators. Needs push.h.
#ifndef LANES_ACCESS
#define LANES_ACCESS readonly
#endif
layout(std430, binding = 0) LANES_ACCESS buffer lanes_block { op_lane v[]; } lanes;

// The model's output after guidance. Guidance 1 is the text branch itself, as it would be in a step
// without guidance. `precise`: the kernel that measures x0 and the one that uses it must agree to
// the last bit.
vec3 guide(vec3 uncond, vec3 cond, float guidance)
{
    precise vec3 m = uncond + guidance * (cond - uncond);
    return guidance == 1 ? cond : m;
}
// x0 before thresholding.
vec3 predict(op_lane l, vec3 x, vec3 m)
{
    precise vec3 x0 = l.px * x + l.pm * m;
    return x0;
}
