// The routes of A1111's /sdapi/v1 that front ends use; the handlers are in the other a1111_*.c
// files.
#include "a1111.h"

#define A1111(method, path, handle, scope, flags, schema, summary, ...)                            \
    {method,                                                                                       \
     "/sdapi/v1/" path,                                                                            \
     handle,                                                                                       \
     scope,                                                                                        \
     flags,                                                                                        \
     ERRORS_A1111,                                                                                 \
     "a1111",                                                                                      \
     summary,                                                                                      \
     .answer = {{200, "application/json", "the response of A1111", schema}},                       \
     __VA_ARGS__}
#define FIXED(path)                                                                                \
    A1111("GET", path, a1111_fixed_get, SCOPE_READ, 0, "A1111Constant",                            \
          "An empty or constant list, for clients that expect it", .body = NULL)
#define REFRESH(path)                                                                              \
    A1111("POST", path, a1111_refresh_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_EMPTY_BODY,         \
          "A1111Nothing", "Accepted without effect; the lists are always up to date",              \
          .body = NULL)
const struct route routes_a1111[] = {
    A1111("POST", "txt2img", a1111_txt2img_post, SCOPE_GENERATE, ROUTE_BODY, "A1111Images",
          "Generate images and wait for them", .body = &a1111_txt2img_check,
          .fields_size = sizeof(struct a1111_fields)),
    A1111("POST", "img2img", a1111_img2img_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_IMAGES,
          "A1111Images", "Edit an image, as a whole or where a mask says, and wait for the result",
          .body = &a1111_img2img_check, .fields_size = sizeof(struct a1111_fields)),
    A1111("POST", "extra-single-image", a1111_extra_single_post, SCOPE_GENERATE,
          ROUTE_BODY | ROUTE_IMAGES, "A1111ExtraImage",
          "Enlarge an image with the super-resolution stages", .body = &a1111_extra_single_check,
          .fields_size = sizeof(struct a1111_extras_fields)),
    A1111("POST", "extra-batch-images", a1111_extra_batch_post, SCOPE_GENERATE,
          ROUTE_BODY | ROUTE_IMAGES, "A1111ExtraImages", "Enlarge up to 16 images",
          .body = &a1111_extra_batch_check, .fields_size = sizeof(struct a1111_extras_fields)),
    A1111("POST", "png-info", a1111_png_info_post, SCOPE_READ, ROUTE_BODY | ROUTE_IMAGES,
          "A1111ImageInfo", "The settings in the metadata of an image",
          .body = &a1111_png_info_check),
    A1111("GET", "progress", a1111_progress_get, SCOPE_READ, 0, "A1111Progress",
          "Progress of your oldest unfinished request", .query = &a1111_progress_check,
          .fields_size = sizeof(struct progress_fields)),
    A1111("POST", "interrupt", a1111_interrupt_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_EMPTY_BODY,
          "A1111Nothing", "Cancel your oldest unfinished request", .body = NULL),
    A1111("POST", "skip", a1111_interrupt_post, SCOPE_GENERATE, ROUTE_BODY | ROUTE_EMPTY_BODY,
          "A1111Nothing", "Same as interrupt", .body = NULL),
    A1111("GET", "options", a1111_options_get, SCOPE_READ, 0, "A1111Options",
          "The options, of which only the model's name is meaningful", .body = NULL),
    A1111("POST", "options", a1111_options_post, SCOPE_GENERATE, ROUTE_BODY, "A1111Nothing",
          "Accept options without effect; selecting a model that is not loaded is an error",
          .body = NULL),
    A1111("GET", "samplers", a1111_samplers_get, SCOPE_READ, 0, "A1111Samplers", "Samplers",
          .body = NULL),
    A1111("GET", "schedulers", a1111_schedulers_get, SCOPE_READ, 0, "A1111Schedulers", "Schedulers",
          .body = NULL),
    A1111("GET", "sd-models", a1111_sd_models_get, SCOPE_READ, 0, "A1111Models", "The model",
          .body = NULL),
    A1111("GET", "upscalers", a1111_upscalers_get, SCOPE_READ, 0, "A1111Upscalers", "Upscalers",
          .body = NULL),
    FIXED("latent-upscale-modes"),
    FIXED("sd-vae"),
    FIXED("sd-modules"),
    A1111("GET", "loras", a1111_loras_get, SCOPE_READ, 0, "A1111Loras",
          "LoRAs that a prompt may name as <lora:NAME:SCALE>", .body = NULL),
    FIXED("hypernetworks"),
    FIXED("embeddings"),
    FIXED("face-restorers"),
    FIXED("realesrgan-models"),
    FIXED("prompt-styles"),
    FIXED("scripts"),
    FIXED("script-info"),
    FIXED("extensions"),
    FIXED("cmd-flags"),
    FIXED("memory"),
    REFRESH("refresh-checkpoints"),
    REFRESH("refresh-loras"),
    REFRESH("refresh-vae"),
    {0},
};
