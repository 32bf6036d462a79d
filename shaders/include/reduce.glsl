// Sums and maxima over a workgroup, in an order that depends on the workgroup's size alone.
// REDUCE_LANES must be defined as the workgroup's invocations. One workgroup = one subgroup is the
// cheap case; several meet in shared memory. Every invocation must call, and gets the result.
#extension GL_KHR_shader_subgroup_arithmetic : require

shared float reduce_part[REDUCE_LANES];

float reduce_add(float v)
{
    v = subgroupAdd(v);
    if (gl_NumSubgroups == 1)
        return v;
    barrier();
    if (subgroupElect())
        reduce_part[gl_SubgroupID] = v;
    barrier();
    float sum = 0;
    for (uint i = 0; i < gl_NumSubgroups; i++)
        sum += reduce_part[i];
    return sum;
}

float reduce_max(float v)
{
    v = subgroupMax(v);
    if (gl_NumSubgroups == 1)
        return v;
    barrier();
    if (subgroupElect())
        reduce_part[gl_SubgroupID] = v;
    barrier();
    float top = reduce_part[0];
    for (uint i = 1; i < gl_NumSubgroups; i++)
        top = max(top, reduce_part[i]);
    return top;
}
