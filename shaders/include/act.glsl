// Activation functions, numbered as in shared.h. Factors are vec4s: the compiler merges products of
// those, as it does for scalars, but not of a vec4 and a scalar, which rounds otherwise.

vec4 silu(vec4 x) { return x / (1 + exp(-x)); }

// erfc for x >= 0, relative error below 2e-7. Source: the Chebyshev fit of Numerical Recipes, erfcc.
vec4 erfc_positive(vec4 x)
{
    vec4 t = 1 / (1 + vec4(0.5) * x);
    vec4 p = vec4(0.17087277) * t - 0.82215223;
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
vec4 gelu(vec4 x)
{
    vec4 e = erfc_positive(abs(x) * vec4(0.70710678118654752));
    return vec4(0.5) * x * mix(2 - e, e, lessThan(x, vec4(0)));
}

// 1 + tanh(z) = 2 / (1 + exp(-2z)).
vec4 gelu_tanh(vec4 x)
{
    vec4 z = vec4(0.79788456080286536) * (x + vec4(0.044715) * x * x * x);
    return x / (1 + exp(vec4(-2) * z));
}

// kind: a specialization constant, so that only one branch is left.
vec4 act4(uint kind, vec4 v)
{
    switch (kind) {
    case ACT_SILU: return silu(v);
    case ACT_GELU: return gelu(v);
    case ACT_GELU_TANH: return gelu_tanh(v);
    case ACT_RELU: return max(v, 0);
    default: return v;
    }
}
