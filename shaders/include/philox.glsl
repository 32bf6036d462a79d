// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) and normals
// from it by Box-Muller. The integers are exact everywhere; the normals are the host's (rng.c) to a
// few units in the last place. Needs math.glsl.
#extension GL_EXT_control_flow_attributes : require

uvec4 philox(uvec4 c, uvec2 k)
{
    [[unroll]] for (int i = 0; i < 10; i++) {
        uint ah, al, bh, bl;
        umulExtended(0xD2511F53u, c.x, ah, al);
        umulExtended(0xCD9E8D57u, c.z, bh, bl);
        c = uvec4(bh ^ c.y ^ k.x, bl, ah ^ c.w ^ k.y, al);
        k += uvec2(0x9E3779B9u, 0xBB67AE85u);
    }
    return c;
}

// log((u + 1) / 2^32). Close to 1 the difference to 1 is what must be exact: it is ~u.
float log_uniform(uint u)
{
    float x = (float(u) + 1.0) * 2.3283064365386963e-10;
    vec2 parts = log_parts(x);
    if (u >= 0xb504f334u)
        parts = vec2(float(~u) * -2.3283064365386963e-10, 0.0);
    return exact_log(parts.x, parts.y);
}

// u.x gives the radius, u.y the angle. The angle is taken apart into quarter turns as an integer,
// so that no digit is lost to its reduction.
vec2 box_muller(uvec2 u)
{
    float radius = sqrt(-2.0 * log_uniform(u.x));
    uint quarter = (u.y + 0x20000000u) >> 30;
    float turn = float(int(u.y - (quarter << 30)));
    return radius * exact_cos_sin(quarter, turn * 1.4629180792671596e-9);
}

vec4 philox_normals(uvec4 counter, uvec2 key)
{
    uvec4 u = philox(counter, key);
    return vec4(box_muller(u.xy), box_muller(u.zw));
}
