// Parses Hugging Face config files into structs. Absent keys take the defaults of the diffusers or
// transformers class. Errors name file, key and value: a key that affects the arithmetic has an
// unsupported value, or an unknown key is not null. Callers: engine/model, engine/pipeline.
#ifndef IMAGEND_HFCONFIG_H
#define IMAGEND_HFCONFIG_H

#include "err.h"
#include "scheduler_config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// ---- model_index.json -----------------------------------------------------------------------

enum hfconfig_pipeline {
    PIPELINE_IF,       // IFPipeline, IFImg2ImgPipeline, IFInpaintingPipeline
    PIPELINE_IF_SUPER, // their SuperResolution forms
    PIPELINE_UPSCALE,  // StableDiffusionUpscalePipeline
};

struct hfconfig_index {
    enum hfconfig_pipeline pipeline;
    const char *text_encoder; // class; NULL: [null, null], taken from another folder
    bool tokenizer;           // likewise
    const char *unet;         // class of the denoiser
    const char *vae;          // class of the decoder; NULL: none
    int scheduler;            // enum scheduler_class
    int noising;              // likewise, of image_noising_scheduler or low_res_scheduler; -1: none
    int max_noise_level;      // of an upscaler
    bool safety_checker, watermarker; // listed in the folder; not run
};

// ---- T5 encoder -----------------------------------------------------------------------------

enum hfconfig_act { HF_ACT_RELU, HF_ACT_SILU, HF_ACT_GELU, HF_ACT_GELU_TANH }; // GELU: exact (erf)

struct t5_config {
    int d_model, d_kv, d_ff, num_layers, num_heads, vocab_size;
    int relative_buckets, relative_max_distance;
    float eps;
    bool gated;            // wi_0, wi_1; false: wi
    enum hfconfig_act act; // GELU_TANH for gated-gelu
    int pad_id, eos_id;
};

// ---- CLIPTextModel --------------------------------------------------------------------------

struct clip_config {
    int width, ff, layers, heads, length, vocab; // length: of every prompt, with its padding
    float eps;
    enum hfconfig_act act;
};

// ---- UNet2DConditionModel -------------------------------------------------------------------

enum { UNET_MAX_LEVELS = 8, UNET_MAX_LAYERS = 32 };

enum unet_mid { UNET_MID_NONE, UNET_MID_RESNET, UNET_MID_CROSS, UNET_MID_TRANSFORMER };
// ADDED: over text and image at once, SimpleCrossAttn blocks. TRANSFORMER: CrossAttn blocks.
enum unet_attention { UNET_ATTENTION_NONE, UNET_ATTENTION_ADDED, UNET_ATTENTION_TRANSFORMER };
enum unet_cross_norm { UNET_NORM_NONE, UNET_NORM_LAYER, UNET_NORM_GROUP };

// One entry of down_blocks or up_blocks, in the network's order.
struct unet_block {
    enum unet_attention attention;
    int in, out;     // channels: input of the first resnet (up: without the skip), output of each
    int skip_last;   // up: channels of the last resnet's skip; other skips have `out`
    int layers;      // resnets (up: layers_per_block + 1)
    bool resample;   // followed by downsamplers.0 or upsamplers.0
    bool conv;       // by a convolution; false: by a residual block
    bool only_cross; // ADDED: no to_k, to_v; TRANSFORMER: attn1 is over the text, as attn2
    int heads, head_dim; // heads * head_dim == out; 0 without attention
};

struct unet_config {
    int in_channels, out_channels; // of the image, before pixel-unshuffling by patch_size
    int sample_size;               // 0: not given
    int patch_size;                // pixel-unshuffle before conv_in, pixel-shuffle after conv_out
    bool low_res_residual;         // adds the input's low-res channels to the output
    bool low_res_align_corners;    // for enlarging the low-res image; see op_upsample_bilinear
    int levels;
    int channels[UNET_MAX_LEVELS]; // block_out_channels
    struct unet_block down[UNET_MAX_LEVELS], up[UNET_MAX_LEVELS];
    enum unet_mid mid;
    int mid_heads, mid_head_dim; // of its attention
    bool mid_only_cross;
    float mid_scale_factor; // divisor of the mid block's resnet outputs
    bool mid_skip_time_act;
    enum hfconfig_act act; // act_fn: resnets, conv_norm_out, time and class MLPs
    int norm_groups;
    float norm_eps;
    int cross_dim;                   // cross_attention_dim: text width inside the network
    enum unet_cross_norm cross_norm; // norm_cross; GROUP always has 32 groups
    int text_dim;                    // width of the text states passed to the network
    bool text_proj;                  // encoder_hid_proj: text_dim -> cross_dim
    bool add_text;                   // addition_embed_type text: pooled from text_dim
    int add_heads;                   // of its attention pooling
    bool linear_projection;          // of a transformer; false: by a 1x1 convolution
    int class_embeds;                // rows of class_embedding by noise level; 0: none
    bool class_timestep;             // class_embed_type timestep: noise_level features and MLP
    int time_dim;                    // width of the time embedding
    bool flip_sin_to_cos;
    float freq_shift;
    bool time_act_set; // time_embedding_act_fn on the summed embedding
    enum hfconfig_act time_act;
    bool skip_time_act;     // resnets apply no activation to the time embedding
    bool scale_shift;       // resnet_time_scale_shift scale_shift; false: default (added)
    float out_scale_factor; // divisor of all other resnet outputs
};

// ---- AutoencoderKL --------------------------------------------------------------------------

enum { VAE_MAX_LEVELS = 8, VAE_MAX_LAYERS = 16 };

// The decoder only.
struct vae_config {
    int out_channels, latent_channels;
    int levels;
    int channels[VAE_MAX_LEVELS]; // block_out_channels; the decoder runs from the last to the first
    int layers;                   // layers_per_block; the decoder has one more in each block
    int norm_groups;
    enum hfconfig_act act;
    float scaling_factor, shift_factor; // latents = (sampled latents) / scaling + shift
    bool post_quant;                    // a 1x1 convolution before the decoder
    bool mid_attention;
};

// ---- reading --------------------------------------------------------------------------------
// Each function reads one file. Errors: NOT_FOUND, IO, FORMAT, UNSUPPORTED, NO_MEMORY.

enum err hfconfig_index_read(const char *path, struct hfconfig_index *out, struct fault *why);
enum err hfconfig_t5_read(const char *path, struct t5_config *out, struct fault *why);
enum err hfconfig_clip_read(const char *path, struct clip_config *out, struct fault *why);
enum err hfconfig_vae_read(const char *path, struct vae_config *out, struct fault *why);
enum err hfconfig_unet_read(const char *path, struct unet_config *out, struct fault *why);
// Reads only the keys that are present. The sampler supplies defaults, because another class than
// the file's may be selected.
enum err hfconfig_scheduler_read(const char *path, struct scheduler_config *out, struct fault *why);
// Likewise, for a class named by model_index.json, which overrides the file's own class, as in
// diffusers.
enum err hfconfig_scheduler_read_as(const char *path, enum scheduler_class cls,
                                    struct scheduler_config *out, struct fault *why);

// Likewise, from memory; `what` names the text in messages.
enum err hfconfig_index_parse(const char *text, size_t len, const char *what,
                              struct hfconfig_index *out, struct fault *why);
enum err hfconfig_t5_parse(const char *text, size_t len, const char *what, struct t5_config *out,
                           struct fault *why);
enum err hfconfig_clip_parse(const char *text, size_t len, const char *what,
                             struct clip_config *out, struct fault *why);
enum err hfconfig_vae_parse(const char *text, size_t len, const char *what, struct vae_config *out,
                            struct fault *why);
enum err hfconfig_unet_parse(const char *text, size_t len, const char *what,
                             struct unet_config *out, struct fault *why);
enum err hfconfig_scheduler_parse(const char *text, size_t len, const char *what,
                                  struct scheduler_config *out, struct fault *why);

#endif
