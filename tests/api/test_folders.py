"""Broken and unusual model folders, made from the golden ones: `inspect` and `generate` must agree on each,
and say what is wrong and what to do."""
import base64
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile

from harness import PROGRAM, is_png, main, read_png

GOLDEN = sys.argv[2]
del sys.argv[2]

UNET = "unet/diffusion_pytorch_model.safetensors"
SECOND = "text_encoder/model-00002-of-00002.safetensors"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 8610000000\n"
PAGE = b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>"


def run(*args, cwd=None):
    done = subprocess.run([os.path.abspath(PROGRAM), *args], capture_output=True, text=True, timeout=120, cwd=cwd,
                          errors="surrogateescape")
    return done.returncode, done.stdout + done.stderr


class Folder:
    """A copy of a golden model, removed at the end of a with block."""

    def __init__(self, name="if-tiny-I"):
        self.source = os.path.join(GOLDEN, name)

    def __enter__(self):
        self.top = tempfile.mkdtemp(prefix="imagend-folders-")
        self.path = os.path.join(self.top, "m")
        shutil.copytree(self.source, self.path, ignore=shutil.ignore_patterns("reference*"))
        return self

    def __exit__(self, *what):
        shutil.rmtree(self.top)

    def at(self, name):
        return os.path.join(self.path, name)

    def write(self, name, data):
        with open(self.at(name), "wb") as f:
            f.write(data)

    def read(self, name):
        with open(self.at(name), "rb") as f:
            return f.read()

    def set(self, name, **keys):
        config = json.loads(self.read(name))
        config.update(keys)
        self.write(name, json.dumps(config).encode())

    def inspect(self, *flags):
        return run("inspect", self.path, *flags)

    def generate(self, *flags, model=None):
        return run("generate", "a cat", "--model", model or self.path, "--steps", "1", "--seed", "1",
                   "-o", os.path.join(self.top, "o.png"), *flags)


def check(folder, says, *flags):
    """says: None for a model that works, else what both commands must say."""
    for command in folder.inspect, folder.generate:
        status, text = command(*flags)
        if says is None:
            assert status == 0, text
        else:
            assert status in (1, 2) and says in text, (says, status, text)
    if says is None:
        with open(os.path.join(folder.top, "o.png"), "rb") as f:
            assert is_png(f.read(), 16)


def check_all(rows):
    for change, says in rows:
        with Folder() as m:
            change(m)
            check(m, says)


def rename(a, b):
    return lambda m: os.rename(m.at(a), m.at(b))


def put(name, data):
    return lambda m: m.write(name, data)


def cut(name, size):
    return lambda m: os.truncate(m.at(name), size)


def remove(name):
    return lambda m: os.unlink(m.at(name))


def keys(name, **values):
    return lambda m: m.set(name, **values)


def several(*changes):
    return lambda m: [change(m) for change in changes]


def link(name, to):
    def change(m):
        shutil.rmtree(m.at(name)) if os.path.isdir(m.at(name)) else os.unlink(m.at(name))
        os.symlink(to, m.at(name))
    return change


def test_configs_as_libraries_write_them():
    def mark(name):
        return lambda m: m.write(name, b"\xef\xbb\xbf" + m.read(name))

    check_all([
        # What is accepted side by side is accepted alone.
        (several(
            keys("text_encoder/config.json", scale_decoder_outputs=False, dtype="float32",
                 transformers_version="5.17.0"),
            keys("scheduler/scheduler_config.json", sigma_max=None, sigma_min=None, rho=7.0,
                 interpolation_type="linear", skip_prk_steps=True),
            keys("unet/config.json", decay=0.9999, inv_gamma=1.0, power=0.6667, optimization_step=1,
                 update_after_step=0, use_ema_warmup=True, min_decay=0.0, of_tomorrow=None),
            keys("model_index.json", _class_name="IFImg2ImgPipeline",
                 tokenizer=["transformers", "T5TokenizerFast"], image_encoder=[None, None])), None),
        (several(keys("model_index.json", _class_name="IFInpaintingPipeline"),
                 mark("model_index.json"), mark("unet/config.json")), None),
        (keys("unet/config.json", act_fn="mish"), 'act_fn "mish" is not supported'),
        (keys("unet/config.json", mid_block_add_attention=False),
         "mid_block_add_attention is an unknown key (value false)"),
        (keys("scheduler/scheduler_config.json", trained_betas=[0.1]), "trained_betas"),
        (keys("scheduler/scheduler_config.json", beta_power=0.9),
         "beta_power is an unknown key (value 0.9)"),
        (keys("model_index.json", scheduler=["diffusers", "EulerDiscreteScheduler"]),
         '"EulerDiscreteScheduler" is not supported; supported: DDPMScheduler'),
        (keys("model_index.json", _class_name="StableDiffusionPipeline"),
         '"StableDiffusionPipeline" is not supported'),
        (lambda m: m.write("unet/config.json",
                           m.read("unet/config.json").decode().encode("utf-16")), "UTF-16"),
        (keys("unet/config.json", out_channels=3), "learned variance"),
    ])


def test_the_index_decides_the_scheduler():
    with Folder() as m:
        m.set("model_index.json", scheduler=["diffusers", "DPMSolverMultistepScheduler"])
        status, text = m.inspect()
        assert status == 0 and "recommended  dpm++2m," in text, text
        m.set("scheduler/scheduler_config.json", _class_name="EulerDiscreteScheduler")
        check(m, None)


def test_files_that_are_something_else():
    check_all([
        (put(UNET, LFS), UNET + " is a Git LFS pointer to a file of 8610000000 bytes"),
        (put(UNET, PAGE), UNET + " is a web page"),
        (put(UNET, b""), UNET + " is empty"),
        (put(UNET, b"PK\3\4" + b"x" * 100), UNET + " is a zip archive"),
        (put(UNET, bytes(1000)), UNET + " is filled with zeros"),
        (cut(UNET, 700000), UNET + " is truncated: it has 700000 of "),
        (cut(UNET, 100), UNET + " is truncated: its header has "),
        (put(SECOND, LFS), SECOND + " is a Git LFS pointer"),
        (cut(SECOND, 20000), SECOND + " is truncated"),
        (put("text_encoder/model.safetensors.index.json", PAGE), "index.json is a web page"),
        (put("unet/config.json", LFS), "unet/config.json is a Git LFS pointer"),
        (put("scheduler/scheduler_config.json", b""), "scheduler_config.json is empty"),
        (put("tokenizer/spiece.model", LFS), "tokenizer/spiece.model is a Git LFS pointer"),
        (put("tokenizer/spiece.model", PAGE), "tokenizer/spiece.model is a web page"),
        (cut("tokenizer/spiece.model", 5000), "tokenizer/spiece.model"),
        (rename("tokenizer/spiece.model", "tokenizer/tokenizer.json"),
         "tokenizer/tokenizer.json is a binary file, not JSON"),
        (put("tokenizer/tokenizer_config.json", PAGE), "tokenizer_config.json is a web page"),
    ])


def test_files_that_are_missing():
    check_all([
        (remove("tokenizer/tokenizer_config.json"), "tokenizer_config.json: No such file"),
        (remove(UNET), "unet has no diffusion_pytorch_model.safetensors"),
        (rename(UNET, "unet/diffusion_pytorch_model.bin"),
         "unet has no diffusion_pytorch_model.safetensors but diffusion_pytorch_model.bin, a "
         "PyTorch checkpoint; download the safetensors files"),
        (rename(UNET, UNET + ".incomplete"), "an unfinished download"),
        (remove(SECOND), "model-00002-of-00002.safetensors: No such file"),
        (remove("text_encoder/model.safetensors.index.json"), "but not the index"),
        (remove("scheduler/scheduler_config.json"), "scheduler_config.json: No such file"),
        (lambda m: shutil.rmtree(m.at("tokenizer")), "m/tokenizer"),
        (link(UNET, "../../blobs/0123456789"), "is a symbolic link to ../../blobs/0123456789, which "
         "does not exist"),
        (link("unet/config.json", "../../blobs/0123456789"), "is a symbolic link to"),
        (link("tokenizer/spiece.model", "../../blobs/0123456789"), "is a symbolic link to"),
        (link("unet", "elsewhere"), "m/unet is a symbolic link to elsewhere"),
        (link("model_index.json", "../blobs/0123456789"), "is a symbolic link to"),
    ])


def foreign(folder, part):
    """The same part of another golden folder, in its place."""
    def change(m):
        source = os.path.join(os.path.dirname(BASE), folder, part)
        if os.path.isdir(source):
            shutil.rmtree(m.at(part))
            shutil.copytree(source, m.at(part))
        else:
            shutil.copy(source, m.at(part))
    return change


def test_weights_that_do_not_fit_the_config():
    check_all([
        (keys("unet/config.json", time_embedding_dim=77), "time_embedding.linear_1.weight"),
        (keys("text_encoder/config.json", d_ff=76), "DenseReluDense.wi_0.weight"),
        (keys("text_encoder/config.json", num_layers=7), "encoder.block.3.layer.0"),
        # Parts of other folders.
        (foreign("if-tiny-II", UNET), "down_blocks.0.resnets.1.norm1.weight"),
        (foreign("if-tiny-II", "unet"), "has 6 input channels, expected 3"),
        (foreign("x4-tiny", "unet"), "has 7 input channels, expected 3"),
        (foreign("x4-tiny", "text_encoder"), 'model_type "clip_text_model" is not supported, only "t5"'),
        (foreign("x4-tiny", "tokenizer"), "is a tokenizer of CLIP (vocab.json, merges.txt), but T5EncoderModel needs"),
        (lambda m: shutil.copy(m.at(UNET), m.at(SECOND)),
         "encoder.block.1.layer.0.SelfAttention.k.weight is not in model-00002-of-00002.safetensors"),
    ])


def test_variants_fall_back_by_component():
    with Folder() as m:
        os.rename(m.at(UNET), m.at("unet/diffusion_pytorch_model.fp16.safetensors"))
        check(m, None, "--variant", "fp16")
        for command in m.inspect, m.generate:
            _, text = command("--variant", "fp16")
            assert text.count("no fp16 weights in the text encoder") == 1, text
        check(m, 'have the variant "fp61"; available: ', "--variant", "fp61")
        check(m, "invalid variant", "--variant", "../x")
        # Without a word the only variant there is will do, and nothing is said.
        check(m, None)
        assert "notice" not in m.inspect()[1]


def fields(data):
    """The fields of a protocol buffer: number and value, in order."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(tag & 7) or varint()
        yield tag >> 3, data[at:at + size]
        at += size


def fast_tokenizer(spiece, sentinels=100):
    """The tokenizer.json that transformers makes of a T5 spiece.model."""
    pieces, charsmap = [], b""
    for number, value in fields(spiece):
        if number == 1:
            piece = dict(fields(value))
            pieces.append((piece[1].decode(), struct.unpack("<f", piece.get(2, bytes(4)))[0],
                           piece.get(3, 1)))
        elif number == 3:
            charsmap = dict(fields(value)).get(2, b"")
    extra = [f"<extra_id_{i}>" for i in reversed(range(sentinels))]
    added = [(i, p[0]) for i, p in enumerate(pieces) if p[2] in (2, 3)]
    added += list(enumerate(extra, len(pieces)))
    return {
        "added_tokens": [{"id": i, "content": text, "single_word": False, "lstrip": False,
                          "rstrip": False, "normalized": False, "special": True}
                         for i, text in added],
        "normalizer": {"type": "Precompiled",
                       "precompiled_charsmap": base64.b64encode(charsmap).decode()},
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always"},
        "post_processor": {"type": "TemplateProcessing", "single": [
            {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}]},
        "model": {"type": "Unigram", "unk_id": [p[2] for p in pieces].index(2),
                  "vocab": [p[:2] for p in pieces] + [(text, 0.0) for text in extra]},
    }


def test_a_fast_tokenizer_draws_the_same_image():
    with Folder() as m:
        m.set("tokenizer/tokenizer_config.json", add_prefix_space=None)
        check(m, None)
        with open(os.path.join(m.top, "o.png"), "rb") as f:
            slow = f.read()
        fast = fast_tokenizer(m.read("tokenizer/spiece.model"))
        os.unlink(m.at("tokenizer/spiece.model"))
        check(m, "tokenizer has neither a spiece.model (T5), nor vocab.json and merges.txt (CLIP), nor a tokenizer.json")
        m.write("tokenizer/tokenizer.json", json.dumps(fast).encode())
        m.set("model_index.json", tokenizer=["transformers", "T5TokenizerFast"])
        check(m, None)
        with open(os.path.join(m.top, "o.png"), "rb") as f:
            assert f.read() == slow
        fast["model"]["vocab"] += [[f"piece{i}", -20.0] for i in range(200)]
        m.write("tokenizer/tokenizer.json", json.dumps(fast).encode())
        check(m, "the tokenizer has 1000 tokens, but the text encoder has only 896 embeddings")
        m.write("tokenizer/tokenizer.json", m.read("tokenizer/tokenizer.json")[:1000])
        check(m, "tokenizer/tokenizer.json: line 1")


def snapshot(m, root):
    path = os.path.join(m.top, root, "snapshots", "c03d510e9b75")
    os.makedirs(os.path.dirname(path))
    os.rename(m.path, path)
    return path


def test_the_cache_of_hugging_face():
    entry = "hub/models--DeepFloyd--IF-I-XL-v1.0"
    with Folder() as m:
        path = snapshot(m, entry)
        m.path = os.path.join(m.top, entry)
        check(m, "is the root of a Hugging Face cache entry; give its snapshot, ")
        assert entry + "/snapshots/c03d510e9b75" in m.inspect()[1]
        m.path = os.path.join(m.top, "hub")
        check(m, "is a Hugging Face cache; give a snapshot of a model in it "
                 "(models--DeepFloyd--IF-I-XL-v1.0)")
        for m.path in path, path + "/":
            check(m, None)
            assert m.inspect()[1].splitlines()[0].endswith(" IF-I-XL-v1.0, 1 stage")
            with open(os.path.join(m.top, "o.png"), "rb") as f:
                assert b"model\0IF-I-XL-v1.0" in f.read()
        status, text = run("inspect", ".", cwd=path)
        assert status == 0 and "IF-I-XL-v1.0, 1 stage\n" in text, text
        # Of several snapshots, the one that refs/main names.
        m.path = os.path.join(m.top, entry)
        shutil.copytree(path, os.path.join(os.path.dirname(path), "00000000"))
        os.mkdir(m.at("refs"))
        m.write("refs/main", b"c03d510e9b75")
        check(m, entry + "/snapshots/c03d510e9b75")
        m.write("refs/main", b"gone")
        check(m, entry + "/snapshots/00000000")
        shutil.rmtree(os.path.join(os.path.dirname(path), "00000000"))
        os.unlink(os.path.join(path, "model_index.json"))
        check(m, "cache entry without a complete snapshot")


def poison(name, tensor, value):
    """Every element of a tensor of 16-bit floats becomes the value."""
    def change(m):
        data = bytearray(m.read(name))
        head = 8 + struct.unpack("<Q", data[:8])[0]
        begin, end = json.loads(data[8:head])[tensor]["data_offsets"]
        data[head + begin:head + end] = struct.pack("<e", value) * ((end - begin) // 2)
        m.write(name, data)
    return change


def old_names(m):
    """A VAE's attention and a U-Net's config as diffusers 0.8 wrote them, and the published upscaler has them."""
    name = "vae/diffusion_pytorch_model.safetensors"
    data = m.read(name)
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        header = {k.replace(".%s." % new, ".%s." % old): v for k, v in header.items()}
    text = json.dumps(header).encode()
    m.write(name, struct.pack("<Q", len(text)) + text + data[8 + n:])
    config = json.loads(m.read("unet/config.json"))
    del config["mid_block_type"]
    m.write("unet/config.json", json.dumps(config).encode())


BASE = os.path.join(GOLDEN, "if-tiny-I")


def cascade(m, *flags, first=BASE):
    """The upscaler in m behind another model: what inspect and generate say."""
    model = f"{first},{m.path}" if first else m.path
    return [run("inspect", model), m.generate("--steps", "1,1", *flags, model=model)]


def shards(folder, base):
    """Splits a component's weights into two files with an index, as libraries write large ones."""
    def change(m):
        path = m.at(f"{folder}/{base}.safetensors")
        with open(path, "rb") as f:
            data = f.read()
        n = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8:8 + n]), data[8 + n:]
        header.pop("__metadata__", None)
        names, where = sorted(header), {}
        for i, part in enumerate((names[::2], names[1::2])):
            file, at, out, head = f"{base}-{i + 1:05}-of-00002.safetensors", 0, b"", {}
            for name in part:
                a, b = header[name]["data_offsets"]
                head[name] = {**header[name], "data_offsets": [at, at + b - a]}
                out, at, where[name] = out + body[a:b], at + b - a, file
            text = json.dumps(head).encode()
            m.write(f"{folder}/{file}", struct.pack("<Q", len(text)) + text + out)
        os.unlink(path)
        m.write(f"{folder}/{base}.safetensors.index.json",
                json.dumps({"metadata": {"total_size": len(body)}, "weight_map": where}).encode())
    return change


def test_an_upscaler_as_libraries_write_it():
    """The same image from every layout of the same folder, and but for rounding if its networks were trained at
    another size, because then other kernels may be chosen."""
    rows = [
        lambda m: None,
        several(shards("unet", "diffusion_pytorch_model"), shards("text_encoder", "model")),
        old_names,
        lambda m: [rename(f"{d}/{b}.safetensors", f"{d}/{b}.fp16.safetensors")(m) for d, b in (
            ("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"))],
        lambda m: [m.set("model_index.json", watermarker=None, safety_checker=None,
                         feature_extractor=[None, None], requires_safety_checker=False),
                   m.set("vae/config.json", latents_mean=None, mid_block_add_attention=True),
                   m.set("unet/config.json", upcast_attention=True,
                         mid_block_only_cross_attention=None),
                   m.set("text_encoder/config.json", torch_dtype="float32", _name_or_path="x"),
                   m.set("scheduler/scheduler_config.json", skip_prk_steps=True),
                   m.set("tokenizer/tokenizer_config.json", do_lower_case=True, name_or_path="y"),
                   remove("tokenizer/special_tokens_map.json")(m)],
        lambda m: m.set("unet/config.json", sample_size=128),
    ]
    images = []
    for change in rows:
        with Folder("x4-tiny") as m:
            change(m)
            (status, said), (drawn, text) = cascade(m)
            assert status == 0 and drawn == 0, said + text
            assert "AutoencoderKL" in said or "VAE" in said, said
            with open(os.path.join(m.top, "o.png"), "rb") as f:
                image = f.read()
            assert is_png(image, 64)
            images.append(b"".join(read_png(image)[2]))
    other = images.pop()
    assert len(set(images)) == 1, [i == images[0] for i in images]
    assert max(abs(x - y) for x, y in zip(other, images[0])) <= 1


def test_an_upscaler_with_missing_or_foreign_parts():
    rows = [
        (lambda m: shutil.rmtree(m.at("vae")), "vae/config.json: No such file"),
        (remove("vae/diffusion_pytorch_model.safetensors"),
         "vae has no diffusion_pytorch_model.safetensors"),
        (remove("text_encoder/model.safetensors"), "text_encoder has no model.safetensors"),
        (remove("tokenizer/merges.txt"), "merges.txt: No such file"),
        (remove("tokenizer/vocab.json"), "has neither a spiece.model (T5), nor vocab.json"),
        (put("tokenizer/merges.txt", LFS), "merges.txt is a Git LFS pointer"),
        (put("vae/diffusion_pytorch_model.safetensors", PAGE), "is a web page"),
        (lambda m: [shutil.rmtree(m.at("tokenizer")),
                    shutil.copytree(os.path.join(BASE, "tokenizer"), m.at("tokenizer"))],
         "is a tokenizer of T5 (spiece.model), but CLIPTextModel needs one of CLIP"),
        (lambda m: shutil.rmtree(m.at("low_res_scheduler")), "low_res_scheduler"),
        (keys("model_index.json", vae=[None, None]), "vae is missing"),
        (keys("model_index.json", text_encoder=[None, None]), "text_encoder is missing"),
        (keys("model_index.json", vae=["diffusers", "AutoencoderTiny"]),
         'vae "AutoencoderTiny" is not supported; supported: AutoencoderKL'),
        (keys("vae/config.json", latent_channels=16), "16 latent channels, which are not supported"),
        (keys("unet/config.json", in_channels=4), "has 4 input channels, expected 7"),
        (keys("text_encoder/config.json", hidden_act="quick_gelu"), 'hidden_act "quick_gelu"'),
    ]
    for change, says in rows:
        with Folder("x4-tiny") as m:
            change(m)
            for status, text in cascade(m):
                assert status in (1, 2) and says in text, (says, status, text)


def test_an_upscaler_s_place_and_levels():
    with Folder("x4-tiny") as m:
        for status, text in cascade(m, first=None):
            assert status in (1, 2) and "stage 1 (m) must be a base pipeline" in text, text
        status, text = cascade(m, "--noise-level", "351")[1]
        assert status == 2 and "noise_level of stage 2 (m) must be 0 to 350, not 351" in text, text
        assert cascade(m, "--noise-level", "350", "--guidance", "3,1")[1][0] == 0
        m.set("model_index.json", max_noise_level=19)
        for status, text in cascade(m):
            assert status in (1, 2) and "noise_level of stage 2 (m) must be 0 to 19, not 20" in text, text
        m.set("model_index.json", max_noise_level=350)
        m.set("unet/config.json", sample_size=16)
        status, text = run("inspect", f"{BASE},{m.path},{m.path}")
        assert status == 0 and "stage 3" in text and "256x256" in text, text


def test_modules_that_are_not_applied_are_named():
    rows = [({}, None),
            ({"safety_checker": ["deepfloyd_if", "IFSafetyChecker"]}, "not applied  safety checker\n"),
            ({"watermarker": ["deepfloyd_if", "IFWatermarker"]}, "not applied  watermarker\n"),
            ({"safety_checker": ["deepfloyd_if", "IFSafetyChecker"],
              "watermarker": ["deepfloyd_if", "IFWatermarker"]},
             "not applied  safety checker, watermarker\n")]
    for values, says in rows:
        with Folder() as m:
            m.set("model_index.json", **values)
            status, text = m.inspect()
            assert status == 0 and (says in text if says else "not applied" not in text), text
            # The image says so, too, in the field and in the text of JPEG and WebP files.
            status, text = m.generate("--steps", "1")
            assert status == 0, text
            image = os.path.join(m.top, "o.png")
            names = [n + " not applied" for n in ("safety_checker", "watermarker") if n in values]
            assert ('Modules: "%s"' % ", ".join(names) in chunk(image, b"parameters")) == bool(names)
            with open(image, "rb") as f:
                assert (b"modules\0" in f.read()) == bool(names)
            assert not names or chunk(image, b"modules") == ", ".join(names)


def test_weights_that_are_not_finite():
    nan, inf = float("nan"), float("inf")
    first = "text_encoder/model-00001-of-00002.safetensors"
    for change, says in (
            (poison(UNET, "conv_in.bias", nan), "stage 1 (m) computed NaN or infinity in step 1 of 1"),
            (poison(UNET, "conv_out.weight", inf), "stage 1 (m) computed NaN or infinity in step 1"),
            (poison(first, "encoder.block.0.layer.0.layer_norm.weight", nan),
             "the text encoder computed NaN or infinity")):
        with Folder() as m:
            change(m)
            for flags in [], ["--dtype", "f16"]:
                status, text = m.generate(*flags)
                assert status == 1 and says in text, (says, text)
                assert ("try dtype f32" in text) == bool(flags), text
            assert not os.path.exists(os.path.join(m.top, "o.png"))
    # Only the stage and the preset that are concerned.
    with Folder() as m, Folder() as bad:
        poison(UNET, "conv_in.bias", nan)(bad)
        with open(os.path.join(m.top, "cascade.json"), "w") as f:
            json.dump({"stages": [{"path": "m", "steps": 2}],
                       "presets": {"bad": {"stages": [{"path": os.path.relpath(bad.path, m.top)}]}}}, f)
        status, text = m.generate(model=m.top)
        assert status == 0, text
        status, text = m.generate("--preset", "bad", model=m.top)
        assert status == 1 and "NaN" in text, text


def chunk(path, key):
    """The value of a text chunk of a PNG."""
    with open(path, "rb") as f:
        data = f.read()
    at = data.index(key + b"\0")
    size = int.from_bytes(data[at - 8:at - 4], "big")
    return data[at + len(key) + 1:at - 4 + 4 + size].decode()


def test_numbers_reach_the_image_or_are_refused():
    with Folder() as m:
        for flags, key, value in ((["--guidance", "0"], b"guidance", "1"),
                                  (["--guidance", "1"], b"guidance", "1"),
                                  (["--guidance", "2.5"], b"guidance", "2.5"),
                                  (["--steps", "2"], b"steps", "2")):
            status, text = m.generate(*flags)
            assert status == 0, text
            assert chunk(os.path.join(m.top, "o.png"), key) == value, flags
        for flags, says in ((["--guidance", "7,5"], '"guidance_scale" has a value for stage 2'),
                            (["--noise-level", "10"], "applies to super-resolution stages"),
                            (["--size", "64"], "64x64 is larger than 16x16 and not a size that this model generates; "
                                               "the nearest are 24x24 and 16x32"),
                            (["--sampler", "euler"], 'unknown sampler "euler"; use one of ddpm, '),
                            (["--preset", "fast"], "this model has none"),
                            (["--timesteps", "fast"], 'unknown timesteps "fast"; use one of ')):
            # Before anything is loaded: there is no such device either.
            args = [a for a in flags if a != "--steps"]
            status, text = run("generate", "a cat", "--model", m.path, "--device", "nothing", "-o",
                               os.path.join(m.top, "o.png"), *args)
            assert status == 2 and says in text, (flags, text)


def test_sizes_of_memory_have_units():
    with Folder() as m:
        for limit, says in (("3M", "3 MB"), ("3000K", "3 MB"), ("4000000", "4 MB"), ("0.005g", "5 MB")):
            status, text = m.generate("--memory-limit", limit)
            assert status == 1 and f"the memory limit of {says} is too small" in text, (limit, text)


def test_models_files_are_inspected():
    with Folder() as m, Folder("if-tiny-II") as second:
        file = os.path.join(m.top, "models")

        def inspect(text, *flags):
            with open(file, "w") as f:
                f.write(text)
            return run("inspect", "--models-file", file, *flags)
        both = f"[base]\nmodel = {m.path}\nweights = q8\n[two]\nmodel = {m.path},{second.path}\n"
        status, text = inspect(both, "--memory-limit", "800M")
        assert status == 0 and text.startswith("[base]\nmodel ") and "\n\n[two]\nmodel " in text, text
        needs = [part.split(" MB of weights")[0].split()[-1] for part in text.split("\nmemory ")[1:]]
        assert text.count("the least limit is") == 2 and float(needs[0]) < float(needs[1]), text
        status, text = inspect(both, "--memory-limit", "800M", "--weights", "q8")
        assert len({part.split(" MB of weights")[0].split()[-1] for part in text.split("\nmemory ")[1:]}) == 1, text
        status, text = inspect(f"[none]\nmodel = {m.path}/none\n" + both)
        assert status == 1 and "imagend: [none]: " in text and "[two]\nmodel " in text, text
        for text, flags, says in ((both, (m.path,), "--models-file cannot be combined with MODEL"),
                                  (both, ("--lora", "a.safetensors"), "cannot be combined with LoRAs"),
                                  (both, ("--text-encoder", "a.gguf"), "cannot be combined with --text-encoder"),
                                  ("[a]\n", (), "does not set model"), ("", (), "there is no section")):
            status, said = inspect(text, *flags)
            assert status == 2 and says in said and said.count("\n") == 1, said


def test_levels_of_noise_are_the_schedule_s():
    with Folder() as m, Folder("if-tiny-II") as second:
        second.set("image_noising_scheduler/scheduler_config.json", num_train_timesteps=100)
        status, text = run("inspect", m.path + "," + second.path)
        assert status == 1 and "noise_level must be 0 to 99" in text, text
        second.set("image_noising_scheduler/scheduler_config.json", num_train_timesteps=300)
        status, text = m.generate("--noise-level", "400", model=m.path + "," + second.path)
        assert status == 2 and "noise_level must be 0 to 299" in text, text


def test_folders_that_are_no_model():
    with Folder() as m:
        top, model = m.top, m.path
        for m.path, says in (
                (os.path.join(top, "nope"), 'nope" does not exist'),
                ("DeepFloyd/IF-I-XL-v1.0", "read from local folders, so download it first"),
                (os.path.join(model, UNET), "is a file; give the folder of the model"),
                (os.path.join(model, "unet"), "is one component of a model"),
                (os.path.join(model, "scheduler"), "is one component of a model"),
                (top, "has no model_index.json, but m in it has; give that folder"),
                (model + ",/nope", 'model folder "/nope" does not exist')):
            check(m, says)
        empty = os.path.join(top, "empty")
        os.mkdir(empty)
        m.path = empty
        check(m, "has neither a model_index.json (a diffusers pipeline) nor a cascade.json")


main(globals())
