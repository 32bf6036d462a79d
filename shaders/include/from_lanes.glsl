// Broadcasts for the lane-sliced matrix products. Their sums are written as whole vec4s: Mesa takes
// two to three times as long to create a pipeline where a loop picks the component, acc[i][m % 4].
#extension GL_KHR_shader_subgroup_shuffle : require

// w of lanes m to m + 3.
vec4 from_lanes(float w, uint m)
{
    return vec4(subgroupShuffle(w, m), subgroupShuffle(w, m + 1), subgroupShuffle(w, m + 2),
                subgroupShuffle(w, m + 3));
}
