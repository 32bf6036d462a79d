// Shared by the attention kernels: operands, parts, and where a sample's keys are. Softmax runs
// over the keys of segment 0, then those of segment 1.
PUSH(push_attention);
INPUT(0, q);
INPUT(1, k0);
INPUT(2, v0);
INPUT(3, k1);
INPUT(4, v1);
INPUT_U32(5, index0);
INPUT_U32(6, index1);
INPUT_F32(7, bias);
INPUT_U32(8, valid);
OUTPUT(9, y);

// Lower than every score; finite, so that differences of it are numbers.
const float NEVER = -1e30;

// First pixel of the keys that sample n reads.
uint first_key0(uint n, uint parts)
{
    uint from = n;
    if ((parts & ATTENTION_INDEX0) != 0)
        from = index0.v[4 * (p.index0.base + n * p.index0.cs)];
    return from * p.keys0;
}

uint first_key1(uint n, uint parts)
{
    uint from = n;
    if ((parts & ATTENTION_INDEX1) != 0)
        from = index1.v[4 * (p.index1.base + n * p.index1.cs)];
    return from * p.keys1;
}

// key counts over both segments.
float bias_at(uint query, uint key, uint head)
{
    return bias.v[4 * (p.bias.base + (query * (p.keys0 + p.keys1) + key) * p.bias.cs) + head];
}

bool is_valid(uint n, uint key) { return valid.v[p.valid + n * p.valid_n + key * p.valid_key] != 0; }
