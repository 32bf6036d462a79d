"""The U-Net of the cascade: the arithmetic and the names of diffusers' UNet2DConditionModel with
DeepFloyd IF's blocks, driven by the same config.json, plus three keys of ours.

`patch_size` p: the picture is pixel-unshuffled by p before conv_in and shuffled back after conv_out.
`low_res_residual`: the upscaled low-res channels of the input are added to the output.
`low_res_align_corners` false: low-res pixels are squares when they are upscaled, so that the picture
stays where it was; diffusers' pipelines stretch it from corner to corner, by up to 1.5 pixels of a
4x larger one, which a convolution that does not know its place cannot take back.
On a CPU with instructions for it, most products run in bfloat16 while training, everything else in float32 (HALF).
C code computes activations and 3x3 convolutions while training (KERNELS), of small maps only where there is no
bfloat16. run.choose_arithmetic decides. Exported results are always computed in float32, by torch.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from nets import kernels

HALF = False
KERNELS = None          # nets.kernels.load()
SMALL = 8               # height and width of maps that torch convolves faster in bfloat16 lie below this


class Conv(nn.Conv2d):
    def forward(self, x):
        quicker = KERNELS and torch.is_grad_enabled() and not (HALF and min(x.shape[2:]) < SMALL)
        if quicker and kernels.fits(self, x):
            return KERNELS.convolve(x, self.weight, self.bias)
        if not HALF:
            return super().forward(x)
        return F.conv2d(x.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16(), self.stride, self.padding).float()


class Linear(nn.Linear):
    def forward(self, x):
        if not HALF:
            return super().forward(x)
        return F.linear(x.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16()).float()


def _zero(module):
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def _product(a, b):
    return (a.bfloat16() @ b.bfloat16()).float() if HALF else a @ b


def activated(norm, x, scale=None, shift=None):
    """SiLU of norm(x), or of norm(x) * (1 + scale) + shift; scale, shift: [N, C]."""
    if KERNELS and torch.is_grad_enabled():
        a, b = norm.weight.expand(x.shape[:2]), norm.bias.expand(x.shape[:2])
        if scale is not None:
            a, b = a * (1 + scale), b * (1 + scale) + shift
        return KERNELS.norm_silu(x, a, b, norm.num_groups, norm.eps)
    h = norm(x)
    return F.silu(h if scale is None else h * (1 + scale[:, :, None, None]) + shift[:, :, None, None])


class Resnet(nn.Module):
    """scale-shift residual block; resample "down" or "up" acts after the first activation."""

    def __init__(self, config, cin, cout, temb, resample=None):
        super().__init__()
        groups, eps = config["norm_num_groups"], config["norm_eps"]
        self.resample = resample
        self.norm1 = nn.GroupNorm(groups, cin, eps)
        self.conv1 = Conv(cin, cout, 3, padding=1)
        self.time_emb_proj = nn.Linear(temb, 2 * cout)
        self.norm2 = nn.GroupNorm(groups, cout, eps)
        self.conv2 = _zero(Conv(cout, cout, 3, padding=1))
        self.conv_shortcut = Conv(cin, cout, 1) if cin != cout else None

    def forward(self, x, temb):
        h = activated(self.norm1, x)
        if self.resample == "down":
            x, h = F.avg_pool2d(x, 2), F.avg_pool2d(h, 2)
        elif self.resample == "up":
            x, h = F.interpolate(x, scale_factor=2.), F.interpolate(h, scale_factor=2.)
        scale, shift = self.time_emb_proj(F.silu(temb)).chunk(2, 1)
        h = self.conv2(activated(self.norm2, self.conv1(h), scale, shift))
        return h + (self.conv_shortcut(x) if self.conv_shortcut else x)


class Attention(nn.Module):
    """Image queries over text keys and, unless only_cross_attention, image keys as well."""

    def __init__(self, config, channels):
        super().__init__()
        text = config["cross_attention_dim"]
        self.heads = channels // config["attention_head_dim"]
        self.group_norm = nn.GroupNorm(config["norm_num_groups"], channels, 1e-5)
        self.to_q = Linear(channels, channels)
        self.add_k_proj = Linear(text, channels)
        self.add_v_proj = Linear(text, channels)
        if not config["only_cross_attention"]:
            self.to_k = Linear(channels, channels)
            self.to_v = Linear(channels, channels)
        self.to_out = nn.ModuleList([_zero(Linear(channels, channels))])

    def forward(self, x, text):
        n, c, height, width = x.shape
        h = self.group_norm(x).flatten(2).transpose(1, 2)

        def heads(v):
            return v.view(n, -1, self.heads, c // self.heads).transpose(1, 2)
        q, k, v = heads(self.to_q(h)), heads(self.add_k_proj(text)), heads(self.add_v_proj(text))
        if hasattr(self, "to_k"):
            k, v = torch.cat([k, heads(self.to_k(h))], 2), torch.cat([v, heads(self.to_v(h))], 2)
        weights = (_product(q, k.transpose(2, 3)) * (c // self.heads) ** -.5).softmax(-1)
        out = self.to_out[0](_product(weights, v).transpose(1, 2).reshape(n, -1, c))
        return x + out.transpose(1, 2).view(n, c, height, width)


class Block(nn.Module):
    """A row of resnets, each with attention if asked, and a resampling resnet at the end."""

    def __init__(self, config, sizes, temb, attention, resample=None):
        super().__init__()
        out = sizes[-1][1]
        self.resnets = nn.ModuleList(Resnet(config, i, o, temb) for i, o in sizes)
        if attention:
            self.attentions = nn.ModuleList(Attention(config, out) for _ in sizes)
        if resample:
            name = {"down": "downsamplers", "up": "upsamplers"}[resample]
            setattr(self, name, nn.ModuleList([Resnet(config, out, out, temb, resample)]))

    def step(self, i, x, temb, text):
        x = self.resnets[i](x, temb)
        return self.attentions[i](x, text) if hasattr(self, "attentions") else x


class MidBlock(nn.Module):
    def __init__(self, config, channels, temb):
        super().__init__()
        self.resnets = nn.ModuleList(Resnet(config, channels, channels, temb) for _ in range(2))
        self.attentions = nn.ModuleList([Attention(config, channels)])

    def forward(self, x, temb, text):
        return self.resnets[1](self.attentions[0](self.resnets[0](x, temb), text), temb)


class Mlp(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.linear_1 = nn.Linear(dim, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, x):
        return self.linear_2(F.silu(self.linear_1(x)))


class AttentionPooling(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(1, dim) / dim ** .5)
        self.k_proj, self.q_proj, self.v_proj = (Linear(dim, dim) for _ in range(3))

    def forward(self, x):
        n, _, dim = x.shape
        token = x.mean(1, keepdim=True) + self.positional_embedding
        x = torch.cat([token, x], 1)
        q, k, v = (p(s).view(n, -1, self.heads, dim // self.heads).transpose(1, 2)
                   for p, s in ((self.q_proj, token), (self.k_proj, x), (self.v_proj, x)))
        weights = (q @ k.transpose(2, 3) * (dim // self.heads) ** -.5).softmax(-1)
        return (weights @ v).reshape(n, dim)


class TextEmbedding(nn.Module):
    def __init__(self, dim, out, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.pool = AttentionPooling(dim, heads)
        self.proj = nn.Linear(dim, out)
        self.norm2 = nn.LayerNorm(out)

    def forward(self, x):
        return self.norm2(self.proj(self.pool(self.norm1(x))))


def sinusoid(t, dim):
    """Timestep features, cosines first (flip_sin_to_cos, freq_shift 0)."""
    half = dim // 2
    rates = torch.exp(torch.arange(half, device=t.device) * (-math.log(10000) / half))
    angle = t[:, None].float() * rates[None]
    return torch.cat([angle.cos(), angle.sin()], 1)


class UNet(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        channels, layers = config["block_out_channels"], config["layers_per_block"]
        layers = [layers] * len(channels) if isinstance(layers, int) else layers
        temb = config["time_embedding_dim"] or 4 * channels[0]
        text, area = config["encoder_hid_dim"], config["patch_size"] ** 2
        self.conv_in = Conv(config["in_channels"] * area, channels[0], 3, padding=1)
        self.time_embedding = Mlp(channels[0], temb)
        self.encoder_hid_proj = Linear(text, config["cross_attention_dim"])
        self.add_embedding = TextEmbedding(text, temb, config["addition_embed_type_num_heads"])
        if config["class_embed_type"] == "timestep":
            self.class_embedding = Mlp(channels[0], temb)
        last = len(channels) - 1
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for i, kind in enumerate(config["down_block_types"]):
            first = channels[max(i - 1, 0)]
            sizes = [(first if k == 0 else channels[i], channels[i]) for k in range(layers[i])]
            self.down_blocks.append(Block(config, sizes, temb, kind.startswith("SimpleCross"),
                                          "down" if i < last else None))
        if config["mid_block_type"] == "UNetMidBlock2DSimpleCrossAttn":
            self.mid_block = MidBlock(config, channels[-1], temb)
        for n, kind in enumerate(config["up_block_types"]):
            i = last - n
            below, skip = channels[min(i + 1, last)], channels[max(i - 1, 0)]
            sizes = [((below if k == 0 else channels[i]) + (skip if k == layers[i] else channels[i]),
                      channels[i]) for k in range(layers[i] + 1)]
            self.up_blocks.append(Block(config, sizes, temb, kind.startswith("SimpleCross"),
                                        "up" if i > 0 else None))
        self.conv_norm_out = nn.GroupNorm(config["norm_num_groups"], channels[0], config["norm_eps"])
        self.conv_out = _zero(Conv(channels[0], config["out_channels"] * area, 3, padding=1))

    def forward(self, sample, timestep, text, class_labels=None, features=None):
        """text: [N, L, encoder_hid_dim]. A list given as features receives the map that enters the
        last block (for the auxiliary loss in training)."""
        config = self.config
        emb = self.time_embedding(sinusoid(timestep, config["block_out_channels"][0]).to(sample.dtype))
        if class_labels is not None:
            emb = emb + self.class_embedding(sinusoid(class_labels, config["block_out_channels"][0]).to(sample.dtype))
        emb = emb + self.add_embedding(text)
        text = self.encoder_hid_proj(text)
        h = self.conv_in(F.pixel_unshuffle(sample, config["patch_size"]))
        skips = [h]
        for block in self.down_blocks:
            for i in range(len(block.resnets)):
                h = block.step(i, h, emb, text)
                skips.append(h)
            if hasattr(block, "downsamplers"):
                h = block.downsamplers[0](h, emb)
                skips.append(h)
        if hasattr(self, "mid_block"):
            h = self.mid_block(h, emb, text)
        for n, block in enumerate(self.up_blocks):
            if features is not None and n == len(self.up_blocks) - 1:
                features.append(h)
            for i in range(len(block.resnets)):
                h = block.step(i, torch.cat([h, skips.pop()], 1), emb, text)
            if hasattr(block, "upsamplers"):
                h = block.upsamplers[0](h, emb)
        out = F.pixel_shuffle(self.conv_out(activated(self.conv_norm_out, h)), config["patch_size"])
        return out + sample[:, 3:6] if config["low_res_residual"] else out


def config(channels, layers, attention, patch, in_channels=3, sample_size=64, text=128, cross=128,
           temb=256, head=32, mid=True, only_cross=True,
           residual=False):
    """A config.json; attention: for every level whether its blocks attend."""
    down = ["SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attention]
    up = ["SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in attention[::-1]]
    upscaler = in_channels == 6
    return {
        "_class_name": "UNet2DConditionModel", "_diffusers_version": "0.35.2", "act_fn": "silu",
        "addition_embed_type": "text", "addition_embed_type_num_heads": 4, "attention_head_dim": head,
        "block_out_channels": list(channels), "center_input_sample": False,
        "class_embed_type": "timestep" if upscaler else None, "class_embeddings_concat": False,
        "conv_in_kernel": 3, "conv_out_kernel": 3, "cross_attention_dim": cross,
        "cross_attention_norm": None, "down_block_types": down, "downsample_padding": 1,
        "dual_cross_attention": False, "encoder_hid_dim": text, "encoder_hid_dim_type": "text_proj",
        "flip_sin_to_cos": True, "freq_shift": 0, "in_channels": in_channels, "layers_per_block": layers,
        "low_res_align_corners": not upscaler, "low_res_residual": residual,
        "mid_block_only_cross_attention": None, "mid_block_scale_factor": 1,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn" if mid else None, "norm_eps": 1e-5,
        "norm_num_groups": 8, "num_class_embeds": None, "only_cross_attention": only_cross, "out_channels": 3,
        "patch_size": patch, "projection_class_embeddings_input_dim": None,
        "resnet_out_scale_factor": 1.0, "resnet_skip_time_act": False,
        "resnet_time_scale_shift": "scale_shift", "sample_size": sample_size, "time_cond_proj_dim": None,
        "time_embedding_act_fn": None, "time_embedding_dim": temb, "time_embedding_type": "positional",
        "timestep_post_act": None, "up_block_types": up, "upcast_attention": False,
        "use_linear_projection": False,
    }
