// Parses the config of an AutoencoderKL: what its decoder needs. Called while a model is loaded or
// inspected, on any thread. Source: diffusers AutoencoderKL.__init__.
#include "hfconfig_priv.h"

#include <string.h>

static const struct hfconfig_key keys[] = {HFCONFIG_READ("out_channels"),
                                           HFCONFIG_READ("latent_channels"),
                                           HFCONFIG_READ("block_out_channels"),
                                           HFCONFIG_READ("up_block_types"),
                                           HFCONFIG_READ("layers_per_block"),
                                           HFCONFIG_READ("act_fn"),
                                           HFCONFIG_READ("norm_num_groups"),
                                           HFCONFIG_READ("scaling_factor"),
                                           HFCONFIG_READ("shift_factor"),
                                           HFCONFIG_READ("use_post_quant_conv"),
                                           HFCONFIG_READ("mid_block_add_attention"),
                                           {"latents_mean", "null"},
                                           {"latents_std", "null"},
                                           // of the encoder, of training, or of tiling in diffusers
                                           HFCONFIG_HARMLESS("in_channels"),
                                           HFCONFIG_HARMLESS("down_block_types"),
                                           HFCONFIG_HARMLESS("use_quant_conv"),
                                           HFCONFIG_HARMLESS("sample_size"),
                                           HFCONFIG_HARMLESS("force_upcast"),
                                           {NULL}};

static void read_levels(struct json_reader *r, struct vae_config *c)
{
    const struct json_t *types = json_find(r->map, "up_block_types");
    const size_t n = json_count(json_find(r->map, "block_out_channels"));

    if (json_key(r, "block_out_channels") != JSON_LIST || n < 1 || n > VAE_MAX_LEVELS) {
        json_fail(r, ERR_FORMAT, "block_out_channels", "must be a list of 1 to %d integers",
                  (int)VAE_MAX_LEVELS);
        return;
    }
    c->levels = (int)n;
    json_read_ints(r, "block_out_channels", 0, 1, 1 << 15, c->levels, c->channels);
    if (json_kind(types) != JSON_LIST || json_count(types) != n) {
        json_fail(r, ERR_FORMAT, "up_block_types", "must be a list as long as block_out_channels");
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const char *type = json_text(json_item(types, i), NULL);
        if (!type || strcmp(type, "UpDecoderBlock2D"))
            hfconfig_unsupported(r, "up_block_types");
    }
}

static void read_vae(struct json_reader *r, void *out)
{
    static const char *const classes[] = {"AutoencoderKL", NULL};
    static const char *const acts[] = {"silu", "swish", "gelu", "relu", NULL};
    static const enum hfconfig_act values[] = {HF_ACT_SILU, HF_ACT_SILU, HF_ACT_GELU, HF_ACT_RELU};
    struct vae_config *c = out;

    *c = (struct vae_config){0};
    if (json_key(r, "_class_name") == JSON_ABSENT)
        json_fail(r, ERR_FORMAT, "_class_name", "is missing");
    json_read_enum(r, "_class_name", 0, classes);
    hfconfig_check_keys(r, keys);
    c->out_channels = (int)json_read_int(r, "out_channels", 3, 1, 64);
    c->latent_channels = (int)json_read_int(r, "latent_channels", 4, 1, 64);
    c->layers = (int)json_read_int(r, "layers_per_block", 1, 1, VAE_MAX_LAYERS);
    c->act = values[json_read_enum(r, "act_fn", 0, acts)];
    c->norm_groups = (int)json_read_int(r, "norm_num_groups", 32, 1, 1 << 12);
    c->scaling_factor = (float)json_read_number(r, "scaling_factor", 0.18215, 1e-6, 1e6);
    if (json_given(r->map, "shift_factor"))
        c->shift_factor = (float)json_read_number(r, "shift_factor", 0, -1e6, 1e6);
    c->post_quant = json_read_bool(r, "use_post_quant_conv", true);
    c->mid_attention = json_read_bool(r, "mid_block_add_attention", true);
    read_levels(r, c);
    for (int i = 0; !r->err && i < c->levels; i++)
        if (c->channels[i] % c->norm_groups)
            json_fail(r, ERR_FORMAT, "norm_num_groups", "%d does not divide %d channels",
                      c->norm_groups, c->channels[i]);
}

enum err hfconfig_vae_read(const char *path, struct vae_config *out, struct fault *why)
{
    return hfconfig_from_file(path, read_vae, out, why);
}

enum err hfconfig_vae_parse(const char *text, size_t len, const char *what, struct vae_config *out,
                            struct fault *why)
{
    return hfconfig_from_text(text, len, what, read_vae, out, why);
}
