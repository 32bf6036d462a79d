// exp, log, sine and cosine in f32 to about two units in the last place on every device. Vulkan's
// own may be far off: sin and cos are promised to 2^-11 absolute within [-pi, pi] only, exp to
// 3 + 2|x| units, and software rasterizers use short polynomials. `precise` keeps compilers from
// rearranging what the error bounds rest on. Source: the minimax polynomials of Cephes (Moshier).

float exact_exp(float x)
{
    precise float n, r, p;
    x = clamp(x, -87.0, 88.0);
    n = floor(x * 1.44269504088896341 + 0.5);
    r = x - n * 0.693359375;
    r = r + n * 2.12194440e-4;
    p = 1.9875691500e-4;
    p = p * r + 1.3981999507e-3;
    p = p * r + 8.3334519073e-3;
    p = p * r + 4.1665795894e-2;
    p = p * r + 1.6666665459e-1;
    p = p * r + 5.0000001201e-1;
    p = p * (r * r) + r + 1.0;
    return p * uintBitsToFloat(uint(int(n) + 127) << 23);
}

// log((1 + m) * 2^e), 1 + m in [sqrt(1/2), sqrt(2)]. Given m, no digit is lost next to 1.
float exact_log(float m, float e)
{
    precise float z, p;
    z = m * m;
    p = 7.0376836292e-2;
    p = p * m - 1.1514610310e-1;
    p = p * m + 1.1676998740e-1;
    p = p * m - 1.2420140846e-1;
    p = p * m + 1.4249322787e-1;
    p = p * m - 1.6668057665e-1;
    p = p * m + 2.0000714765e-1;
    p = p * m - 2.4999993993e-1;
    p = p * m + 3.3333331174e-1;
    p = p * m * z;
    p = p - e * 2.12194440e-4;
    p = p - 0.5 * z;
    p = m + p;
    return p + e * 0.693359375;
}

// (m, e) of a normal x > 0.
vec2 log_parts(float x)
{
    uint u = floatBitsToUint(x) - 0x3f3504f3u;  // sqrt(1/2)
    float m = uintBitsToFloat((u & 0x007fffffu) + 0x3f3504f3u);
    return vec2(m - 1.0, float(int(u) >> 23));
}

// (cos, sin) of quarter * pi/2 + r, |r| <= pi/4.
vec2 exact_cos_sin(uint quarter, float r)
{
    precise float z, c, s;
    z = r * r;
    c = 2.443315711809948e-5;
    c = c * z - 1.388731625493765e-3;
    c = c * z + 4.166664568298827e-2;
    c = c * z * z - 0.5 * z + 1.0;
    s = -1.9515295891e-4;
    s = s * z + 8.3321608736e-3;
    s = s * z - 1.6666654611e-1;
    s = s * z * r + r;
    vec2 v = (quarter & 1u) != 0 ? vec2(-s, c) : vec2(c, s);
    return (quarter & 2u) != 0 ? -v : v;
}

// (cos, sin) of x radians, |x| < 8192: pi/2 is taken off in three parts.
vec2 exact_cos_sin(float x)
{
    precise float n, r;
    n = floor(x * 0.63661977236758134 + 0.5);
    r = x - n * 1.5703125;
    r = r - n * 4.837512969970703125e-4;
    r = r - n * 7.54978995489188216e-8;
    return exact_cos_sin(uint(int(n)), r);
}
