#!/usr/bin/env python3
"""Writes a folder like DeepFloyd IF's on Hugging Face: every file name, key and shape, at full size, with
random weights. Testing the program on such a folder needs no trained weights.

    make_if.py IF-I-XL /tmp/if --variant fp16 --t5-layers 2

Standard library only. Weights are one block of normal numbers, repeated out of step with the rows
and scaled by fan-in, so that activations keep their size through the network; a few GB a minute.
"""
import argparse
import array
import json
import os
import random
import shutil
import struct
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKENIZER = os.path.join(ROOT, "golden", "t5-tiny", "tokenizer")

BLOCK = 65521  # elements of the random block: a prime, so that no two rows of a matrix agree
CHUNK = 64     # blocks per write
# gain: how strong the last feed-forward is. XXL's is so strong that the hidden states pass the largest
# half, as those of the trained encoder do.
XXL = dict(d_model=4096, d_ff=10240, d_kv=64, heads=64, layers=24, vocab=32128, gain=2e5)
MINI = dict(d_model=256, d_ff=512, d_kv=64, heads=4, layers=2, vocab=896, gain=1.0)
MIDI = dict(d_model=768, d_ff=2048, d_kv=64, heads=12, layers=8, vocab=8192, gain=1.0)

# name: (stage, channels, layers per block, levels without attention, cross_attention_dim)
MODELS = {
    "IF-I-XL": (1, (704, 1408, 2112, 2816), 3, 1, 2816),
    "IF-I-L": (1, (320, 640, 960, 1280), 3, 1, 1280),
    "IF-I-M": (1, (192, 384, 576, 768), 3, 1, 768),
    "IF-II-L": (2, (160, 320, 640, 960, 1280), (2, 2, 3, 5, 5), 3, 1280),
    "IF-II-M": (2, (96, 192, 384, 576, 768), (2, 2, 3, 5, 5), 3, 768),
    # Not DeepFloyd's: small ones for tests of formats and memory.
    "IF-I-mini": (1, (64, 128, 192, 256), 1, 1, 256),
    "IF-II-mini": (2, (32, 64, 64, 128, 128), 1, 3, 128),
    "IF-I-midi": (1, (128, 256, 384, 512), 2, 1, 512),
    "IF-II-midi": (2, (64, 128, 128, 256, 256), 1, 3, 256),
}


# ---- shapes -----------------------------------------------------------------------------------

class Tensors:
    """Names with shape and the standard deviation (or ones) of their numbers."""

    def __init__(self):
        self.list = []

    def add(self, name, shape, std, mean=0.0, wide=False):
        self.list.append((name, tuple(shape), std, mean, wide))

    def linear(self, name, out, inner, gain=1.0):
        self.add(name + ".weight", (out, inner), gain * inner ** -0.5)
        self.add(name + ".bias", (out,), 0.1)

    def conv(self, name, out, inner, kernel):
        self.add(name + ".weight", (out, inner, kernel, kernel), (inner * kernel * kernel) ** -0.5)
        self.add(name + ".bias", (out,), 0.1)

    def norm(self, name, width):
        self.add(name + ".weight", (width,), 0.1, mean=1.0)
        self.add(name + ".bias", (width,), 0.1)


class UNet:
    def __init__(self, model, text_width):
        self.stage, self.channels, layers, self.plain, self.cross = MODELS[model]
        self.text = text_width
        levels = len(self.channels)
        self.layers = list(layers) if isinstance(layers, tuple) else [layers] * levels
        self.layers_key = list(layers) if isinstance(layers, tuple) else layers
        self.time = 1280 if model == "IF-II-L" else 768 if model == "IF-II-M" else None
        self.time_width = self.time or 4 * self.channels[0]
        self.t = Tensors()

    def resnet(self, name, inner, out):
        self.t.norm(name + ".norm1", inner)
        self.t.conv(name + ".conv1", out, inner, 3)
        self.t.linear(name + ".time_emb_proj", 2 * out, self.time_width, 0.3)
        self.t.norm(name + ".norm2", out)
        self.t.conv(name + ".conv2", out, out, 3)
        if inner != out:
            self.t.conv(name + ".conv_shortcut", out, inner, 1)

    def attention(self, name, width):
        self.t.norm(name + ".group_norm", width)
        self.t.norm(name + ".norm_cross", self.cross)
        for part in ("to_q", "to_k", "to_v"):
            self.t.linear(name + "." + part, width, width)
        for part in ("add_k_proj", "add_v_proj"):
            self.t.linear(name + "." + part, width, self.cross)
        self.t.linear(name + ".to_out.0", width, width)

    def embeddings(self):
        base, wide = self.channels[0], self.time_width
        self.t.conv("conv_in", base, 6 if self.stage == 2 else 3, 3)
        for name in ["time_embedding"] + ["class_embedding"] * (self.stage == 2):
            self.t.linear(name + ".linear_1", wide, base)
            self.t.linear(name + ".linear_2", wide, wide)
        self.t.linear("encoder_hid_proj", self.cross, self.text)
        self.t.norm("add_embedding.norm1", self.text)
        self.t.add("add_embedding.pool.positional_embedding", (1, self.text), self.text ** -0.5)
        for part in "kqv":
            self.t.linear("add_embedding.pool." + part + "_proj", self.text, self.text)
        self.t.linear("add_embedding.proj", wide, self.text)
        self.t.norm("add_embedding.norm2", wide)

    def tensors(self):
        self.embeddings()
        last = len(self.channels) - 1
        skips = [self.channels[0]]
        width = self.channels[0]
        for level, out in enumerate(self.channels):
            block = "down_blocks.%d" % level
            for j in range(self.layers[level]):
                self.resnet("%s.resnets.%d" % (block, j), width, out)
                if level >= self.plain:
                    self.attention("%s.attentions.%d" % (block, j), out)
                width = out
                skips.append(width)
            if level < last:
                self.resnet(block + ".downsamplers.0", out, out)
                skips.append(width)
        self.resnet("mid_block.resnets.0", width, width)
        self.attention("mid_block.attentions.0", width)
        self.resnet("mid_block.resnets.1", width, width)
        for index, level in enumerate(range(last, -1, -1)):
            block, out = "up_blocks.%d" % index, self.channels[level]
            for j in range(self.layers[level] + 1):
                self.resnet("%s.resnets.%d" % (block, j), width + skips.pop(), out)
                if level >= self.plain:
                    self.attention("%s.attentions.%d" % (block, j), out)
                width = out
            if level:
                self.resnet(block + ".upsamplers.0", out, out)
        self.t.norm("conv_norm_out", width)
        self.t.conv("conv_out", 6, width, 3)
        return self.t.list

    def config(self):
        """The keys of the version that saved the published files, no newer ones."""
        second, levels = self.stage == 2, len(self.channels)
        factor = 1.4142271248762552 if second else 1.0
        down = ["ResnetDownsampleBlock2D"] * self.plain
        down += ["SimpleCrossAttnDownBlock2D"] * (levels - self.plain)
        up = ["SimpleCrossAttnUpBlock2D"] * (levels - self.plain)
        up += ["ResnetUpsampleBlock2D"] * self.plain
        return {
            "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.15.0.dev0",
            "act_fn": "gelu", "addition_embed_type": "text", "addition_embed_type_num_heads": 64,
            "attention_head_dim": 64, "block_out_channels": list(self.channels),
            "center_input_sample": False, "class_embed_type": "timestep" if second else None,
            "class_embeddings_concat": False, "conv_in_kernel": 3, "conv_out_kernel": 3,
            "cross_attention_dim": self.cross, "cross_attention_norm": "group_norm",
            "down_block_types": down, "downsample_padding": 1, "dual_cross_attention": False,
            "encoder_hid_dim": self.text, "flip_sin_to_cos": True, "freq_shift": 0,
            "in_channels": 6 if second else 3, "layers_per_block": self.layers_key,
            "mid_block_only_cross_attention": None,
            "mid_block_scale_factor": factor if second else 1,
            "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "norm_eps": 1e-05,
            "norm_num_groups": 32, "num_class_embeds": None, "only_cross_attention": False,
            "out_channels": 6, "projection_class_embeddings_input_dim": None,
            "resnet_out_scale_factor": factor, "resnet_skip_time_act": second,
            "resnet_time_scale_shift": "scale_shift", "sample_size": 256 if second else 64,
            "time_cond_proj_dim": None, "time_embedding_act_fn": "gelu" if second else None,
            "time_embedding_dim": self.time, "time_embedding_type": "positional",
            "timestep_post_act": None, "up_block_types": up, "upcast_attention": False,
            "use_linear_projection": False,
        }


def encoder_of(model):
    return MINI if "mini" in model else MIDI if "midi" in model else XXL


def t5_tensors(layers, c):
    t = Tensors()
    inner = c["heads"] * c["d_kv"]
    t.add("shared.weight", (c["vocab"], c["d_model"]), 1.0)
    for i in range(layers):
        p = "encoder.block.%d.layer." % i
        t.add(p + "0.SelfAttention.q.weight", (inner, c["d_model"]),
              (c["d_model"] * c["d_kv"]) ** -0.5)
        for part in "kv":
            t.add(p + "0.SelfAttention.%s.weight" % part, (inner, c["d_model"]),
                  c["d_model"] ** -0.5)
        t.add(p + "0.SelfAttention.o.weight", (c["d_model"], inner), inner ** -0.5)
        if i == 0:
            t.add(p + "0.SelfAttention.relative_attention_bias.weight", (32, c["heads"]), 1.0)
        t.add(p + "0.layer_norm.weight", (c["d_model"],), 0.1, mean=1.0)
        for part in ("wi_0", "wi_1"):
            t.add(p + "1.DenseReluDense.%s.weight" % part, (c["d_ff"], c["d_model"]),
                  c["d_model"] ** -0.5)
        gain = c["gain"] if i == layers - 1 else 1.0
        t.add(p + "1.DenseReluDense.wo.weight", (c["d_model"], c["d_ff"]),
              gain * c["d_ff"] ** -0.5, wide=True)
        t.add(p + "1.layer_norm.weight", (c["d_model"],), 0.1, mean=1.0)
    t.add("encoder.final_layer_norm.weight", (c["d_model"],), 0.1, mean=1.0)
    return t.list


def t5_config(layers, half, c):
    return {
        "_name_or_path": "google/t5-v1_1-xxl", "architectures": ["T5EncoderModel"],
        "d_ff": c["d_ff"], "d_kv": c["d_kv"], "d_model": c["d_model"],
        "decoder_start_token_id": 0, "dense_act_fn": "gelu_new", "dropout_rate": 0.1,
        "eos_token_id": 1, "feed_forward_proj": "gated-gelu", "initializer_factor": 1.0,
        "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06,
        "model_type": "t5", "num_decoder_layers": 24, "num_heads": c["heads"],
        "num_layers": layers, "output_past": True, "pad_token_id": 0,
        "relative_attention_max_distance": 128, "relative_attention_num_buckets": 32,
        "tie_word_embeddings": False, "torch_dtype": "float16" if half else "float32",
        "transformers_version": "4.28.1", "use_cache": True, "vocab_size": c["vocab"],
    }


# ---- numbers ----------------------------------------------------------------------------------

class Numbers:
    """The block of random numbers in every scale and type that was asked for."""

    def __init__(self, seed):
        r = random.Random(seed)
        self.normal = [r.gauss(0.0, 1.0) for _ in range(BLOCK)]
        self.made = {}

    def block(self, std, mean, half):
        key = (std, mean, half)
        if key not in self.made:
            values = array.array("f", (mean + std * v for v in self.normal))
            data = struct.pack("<%de" % BLOCK, *values) if half else values.tobytes()
            self.made = {key: data * CHUNK} if len(self.made) > 8 else {**self.made,
                                                                        key: data * CHUNK}
        return self.made[key]

    def write(self, f, count, start, std, mean, half):
        size = 2 if half else 4
        data = memoryview(self.block(std, mean, half))
        left, at = count * size, start % BLOCK * size
        while left:
            n = min(left, len(data) - at)
            f.write(data[at:at + n])
            left, at = left - n, 0


def elements(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def is_half(tensor, half):
    """The fp16 files keep the encoder's wo matrices in F32."""
    return half and not tensor[4]


def write_safetensors(path, tensors, half, numbers):
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for tensor in tensors:
        n = elements(tensor[1]) * (2 if is_half(tensor, half) else 4)
        header[tensor[0]] = {"dtype": "F16" if is_half(tensor, half) else "F32",
                             "shape": list(tensor[1]), "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb", buffering=0) as raw, open(raw.fileno(), "wb", 1 << 20, closefd=False) as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for i, tensor in enumerate(tensors):
            numbers.write(f, elements(tensor[1]), 7919 * i, tensor[2], tensor[3],
                          is_half(tensor, half))


def write_shards(folder, tensors, half, numbers):
    """Two shards and the index; the fp16 index has its infix in another place than its shards."""
    infix = ".fp16" if half else ""
    total = sum(elements(t[1]) * (2 if is_half(t, half) else 4) for t in tensors)
    shards, size = [[], []], 0
    for t in tensors:
        shards[2 * size > total].append(t)
        size += elements(t[1]) * (2 if is_half(t, half) else 4)
    names = ["model%s-%05d-of-00002.safetensors" % (infix, i + 1) for i in range(2)]
    for name, shard in zip(names, shards):
        write_safetensors(os.path.join(folder, name), shard, half, numbers)
    index = {"metadata": {"total_size": total},
             "weight_map": {t[0]: names[i] for i in range(2) for t in shards[i]}}
    write_json(folder, "model.safetensors.index%s.json" % infix, index)


# ---- the folder -------------------------------------------------------------------------------

def write_json(folder, name, value):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=2, sort_keys=True)


def scheduler(stage):
    return {
        "_class_name": "DDPMScheduler", "_diffusers_version": "0.15.0.dev0", "beta_end": 0.02,
        "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "clip_sample": True,
        "clip_sample_range": 1.0, "dynamic_thresholding_ratio": 0.95,
        "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "sample_max_value": 1.5 if stage == 1 else 1.0, "thresholding": True,
        "trained_betas": None, "variance_type": "learned_range",
    }


def write_surplus(root):
    """What published folders hold besides, in little: other formats, other components."""
    for name in ("unet/diffusion_pytorch_model.bin", "unet/diffusion_pytorch_model.fp16.bin",
                 "safety_checker/pytorch_model.bin"):
        path = os.path.join(root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(b"PK\3\4 not read by this program")
    encoder = os.path.join(root, "text_encoder")
    if os.path.isdir(encoder):
        for i in (1, 2):
            with open(os.path.join(encoder, "pytorch_model-%05d-of-00002.bin" % i), "wb") as f:
                f.write(b"PK\3\4 not read by this program")
        write_json(encoder, "pytorch_model.bin.index.json",
                   {"metadata": {"total_size": 0}, "weight_map": {}})
    write_json(os.path.join(root, "safety_checker"), "config.json",
               {"_class_name": "IFSafetyChecker", "architectures": ["IFSafetyChecker"]})
    write_json(os.path.join(root, "watermarker"), "config.json",
               {"_class_name": "IFWatermarker", "_diffusers_version": "0.15.0.dev0"})
    write_json(os.path.join(root, "feature_extractor"), "preprocessor_config.json",
               {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}})
    with open(os.path.join(root, "README.md"), "w") as f:
        f.write("Random weights in the layout of DeepFloyd IF, for tests.\n")


def model_index(stage, encoder):
    index = {
        "_class_name": "IFPipeline" if stage == 1 else "IFSuperResolutionPipeline",
        "_diffusers_version": "0.15.0.dev0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "requires_safety_checker": True,
        "safety_checker": ["deepfloyd_if", "IFSafetyChecker"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "text_encoder": ["transformers", "T5EncoderModel"] if encoder else [None, None],
        "tokenizer": ["transformers", "T5Tokenizer"] if encoder else [None, None],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "watermarker": ["deepfloyd_if", "IFWatermarker"],
    }
    if stage == 2:
        index["image_noising_scheduler"] = ["diffusers", "DDPMScheduler"]
    return index


def parse():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("model", choices=sorted(MODELS), help="which U-Net")
    p.add_argument("folder", help="must not exist")
    p.add_argument("--variant", choices=("fp16", "plain", "both"), default="fp16",
                   help="halves in *.fp16.*, floats in the plain files, or both (fp16)")
    p.add_argument("--t5-layers", type=int, metavar="N",
                   help="layers of the text encoder (T5-XXL's 24 for a base model; 0, none, else)")
    p.add_argument("--xxl", action="store_true", help="T5-XXL also for a small U-Net, to measure the encoder")
    p.add_argument("--no-unet-weights", action="store_true", help="the text encoder alone")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def main():
    a = parse()
    if os.path.exists(a.folder):
        sys.exit("make_if.py: %s is there already" % a.folder)
    t5 = XXL if a.xxl else encoder_of(a.model)
    unet = UNet(a.model, t5["d_model"])
    tensors = unet.tensors()
    layers = a.t5_layers if a.t5_layers is not None else t5["layers"] if unet.stage == 1 else 0
    halves = {"fp16": [True], "plain": [False], "both": [True, False]}[a.variant]
    numbers = Numbers(a.seed)
    write_json(a.folder, "model_index.json", model_index(unet.stage, layers > 0))
    write_json(os.path.join(a.folder, "scheduler"), "scheduler_config.json", scheduler(unet.stage))
    write_json(os.path.join(a.folder, "unet"), "config.json", unet.config())
    if unet.stage == 2:
        noising = dict(scheduler(1), thresholding=False, variance_type="fixed_small",
                       sample_max_value=1.0, dynamic_thresholding_ratio=0.995)
        write_json(os.path.join(a.folder, "image_noising_scheduler"), "scheduler_config.json",
                   noising)
    for half in halves:
        infix = ".fp16" if half else ""
        if not a.no_unet_weights:
            write_safetensors(os.path.join(
                a.folder, "unet", "diffusion_pytorch_model%s.safetensors" % infix), tensors, half,
                numbers)
        if layers:
            encoder = os.path.join(a.folder, "text_encoder")
            write_json(encoder, "config.json", t5_config(layers, half, t5))
            write_shards(encoder, t5_tensors(layers, t5), half, numbers)
    if layers:
        shutil.copytree(TOKENIZER, os.path.join(a.folder, "tokenizer"))
    write_surplus(a.folder)
    print("%s: %d tensors, %d parameters in the U-Net; %d layers, %d parameters in the encoder" % (
        a.folder, len(tensors), sum(elements(t[1]) for t in tensors), layers,
        sum(elements(t[1]) for t in t5_tensors(layers, t5)) if layers else 0))


if __name__ == "__main__":
    main()
