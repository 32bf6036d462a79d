// Config files: the golden folders' values, defaults, and the errors that name unsupported keys and
// values.
#include "buf.h"
#include "hfconfig.h"
#include "test.h"
#include "unet.h"

#include <stdlib.h>

static const char *golden;

static const char *in_golden(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", golden, name);
    return path;
}

static void check_unet_base(void)
{
    struct unet_config c;
    struct fault why = {0};

    CHECK_MSG(hfconfig_unet_read(in_golden("if-tiny-I/unet/config.json"), &c, &why) == ERR_OK, "%s",
              why.msg);
    CHECK(c.in_channels == 3 && c.out_channels == 6 && c.sample_size == 16 && c.patch_size == 1);
    CHECK(c.levels == 4 && c.channels[1] == 24 && c.norm_groups == 8 && c.norm_eps == 1e-5f);
    CHECK(!c.down[0].attention && c.down[0].in == 16 && c.down[0].out == 16);
    CHECK(c.down[0].layers == 2 && c.down[0].resample && c.down[0].heads == 0);
    CHECK(c.down[3].attention && c.down[3].in == 32 && !c.down[3].resample);
    CHECK(c.down[1].heads == 3 && c.down[1].head_dim == 8);
    CHECK(c.up[0].attention && c.up[0].in == 32 && c.up[0].out == 32 && c.up[0].skip_last == 32);
    CHECK(c.up[2].in == 32 && c.up[2].out == 24 && c.up[2].skip_last == 16);
    CHECK(!c.up[3].attention && c.up[3].in == 24 && c.up[3].out == 16 && c.up[3].skip_last == 16);
    CHECK(c.up[0].layers == 3 && c.up[2].resample && !c.up[3].resample);
    CHECK(c.mid == UNET_MID_CROSS && c.mid_heads == 4 && !c.mid_only_cross);
    CHECK(c.act == HF_ACT_GELU && !c.time_act_set && !c.skip_time_act && c.scale_shift);
    CHECK(c.text_dim == 64 && c.cross_dim == 64 && c.text_proj && c.add_text && c.add_heads == 4);
    CHECK(c.cross_norm == UNET_NORM_GROUP && !c.class_timestep && c.time_dim == 64);
    CHECK(c.flip_sin_to_cos && c.freq_shift == 0 && c.out_scale_factor == 1);
}

static void check_unet_super(void)
{
    struct unet_config c;
    struct fault why = {0};

    CHECK_MSG(hfconfig_unet_read(in_golden("if-tiny-II/unet/config.json"), &c, &why) == ERR_OK,
              "%s", why.msg);
    CHECK(c.in_channels == 6 && c.class_timestep && c.time_dim == 32 && c.skip_time_act);
    CHECK(c.time_act_set && c.time_act == HF_ACT_GELU && c.mid_skip_time_act);
    CHECK(c.out_scale_factor == 1.4142271248762552f && c.mid_scale_factor == c.out_scale_factor);
    CHECK(c.mid_only_cross && c.down[2].only_cross && c.up[0].only_cross);
    CHECK(c.down[1].layers == 2 && c.down[2].layers == 1);
    CHECK(c.up[0].layers == 3 && c.up[1].layers == 2 && c.up[2].layers == 3 && c.up[3].layers == 2);
    CHECK_INT(hfconfig_unet_read(in_golden("if-tiny-II-256/unet/config.json"), &c, &why), ERR_OK);
    CHECK_INT(c.levels, 5);
}

// The smallest config: two levels, every other key at its default.
#define UNET_WITH(mid)                                                                             \
    "\"_class_name\":\"UNet2DConditionModel\",\"block_out_channels\":[32,64],"                     \
    "\"mid_block_type\":" mid ",\"down_block_types\":[\"ResnetDownsampleBlock2D\","                \
    "\"SimpleCrossAttnDownBlock2D\"],\"up_block_types\":[\"SimpleCrossAttnUpBlock2D\","            \
    "\"ResnetUpsampleBlock2D\"]"
#define UNET UNET_WITH("null")
#define UNET_SKIPPING(mid) "{" UNET_WITH(mid) ",\"resnet_skip_time_act\":true"

static enum err parse_unet(const char *more, struct unet_config *c, struct fault *why)
{
    char text[2048];
    snprintf(text, sizeof text, "{%s%s%s}", UNET, *more ? "," : "", more);
    memset(why, 0, sizeof *why);
    return hfconfig_unet_parse(text, strlen(text), "u.json", c, why);
}

static void check_unet_defaults(void)
{
    struct unet_config c;
    struct fault why;

    CHECK_MSG(parse_unet("", &c, &why) == ERR_OK, "%s", why.msg);
    CHECK(c.in_channels == 4 && c.out_channels == 4 && c.sample_size == 0);
    CHECK(c.mid == UNET_MID_NONE && c.act == HF_ACT_SILU && c.norm_groups == 32);
    CHECK(c.down[0].layers == 2 && c.down[1].head_dim == 8 && c.down[1].heads == 8);
    CHECK(c.cross_dim == 1280 && c.text_dim == 1280 && !c.text_proj && !c.add_text);
    CHECK(c.cross_norm == UNET_NORM_NONE && !c.scale_shift && c.time_dim == 128);
    CHECK(c.out_scale_factor == 1 && c.mid_scale_factor == 1 && c.flip_sin_to_cos);
    CHECK(c.patch_size == 1 && !c.low_res_residual && c.low_res_align_corners);

    // lists, both forms; the up blocks take attention_head_dim in its own order
    CHECK_MSG(parse_unet("\"layers_per_block\":[1,3],\"attention_head_dim\":[16,32],"
                         "\"only_cross_attention\":[false,true],\"sample_size\":[64,64],"
                         "\"patch_size\":4,\"in_channels\":6,\"low_res_residual\":true,"
                         "\"low_res_align_corners\":false",
                         &c, &why) == ERR_OK,
              "%s", why.msg);
    CHECK(c.down[0].layers == 1 && c.up[0].layers == 4 && c.up[1].layers == 2);
    CHECK(c.down[1].head_dim == 32 && c.up[0].head_dim == 16 && c.up[0].only_cross);
    CHECK(c.sample_size == 64 && c.patch_size == 4 && c.low_res_residual &&
          !c.low_res_align_corners && !c.mid_only_cross);
}

// Blocks of Stable Diffusion: attention_head_dim is the number of heads there.
static void check_unet_latent(void)
{
    struct unet_config c;
    struct fault why = {0};

    CHECK_MSG(hfconfig_unet_read(in_golden("x4-tiny/unet/config.json"), &c, &why) == ERR_OK, "%s",
              why.msg);
    CHECK(c.in_channels == 7 && c.out_channels == 4 && c.sample_size == 16);
    CHECK(!c.down[0].attention && c.down[1].attention == UNET_ATTENTION_TRANSFORMER);
    CHECK(c.down[0].conv && c.down[0].resample && c.up[3].conv && !c.up[3].resample);
    CHECK(c.down[3].heads == 4 && c.down[3].head_dim == 6 && c.mid_heads == 4);
    CHECK(c.down[1].only_cross && !c.down[3].only_cross && !c.up[0].only_cross);
    CHECK(c.mid == UNET_MID_TRANSFORMER && !c.mid_only_cross && !c.mid_skip_time_act);
    CHECK(c.class_embeds == 1000 && !c.class_timestep && c.linear_projection);
}

static void check_unet_mid(void)
{
    static const char resnet[] = UNET_SKIPPING("\"UNetMidBlock2D\"") "}";
    static const char cross[] =
        UNET_SKIPPING("\"UNetMidBlock2DSimpleCrossAttn\"") ",\"only_cross_attention\":true}";
    static const char absent[] =
        "{\"_class_name\":\"UNet2DConditionModel\",\"block_out_channels\":[32],"
        "\"down_block_types\":[\"DownBlock2D\"],\"up_block_types\":[\"UpBlock2D\"]}";
    struct unet_config c;
    struct fault why = {0};

    CHECK_MSG(!hfconfig_unet_parse(resnet, strlen(resnet), "u", &c, &why), "%s", why.msg);
    CHECK(c.mid == UNET_MID_RESNET && c.skip_time_act && !c.mid_skip_time_act);
    CHECK_MSG(!hfconfig_unet_parse(cross, strlen(cross), "u", &c, &why), "%s", why.msg);
    CHECK(c.mid == UNET_MID_CROSS && c.mid_skip_time_act && c.mid_only_cross && c.mid_heads == 8);
    // As the x4 upscaler is published.
    CHECK_MSG(!hfconfig_unet_parse(absent, strlen(absent), "u", &c, &why), "%s", why.msg);
    CHECK(c.mid == UNET_MID_TRANSFORMER && !c.mid_only_cross && c.mid_heads == 8);
}

// Valid configs of networks that cannot be loaded.
static void check_unet_not_loaded(void)
{
    static const char *const rows[][2] = {
        {UNET_SKIPPING("\"UNetMidBlock2D\"") "}",
         "resnet_skip_time_act must be the same for the mid block and the other blocks"},
        {UNET_SKIPPING("\"UNetMidBlock2DCrossAttn\"") "}",
         "resnet_skip_time_act must be the same for the mid block and the other blocks"},
        {"{" UNET ",\"cross_attention_norm\":\"layer_norm\"}",
         "cross_attention_norm \"layer_norm\" is not supported"},
        {"{" UNET ",\"num_class_embeds\":9,\"addition_embed_type\":\"text\"}",
         "num_class_embeds with addition_embed_type is not supported"},
        {"{" UNET ",\"low_res_residual\":true,\"in_channels\":6,\"out_channels\":3}",
         "low_res_residual needs an even patch_size, not 1"},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct unet_config c;
        struct fault why = {0};
        struct unet *u = NULL;
        CHECK_MSG(!hfconfig_unet_parse(rows[i][0], strlen(rows[i][0]), "u", &c, &why), "%s",
                  why.msg);
        CHECK_INT(unet_load(NULL, &c, NULL, DT_F32, &u, &why), ERR_UNSUPPORTED);
        CHECK_STR(why.msg, rows[i][1]);
    }
}

static void check_unet_refused(void)
{
    static const struct {
        const char *more;
        enum err e;
        const char *says;
    } rows[] = {
        {"\"act_fn\":\"mish\"", ERR_UNSUPPORTED, "u.json: act_fn \"mish\" is not supported"},
        {"\"conv_in_kernel\":5", ERR_UNSUPPORTED, "conv_in_kernel 5 is not supported, only 3"},
        {"\"center_input_sample\":true", ERR_UNSUPPORTED, "center_input_sample true"},
        {"\"time_embedding_type\":\"fourier\"", ERR_UNSUPPORTED, "time_embedding_type \"fourier\""},
        {"\"class_embed_type\":\"projection\"", ERR_UNSUPPORTED, "class_embed_type \"projection\""},
        {"\"num_class_embeds\":0", ERR_FORMAT, "num_class_embeds must be an integer from 1"},
        {"\"transformer_layers_per_block\":2", ERR_UNSUPPORTED, "transformer_layers_per_block 2"},
        {"\"dual_cross_attention\":true", ERR_UNSUPPORTED, "dual_cross_attention true"},
        {"\"downsample_padding\":0", ERR_UNSUPPORTED, "downsample_padding 0"},
        {"\"addition_embed_type\":\"text_time\"", ERR_UNSUPPORTED, "\"text_time\""},
        {"\"encoder_hid_dim_type\":\"image_proj\"", ERR_UNSUPPORTED, "\"image_proj\""},
        {"\"encoder_hid_dim_type\":\"text_proj\"", ERR_FORMAT, "encoder_hid_dim is missing"},
        {"\"resnet_time_scale_shift\":\"spatial\"", ERR_UNSUPPORTED, "\"spatial\""},
        {"\"norm_num_groups\":null", ERR_FORMAT, "norm_num_groups must be an integer"},
        {"\"norm_num_groups\":24", ERR_FORMAT, "24 does not divide 32 channels"},
        {"\"attention_head_dim\":24", ERR_UNSUPPORTED, "24 does not divide 64 channels"},
        {"\"attention_head_dim\":[8]", ERR_FORMAT, "must have 2 entries, not 1"},
        {"\"cross_attention_dim\":[32,64]", ERR_UNSUPPORTED, "cross_attention_dim [32,64]"},
        {"\"cross_attention_norm\":\"group_norm\",\"cross_attention_dim\":48", ERR_FORMAT,
         "48 is not a multiple of the 32 groups"},
        {"\"layers_per_block\":0", ERR_FORMAT, "layers_per_block must be an integer from 1"},
        {"\"layers_per_block\":2.0", ERR_FORMAT, "not 2.0"},
        {"\"only_cross_attention\":[true]", ERR_FORMAT, "only_cross_attention must be as long"},
        {"\"only_cross_attention\":1", ERR_FORMAT, "only_cross_attention must be true"},
        {"\"resnet_out_scale_factor\":0", ERR_UNSUPPORTED, "resnet_out_scale_factor 0"},
        {"\"sample_size\":[64,32]", ERR_UNSUPPORTED, "sample_size [64,32]"},
        {"\"low_res_residual\":true", ERR_FORMAT, "needs 6 input channels"},
        {"\"patch_size\":0", ERR_FORMAT, "patch_size must be an integer from 1 to 64, not 0"},
        {"\"mid_block_add_attention\":false", ERR_UNSUPPORTED,
         "u.json: mid_block_add_attention is an unknown key (value false); remove it"},
        {"\"addition_embed_type\":\"text\",\"encoder_hid_dim\":100", ERR_FORMAT,
         "64 does not divide 100"},
        {"\"in_channels\":3,\"in_channels\":3", ERR_FORMAT, "duplicate"},
    };
    struct unet_config c;
    struct fault why;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_MSG(parse_unet(rows[i].more, &c, &why) == rows[i].e, "%s: %s", rows[i].more, why.msg);
        CHECK_MSG(strstr(why.msg, rows[i].says), "%s: %s", rows[i].more, why.msg);
    }
    CHECK_INT(hfconfig_unet_read(in_golden("if-tiny-I/text_encoder/config.json"), &c, &why),
              ERR_FORMAT);
    CHECK(strstr(why.msg, "_class_name is missing"));
    CHECK_INT(hfconfig_unet_read(in_golden("nowhere.json"), &c, &why), ERR_NOT_FOUND);
}

static void check_blocks_refused(void)
{
    static const char *const rows[][2] = {
        {"{\"_class_name\":\"UNet2DConditionModel\"}", "down_block_types is missing"},
        {"{\"_class_name\":\"UNet2DModel\"}", "_class_name \"UNet2DModel\""},
        {"{\"_class_name\":\"UNet2DConditionModel\",\"block_out_channels\":[32],"
         "\"down_block_types\":[\"UpBlock2D\"]}",
         "down_block_types \"UpBlock2D\""},
        {"{\"_class_name\":\"UNet2DConditionModel\",\"block_out_channels\":[]}",
         "a list of 1 to 8"},
        {"{\"_class_name\":\"UNet2DConditionModel\",\"block_out_channels\":32}",
         "a list of 1 to 8"},
    };
    struct unet_config c;
    struct fault why;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK(hfconfig_unet_parse(rows[i][0], strlen(rows[i][0]), "u", &c, &why) != ERR_OK);
        CHECK_MSG(strstr(why.msg, rows[i][1]), "%s", why.msg);
    }
}

static void check_t5(void)
{
    static const struct {
        const char *text;
        enum err e;
        bool gated;
        enum hfconfig_act act;
        const char *says;
    } rows[] = {
        {"{}", ERR_OK, false, HF_ACT_RELU, ""},
        {"{\"feed_forward_proj\":\"gated-gelu\"}", ERR_OK, true, HF_ACT_GELU_TANH, ""},
        {"{\"feed_forward_proj\":\"gated-gelu\",\"dense_act_fn\":\"gelu\"}", ERR_UNSUPPORTED, true,
         0, "dense_act_fn \"gelu\""},
        {"{\"feed_forward_proj\":\"gated-silu\",\"is_gated_act\":true}", ERR_OK, true, HF_ACT_SILU,
         ""},
        {"{\"feed_forward_proj\":\"gated-tanh\"}", ERR_UNSUPPORTED, false, 0, "\"gated-tanh\""},
        {"{\"model_type\":\"mt5\"}", ERR_UNSUPPORTED, false, 0, "model_type \"mt5\""},
        {"{\"d_model\":\"64\"}", ERR_FORMAT, false, 0, "d_model must be an integer"},
        {"{\"quantization_config\":{\"load_in_8bit\":true}}", ERR_UNSUPPORTED, false, 0,
         "quantization_config"},
        {"{\"d_modell\":64}", ERR_UNSUPPORTED, false, 0, "d_modell is an unknown key (value 64)"},
        // A distance that all exact buckets cover leaves nothing to the others, which come in
        // fours.
        {"{\"relative_attention_num_buckets\":32,\"relative_attention_max_distance\":8}",
         ERR_UNSUPPORTED, false, 0, "relative_attention_num_buckets"},
        {"{\"relative_attention_num_buckets\":32,\"relative_attention_max_distance\":9}", ERR_OK,
         false, HF_ACT_RELU, ""},
        {"{\"relative_attention_num_buckets\":30}", ERR_UNSUPPORTED, false, 0,
         "relative_attention_num_buckets 30"},
        {"[]", ERR_FORMAT, false, 0, "must be a JSON object"},
    };
    struct t5_config c;
    struct fault why;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        why = (struct fault){0};
        CHECK_MSG(hfconfig_t5_parse(rows[i].text, strlen(rows[i].text), "t", &c, &why) == rows[i].e,
                  "%s: %s", rows[i].text, why.msg);
        CHECK_MSG(strstr(why.msg, rows[i].says), "%s: %s", rows[i].text, why.msg);
        if (!rows[i].e)
            CHECK(c.gated == rows[i].gated && c.act == rows[i].act);
    }
    // T5Config's own defaults.
    CHECK_INT(hfconfig_t5_parse("{}", 2, "t", &c, &why), ERR_OK);
    CHECK(c.d_model == 512 && c.d_kv == 64 && c.d_ff == 2048 && c.num_heads == 8);
    CHECK(c.num_layers == 6 && c.vocab_size == 32128 && c.eps == 1e-6f);
    CHECK(c.relative_buckets == 32 && c.relative_max_distance == 128);
    CHECK(c.pad_id == 0 && c.eos_id == 1 && !c.gated && c.act == HF_ACT_RELU);
    CHECK_INT(hfconfig_t5_read(in_golden("t5-tiny/text_encoder/config.json"), &c, &why), ERR_OK);
    CHECK(c.d_model == 64 && c.d_kv == 8 && c.d_ff == 136 && c.num_heads == 6 && c.num_layers == 3);
    CHECK(c.vocab_size == 896 && c.relative_buckets == 32 && c.relative_max_distance == 128);
    CHECK(c.eps == 1e-6f && c.gated && c.act == HF_ACT_GELU_TANH && c.eos_id == 1 && !c.pad_id);
}

static enum err parse_scheduler(const char *text, struct scheduler_config *c, struct fault *why)
{
    memset(why, 0, sizeof *why);
    return hfconfig_scheduler_parse(text, strlen(text), "s.json", c, why);
}

static void check_schedulers(void)
{
    struct scheduler_config c;
    struct fault why;

    CHECK_INT(
        hfconfig_scheduler_read(in_golden("if-tiny-I/scheduler/scheduler_config.json"), &c, &why),
        ERR_OK);
    CHECK(c.cls == SCHEDULER_DDPM && c.beta_schedule == BETA_SQUAREDCOS && c.thresholding);
    CHECK(c.variance_type == VARIANCE_LEARNED_RANGE && c.sample_max_value == 1.5);
    CHECK(c.num_train_timesteps == 1000 && c.beta_end == 0.02 && !c.trained_betas);
    CHECK(!SCHEDULER_CONFIG_HAS(&c, timestep_spacing) && SCHEDULER_CONFIG_HAS(&c, clip_sample));
    CHECK_MSG(hfconfig_scheduler_read(
                  in_golden("schedulers/configs/dpm_2m_karras_if/scheduler_config.json"), &c,
                  &why) == ERR_OK,
              "%s", why.msg);
    CHECK(c.cls == SCHEDULER_DPM_MULTISTEP && c.use_karras_sigmas && c.solver_order == 2);
    CHECK(c.lambda_min_clipped == -INFINITY && c.algorithm_type == ALGORITHM_DPMPP);
    CHECK(c.timestep_spacing == SPACING_LINSPACE && c.final_sigmas_type == FINAL_ZERO);
    CHECK_INT(hfconfig_scheduler_read(in_golden("schedulers/configs/dpm_2m/scheduler_config.json"),
                                      &c, &why),
              ERR_OK);
    CHECK(c.variance_type == VARIANCE_NONE && SCHEDULER_CONFIG_HAS(&c, variance_type));

    CHECK_INT(parse_scheduler("{}", &c, &why), ERR_FORMAT);
    CHECK_STR(why.msg, "s.json: _class_name is missing");
    CHECK_INT(parse_scheduler("{\"_class_name\":\"EulerDiscreteScheduler\"}", &c, &why),
              ERR_UNSUPPORTED);
    CHECK_STR(why.msg, "s.json: _class_name \"EulerDiscreteScheduler\" is not supported");
    CHECK_INT(parse_scheduler("{\"_class_name\":\"DDIMScheduler\",\"eta_noise\":3}", &c, &why),
              ERR_UNSUPPORTED);
    CHECK_STR(why.param, "eta_noise");
    CHECK_INT(parse_scheduler("{\"_class_name\":\"DDIMScheduler\",\"prediction_type\":\"flow\"}",
                              &c, &why),
              ERR_UNSUPPORTED);
    CHECK_INT(parse_scheduler("{\"_class_name\":\"DDIMScheduler\",\"thresholding\":1}", &c, &why),
              ERR_FORMAT);
    CHECK_INT(
        parse_scheduler("{\"_class_name\":\"DDIMScheduler\",\"trained_betas\":[0.1]}", &c, &why),
        ERR_OK);
    CHECK(c.trained_betas && c.set == 0);
}

// Keys that diffusers, transformers and their training scripts write and that do not affect the
// result.
static void check_foreign_keys(void)
{
    static const char *const unet[] = {
        "\"decay\":0.9999,\"inv_gamma\":1.0,\"min_decay\":0.0,\"optimization_step\":1000,"
        "\"power\":0.6667,\"update_after_step\":0,\"use_ema_warmup\":true",
        "\"time_cond_proj_dim\":null,\"a_key_of_tomorrow\":null",
        "\"_name_or_path\":\"x\",\"_use_default_values\":[\"dropout\"],\"dropout\":0.1",
    };
    static const char *const t5[] = {
        "{\"scale_decoder_outputs\":false,\"is_decoder\":false,\"dtype\":\"float32\"}",
        "{\"scale_decoder_outputs\":true,\"tie_word_embeddings\":true,\"num_labels\":2}",
        "{\"a_key_of_tomorrow\":null,\"max_new_tokens\":20,\"forced_decoder_ids\":null}",
    };
    struct unet_config u;
    struct t5_config c;
    struct fault why;

    for (size_t i = 0; i < sizeof unet / sizeof *unet; i++)
        CHECK_MSG(parse_unet(unet[i], &u, &why) == ERR_OK, "%s", why.msg);
    for (size_t i = 0; i < sizeof t5 / sizeof *t5; i++)
        CHECK_MSG(hfconfig_t5_parse(t5[i], strlen(t5[i]), "t", &c, &why) == ERR_OK, "%s", why.msg);
}

static void check_clip(void)
{
    static const struct {
        const char *text;
        enum err e;
        const char *says;
    } rows[] = {
        {"{\"hidden_act\":\"gelu\",\"dtype\":\"float16\",\"projection_dim\":512}", ERR_OK, ""},
        {"{}", ERR_UNSUPPORTED, "hidden_act is missing, and its default \"quick_gelu\" is not"},
        {"{\"hidden_act\":\"quick_gelu\"}", ERR_UNSUPPORTED, "hidden_act \"quick_gelu\""},
        {"{\"hidden_act\":\"gelu\",\"num_attention_heads\":7}", ERR_FORMAT,
         "num_attention_heads 7 does not divide the hidden_size 512"},
        {"{\"hidden_act\":\"gelu\",\"model_type\":\"clip\"}", ERR_UNSUPPORTED,
         "model_type \"clip\""},
        {"{\"hidden_act\":\"gelu\",\"hidden_sizes\":8}", ERR_UNSUPPORTED,
         "hidden_sizes is an unknown key"},
        {"{\"hidden_act\":\"gelu\",\"is_decoder\":true}", ERR_UNSUPPORTED, "is_decoder true"},
    };
    struct clip_config c;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fault why = {0};
        const enum err e = hfconfig_clip_parse(rows[i].text, strlen(rows[i].text), "t", &c, &why);
        CHECK_MSG(e == rows[i].e, "%s: %s", rows[i].text, why.msg);
        CHECK_MSG(strstr(why.msg, rows[i].says), "%s: %s", rows[i].text, why.msg);
        if (!e)
            CHECK(c.width == 512 && c.layers == 12 && c.length == 77 && c.act == HF_ACT_GELU);
    }
}

#define VAE                                                                                        \
    "{\"_class_name\":\"AutoencoderKL\",\"block_out_channels\":[32,64],"                           \
    "\"up_block_types\":[\"UpDecoderBlock2D\",\"UpDecoderBlock2D\"]"

static void check_vae(void)
{
    static const struct {
        const char *text;
        enum err e;
        const char *says;
    } rows[] = {
        {VAE "}", ERR_OK, ""},
        {VAE ",\"shift_factor\":null,\"force_upcast\":true}", ERR_OK, ""},
        {"{}", ERR_FORMAT, "_class_name is missing"},
        {"{\"_class_name\":\"AutoencoderTiny\"}", ERR_UNSUPPORTED,
         "_class_name \"AutoencoderTiny\""},
        {"{\"_class_name\":\"AutoencoderKL\"}", ERR_FORMAT, "block_out_channels must be a list"},
        {VAE ",\"norm_num_groups\":24}", ERR_FORMAT, "24 does not divide 32 channels"},
        {VAE ",\"latents_mean\":[0,0,0,0]}", ERR_UNSUPPORTED, "latents_mean [0,0,0,0]"},
        {VAE ",\"act_fn\":\"mish\"}", ERR_UNSUPPORTED, "act_fn \"mish\""},
        {VAE ",\"scaling_factor\":0}", ERR_FORMAT, "scaling_factor"},
        {VAE ",\"tiling\":true}", ERR_UNSUPPORTED, "tiling is an unknown key"},
        {"{\"_class_name\":\"AutoencoderKL\",\"block_out_channels\":[32],"
         "\"up_block_types\":[\"AttnUpDecoderBlock2D\"]}",
         ERR_UNSUPPORTED, "up_block_types"},
    };
    struct vae_config c;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct fault why = {0};
        const enum err e = hfconfig_vae_parse(rows[i].text, strlen(rows[i].text), "t", &c, &why);
        CHECK_MSG(e == rows[i].e, "%s: %s", rows[i].text, why.msg);
        CHECK_MSG(strstr(why.msg, rows[i].says), "%s: %s", rows[i].text, why.msg);
        if (!e)
            CHECK(c.levels == 2 && c.layers == 1 && c.latent_channels == 4 && c.post_quant &&
                  c.mid_attention && c.shift_factor == 0);
    }
    CHECK_INT(hfconfig_vae_read(in_golden("x4-tiny/vae/config.json"), &c, NULL), ERR_OK);
    CHECK(c.levels == 3 && c.layers == 2 && fabsf(c.scaling_factor - 0.08333F) < 1e-7F);
}

static void check_foreign_schedulers(void)
{
    static const struct {
        const char *cls, *more;
        enum err e;
    } rows[] = {
        {"DDPMScheduler", "\"sigma_max\":null,\"sigma_min\":null,\"use_karras_sigmas\":false", 0},
        {"DDPMScheduler", "\"interpolation_type\":\"linear\",\"timestep_type\":\"discrete\"", 0},
        {"DDPMScheduler", "\"skip_prk_steps\":true,\"set_alpha_to_one\":false,\"eta\":0.0", 0},
        {"DDPMScheduler", "\"solver_type\":\"bh2\",\"predict_x0\":true,\"solver_p\":null", 0},
        {"DDPMScheduler", "\"algorithm_type\":\"data_prediction\",\"tau_func\":null", 0},
        {"DDIMScheduler", "\"shift\":3.0,\"base_shift\":0.5,\"max_image_seq_len\":4096", 0},
        {"DDIMScheduler", "\"original_inference_steps\":50,\"timestep_scaling\":10.0", 0},
        {"DDIMScheduler", "\"disable_corrector\":[],\"flow_shift\":null,\"a_new_key\":null", 0},
        {"DDIMScheduler", "\"thresholding\":null,\"clip_sample\":null", 0},
        {"DPMSolverMultistepScheduler", "\"solver_type\":\"logrho\",\"flow_shift\":null", 0},
        {"DPMSolverMultistepScheduler", "\"algorithm_type\":\"deis\"", 0},
        {"DPMSolverMultistepScheduler", "\"algorithm_type\":\"data_prediction\"", ERR_UNSUPPORTED},
        {"DDPMScheduler", "\"solver_type\":\"bh3\"", ERR_UNSUPPORTED},
        {"DDPMScheduler", "\"prediction_type\":\"flow_prediction\"", ERR_UNSUPPORTED},
        {"DDPMScheduler", "\"beta_power\":2", ERR_UNSUPPORTED},
        {"DDPMScheduler", "\"beta_start\":null", ERR_FORMAT},
    };
    struct scheduler_config c;
    struct fault why;
    char text[256];

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(text, sizeof text, "{\"_class_name\":\"%s\",%s}", rows[i].cls, rows[i].more);
        CHECK_MSG(parse_scheduler(text, &c, &why) == rows[i].e, "%s: %s", text, why.msg);
        if (!rows[i].e)
            CHECK_MSG(!c.thresholding && !c.clip_sample, "%s", text);
    }
    // A word that is DPMSolverMultistep's default there leaves the key unset.
    CHECK_INT(parse_scheduler("{\"_class_name\":\"DPMSolverMultistepScheduler\","
                              "\"solver_type\":\"bh2\",\"solver_order\":3}",
                              &c, &why),
              ERR_OK);
    CHECK(!SCHEDULER_CONFIG_HAS(&c, solver_type) && c.solver_order == 3);
}

// The class in model_index.json overrides that of the scheduler's own file, whatever it is.
static void check_class_override(void)
{
    const char *path = in_golden("if-tiny-I/scheduler/scheduler_config.json");
    struct scheduler_config c;
    struct fault why;

    CHECK_INT(hfconfig_scheduler_read_as(path, SCHEDULER_DPM_MULTISTEP, &c, &why), ERR_OK);
    CHECK(c.cls == SCHEDULER_DPM_MULTISTEP && c.thresholding);
    path = in_golden("schedulers/configs/dpm_2m/scheduler_config.json");
    CHECK_INT(hfconfig_scheduler_read_as(path, SCHEDULER_DDIM, &c, &why), ERR_OK);
    CHECK_INT(c.cls, SCHEDULER_DDIM);
}

#define UPSCALE                                                                                    \
    "{\"_class_name\":\"StableDiffusionUpscalePipeline\",\"unet\":[\"diffusers\","                 \
    "\"UNet2DConditionModel\"],\"scheduler\":[\"diffusers\",\"DDIMScheduler\"],"                   \
    "\"low_res_scheduler\":[\"diffusers\",\"DDPMScheduler\"],"                                     \
    "\"text_encoder\":[\"transformers\",\"CLIPTextModel\"]"

static void check_index_names(void)
{
    static const char *const pipelines[][2] = {
        {"IFPipeline", "base"},
        {"IFImg2ImgPipeline", "base"},
        {"IFInpaintingPipeline", "base"},
        {"IFSuperResolutionPipeline", "super"},
        {"IFImg2ImgSuperResolutionPipeline", "super"},
        {"IFInpaintingSuperResolutionPipeline", "super"},
    };
    struct hfconfig_index x;
    struct fault why;
    char text[512];

    for (size_t i = 0; i < sizeof pipelines / sizeof *pipelines; i++) {
        snprintf(text, sizeof text,
                 "{\"_class_name\":\"%s\",\"unet\":[\"diffusers\",\"UNet2DConditionModel\"],"
                 "\"scheduler\":[\"diffusers\",\"DPMSolverMultistepScheduler\"],"
                 "\"image_noising_scheduler\":[\"diffusers\",\"DDPMScheduler\"],"
                 "\"tokenizer\":[\"transformers\",\"T5TokenizerFast\"],"
                 "\"vae\":[null,null],\"text_encoder\":null}",
                 pipelines[i][0]);
        CHECK_MSG(hfconfig_index_parse(text, strlen(text), "m", &x, &why) == ERR_OK, "%s", why.msg);
        CHECK_INT(x.pipeline, *pipelines[i][1] == 's' ? PIPELINE_IF_SUPER : PIPELINE_IF);
        CHECK(x.tokenizer && !x.text_encoder && x.scheduler == SCHEDULER_DPM_MULTISTEP);
        CHECK_INT(x.noising, SCHEDULER_DDPM);
    }
}

static void check_index(void)
{
    static const struct {
        const char *text;
        enum err e;
        const char *says;
    } rows[] = {
        {"{\"_class_name\":\"StableDiffusionPipeline\"}", ERR_UNSUPPORTED, "\"StableDiffusion"},
        {"{\"unet\":[\"diffusers\",\"UNet2DConditionModel\"]}", ERR_FORMAT, "_class_name"},
        {"{\"_class_name\":\"IFPipeline\",\"unet\":[\"diffusers\",\"UNet2DModel\"]}",
         ERR_UNSUPPORTED, "m: unet \"UNet2DModel\" is not supported; supported: UNet2DCond"},
        {"{\"_class_name\":\"IFPipeline\",\"unet\":[\"diffusers\",\"UNet2DConditionModel\"],"
         "\"scheduler\":[\"diffusers\",\"EulerDiscreteScheduler\"]}",
         ERR_UNSUPPORTED, "supported: DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler"},
        {"{\"_class_name\":\"IFPipeline\",\"unet\":7}", ERR_FORMAT, "a list of library and class"},
        {"{\"_class_name\":\"IFPipeline\",\"text_encoder\":[\"transformers\",\"CLIPTextModel\"]}",
         ERR_UNSUPPORTED, "text_encoder \"CLIPTextModel\" is not supported; supported: T5Enc"},
        {"{\"_class_name\":\"IFPipeline\",\"tokenizer\":[\"transformers\",\"CLIPTokenizer\"]}",
         ERR_UNSUPPORTED, "tokenizer \"CLIPTokenizer\" is not supported; supported: T5Tok"},
        {"{\"_class_name\":\"IFPipeline\"}", ERR_FORMAT, "unet is missing"},
        {"{\"_class_name\":\"IFPipeline\",\"vae\":[\"diffusers\",\"AutoencoderKL\"]}",
         ERR_UNSUPPORTED, "vae"},
        {UPSCALE ",\"tokenizer\":[\"transformers\",\"CLIPTokenizer\"]}", ERR_FORMAT,
         "vae is missing"},
        {UPSCALE ",\"vae\":[\"diffusers\",\"AutoencoderKL\"],"
                 "\"tokenizer\":[\"transformers\",\"T5Tokenizer\"]}",
         ERR_UNSUPPORTED, "tokenizer \"T5Tokenizer\" is not supported; supported: CLIPTok"},
        {UPSCALE ",\"vae\":[\"diffusers\",\"AutoencoderTiny\"]}", ERR_UNSUPPORTED,
         "vae \"AutoencoderTiny\" is not supported; supported: AutoencoderKL"},
        {UPSCALE ",\"vae\":[\"diffusers\",\"AutoencoderKL\"]}", ERR_FORMAT, "tokenizer is missing"},
        {UPSCALE ",\"max_noise_level\":-1}", ERR_FORMAT, "max_noise_level must be"},
        {"{\"_class_name\":\"StableDiffusionUpscalePipeline\",\"unet\":[\"diffusers\","
         "\"UNet2DConditionModel\"],\"scheduler\":[\"diffusers\",\"DDIMScheduler\"]}",
         ERR_FORMAT, "low_res_scheduler is missing"},
        {"{\"_class_name\":\"IFSuperResolutionPipeline\",\"unet\":[\"diffusers\","
         "\"UNet2DConditionModel\"],\"scheduler\":[\"diffusers\",\"DDPMScheduler\"]}",
         ERR_FORMAT, "image_noising_scheduler is missing"},
    };
    struct hfconfig_index x;
    struct fault why;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        CHECK_MSG(hfconfig_index_parse(rows[i].text, strlen(rows[i].text), "m", &x, &why) ==
                      rows[i].e,
                  "%s: %s", rows[i].text, why.msg);
        CHECK_MSG(strstr(why.msg, rows[i].says), "%s: %s", rows[i].text, why.msg);
    }
    CHECK_INT(hfconfig_index_read(in_golden("if-tiny-I/model_index.json"), &x, &why), ERR_OK);
    CHECK(x.pipeline == PIPELINE_IF && x.text_encoder && x.tokenizer && x.unet);
    CHECK_INT(x.scheduler, SCHEDULER_DDPM);
    CHECK(!x.safety_checker && !x.watermarker && x.noising < 0);
    CHECK_INT(hfconfig_index_read(in_golden("if-tiny-II/model_index.json"), &x, &why), ERR_OK);
    CHECK(x.pipeline == PIPELINE_IF_SUPER && !x.text_encoder && x.noising == SCHEDULER_DDPM);
    CHECK_INT(hfconfig_index_read(in_golden("x4-tiny/model_index.json"), &x, &why), ERR_OK);
    CHECK(x.pipeline == PIPELINE_UPSCALE && x.text_encoder && x.tokenizer && x.vae);
    CHECK(x.scheduler == SCHEDULER_DDIM && x.noising == SCHEDULER_DDPM);
    CHECK_INT(x.max_noise_level, 350);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return test_skip("needs the golden folder");
    golden = argv[1];
    check_unet_base();
    check_unet_super();
    check_unet_defaults();
    check_unet_latent();
    check_unet_mid();
    check_unet_not_loaded();
    check_unet_refused();
    check_blocks_refused();
    check_t5();
    check_schedulers();
    check_foreign_keys();
    check_clip();
    check_vae();
    check_foreign_schedulers();
    check_class_override();
    check_index_names();
    check_index();
    return test_end();
}
