"""T5 v1.1 encoder: the arithmetic and the state-dict names of transformers' T5EncoderModel."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn


HALF = False        # the products of training in bfloat16, as in nets.unet


class Linear(nn.Linear):
    def forward(self, x):
        return F.linear(x.bfloat16(), self.weight.bfloat16()).float() if HALF else super().forward(x)


class Norm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


@functools.lru_cache(None)
def relative_buckets(length, buckets, max_distance, device="cpu"):
    """[length, length] bucket of every (query, key): exact near, logarithmic far, two directions."""
    place = torch.arange(length)
    offset = place[None] - place[:, None]
    half, distance = buckets // 2, offset.abs()
    exact = half // 2
    far = exact + (torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact)
                   * (half - exact)).long()
    bucket = torch.where(distance < exact, distance, far.clamp(max=half - 1))
    return ((offset > 0).long() * half + bucket).to(device)


class SelfAttention(nn.Module):
    def __init__(self, config, with_bias):
        super().__init__()
        inner = config["num_heads"] * config["d_kv"]
        self.heads = config["num_heads"]
        for name in "qkv":
            setattr(self, name, Linear(config["d_model"], inner, bias=False))
        self.o = Linear(inner, config["d_model"], bias=False)
        if with_bias:
            self.relative_attention_bias = nn.Embedding(config["relative_attention_num_buckets"], self.heads)
        nn.init.normal_(self.q.weight, std=(config["d_model"] * config["d_kv"]) ** -.5)

    def forward(self, x, bias):
        n, length, _ = x.shape
        q, k, v = (getattr(self, c)(x).view(n, length, self.heads, -1).transpose(1, 2) for c in "qkv")
        weights = (q @ k.transpose(2, 3) + bias).softmax(-1)     # T5 has no 1/sqrt(d) here
        return self.o((weights @ v).transpose(1, 2).reshape(n, length, -1))


class FeedForward(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.wi_0 = Linear(config["d_model"], config["d_ff"], bias=False)
        self.wi_1 = Linear(config["d_model"], config["d_ff"], bias=False)
        self.wo = Linear(config["d_ff"], config["d_model"], bias=False)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class Block(nn.Module):
    def __init__(self, config, first):
        super().__init__()
        dim, eps = config["d_model"], config["layer_norm_epsilon"]
        self.layer = nn.ModuleList([
            nn.ModuleDict({"SelfAttention": SelfAttention(config, first), "layer_norm": Norm(dim, eps)}),
            nn.ModuleDict({"DenseReluDense": FeedForward(config), "layer_norm": Norm(dim, eps)})])

    def forward(self, x, bias):
        attention, feed = self.layer
        x = x + attention["SelfAttention"](attention["layer_norm"](x), bias)
        return x + feed["DenseReluDense"](feed["layer_norm"](x))


class T5Encoder(nn.Module):
    """ids [N, L], mask [N, L] of 0 and 1 -> hidden states [N, L, d_model]."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config["vocab_size"], config["d_model"])
        nn.init.normal_(self.shared.weight, std=.5)
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(Block(config, i == 0) for i in range(config["num_layers"]))
        self.encoder.final_layer_norm = Norm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, ids, mask):
        config, length = self.config, ids.shape[1]
        table = self.encoder.block[0].layer[0]["SelfAttention"].relative_attention_bias
        buckets = relative_buckets(length, config["relative_attention_num_buckets"],
                                   config["relative_attention_max_distance"], ids.device)
        bias = table(buckets).permute(2, 0, 1)[None]
        bias = bias + (1 - mask[:, None, None, :].to(bias.dtype)) * -1e9
        x = self.shared(ids)
        for block in self.encoder.block:
            x = block(x, bias)
        return self.encoder.final_layer_norm(x)


def default_config(vocab_size):
    return {
        "architectures": ["T5EncoderModel"], "model_type": "t5", "vocab_size": vocab_size,
        "d_model": 256, "d_kv": 32, "d_ff": 640, "num_heads": 8, "num_layers": 4,
        "feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True,
        "is_encoder_decoder": False, "use_cache": False, "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-6, "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32, "dropout_rate": 0.0, "initializer_factor": 1.0,
        "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0,
    }
