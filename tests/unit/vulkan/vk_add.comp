#version 450
// y[i] = scale * x[i] + add.
layout(local_size_x_id = 0) in;
layout(constant_id = 1) const uint scale = 1;
layout(binding = 0) readonly buffer X { uint x[]; };
layout(binding = 1) writeonly buffer Y { uint y[]; };
layout(push_constant) uniform Push { uint n, add; };

void main()
{
    uint i = gl_GlobalInvocationID.x;
    if (i < n)
        y[i] = scale * x[i] + add;
}
