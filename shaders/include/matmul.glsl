// Operands and epilogue of every linear and convolution kernel. The includer declares ACT and PARTS.
PUSH(push_matmul);
#ifndef OPERAND
#define OPERAND INPUT
#endif
OPERAND(0, x);
INPUT_WEIGHT(1, weight);
INPUT_F32X4(2, bias);
INPUT(3, mul);
INPUT(4, residual);
OUTPUT(5, y);

// v: four channels of one pixel, bias included; m: which four.
void finish(vec4 v, uint pixel, uint m)
{
    v = act4(ACT, v);
    if ((PARTS & MATMUL_MUL) != 0)
        v *= LOAD(mul, p.mul.base + pixel * p.mul.cs + m);
    if ((PARTS & MATMUL_RESIDUAL) != 0)
        v += LOAD(residual, p.residual.base + pixel * p.residual.cs + m);
    if ((PARTS & MATMUL_SCALE) != 0)
        v *= p.scale;
    STORE(y, p.y.base + pixel * p.y.cs + m, v);
}
