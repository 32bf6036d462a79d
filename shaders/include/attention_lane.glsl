// The keys of one segment, for attention_lane.comp, which defines: KEYS (name of its key operand),
// VALUES, K_VIEW, V_VIEW, KEY_COUNT, FIRST (first pixel), KEY0 (keys of earlier segments) and
// MASKED (whether `valid` speaks of this segment). A block is SG keys: each lane loads one key's
// row, four channels at a time, and hands it to all lanes by shuffles.
for (uint j = 0; j < KEY_COUNT; j += SG) {
    uint key = min(j + lane, KEY_COUNT - 1);
    uint ki = K_VIEW.base + (FIRST + key) * K_VIEW.cs + gl_WorkGroupID.y * D4;
    uint vi = V_VIEW.base + (FIRST + key) * V_VIEW.cs + gl_WorkGroupID.y * D4;
    bool mine = j + lane < KEY_COUNT;
    if (MASKED)
        mine = mine && is_valid(n, key);
    float counts = mine ? 1 : 0;

    float s[SG * P];
    [[unroll]] for (uint i = 0; i < SG * P; i++)
        s[i] = 0;
    [[unroll]] for (uint d = 0; d < D4; d++) {
        vec4 kv = LOAD(KEYS, ki + d);
        [[unroll]] for (uint m = 0; m < SG; m++) {
            vec4 w = subgroupShuffle(kv, m);
            [[unroll]] for (uint g = 0; g < P; g++)
                [[unroll]] for (uint c = 0; c < 4; c++)
                    s[m * P + g] += w[c] * qv[d * P + g][c];
        }
    }
    float on[SG];
    [[unroll]] for (uint m = 0; m < SG; m++)
        on[m] = subgroupShuffle(counts, m);
    [[unroll]] for (uint g = 0; g < P; g++) {
        float top = highest[g];
        [[unroll]] for (uint m = 0; m < SG; m++) {
            float v = s[m * P + g] * p.scale;
            if ((PARTS & ATTENTION_BIAS) != 0)
                v += bias_at(min(query + g * SG, p.queries - 1), KEY0 + min(j + m, KEY_COUNT - 1),
                             gl_WorkGroupID.y);
            v = on[m] != 0 ? v : NEVER;
            s[m * P + g] = v;
            top = max(top, v);
        }
        float keep = exp(highest[g] - top);
        highest[g] = top;
        float t = total[g] * keep;
        [[unroll]] for (uint m = 0; m < SG; m++) {
            float e = exp(s[m * P + g] - top) * on[m];
            s[m * P + g] = e;
            t += e;
        }
        total[g] = t;
        [[unroll]] for (uint d = 0; d < D4; d++)
            sum[d * P + g] *= keep;
    }
    [[unroll]] for (uint d = 0; d < D4; d++) {
        vec4 vv = LOAD(VALUES, vi + d);
        [[unroll]] for (uint m = 0; m < SG; m++) {
            vec4 w = subgroupShuffle(vv, m);
            [[unroll]] for (uint g = 0; g < P; g++)
                sum[d * P + g] += w * s[m * P + g];
        }
    }
}
