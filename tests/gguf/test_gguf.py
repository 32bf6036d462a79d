"""GGUF files: every format against ggml.py's own unpacking, bit for bit; damaged files, each with its error; text
encoders and their tokenizers, against the folders that they were made from.

    test_gguf.py IMAGEND DUMP STATES GOLDEN
"""
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile

import ggml

PROGRAM, DUMP, STATES, GOLDEN = sys.argv[1:5]
MODEL = os.path.join(GOLDEN, "if-tiny-I")


def dump(path, *texts):
    r = subprocess.run([DUMP, path, *texts], capture_output=True, timeout=60)
    return r.returncode, r.stdout, r.stderr.decode(errors="replace")


def same_bits(a, b):
    """Equal bit for bit, but for the payload of NaN."""
    return len(a) == len(b) and all(struct.pack("<f", x) == struct.pack("<f", y) or (x != x and y != y)
                                    for x, y in zip(a, b))


def small():
    """A file with what an encoder needs to be recognized, and little else."""
    f = ggml.File()
    f.values = {"general.architecture": "t5encoder", "t5encoder.block_count": 1,
                "t5encoder.feed_forward_length": 64, "t5encoder.attention.head_count": 2,
                "t5encoder.attention.key_length": 16, "t5encoder.attention.relative_buckets_count": 32}
    f.tensors = [("token_embd.weight", (4, 32), "F32", ggml.pack("F32", [0.5] * 128))]
    return f


def test_formats(folder):
    """Random bytes are legal blocks of every format, with scales from subnormal to infinite; and values that were
    packed here come back."""
    r = random.Random(7)
    path = os.path.join(folder, "formats.gguf")
    for kind, (block, size) in ggml.BLOCKS.items():
        blocks = 64 if block > 1 else 2048
        wild = r.randbytes(blocks * size)
        tame = ggml.pack(kind, [ggml.f32(r.gauss(0, 0.05)) for _ in range(4 * 256)])
        f = small()
        f.tensors += [("wild", (blocks * block // 256, 256), kind, wild), ("tame", (4, 256), kind, tame)]
        f.write(path)
        status, out, err = dump(path)
        assert status == 0, err
        # sorted by name
        got = struct.unpack("<%df" % (len(out) // 4), out)
        assert same_bits(got[:1024], ggml.unpack(kind, tame)), kind
        assert len(got) == 1024 + 128 + blocks * block, kind
        if kind in ("Q2_K", "Q4_K", "Q5_K", "Q4_1", "Q5_1"):
            # Python's sums are double; they may round twice where the summands are far apart.
            pairs = zip(got[1024 + 128:], ggml.unpack(kind, wild))
            assert all(x == y or x != x or abs(x - y) <= 2 ** -23 * abs(x) for x, y in pairs), kind
        else:
            assert same_bits(got[1024 + 128:], ggml.unpack(kind, wild)), kind


def damaged():
    """(what is written, what the error says)"""
    whole = small().bytes()

    def change(**fields):
        f = small()
        for name, v in fields.items():
            setattr(f, name, v)
        return f.bytes()

    def values(**more):
        f = small()
        f.values.update({k.replace("__", "."): v for k, v in more.items()})
        return f.bytes()

    def tensors(*more):
        f = small()
        f.tensors += more
        return f.bytes()

    def put(at, fmt, v):
        b = bytearray(whole)
        struct.pack_into(fmt, b, at, v)
        return bytes(b)

    def without(key):
        f = small()
        del f.values[key]
        return f.bytes()

    end_of_name = whole.index(b"token_embd.weight") + 17  # dims, 2 sizes, type, offset
    one = ggml.pack("F32", [1.0])
    return [
        (b"", "is empty"),
        (b"GGU", "not a GGUF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 8610000000\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (whole[:20], "truncated: its header continues after its 20 bytes"),
        (whole[:100], "truncated: its header continues"),
        (whole[:-1], "is truncated: it has %d of %d bytes; download it again" % (len(whole) - 1, len(whole))),
        (whole[:end_of_name + 4], "truncated"),
        (put(4, "<I", 1), "has the GGUF version 1; expected 2 or 3"),
        (put(4, ">I", 3), "expected 2 or 3 in little-endian order"),
        (put(8, "<Q", 1 << 40), "impossible counts"),
        (put(16, "<Q", 1 << 40), "impossible counts"),
        (put(8, "<Q", 60000), "a tensor has an unusable name"),
        (put(24, "<Q", (1 << 64) - 1), "truncated"),
        (put(24 + 8 + 20, "<I", 13), "unknown type 13"),
        (put(end_of_name, "<I", 5), "token_embd.weight: it has more than 4 dimensions"),
        (put(end_of_name + 4, "<Q", 1 << 62), "product of its shape overflows"),
        (put(end_of_name + 4, "<Q", 1 << 60), "its size overflows"),
        (put(end_of_name + 12, "<Q", 1 << 40), "is truncated: it has %d of" % len(whole)),
        (put(end_of_name + 20, "<I", 99), "token_embd.weight has the type 99, which is not supported"),
        (put(end_of_name + 20, "<I", 23), "has the type IQ4_XS, which is not supported; use a file in F32"),
        (put(end_of_name + 20, "<I", 4), "has the type 4"),
        (put(end_of_name + 20, "<I", 12), "Q4_K needs rows of a multiple of 256, but they have 32"),
        (put(end_of_name + 24, "<Q", 16), "token_embd.weight: its data is not aligned"),
        (put(end_of_name + 24, "<Q", (1 << 64) - 32), "its data lies outside the file"),
        (tensors(("token_embd.weight", (1,), "F32", one)), "token_embd.weight occurs twice"),
        (tensors(("", (1,), "F32", one)), "a tensor has an unusable name"),
        (tensors(("x" * 256, (1,), "F32", one)), "a tensor has an unusable name"),
        (tensors(("a\0b", (1,), "F32", one)), "a tensor has an unusable name"),
        (tensors(("q", (), "Q8_0", b"\0" * 34)), "a single number cannot be quantized"),
        (change(tensors=[]), "token_embd.weight is missing"),
        (without("general.architecture"), 'the architecture "none"; expected t5 or t5encoder'),
        (values(general__architecture="llama"), 'the architecture "llama"; expected t5 or t5encoder'),
        (values(general__architecture=7), 'the architecture "none"'),
        (values(general__alignment=12), "general.alignment is not a multiple of 8"),
        (values(general__alignment=0), "general.alignment is not a multiple of 8"),
        (values(general__alignment=("array", 4, [1])), "general.alignment is not a multiple of 8"),
        (values(split__count=(2, 3)), "is one of 3 parts; join them with llama-gguf-split --merge"),
        (values(odd=("array", 9, [])), "an array of its metadata has an unknown element type"),
        (values(t5encoder__block_count=0), "t5encoder.block_count is 0; expected 1 to 1024"),
        (values(t5encoder__block_count=1.5), "t5encoder.block_count is 1.5"),
        (values(t5encoder__block_count="two"), "t5encoder.block_count is not a number; expected 1 to 1024"),
        (values(t5encoder__attention__relative_buckets_count=30), "relative_buckets_count of 30 is not supported"),
        (values(t5encoder__attention__layer_norm_rms_epsilon=2.0), "layer_norm_rms_epsilon is 2"),
        (without("t5encoder.attention.head_count"), "t5encoder.attention.head_count is missing and no tensor shows it"),
    ]


def overlapping():
    """Two tensors at the same place."""
    f = small()
    f.tensors.append(("other", (32,), "F32", ggml.pack("F32", [0.0] * 32)))
    b = bytearray(f.bytes())
    struct.pack_into("<Q", b, b.index(b"other") + 5 + 4 + 8 + 4, 0)
    return bytes(b)


def test_damaged_files(folder):
    path = os.path.join(folder, "damaged.gguf")
    for i, (data, says) in enumerate(damaged() + [(overlapping(), "its data overlaps another tensor's")]):
        with open(path, "wb") as f:
            f.write(data)
        status, _, err = dump(path)
        assert status == 1 and says in err, (i, says, status, err)
        assert "damaged.gguf" in err and err.count("\n") == 1, (i, err)
    # Prefixes of a file are refused; what single bytes change is the fuzz target's business.
    whole = small().bytes()
    for n in range(0, len(whole), 40):
        with open(path, "wb") as f:
            f.write(whole[:n])
        assert dump(path)[0] == 1, n


def test_damage_of_every_format(folder):
    """Rows that are no whole blocks, data that ends early or begins anywhere, and more of it than its shape."""
    path = os.path.join(folder, "format.gguf")
    for kind, (block, size) in ggml.BLOCKS.items():
        def damage(shape, blocks, shift=0, cut=0):
            f = small()
            f.tensors.append(("last", shape, kind, bytes(blocks * size)))
            b = bytearray(f.bytes())
            at = b.index(b"last") + 4 + 4 + 8 * len(shape) + 4
            struct.pack_into("<Q", b, at, struct.unpack_from("<Q", b, at)[0] + shift)
            return bytes(b[:len(b) - cut])

        rows = [
            (damage((3, 256), 3 * 256 // block), None),
            (damage((3, 256), 3 * 256 // block, cut=1), "is truncated: it has "),
            (damage((4, 256), 3 * 256 // block), "is truncated: it has "),
            (damage((3, 256), 3 * 256 // block, shift=16), "last: its data is not aligned"),
        ]
        if block > 1:
            rows += [
                (damage((3, block // 2), 3), "last: %s needs rows of a multiple of %d, but they have %d" % (
                    kind, block, block // 2)),
                (damage((), 1), "a single number cannot be quantized"),
            ]
        for data, says in rows:
            with open(path, "wb") as f:
                f.write(data)
            status, _, err = dump(path)
            assert (status == 0) == (says is None) and (says or "") in err, (kind, says, status, err)


def test_other_headers(folder):
    """What is unusual but right: other alignments, version 2, values of every type, absent metadata."""
    path = os.path.join(folder, "other.gguf")
    plain = small()
    for key in [k for k in plain.values if k != "general.architecture"]:
        if "head_count" not in key and "key_length" not in key:
            del plain.values[key]
    shapes = {"enc.blk.0.attn_q.weight": (32, 32), "enc.blk.0.ffn_up.weight": (64, 32),
              "enc.blk.0.attn_rel_b.weight": (32, 2)}
    for name, s in shapes.items():
        plain.tensors.append((name, s, "F32", ggml.pack("F32", [0.0] * s[0] * s[1])))
    files = [plain]
    for alignment in (8, 64, 4096):
        f = small()
        f.alignment = alignment
        f.values["general.alignment"] = alignment
        files.append(f)
    f = small()
    f.version = 2
    f.values.update({"x%d" % t: (t, 1) for t in (0, 1, 2, 3, 4, 5, 7, 10, 11)})
    f.values.update({"y%d" % t: ("array", t, [1, 0]) for t in (0, 1, 2, 3, 4, 5, 7, 10, 11)})
    f.values.update({"z": ("array", 8, ["", "a"]), "d": (12, 0.5), "e": ("array", 6, [])})
    files.append(f)
    for f in files:
        f.write(path)
        status, out, err = dump(path)
        assert status == 0 and "token_embd.weight F32 4 32" in err, err
        assert out[-512:] == ggml.pack("F32", [0.5] * 128)


def run(*args):
    r = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout + r.stderr


def generate(folder, name, *flags, model=MODEL):
    out = os.path.join(folder, name + ".png")
    status, text = run("generate", "a red cat", "--model", model, "--steps", "2", "--seed", "5", "-o", out, *flags)
    if status:
        return status, text
    with open(out, "rb") as f:
        return 0, f.read()[8 + 25:].split(b"IDAT", 1)[1]


def test_encoder_of_a_folder(folder):
    """The same weights in a GGUF file give the same states and the same image, bit for bit."""
    path = os.path.join(folder, "f16.gguf")
    ggml.convert(MODEL, "F16").write(path)  # the folder's are halves
    for arch in ("t5", "t5encoder"):
        ggml.convert(MODEL, "F16", arch).write(path)
        r = subprocess.run([STATES, MODEL, path, "a red cat", ""], capture_output=True, text=True)
        if r.returncode == 77:
            print("no device: the states and images are not compared")
            return
        assert r.returncode == 0 and r.stdout.split()[1:3] == ["0", "0"], r
    status, image = generate(folder, "folder")
    assert status == 0, image
    assert generate(folder, "gguf", "--text-encoder", path) == (0, image)
    # The folder's own encoder and tokenizer are not needed.
    alone = os.path.join(folder, "alone")
    shutil.copytree(MODEL, alone, ignore=shutil.ignore_patterns("text_encoder", "tokenizer", "reference*"))
    with open(os.path.join(alone, "model_index.json")) as f:
        index = f.read()
    for part, cls in ("text_encoder", "T5EncoderModel"), ("tokenizer", "T5Tokenizer"):
        assert '"%s"' % cls in index
        a = index.index('"%s"' % part)
        index = index[:a] + '"%s": [null, null]' % part + index[index.index("]", a) + 1:]
    with open(os.path.join(alone, "model_index.json"), "w") as f:
        f.write(index)
    assert generate(folder, "alone", "--text-encoder", path, model=alone) == (0, image)
    status, text = run("inspect", alone, "--text-encoder", path)
    assert status == 0 and "complete" in text and "MB F16" in text and "f16.gguf" in text, text
    assert "no stage has a text encoder" in run("inspect", alone)[1]
    # The variant is of the other components.
    assert generate(folder, "variant", "--text-encoder", path, "--variant", "none")[0] == 1


def test_formats_as_they_are(folder):
    """Q8_0, Q4_0 and BF16 keep their bits on the device: the states are those of the unpacked values, as floats. No
    block uses its whole range, so that scales that are found anew from the values would be others."""
    r = random.Random(11)
    for kind in ("BF16", "Q8_0", "Q4_0", "Q5_0"):
        f = ggml.convert(MODEL, kind)
        f.tensors = [(n, s, k, shrink(r, k, body)) for n, s, k, body in f.tensors]
        path, flat = os.path.join(folder, "stored.gguf"), os.path.join(folder, "floats")
        f.write(path)
        shutil.rmtree(flat, ignore_errors=True)
        shutil.copytree(MODEL, flat, ignore=shutil.ignore_patterns("reference*", "*.index.json", "model-0*"))
        write_safetensors(os.path.join(flat, "text_encoder", "model.safetensors"), f)
        p = subprocess.run([STATES, flat, path, "a red cat", "two dogs"], capture_output=True, text=True)
        if p.returncode == 77:
            return
        # The same products; 0 on lavapipe. Another device may sum them in another order.
        size, most = map(float, p.stdout.split()[:2])
        assert p.returncode == 0 and most <= 1e-5 * size, (kind, p)


def shrink(r, kind, body):
    """Blocks with the same scales, but with smaller numbers."""
    if kind not in ("Q8_0", "Q4_0", "Q5_0"):
        return body
    out, size = b"", ggml.BLOCKS[kind][1]
    for at in range(0, len(body), size):
        b = body[at:at + size]
        if kind == "Q8_0":
            out += b[:2] + struct.pack("32b", *[r.randint(-93, 97) for _ in range(32)])
        elif kind == "Q4_0":
            out += b[:2] + ggml.put_bits([r.randint(3, 14) for _ in range(32)], 4, 16)
        else:
            out += b[:2] + r.randbytes(20)
    return out


def write_safetensors(path, f):
    import json
    names = {ggml.llama_name(n): n for n, _, _ in
             (t for file in sorted(os.listdir(os.path.join(MODEL, "text_encoder"))) if file.endswith(".safetensors")
              for t in ggml.read_safetensors(os.path.join(MODEL, "text_encoder", file)))}
    head, data = {}, b""
    for name, shape, kind, body in f.tensors:
        values = ggml.pack("F32", ggml.unpack(kind, body))
        head[names[name]] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(head).encode()
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


def test_wrong_encoders(folder):
    """Errors that only a whole model shows."""
    path = os.path.join(folder, "wrong.gguf")

    def says(text, change=lambda f: None, *flags):
        f = ggml.convert(MODEL, "F16")
        change(f)
        f.write(path)
        for command in (lambda: run("inspect", MODEL, "--text-encoder", path, *flags),
                        lambda: generate(folder, "wrong", "--text-encoder", path, *flags)):
            status, out = command()
            assert status == 1 and text in out, (text, status, out)

    def drop(f):
        f.tensors = [t for t in f.tensors if t[0] != "enc.blk.1.attn_k.weight"]

    def add(f):
        f.tensors.append(("enc.blk.0.extra.weight", (1,), "F32", ggml.pack("F32", [1.0])))

    def widen(f):
        f.values["t5encoder.feed_forward_length"] = 144

    says("missing", drop)
    says("enc.blk.1.attn_k.weight", drop)
    says("enc.blk.0.extra.weight", add)
    says("enc.blk.0.ffn_gate.weight is F16 [136, 64], must be [144, 64]", widen)
    for name in ("none.gguf", "model.bin"):
        status, out = run("inspect", MODEL, "--text-encoder", os.path.join(folder, name))
        assert status == 1 and ("No such file" in out if name == "none.gguf" else "not the path of a .gguf file" in out), out
    # T5's decoder and its output are ignored.
    f = ggml.convert(MODEL, "F16", "t5")
    f.tensors += [(n, (1,), "F32", ggml.pack("F32", [1.0])) for n in ("dec.blk.0.attn_q.weight", "output.weight")]
    f.write(path)
    assert run("inspect", MODEL, "--text-encoder", path)[0] == 0


def test_tokenizer(folder):
    """The file's own tokenizer gives the ids of the folder's spiece.model."""
    import json
    path = os.path.join(folder, "t.gguf")
    f = small()
    f.values.update(ggml.tokenizer_values(os.path.join(GOLDEN, "t5-tiny", "tokenizer"), 896))
    f.write(path)
    with open(os.path.join(GOLDEN, "t5-tiny", "token_ids.json")) as g:
        rows = [r for r in json.load(g) if "00" not in [r["utf8_hex"][i:i + 2] for i in range(0, len(r["utf8_hex"]), 2)]]
    texts = [bytes.fromhex(r["utf8_hex"]) for r in rows]
    status, out, err = dump(path, *texts)
    assert status == 0, err
    lines = out.decode().splitlines()
    for row, line in zip(rows, lines):
        assert list(map(int, line.split())) == row["t5_ids_77"], (row, line)
    assert len(rows) > 50 and len(lines) == len(rows) + 1

    def bad(says, **values):
        g = small()
        g.values.update(f.values)
        for key, v in values.items():
            g.values["tokenizer.ggml." + key] = v
            if v is None:
                del g.values["tokenizer.ggml." + key]
        g.write(path)
        status, _, err = dump(path, "x")
        assert status == 1 and says in err, (says, err)

    bad("it has no tokenizer", model=None)
    bad("its tokenizer is not T5's", model="llama")
    bad("its special tokens are not those of T5", eos_token_id=5)
    bad("its vocabulary is damaged", scores=("array", 6, [1.0]))
    bad("its vocabulary is damaged", tokens=("array", 8, []))
    bad("its special tokens are not those of T5", tokens=("array", 4, [1] * 896))
    bad("its vocabulary is damaged", token_type=("array", 5, [9] * 896))
    bad("not a usable model", precompiled_charsmap=("array", 0, [255] * 64))


def main():
    tests = [f for name, f in sorted(globals().items()) if name.startswith("test_")]
    for f in tests:
        with tempfile.TemporaryDirectory(prefix="imagend-gguf-") as folder:
            print(f.__name__, flush=True)
            f(folder)


if __name__ == "__main__":
    main()
