"""ggml's block formats and GGUF files, in plain Python: what the tests compare the program with.

Written from the descriptions of the formats, not from the program: each format packs and unpacks its blocks
here in its own way. Standard library only.
"""
import json
import math
import os
import struct

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q8_0": 8, "Q2_K": 10, "Q3_K": 11,
         "Q4_K": 12, "Q5_K": 13, "Q6_K": 14, "BF16": 30}
# weights and bytes of a block
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
          "Q5_1": (32, 24), "Q8_0": (32, 34), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144),
          "Q5_K": (256, 176), "Q6_K": (256, 210)}


def f32(x):
    """A double, rounded to a float."""
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def half(x):
    try:
        return struct.pack("<e", x)
    except OverflowError:
        return struct.pack("<e", math.copysign(65504, x))


def unhalf(b):
    return struct.unpack("<e", b)[0]


# ---- unpacking: the definition of each format -----------------------------------------------------

def bits(data, count, width, group):
    """Numbers of `width` bits. A group of bytes holds its lowest bits first: number i of the group is in byte
    i % group, and the number's place in the byte is i // group."""
    out, per = [], 8 // width
    for at in range(0, count * width // 8, group):
        for place in range(per):
            out += [data[at + j] >> width * place & (1 << width) - 1 for j in range(group)]
    return out


def flags(data):
    return [b >> i & 1 for b in data for i in range(8)]


def six_bit_pairs(s):
    """Eight scales and eight minima, six bits each, in the twelve bytes of Q4_K and Q5_K."""
    scales = [s[i] & 63 for i in range(4)] + [(s[8 + i] & 15) | (s[i] >> 6) << 4 for i in range(4)]
    minima = [s[4 + i] & 63 for i in range(4)] + [s[8 + i] >> 4 | (s[4 + i] >> 6) << 4 for i in range(4)]
    return scales, minima


def unpack_block(kind, b):
    if kind == "Q4_0":
        return [f32(unhalf(b[:2]) * (q - 8)) for q in bits(b[2:], 32, 4, 16)]
    if kind == "Q4_1":
        return [f32(f32(unhalf(b[:2]) * q) + unhalf(b[2:4])) for q in bits(b[4:], 32, 4, 16)]
    if kind in ("Q5_0", "Q5_1"):
        at = 2 if kind == "Q5_0" else 4
        q = [low + 16 * high for low, high in zip(bits(b[at + 4:], 32, 4, 16), flags(b[at:at + 4]))]
        if kind == "Q5_0":
            return [f32(unhalf(b[:2]) * (x - 16)) for x in q]
        return [f32(f32(unhalf(b[:2]) * x) + unhalf(b[2:4])) for x in q]
    if kind == "Q8_0":
        return [f32(unhalf(b[:2]) * q) for q in struct.unpack("32b", b[2:])]
    out = []
    if kind == "Q2_K":
        d, m, q = unhalf(b[80:82]), unhalf(b[82:84]), bits(b[16:80], 256, 2, 32)
        for i in range(256):
            s = b[i // 16]
            out.append(f32(f32(f32(d * (s & 15)) * q[i]) - f32(m * (s >> 4))))
    elif kind == "Q3_K":
        d, q, s = unhalf(b[108:]), bits(b[32:96], 256, 2, 32), b[96:108]
        high = bits(b[:32], 256, 1, 32)
        low4 = bits(s[:8], 16, 4, 8)
        top2 = bits(s[8:], 16, 2, 4)
        for i in range(256):
            scale = low4[i // 16] + 16 * top2[i // 16] - 32
            out.append(f32(f32(d * scale) * (q[i] + 4 * high[i] - 4)))
    elif kind in ("Q4_K", "Q5_K"):
        d, m = unhalf(b[:2]), unhalf(b[2:4])
        scales, minima = six_bit_pairs(b[4:16])
        q = bits(b[16:] if kind == "Q4_K" else b[48:], 256, 4, 32)
        if kind == "Q5_K":
            q = [x + 16 * h for x, h in zip(q, bits(b[16:48], 256, 1, 32))]
        for i in range(256):
            out.append(f32(f32(f32(d * scales[i // 32]) * q[i]) - f32(m * minima[i // 32])))
    elif kind == "Q6_K":
        d, scales = unhalf(b[208:]), struct.unpack("16b", b[192:208])
        low, high = bits(b[:128], 256, 4, 64), bits(b[128:192], 256, 2, 32)
        for i in range(256):
            out.append(f32(f32(d * scales[i // 16]) * (low[i] + 16 * high[i] - 32)))
    return out


def unpack(kind, data):
    """All values of a tensor's bytes, as floats."""
    if kind == "F32":
        return list(struct.unpack("<%df" % (len(data) // 4), data))
    if kind == "F16":
        return list(struct.unpack("<%de" % (len(data) // 2), data))
    if kind == "BF16":
        halves = struct.unpack("<%dH" % (len(data) // 2), data)
        return list(struct.unpack("<%df" % len(halves), struct.pack("<%dI" % len(halves), *[h << 16 for h in halves])))
    size = BLOCKS[kind][1]
    return [v for at in range(0, len(data), size) for v in unpack_block(kind, data[at:at + size])]


# ---- packing: plain rounding, without the search for better scales of ggml -------------------------

def put_bits(numbers, width, group):
    out, per = bytearray(), 8 // width
    for at in range(0, len(numbers), group * per):
        for j in range(group):
            out.append(sum(numbers[at + place * group + j] << width * place for place in range(per)))
    return bytes(out)


def clamp(x, low, high):
    return max(low, min(high, x))


def divide(x, d):
    return x / d if d else 0.0


def symmetric(values, top):
    """d and numbers from -top to top - 1, the farthest at -top."""
    d = unhalf(half(max(values, key=abs) / -top))
    return d, [clamp(round(divide(v, d)), -top, top - 1) + top for v in values]


def affine(values, top):
    m = unhalf(half(min(values)))
    d = unhalf(half((max(values) - m) / top))
    return d, m, [clamp(round(divide(v - m, d)), 0, top) for v in values]


def pack_k_affine(x, width, part, scale_top):
    """Scales and minima of parts of a block of 256, and the numbers. Minima are stored as what is subtracted."""
    top = (1 << width) - 1
    low = [max(0.0, -min(x[i:i + part])) for i in range(0, 256, part)]
    step = [(max(x[i * part:(i + 1) * part]) + low[i]) / top for i in range(256 // part)]
    d, dmin = unhalf(half(max(step) / scale_top)), unhalf(half(max(low) / scale_top))
    scales = [clamp(round(divide(s, d)), 0, scale_top) for s in step]
    minima = [clamp(round(divide(m, dmin)), 0, scale_top) for m in low]
    q = [clamp(round(divide(x[i] + dmin * minima[i // part], d * scales[i // part])), 0, top) for i in range(256)]
    return d, dmin, scales, minima, q


def pack_six_bit_pairs(scales, minima):
    s = bytearray(12)
    for i in range(4):
        s[i] = scales[i] | scales[4 + i] >> 4 << 6
        s[4 + i] = minima[i] | minima[4 + i] >> 4 << 6
        s[8 + i] = scales[4 + i] & 15 | (minima[4 + i] & 15) << 4
    return bytes(s)


def pack_k_symmetric(x, top, scale_top):
    """A scale for every 16 numbers, which are from -top to top - 1; and the scales' scale."""
    step = [max(x[i:i + 16], key=abs) / -top for i in range(0, 256, 16)]
    d = unhalf(half(max(step, key=abs) / -scale_top))
    scales = [clamp(round(divide(s, d)), -scale_top, scale_top - 1) for s in step]
    return d, scales, [clamp(round(divide(x[i], d * scales[i // 16])), -top, top - 1) + top for i in range(256)]


def pack_block(kind, x):
    if kind == "Q8_0":
        d = unhalf(half(max(map(abs, x)) / 127))
        return half(d) + struct.pack("32b", *[clamp(round(divide(v, d)), -127, 127) for v in x])
    if kind == "Q4_0":
        d, q = symmetric(x, 8)
        return half(d) + put_bits(q, 4, 16)
    if kind == "Q4_1":
        d, m, q = affine(x, 15)
        return half(d) + half(m) + put_bits(q, 4, 16)
    if kind == "Q5_0":
        d, q = symmetric(x, 16)
        return half(d) + struct.pack("<I", sum((n >> 4) << i for i, n in enumerate(q))) + put_bits([n & 15 for n in q], 4, 16)
    if kind == "Q5_1":
        d, m, q = affine(x, 31)
        return half(d) + half(m) + struct.pack("<I", sum((n >> 4) << i for i, n in enumerate(q))) + put_bits(
            [n & 15 for n in q], 4, 16)
    if kind == "Q2_K":
        d, dmin, s, m, q = pack_k_affine(x, 2, 16, 15)
        return bytes(a | b << 4 for a, b in zip(s, m)) + put_bits(q, 2, 32) + half(d) + half(dmin)
    if kind == "Q3_K":
        d, s, q = pack_k_symmetric(x, 4, 32)
        s = [n + 32 for n in s]
        return (put_bits([n >> 2 for n in q], 1, 32) + put_bits([n & 3 for n in q], 2, 32) +
                put_bits([n & 15 for n in s], 4, 8) + put_bits([n >> 4 for n in s], 2, 4) + half(d))
    if kind == "Q4_K":
        d, dmin, s, m, q = pack_k_affine(x, 4, 32, 63)
        return half(d) + half(dmin) + pack_six_bit_pairs(s, m) + put_bits(q, 4, 32)
    if kind == "Q5_K":
        d, dmin, s, m, q = pack_k_affine(x, 5, 32, 63)
        return half(d) + half(dmin) + pack_six_bit_pairs(s, m) + put_bits([n >> 4 for n in q], 1, 32) + put_bits(
            [n & 15 for n in q], 4, 32)
    if kind == "Q6_K":
        d, s, q = pack_k_symmetric(x, 32, 128)
        return put_bits([n & 15 for n in q], 4, 64) + put_bits([n >> 4 for n in q], 2, 32) + struct.pack("16b", *s) + half(d)
    raise ValueError(kind)


def pack(kind, values):
    if kind == "F32":
        return struct.pack("<%df" % len(values), *values)
    if kind == "F16":
        return struct.pack("<%de" % len(values), *values)
    if kind == "BF16":  # to nearest even
        words = struct.unpack("<%dI" % len(values), struct.pack("<%df" % len(values), *values))
        return struct.pack("<%dH" % len(values), *[(w + 0x7fff + (w >> 16 & 1)) >> 16 for w in words])
    n = BLOCKS[kind][0]
    return b"".join(pack_block(kind, values[at:at + n]) for at in range(0, len(values), n))


# ---- files ----------------------------------------------------------------------------------------

def text(s):
    b = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<Q", len(b)) + b


def value(v):
    """A value with its type: (type, v) for numbers of a certain type, ("array", type, list) for arrays."""
    formats = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
    if isinstance(v, str):
        return struct.pack("<I", 8) + text(v)
    if isinstance(v, bool):
        return struct.pack("<I?", 7, v)
    if isinstance(v, int):
        return struct.pack("<II", 4, v)
    if isinstance(v, float):
        return struct.pack("<If", 6, v)
    if v[0] == "array":
        body = b"".join(map(text, v[2])) if v[1] == 8 else struct.pack("<%d%s" % (len(v[2]), formats.get(v[1], "B")), *v[2])
        return struct.pack("<IIQ", 9, v[1], len(v[2])) + body
    return struct.pack("<I" + formats[v[0]], *v)


class File:
    """A GGUF file: metadata in .values, tensors as (name, shape, type name or number, bytes) in .tensors."""

    def __init__(self):
        self.values, self.tensors, self.version, self.alignment = {}, [], 3, 32

    def bytes(self):
        head = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.values))
        for key, v in self.values.items():
            head += text(key) + value(v)
        data = b""
        for name, shape, kind, body in self.tensors:
            data += b"\0" * (-len(data) % self.alignment)
            head += text(name) + struct.pack("<I%dQ" % len(shape), len(shape), *reversed(shape))
            head += struct.pack("<IQ", kind if isinstance(kind, int) else TYPES[kind], len(data))
            data += body
        return head + b"\0" * (-len(head) % self.alignment) + data

    def write(self, path):
        with open(path, "wb") as f:
            f.write(self.bytes())


# ---- a text encoder ---------------------------------------------------------------------------------

NAMES = [("encoder.block.", "enc.blk."), (".layer.0.SelfAttention.relative_attention_bias.", ".attn_rel_b."),
         (".layer.0.SelfAttention.", ".attn_"), (".layer.0.layer_norm.", ".attn_norm."),
         (".layer.1.layer_norm.", ".ffn_norm."), (".layer.1.DenseReluDense.wi_0.", ".ffn_gate."),
         (".layer.1.DenseReluDense.wi_1.", ".ffn_up."), (".layer.1.DenseReluDense.wi.", ".ffn_up."),
         (".layer.1.DenseReluDense.wo.", ".ffn_down."),
         ("encoder.final_layer_norm.", "enc.output_norm."), ("shared.", "token_embd.")]


def llama_name(name):
    for a, b in NAMES:
        name = name.replace(a, b)
    return name


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    n, = struct.unpack("<Q", data[:8])
    for name, t in json.loads(data[8:8 + n]).items():
        if name != "__metadata__":
            a, b = t["data_offsets"]
            yield name, t["shape"], unpack(t["dtype"], data[8 + n + a:8 + n + b])


def read_pieces(path):
    """Pieces (text, score, type) and normalization rules of a spiece.model."""
    def fields(data):
        at = 0

        def varint():
            nonlocal at
            v, shift = 0, 0
            while True:
                b = data[at]
                at += 1
                v |= (b & 127) << shift
                shift += 7
                if b < 128:
                    return v
        while at < len(data):
            tag = varint()
            if tag & 7 == 2:
                n = varint()
                yield tag >> 3, data[at:at + n]
                at += n
            elif tag & 7 == 5:
                yield tag >> 3, struct.unpack("<f", data[at:at + 4])[0]
                at += 4
            else:
                yield tag >> 3, varint()
    with open(path, "rb") as f:
        model = f.read()
    pieces, rules = [], b""
    for number, body in fields(model):
        if number == 1:
            piece = dict(fields(body))
            pieces.append((piece[1], piece.get(2, 0.0), piece.get(3, 1)))
        elif number == 3:
            rules = dict(fields(body)).get(2, b"")
    return pieces, rules


def tokenizer_values(folder, vocab):
    """As llama.cpp's converter writes them: the vocabulary is filled up with unused tokens."""
    pieces, rules = read_pieces(os.path.join(folder, "spiece.model"))
    pieces += [(b"[PAD%d]" % i, -10000.0, 5) for i in range(len(pieces), vocab)]
    return {
        "tokenizer.ggml.model": "t5", "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": ("array", 8, [p[0] for p in pieces]),
        "tokenizer.ggml.scores": ("array", 6, [p[1] for p in pieces]),
        "tokenizer.ggml.token_type": ("array", 5, [p[2] for p in pieces]),
        "tokenizer.ggml.precompiled_charsmap": ("array", 0, list(rules)),
        "tokenizer.ggml.add_space_prefix": True, "tokenizer.ggml.remove_extra_whitespaces": True,
        "tokenizer.ggml.eos_token_id": 1, "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.padding_token_id": 0, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_eos_token": True,
    }


def convert(model, kind, arch="t5encoder"):
    """The text encoder of a diffusers folder as a GGUF file: matrices in `kind`, or in Q8_0 or F16 where their rows
    are no multiple of its blocks, as llama.cpp does; the rest in F32."""
    folder = os.path.join(model, "text_encoder")
    with open(os.path.join(folder, "config.json")) as f:
        c = json.load(f)
    out = File()
    out.values = {
        "general.architecture": arch, "general.name": "a text encoder", "general.file_type": 1,
        arch + ".context_length": 512, arch + ".embedding_length": c["d_model"],
        arch + ".feed_forward_length": c["d_ff"], arch + ".block_count": c["num_layers"],
        arch + ".attention.head_count": c["num_heads"], arch + ".attention.key_length": c["d_kv"],
        arch + ".attention.value_length": c["d_kv"],
        arch + ".attention.layer_norm_epsilon": float(c["layer_norm_epsilon"]),
        arch + ".attention.relative_buckets_count": c["relative_attention_num_buckets"],
        arch + ".attention.layer_norm_rms_epsilon": float(c["layer_norm_epsilon"]),
        arch + ".decoder_start_token_id": 0,
    }
    out.values.update(tokenizer_values(os.path.join(model, "tokenizer"), c["vocab_size"]))
    files = sorted(n for n in os.listdir(folder) if n.endswith(".safetensors"))
    for file in [n for n in files if "fp16" not in n and "bf16" not in n] or files:
        for name, shape, values in read_safetensors(os.path.join(folder, file)):
            use = "F32" if len(shape) == 1 or "relative" in name else kind
            for other in (use, "Q8_0", "F16"):
                if shape[-1] % BLOCKS[other][0] == 0:
                    use = other
                    break
            out.tensors.append((llama_name(name), shape, use, pack(use, values)))
    return out
