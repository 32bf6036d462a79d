// Activation functions, numbered as in shared.h.

float silu(float x) { return x / (1 + exp(-x)); }

// erfc for x >= 0, relative error below 2e-7. Source: the Chebyshev fit of Numerical Recipes, erfcc.
float erfc_positive(float x)
{
    float t = 1 / (1 + 0.5 * x);
    float p = 0.17087277;
    p = p * t - 0.82215223;
    p = p * t + 1.48851587;
    p = p * t - 1.13520398;
    p = p * t + 0.27886807;
    p = p * t - 0.18628806;
    p = p * t + 0.09678418;
    p = p * t + 0.37409196;
    p = p * t + 1.00002368;
    p = p * t - 1.26551223;
    return t * exp(p - x * x);
}

// x * (1 + erf(x / sqrt 2)) / 2, through erfc so that the far negative side keeps its digits.
float gelu(float x)
{
    float e = erfc_positive(abs(x) * 0.70710678118654752);
    return 0.5 * x * (x < 0 ? e : 2 - e);
}

// 1 + tanh(z) = 2 / (1 + exp(-2z)).
float gelu_tanh(float x)
{
    float z = 0.79788456080286536 * (x + 0.044715 * x * x * x);
    return x / (1 + exp(-2 * z));
}

float act1(uint kind, float x)
{
    switch (kind) {
    case ACT_SILU: return silu(x);
    case ACT_GELU: return gelu(x);
    case ACT_GELU_TANH: return gelu_tanh(x);
    case ACT_RELU: return max(x, 0);
    default: return x;
    }
}

// kind: a specialization constant, so that only one branch is left.
vec4 act4(uint kind, vec4 v)
{
    if (kind == ACT_NONE)
        return v;
    return vec4(act1(kind, v.x), act1(kind, v.y), act1(kind, v.z), act1(kind, v.w));
}
