"""LoRAs in diffusers' formats: images are those of a folder whose weights were merged here, bit for bit; files that do
not fit, each with its error.

    test_lora.py IMAGEND GOLDEN [NAME]

With TEST_CASES=all in the environment, each name style with and without alpha, and lists drawn as well as inspected.
"""
import array
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import tempfile

PROGRAM, GOLDEN = sys.argv[1:3]
ALL = os.environ.get("TEST_CASES") == "all"
ONE, TWO = "if-tiny-I", "if-tiny-II"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
# Layers of every kind that a file may name: linear and convolutional, with and without a bias.
LAYERS = ["mid_block.attentions.0.to_q", "mid_block.attentions.0.to_k", "mid_block.attentions.0.to_v",
          "mid_block.attentions.0.to_out.0", "down_blocks.1.attentions.0.add_k_proj",
          "down_blocks.1.attentions.0.add_v_proj"]
OTHERS = ["time_embedding.linear_1", "mid_block.resnets.0.conv1", "up_blocks.0.resnets.0.conv_shortcut",
          "encoder_hid_proj"]


def run(*args):
    r = subprocess.run([PROGRAM, *args], capture_output=True, text=True, timeout=120)
    return r.returncode, r.stdout + r.stderr


# ---- files ------------------------------------------------------------------------------------

def read_file(path):
    """{name: (dtype, shape, bytes)}"""
    with open(path, "rb") as f:
        data = f.read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], data[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]])
            for name, t in header.items()}


def write_file(path, tensors, metadata=None):
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(t[2] for t in tensors.values()))


def floats(tensor):
    kind, _, data = tensor
    return struct.unpack("<%d%s" % (len(data) // (2 if kind == "F16" else 4), "e" if kind == "F16" else "f"), data)


def f32(shape, values):
    return "F32", list(shape), array.array("f", values).tobytes()


# ---- LoRAs ------------------------------------------------------------------------------------

class Lora:
    """A random one: for each layer B [outputs, rank], A [rank, inputs...] and an alpha or None."""

    def __init__(self, model, layers, seed, rank=3, alpha=None):
        r = random.Random(seed)
        base = read_file(os.path.join(GOLDEN, model, WEIGHTS))
        self.rank, self.alpha, self.parts = rank, alpha, {}
        for layer in layers:
            shape = base[layer + ".weight"][1]
            inputs = 1
            for n in shape[1:]:
                inputs *= n
            self.parts[layer] = (shape, f32((rank, inputs), [r.gauss(0, 1) for _ in range(rank * inputs)]),
                                 f32((shape[0], rank), [r.gauss(0, 0.2) for _ in range(shape[0] * rank)]))

    def write(self, path, style, prefix="unet.", metadata=None):
        tensors = {}
        for layer, (shape, a, b) in self.parts.items():
            more = [1] * (len(shape) - 2)
            a, b = (a[0], [self.rank] + shape[1:], a[2]), (b[0], b[1] + more, b[2])
            if style == "processor":
                head, _, name = layer.replace("to_out.0", "to_out").rpartition(".")
                name = prefix + head + ".processor." + name + "_lora"
                keys = name + ".down.weight", name + ".up.weight", name + ".alpha"
            elif style == "layer":
                keys = [prefix + layer + end for end in (".lora.down.weight", ".lora.up.weight", ".alpha")]
            elif style == "default":
                keys = [prefix + layer + end for end in (".lora_A.default.weight", ".lora_B.default.weight", ".alpha")]
            else:
                keys = [prefix + layer + end for end in (".lora_A.weight", ".lora_B.weight", ".alpha")]
            tensors[keys[0]], tensors[keys[1]] = a, b
            if self.alpha is not None:
                tensors[keys[2]] = f32([], [self.alpha])
        write_file(path, tensors, metadata)

    def merge(self, tensors, scale, alpha=None):
        """W + scale alpha / rank B A, in double, rounded to f32 once."""
        alpha = self.alpha if alpha is None else alpha
        factor = scale * (alpha / self.rank if alpha is not None else 1)
        for layer, (shape, a, b) in self.parts.items():
            w, a, b = list(floats(tensors[layer + ".weight"])), floats(a), floats(b)
            inputs = len(a) // self.rank
            for o in range(shape[0]):
                for i in range(inputs):
                    total = 0.0
                    for k in range(self.rank):
                        total += b[o * self.rank + k] * a[k * inputs + i]
                    w[o * inputs + i] += factor * total
            tensors[layer + ".weight"] = f32(shape, w)


def folder_of(top, model, merges=(), fixed=True, name=None):
    """A copy of a golden model, with merged weights and, as with a LoRA, a fixed variance."""
    path = os.path.join(top, name or model)
    shutil.copytree(os.path.join(GOLDEN, model), path)
    if merges:
        tensors = read_file(os.path.join(path, WEIGHTS))
        for lora, scale, alpha in merges:
            lora.merge(tensors, scale, alpha)
        write_file(os.path.join(path, WEIGHTS), tensors)
    if fixed:
        config = os.path.join(path, "scheduler/scheduler_config.json")
        with open(config) as f:
            values = json.load(f)
        assert values["variance_type"] == "learned_range"
        values["variance_type"] = "fixed_small"
        with open(config, "w") as f:
            json.dump(values, f)
    return path


def chunks(path):
    with open(path, "rb") as f:
        data = f.read()
    at, out = 8, {}
    while at < len(data):
        n, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + n]
        key = kind.decode()
        if key in ("tEXt", "iTXt"):
            key, _, body = body.partition(b"\0")
            key = key.decode()
        out[key] = out.get(key, b"") + body if key == "IDAT" else body
        at += 12 + n
    return out


def draw(top, model, *flags):
    out = os.path.join(top, "o.png")
    status, text = run("generate", "a red fox", "--model", model, "--seed", "5", "--steps",
                       ",".join("3" for _ in model.split(",")), "-o", out, *flags)
    assert status == 0, text
    return chunks(out)


# ---- tests ------------------------------------------------------------------------------------

def test_formats(top):
    """Each way to write names; with and without alpha; linear layers and convolutions; any weights' storage."""
    plain = draw(top, os.path.join(GOLDEN, ONE))["IDAT"]
    fixed = draw(top, folder_of(top, ONE, name="fixed"))["IDAT"]
    assert plain != fixed
    file = os.path.join(top, "fox.safetensors")
    rows = (("peft", LAYERS, 6, "base_model.model.unet.", -0.5), ("default", OTHERS, 1.5, "", 1),
            ("layer", LAYERS + OTHERS, 6, "unet.", 0.25), ("processor", LAYERS, None, "unet.", 0.7))
    if ALL:
        rows += (("peft", LAYERS + OTHERS, None, "unet.", 1), ("processor", LAYERS, 2, "", 0.7))
    for i, (style, layers, alpha, prefix, scale) in enumerate(rows):
        lora = Lora(ONE, layers, i, alpha=alpha)
        lora.write(file, style, prefix)
        merged = draw(top, folder_of(top, ONE, [(lora, scale, None)], name="merged-%d" % i))["IDAT"]
        got = draw(top, os.path.join(GOLDEN, ONE), "--lora", file + (":%g" % scale if scale != 1 else ""))
        assert got["IDAT"] == merged, (style, prefix)
        assert merged not in (plain, fixed)
        assert got["loras"] == b"fox:%g" % scale, got["loras"]
        assert b'Loras: "fox:%g"' % scale in got["parameters"]
    # A scale of 0 leaves the weights as they are; the variance is fixed all the same.
    assert draw(top, os.path.join(GOLDEN, ONE), "--lora", file + ":0")["IDAT"] == fixed
    halves = draw(top, os.path.join(top, "merged-%d" % i), "--weights", "f16")["IDAT"]
    assert draw(top, os.path.join(GOLDEN, ONE), "--weights", "f16", "--lora", file + ":0.7")["IDAT"] == halves
    assert halves != merged


def test_several(top):
    """Two for the same layers and one for the second stage, whichever way they are given; each finds its stage."""
    a, b, c = Lora(ONE, LAYERS[:3], 1), Lora(ONE, LAYERS[1:], 2, rank=5), Lora(TWO, ["down_blocks.1.resnets.1.conv1"] + LAYERS[:1], 3)
    names = {}
    os.mkdir(os.path.join(top, "dog"))
    for name, lora in (("a.safetensors", a), ("b.safetensors", b), ("dog/pytorch_lora_weights.safetensors", c)):
        names[lora] = os.path.join(top, name)
        lora.write(names[lora], "peft")
    both = ",".join(os.path.join(GOLDEN, m) for m in (ONE, TWO))
    merged = ",".join((folder_of(top, ONE, [(a, 0.5, None), (b, 2, None)]), folder_of(top, TWO, [(c, 1.5, None)])))
    flags = "--lora", names[c] + ":1.5", "--lora", names[a] + ":0.5", "--lora", names[b] + ":2"
    got = draw(top, both, *flags)
    assert got["IDAT"] == draw(top, merged)["IDAT"]
    assert got["loras"] == b"dog:1.5, a:0.5, b:2", got["loras"]
    joined = "--lora", ",".join((names[c] + ":1.5", names[a] + ":0.5", names[b] + ":2"))
    assert run("inspect", both, *joined) == run("inspect", both, *flags)
    assert not ALL or draw(top, both, *joined)["IDAT"] == got["IDAT"]
    # Networks that are read again for each image, or streamed, get them again.
    status, text = run("inspect", both, *flags, "--memory-limit", "1M", "--slots", "4")
    least = re.search(r"needs at least (\d+) MB", text)[1]
    assert draw(top, both, *flags, "--memory-limit", least + "000000")["IDAT"] == got["IDAT"]
    # A stage that does not run leaves nothing in the metadata.
    out = os.path.join(top, "s.png")
    status, text = run("generate", "a red fox", "--model", both, "--size", "16", "--steps", "2", "-o", out, *flags)
    assert status == 0 and chunks(out)["loras"] == b"a:0.5, b:2", text
    status, text = run("inspect", both, *flags)
    assert status == 0 and "stage 2, variance fixed_small" in text and "scale 0.5, stage 1" in text, text


def test_choices(top):
    """Named by an image instead of applied to all: the same images, and without a name those without a LoRA."""
    both = ",".join(os.path.join(GOLDEN, m) for m in (ONE, TWO))
    files = []
    for name, lora in (("fox", Lora(ONE, LAYERS + OTHERS, 1)), ("dog", Lora(ONE, LAYERS[:2], 2)), ("cat", Lora(TWO, ["class_embedding.linear_1"] + LAYERS[:1], 3))):
        files.append(os.path.join(top, name + ".safetensors"))
        lora.write(files[-1], "peft")
    fox, dog, cat = files
    choices = "--lora", fox + ":0.3", "--lora-choices", dog + ":0.7", "--lora-choices", cat
    rows = (((), ("--lora", fox + ":0.3")), (("--loras", ""), ()), (("--loras", "dog"), ("--lora", dog + ":0.7")),
            (("--loras", "cat:-0.5,fox:1"), ("--lora", cat + ":-0.5", "--lora", fox)),
            (("--loras", "dog:0.1234567890123456"), ("--lora", dog + ":0.1234567890123456")))
    if ALL:
        rows = ((("--loras", "fox"), rows[0][1]), *rows)
    drawn, wanted = [], {}
    for chosen, applied in rows:
        if applied not in wanted:
            wanted[applied] = draw(top, both, *applied)
        got, want = draw(top, both, *choices, *chosen), wanted[applied]
        assert got["IDAT"] == want["IDAT"] and got.get("loras") == want.get("loras"), (chosen, got.get("loras"))
        drawn.append(got["IDAT"])
    assert len(set(drawn)) == len(wanted), "only the default and fox are the same"
    # What is stored with an image draws it again.
    assert draw(top, both, *choices, "--loras", got["loras"].decode())["IDAT"] == got["IDAT"]
    status, text = run("inspect", both, *choices)
    assert status == 0 and "dog.safetensors, scale 0.7, stage 1, variance fixed_small, for requests that name dog\n" in text, text
    many = ",".join(os.path.join(top, "n%d.safetensors" % i) for i in range(33))
    for flags, says in ((("--loras", "wolf"), 'unknown LoRA "wolf"; this model has fox, dog, cat'),
                        (("--loras", "dog,dog"), "--loras cannot be"), (("--loras", "dog:101"), "--loras cannot be"),
                        (("--lora-choices", fox), 'two LoRAs have the name "fox"'), (("--lora-choices", many), "lora-choices names more than"),
                        (("--lora-choices", ""), "--lora-choices cannot be"),
                        (("--lora-choices", os.path.join(top, "nowhere.safetensors")), "nowhere.safetensors")):
        status, text = run("generate", "x", "--model", both, "--device", "nothing", *choices, *flags)
        assert status in (1, 2) and says in text, (flags, text)


def test_settings(top):
    """PEFT's settings in the file: an alpha for all layers; others are refused."""
    lora = Lora(ONE, LAYERS, 9)
    file = os.path.join(top, "x.safetensors")
    lora.write(file, "peft", metadata={"lora_adapter_metadata": json.dumps({"unet.r": 3, "unet.lora_alpha": 6,
                                                                            "unet.use_dora": False})})
    assert draw(top, os.path.join(GOLDEN, ONE), "--lora", file)["IDAT"] == \
        draw(top, folder_of(top, ONE, [(lora, 1, 6)]))["IDAT"]
    for key, value in (("use_dora", True), ("use_rslora", True), ("alpha_pattern", {"to_q": 4})):
        lora.write(file, "peft", metadata={"lora_adapter_metadata": json.dumps({"unet." + key: value})})
        status, text = run("inspect", os.path.join(GOLDEN, ONE), "--lora", file)
        assert status == 1 and key in text, text


def test_refused(top):
    """What does not fit is refused with the tensor's name before anything is loaded, in part or as a whole."""
    file, model = os.path.join(top, "x.safetensors"), os.path.join(GOLDEN, ONE)
    q = "unet.mid_block.attentions.0.to_q"
    good = {}
    lora = Lora(ONE, LAYERS[:2], 4)
    lora.write(file, "peft")
    good = read_file(file)

    def bad(says, change, arg=None):
        tensors = dict(good)
        change(tensors)
        write_file(file, tensors)
        for args in (["inspect", model], ["generate", "x", "--model", model, "--device", "nothing"]):
            status, text = run(*args, "--lora", arg or file)
            assert status in (1, 2) and says in text, (says, text)

    def put(name, tensor):
        return lambda t: t.update({name: tensor})

    a, b = good[q + ".lora_A.weight"], good[q + ".lora_B.weight"]
    bad(q + ".lora_B.weight has no partner", lambda t: t.pop(q + ".lora_A.weight"))
    bad(q + ".lora_A.weight has no partner", lambda t: t.pop(q + ".lora_B.weight"))
    bad("text_encoder.q.lora_A.weight is for a text encoder", put("text_encoder.q.lora_A.weight", a))
    bad("lora_unet_mid_block.lora_down.weight is not part", put("lora_unet_mid_block.lora_down.weight", a))
    bad("to_q.lora_magnitude_vector is not part", put(q + ".lora_magnitude_vector", a))
    bad("to_q.lora_B.bias is not part", put(q + ".lora_B.bias", a))
    bad("to_q.lora_A.weight is there twice", put(q + ".lora.down.weight", a))
    bad("to_q.alpha must be one float", put(q + ".alpha", f32([2], [1, 1])))
    bad("to_q.alpha has an alpha that is not finite", put(q + ".alpha", f32([1], [float("nan")])))
    bad("to_q.lora_A.weight or its partner does not hold floats",
        put(q + ".lora_A.weight", ("I32", a[1], a[2])))
    bad("have no common rank", put(q + ".lora_A.weight", f32([2, a[1][1]], [0] * (2 * a[1][1]))))
    bad("have no common rank", put(q + ".lora_A.weight", f32([3 * a[1][1]], [0] * (3 * a[1][1]))))
    bad("does not fit: it is for %d inputs" % (a[1][1] + 1),
        put(q + ".lora_A.weight", f32([3, a[1][1] + 1], [0] * (3 * (a[1][1] + 1)))))
    bad("does not fit: it is for", put(q + ".lora_B.weight", f32([b[1][0] + 1, 3], [0] * (3 * (b[1][0] + 1)))))
    other = dict(good)
    for end, tensor in ((".lora_A.weight", a), (".lora_B.weight", b)):
        other["unet.mid_block.attentions.7.to_q" + end] = tensor
    bad("mid_block.attentions.7.to_q.lora_A.weight does not fit: the network has no such layer",
        lambda t: t.update(other))
    bad("has no tensors", lambda t: t.clear())
    bad("the scale of lora", lambda t: None, file + ":1000")
    bad("the scale of lora", lambda t: None, file + ":nan")
    bad("more than 8", lambda t: None, ",".join([file] * 9))
    bad("nowhere.safetensors", lambda t: None, os.path.join(top, "nowhere.safetensors"))
    status, text = run("inspect", model, "--lora", "")
    assert status == 2 and "--lora cannot be" in text, text


def main():
    status, text = run("devices")
    if status:
        print("skipped: " + text)
        return 77
    for name, f in sorted(globals().items()):
        if name.startswith("test_") and name in (sys.argv[3:] or [name]):
            with tempfile.TemporaryDirectory(prefix="imagend-lora-") as top:
                print(name, flush=True)
                f(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
