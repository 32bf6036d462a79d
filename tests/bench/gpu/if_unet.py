"""DeepFloyd IF's U-Net in plain PyTorch, for its time: training/nets with what IF has besides.

These are the normalized text of the cross attention, GELU, attention in one call where PyTorch has it, and a
checkpoint's sizes. Weights are random. Factors that scale residual sums are left out: they cost nothing.
"""
import types

import torch
import torch.nn.functional as F
from torch import nn

from nets import unet


class Attention(unet.Attention):
    def __init__(self, config, channels):
        super().__init__(config, channels)
        self.norm_cross = nn.GroupNorm(config["norm_num_groups"], config["cross_attention_dim"], 1e-5)

    def forward(self, x, text):
        n, c, height, width = x.shape
        h = self.group_norm(x).flatten(2).transpose(1, 2)
        text = self.norm_cross(text.transpose(1, 2)).transpose(1, 2)

        def heads(v):
            return v.view(n, -1, self.heads, c // self.heads).transpose(1, 2)
        q, k, v = heads(self.to_q(h)), heads(self.add_k_proj(text)), heads(self.add_v_proj(text))
        k, v = torch.cat([k, heads(self.to_k(h))], 2), torch.cat([v, heads(self.to_v(h))], 2)
        if hasattr(F, "scaled_dot_product_attention"):
            out = F.scaled_dot_product_attention(q, k, v)
        else:
            out = (q @ k.transpose(2, 3) * (c // self.heads) ** -.5).softmax(-1) @ v
        out = self.to_out[0](out.transpose(1, 2).reshape(n, -1, c))
        return x + out.transpose(1, 2).reshape(n, c, height, width)


def functional(act_fn):
    """torch.nn.functional with another activation; a module, so that compilers see through it."""
    module = types.ModuleType("functional")
    module.__dict__.update(F.__dict__)
    if act_fn == "gelu":
        module.silu = F.gelu
    return module


def build(config, device, dtype):
    """A U-Net of a diffusers config.json, in evaluation mode. unet.F stays replaced: it is looked up in each pass."""
    own = unet.Attention
    unet.Attention, unet.F = Attention, functional(config["act_fn"])
    default = torch.get_default_dtype()
    # Without the modules' own random numbers: billions of them take a CPU minutes.
    torch.set_default_dtype(dtype)
    if hasattr(torch, "set_default_device"):
        torch.set_default_device("meta")
    try:
        net = unet.UNet({**config, "patch_size": 1, "low_res_residual": False})
    finally:
        torch.set_default_dtype(default)
        if hasattr(torch, "set_default_device"):
            torch.set_default_device(None)
        unet.Attention = own
    net = net.to_empty(device=device).eval() if hasattr(torch, "set_default_device") else net.to(device).eval()
    block = torch.randn(65521, device=device, dtype=dtype)
    with torch.no_grad():
        for p in net.parameters():
            n = p.numel()
            values = block.repeat(n // block.numel() + 1)[:n].view_as(p)
            p.copy_(values * p[0].numel() ** -.5 if p.dim() > 1 else 1 + values / 10)
    return net
