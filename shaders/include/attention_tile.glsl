// The keys of one segment, for attention_tile.comp; the same names as in attention_lane.glsl.
// BLOCK keys at a time in shared memory, four of them at a time in registers.
for (uint j = 0; j < KEY_COUNT; j += BLOCK) {
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < BLOCK * D4; i += gl_WorkGroupSize.x) {
        uint pixel = FIRST + min(j + i / D4, KEY_COUNT - 1);
        uint c = gl_WorkGroupID.y * D4 + i % D4;
        k_tile[i] = LOAD(KEYS, K_VIEW.base + pixel * K_VIEW.cs + c);
        v_tile[i] = LOAD(VALUES, V_VIEW.base + pixel * V_VIEW.cs + c);
    }
    barrier();
    for (uint b = 0; b < BLOCK; b += 4) {
        vec4 s = vec4(0);
        [[unroll]] for (uint d = 0; d < D4; d++)
            s += vec4(dot(qv[d], k_tile[b * D4 + d]), dot(qv[d], k_tile[(b + 1) * D4 + d]),
                      dot(qv[d], k_tile[(b + 2) * D4 + d]), dot(qv[d], k_tile[(b + 3) * D4 + d]));
        s *= p.scale;
        bvec4 on;
        [[unroll]] for (uint m = 0; m < 4; m++) {
            uint key = min(j + b + m, KEY_COUNT - 1);
            on[m] = j + b + m < KEY_COUNT;
            if (MASKED)
                on[m] = on[m] && is_valid(n, key);
            if ((PARTS & ATTENTION_BIAS) != 0)
                s[m] += bias_at(min(query, p.queries - 1), KEY0 + key, gl_WorkGroupID.y);
        }
        s = mix(vec4(NEVER), s, on);
        float top = max(max(highest, max(s.x, s.y)), max(s.z, s.w));
        float keep = exp(highest - top);
        highest = top;
        vec4 e = mix(vec4(0), exp(s - top), on);
        total = total * keep + e.x + e.y + e.z + e.w;
        [[unroll]] for (uint d = 0; d < D4; d++)
            sum[d] = sum[d] * keep + e.x * v_tile[b * D4 + d] + e.y * v_tile[(b + 1) * D4 + d] +
                     e.z * v_tile[(b + 2) * D4 + d] + e.w * v_tile[(b + 3) * D4 + d];
    }
}
