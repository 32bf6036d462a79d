// The keys of one segment, for attention_tile.comp; the same names as in attention_lane.glsl.
for (uint j = 0; j < KEY_COUNT; j += BLOCK) {
    barrier();
    for (uint i = gl_LocalInvocationIndex; i < BLOCK * D4; i += gl_WorkGroupSize.x) {
        uint pixel = FIRST + min(j + i / D4, KEY_COUNT - 1);
        uint c = gl_WorkGroupID.y * D4 + i % D4;
        k_tile[i] = LOAD(KEYS, K_VIEW.base + pixel * K_VIEW.cs + c);
        v_tile[i] = LOAD(VALUES, V_VIEW.base + pixel * V_VIEW.cs + c);
    }
    barrier();
    float s[BLOCK];
    float top = highest;
    [[unroll]] for (uint m = 0; m < BLOCK; m++) {
        uint key = min(j + m, KEY_COUNT - 1);
        bool on = j + m < KEY_COUNT;
        if (MASKED)
            on = on && is_valid(n, key);
        float v = 0;
        [[unroll]] for (uint d = 0; d < D4; d++)
            v += dot(qv[d], k_tile[m * D4 + d]);
        v *= p.scale;
        if ((PARTS & PART_BIAS) != 0)
            v += bias_at(min(query, p.queries - 1), KEY0 + key, gl_WorkGroupID.y);
        s[m] = on ? v : 2 * NEVER;  // told apart from NEVER below
        top = max(top, s[m]);
    }
    float keep = exp(highest - top);
    highest = top;
    total *= keep;
    [[unroll]] for (uint d = 0; d < D4; d++)
        sum[d] *= keep;
    [[unroll]] for (uint m = 0; m < BLOCK; m++) {
        float e = s[m] > NEVER ? exp(s[m] - top) : 0;
        total += e;
        [[unroll]] for (uint d = 0; d < D4; d++)
            sum[d] += e * v_tile[m * D4 + d];
    }
}
