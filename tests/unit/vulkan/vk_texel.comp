#version 450
// y[i] = the texel first + i of x, which may lie outside of it.
layout(local_size_x = 8) in;
layout(binding = 0) uniform samplerBuffer x;
layout(binding = 1) writeonly buffer Y { vec4 y[]; };
layout(push_constant) uniform Push { int n, first; };

void main()
{
    int i = int(gl_GlobalInvocationID.x);
    if (i < n)
        y[i] = texelFetch(x, first + i);
}
