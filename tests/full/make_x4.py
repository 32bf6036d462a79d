#!/usr/bin/env python3
"""Writes a folder like stable-diffusion-x4-upscaler on Hugging Face: every file name, key and shape, at full size,
with random weights.

    make_x4.py /tmp/x4 [--variant fp16]

Standard library only; the numbers are make_if.py's. The tokenizer is that of golden/x4-tiny: its identifiers are all
in the encoder's larger table.
"""
import argparse
import os
import shutil
import sys

import make_if

TOKENIZER = os.path.join(make_if.ROOT, "golden", "x4-tiny", "tokenizer")
TEXT = dict(width=1024, ff=4096, layers=23, heads=16, vocab=49408, length=77)
UNET = dict(channels=(256, 512, 512, 1024), layers=2, cross=1024, classes=1000)
VAE = dict(channels=(128, 256, 512), layers=2, latent=4)


class Tensors(make_if.Tensors):
    def matrix(self, name, out, inner):
        self.add(name + ".weight", (out, inner), inner ** -0.5)


# ---- networks -----------------------------------------------------------------------------------

def text_tensors(c):
    t, w = Tensors(), c["width"]
    t.add("text_model.embeddings.token_embedding.weight", (c["vocab"], w), 1.0)
    t.add("text_model.embeddings.position_embedding.weight", (c["length"], w), 0.3)
    for i in range(c["layers"]):
        p = "text_model.encoder.layers.%d." % i
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            t.linear(p + "self_attn." + part, w, w)
        t.norm(p + "layer_norm1", w)
        t.linear(p + "mlp.fc1", c["ff"], w)
        t.linear(p + "mlp.fc2", w, c["ff"])
        t.norm(p + "layer_norm2", w)
    t.norm("text_model.final_layer_norm", w)
    return t.list


def resnet(t, name, inner, out, time=0):
    t.norm(name + ".norm1", inner)
    t.conv(name + ".conv1", out, inner, 3)
    if time:
        t.linear(name + ".time_emb_proj", out, time, 0.3)
    t.norm(name + ".norm2", out)
    t.conv(name + ".conv2", out, out, 3)
    if inner != out:
        t.conv(name + ".conv_shortcut", out, inner, 1)


def transformer(t, name, width, cross, cross_only):
    block = name + ".transformer_blocks.0"
    t.norm(name + ".norm", width)
    t.linear(name + ".proj_in", width, width)
    t.linear(name + ".proj_out", width, width)
    for which, inner in ((1, cross if cross_only else width), (2, cross)):
        p = "%s.attn%d." % (block, which)
        t.matrix(p + "to_q", width, width)
        t.matrix(p + "to_k", width, inner)
        t.matrix(p + "to_v", width, inner)
        t.linear(p + "to_out.0", width, width)
    t.linear(block + ".ff.net.0.proj", 8 * width, width)
    t.linear(block + ".ff.net.2", width, 4 * width)
    for i in (1, 2, 3):
        t.norm("%s.norm%d" % (block, i), width)


def unet_tensors(c):
    """The first level has no attention; all but the last read the text in both of theirs."""
    t, channels, cross = Tensors(), c["channels"], c["cross"]
    last, width, time = len(channels) - 1, channels[0], 4 * channels[0]
    t.conv("conv_in", width, 7, 3)
    t.linear("time_embedding.linear_1", time, width)
    t.linear("time_embedding.linear_2", time, time)
    t.add("class_embedding.weight", (c["classes"], time), 1.0)
    skips = [width]
    for level, out in enumerate(channels):
        block = "down_blocks.%d" % level
        for j in range(c["layers"]):
            resnet(t, "%s.resnets.%d" % (block, j), width, out, time)
            if level:
                transformer(t, "%s.attentions.%d" % (block, j), out, cross, level < last)
            width = out
            skips.append(width)
        if level < last:
            t.conv(block + ".downsamplers.0.conv", out, out, 3)
            skips.append(width)
    resnet(t, "mid_block.resnets.0", width, width, time)
    transformer(t, "mid_block.attentions.0", width, cross, False)
    resnet(t, "mid_block.resnets.1", width, width, time)
    for index, level in enumerate(range(last, -1, -1)):
        block, out = "up_blocks.%d" % index, channels[level]
        for j in range(c["layers"] + 1):
            resnet(t, "%s.resnets.%d" % (block, j), width + skips.pop(), out, time)
            if level:
                transformer(t, "%s.attentions.%d" % (block, j), out, cross, level < last)
            width = out
        if level:
            t.conv(block + ".upsamplers.0.conv", out, out, 3)
    t.norm("conv_norm_out", width)
    t.conv("conv_out", 4, width, 3)
    return t.list


def vae_mid(t, name, width):
    """With the names that attention had in the version that saved the published file."""
    resnet(t, name + ".resnets.0", width, width)
    t.norm(name + ".attentions.0.group_norm", width)
    for part in ("query", "key", "value", "proj_attn"):
        t.linear("%s.attentions.0.%s" % (name, part), width, width)
    resnet(t, name + ".resnets.1", width, width)


def vae_half(t, name, kind, channels, layers, inner, out, sampler):
    width = channels[0]
    t.conv(name + ".conv_in", width, inner, 3)
    if kind == "up":
        vae_mid(t, name + ".mid_block", width)
    for level, c in enumerate(channels):
        block = "%s.%s_blocks.%d" % (name, kind, level)
        for j in range(layers):
            resnet(t, "%s.resnets.%d" % (block, j), width, c)
            width = c
        if level < len(channels) - 1:
            t.conv("%s.%s.0.conv" % (block, sampler), c, c, 3)
    if kind == "down":
        vae_mid(t, name + ".mid_block", width)
    t.norm(name + ".conv_norm_out", width)
    t.conv(name + ".conv_out", out, width, 3)


def vae_tensors(c):
    t, latent = Tensors(), c["latent"]
    vae_half(t, "encoder", "down", c["channels"], c["layers"], 3, 2 * latent, "downsamplers")
    vae_half(t, "decoder", "up", c["channels"][::-1], c["layers"] + 1, latent, 3, "upsamplers")
    t.conv("quant_conv", 2 * latent, 2 * latent, 1)
    t.conv("post_quant_conv", latent, latent, 1)
    return t.list


# ---- the folder -----------------------------------------------------------------------------------

VERSION = "0.8.0.dev0"
MODEL_INDEX = {
    "_class_name": "StableDiffusionUpscalePipeline", "_diffusers_version": VERSION,
    "low_res_scheduler": ["diffusers", "DDPMScheduler"], "max_noise_level": 350,
    "scheduler": ["diffusers", "DDIMScheduler"], "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}


def scheduler(**more):
    return {"_diffusers_version": VERSION, "beta_end": 0.02, "beta_schedule": "scaled_linear", "beta_start": 0.0001,
            "num_train_timesteps": 1000, "trained_betas": None, **more}


SAMPLING = scheduler(_class_name="DDIMScheduler", clip_sample=False, prediction_type="v_prediction",
                     set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1)
NOISING = scheduler(_class_name="DDPMScheduler", clip_sample=True, prediction_type="epsilon",
                    variance_type="fixed_small")


def text_config(c, half):
    return {
        "architectures": ["CLIPTextModel"], "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0,
        "eos_token_id": 2, "hidden_act": "gelu", "hidden_size": c["width"], "initializer_factor": 1.0,
        "initializer_range": 0.02, "intermediate_size": c["ff"], "layer_norm_eps": 1e-05,
        "max_position_embeddings": c["length"], "model_type": "clip_text_model", "num_attention_heads": c["heads"],
        "num_hidden_layers": c["layers"], "pad_token_id": 1, "projection_dim": 512,
        "torch_dtype": "float16" if half else "float32", "transformers_version": "4.25.0.dev0",
        "vocab_size": c["vocab"],
    }


def unet_config(c):
    return {
        "_class_name": "UNet2DConditionModel", "_diffusers_version": VERSION, "act_fn": "silu",
        "attention_head_dim": 8, "block_out_channels": list(c["channels"]), "center_input_sample": False,
        "cross_attention_dim": c["cross"], "down_block_types": ["DownBlock2D"] + 3 * ["CrossAttnDownBlock2D"],
        "downsample_padding": 1, "dual_cross_attention": False, "flip_sin_to_cos": True, "freq_shift": 0,
        "in_channels": 7, "layers_per_block": c["layers"], "mid_block_scale_factor": 1, "norm_eps": 1e-05,
        "norm_num_groups": 32, "num_class_embeds": c["classes"], "only_cross_attention": [True, True, True, False],
        "out_channels": 4, "sample_size": 128, "up_block_types": 3 * ["CrossAttnUpBlock2D"] + ["UpBlock2D"],
        "use_linear_projection": True,
    }


def vae_config(c):
    n = len(c["channels"])
    return {
        "_class_name": "AutoencoderKL", "_diffusers_version": VERSION, "act_fn": "silu",
        "block_out_channels": list(c["channels"]), "down_block_types": n * ["DownEncoderBlock2D"], "in_channels": 3,
        "latent_channels": c["latent"], "layers_per_block": c["layers"], "norm_num_groups": 32, "out_channels": 3,
        "sample_size": 256, "scaling_factor": 0.08333, "up_block_types": n * ["UpDecoderBlock2D"],
    }


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("folder", help="must not exist")
    p.add_argument("--variant", choices=("fp16", "plain"), default="fp16",
                   help="halves in *.fp16.* or floats in the plain files (fp16)")
    p.add_argument("--seed", type=int, default=2)
    a = p.parse_args()
    if os.path.exists(a.folder):
        sys.exit("make_x4.py: %s is there already" % a.folder)
    half = a.variant == "fp16"
    numbers, infix = make_if.Numbers(a.seed), ".fp16" if half else ""
    make_if.write_json(a.folder, "model_index.json", MODEL_INDEX)
    make_if.write_json(os.path.join(a.folder, "scheduler"), "scheduler_config.json", SAMPLING)
    make_if.write_json(os.path.join(a.folder, "low_res_scheduler"), "scheduler_config.json", NOISING)
    for name, file, config, tensors in (
            ("text_encoder", "model", text_config(TEXT, half), text_tensors(TEXT)),
            ("unet", "diffusion_pytorch_model", unet_config(UNET), unet_tensors(UNET)),
            ("vae", "diffusion_pytorch_model", vae_config(VAE), vae_tensors(VAE))):
        folder = os.path.join(a.folder, name)
        make_if.write_json(folder, "config.json", config)
        make_if.write_safetensors(os.path.join(folder, "%s%s.safetensors" % (file, infix)), tensors, half, numbers)
        print("%s: %d tensors, %d parameters" % (name, len(tensors), sum(make_if.elements(t[1]) for t in tensors)))
    shutil.copytree(TOKENIZER, os.path.join(a.folder, "tokenizer"))


if __name__ == "__main__":
    main()
