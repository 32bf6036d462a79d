// T5 encoders in GGUF files, see gguf_t5.h. Source: llama.cpp's constants and tensor mapping of
// gguf-py, and its T5 graph, whose feed-forward layers are gated GELU (tanh form) or ReLU.
#include "gguf_t5.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- names --------------------------------------------------------------------------------------

void gguf_t5_name(const char *name, char *out, size_t n)
{
    static const char *const whole[][2] = {
        {"shared.weight", "token_embd.weight"},
        {"encoder.final_layer_norm.weight", "enc.output_norm.weight"},
        {"decoder.", "dec."},
        {"lm_head.", "output."},
    };
    static const char *const layer[][2] = {
        {"0.layer_norm", "attn_norm"},
        {"0.SelfAttention.q", "attn_q"},
        {"0.SelfAttention.k", "attn_k"},
        {"0.SelfAttention.v", "attn_v"},
        {"0.SelfAttention.o", "attn_o"},
        {"0.SelfAttention.relative_attention_bias", "attn_rel_b"},
        {"1.layer_norm", "ffn_norm"},
        {"1.DenseReluDense.wi_0", "ffn_gate"},
        {"1.DenseReluDense.wi_1", "ffn_up"},
        {"1.DenseReluDense.wi", "ffn_up"},
        {"1.DenseReluDense.wo", "ffn_down"},
    };
    char part[64];
    int block;

    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++)
        if (!strcmp(name, whole[i][0])) {
            snprintf(out, n, "%s", whole[i][1]);
            return;
        }
    if (sscanf(name, "encoder.block.%d.layer.%63s", &block, part) == 2) {
        char *end = strstr(part, ".weight");
        if (end && !end[7])
            *end = 0;
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++)
            if (!strcmp(part, layer[i][0])) {
                snprintf(out, n, "enc.blk.%d.%s.weight", block, layer[i][1]);
                return;
            }
    }
    snprintf(out, n, "%s", name);
}

// ---- configuration ------------------------------------------------------------------------------

struct source {
    const struct gguf *g;
    const char *path, *arch;
    int arch_len;
    struct fault *why;
    enum err err;
};

// One dimension of a tensor, counted from the innermost; 0: none.
static uint64_t dimension(const struct source *s, const char *tensor, int i)
{
    const struct safetensor *t = safetensors_find(gguf_tensors(s->g), tensor);

    return t && i < t->dims ? t->shape[t->dims - 1 - i] : 0;
}

// A whole number of the architecture; def: where there is no such key.
static int read_int(struct source *s, const char *key, uint64_t def, int most)
{
    char name[96];

    snprintf(name, sizeof name, "%.*s.%s", s->arch_len, s->arch, key);
    const double v = gguf_number(s->g, name, (double)def);
    if (v >= 1 && v <= most && v == (double)(int)v)
        return (int)v;
    char is[32] = "not a number";
    if (!isnan(v))
        snprintf(is, sizeof is, "%g", v);
    if (!s->err)
        s->err = gguf_has(s->g, name)
                     ? fault_set(s->why, ERR_FORMAT, name, "%s: %s is %s; expected 1 to %d",
                                 fault_path(s->path), name, is, most)
                     : fault_set(s->why, ERR_FORMAT, name,
                                 "%s: %s is missing and no tensor shows it; convert the encoder "
                                 "again with llama.cpp",
                                 fault_path(s->path), name);
    return 1;
}

static int count_layers(const struct source *s)
{
    char name[64];
    int n = 0;

    do
        snprintf(name, sizeof name, "enc.blk.%d.attn_q.weight", n);
    while (safetensors_find(gguf_tensors(s->g), name) && ++n < 1024);
    return n;
}

static enum err open_source(struct source *s)
{
    size_t len = 0;

    s->arch = gguf_text(s->g, "general.architecture", &len);
    s->arch_len = len < 40 ? (int)len : 40;
    if (s->arch &&
        ((len == 2 && !memcmp(s->arch, "t5", 2)) || (len == 9 && !memcmp(s->arch, "t5encoder", 9))))
        return ERR_OK;
    return fault_set(s->why, s->arch ? ERR_UNSUPPORTED : ERR_FORMAT, "text-encoder",
                     "%s holds the architecture \"%.*s\"; expected t5 or t5encoder",
                     fault_path(s->path), s->arch ? s->arch_len : 4, s->arch ? s->arch : "none");
}

enum err gguf_t5_config(const struct gguf *g, struct t5_config *out, struct fault *why)
{
    struct source s = {.g = g, .path = safetensors_path(gguf_tensors(g), 0), .why = why};
    char eps[64];
    enum err e = open_source(&s);

    *out = (struct t5_config){.relative_max_distance = 128}; // fixed in llama.cpp
    if (e)
        return e;
    const uint64_t heads = dimension(&s, "enc.blk.0.attn_rel_b.weight", 0);
    const uint64_t inner = dimension(&s, "enc.blk.0.attn_q.weight", 1);
    const uint64_t vocab = dimension(&s, "token_embd.weight", 1);
    if (vocab < 1 || vocab > 1 << 24)
        return fault_set(why, ERR_FORMAT, "text-encoder", "%s: token_embd.weight is missing",
                         fault_path(s.path));
    out->vocab_size = (int)vocab;
    out->d_model = read_int(&s, "embedding_length", dimension(&s, "token_embd.weight", 0), 1 << 16);
    out->d_ff =
        read_int(&s, "feed_forward_length", dimension(&s, "enc.blk.0.ffn_up.weight", 1), 1 << 20);
    out->num_heads = read_int(&s, "attention.head_count", heads, 1024);
    out->d_kv = read_int(&s, "attention.key_length", heads ? inner / heads : 0, 4096);
    out->num_layers = read_int(&s, "block_count", (uint64_t)count_layers(&s), 1024);
    out->relative_buckets = read_int(&s, "attention.relative_buckets_count",
                                     dimension(&s, "enc.blk.0.attn_rel_b.weight", 1), 4096);
    snprintf(eps, sizeof eps, "%.*s.attention.layer_norm_rms_epsilon", s.arch_len, s.arch);
    out->eps = (float)gguf_number(g, eps, 1e-6);
    if (!s.err && !(out->eps > 0 && out->eps < 1))
        s.err = fault_set(why, ERR_FORMAT, eps, "%s: %s is %g; expected a number between 0 and 1",
                          fault_path(s.path), eps, (double)out->eps);
    if (!s.err &&
        (out->relative_buckets % 4 || out->relative_max_distance <= out->relative_buckets / 4))
        s.err = fault_set(why, ERR_UNSUPPORTED, "text-encoder",
                          "%s: relative_buckets_count of %d is not supported", fault_path(s.path),
                          out->relative_buckets);
    out->gated = dimension(&s, "enc.blk.0.ffn_gate.weight", 0) > 0;
    out->act = out->gated ? HF_ACT_GELU_TANH : HF_ACT_RELU;
    out->eos_id = 1; // tokenizer_gguf.c accepts no others than T5's
    return s.err;
}
