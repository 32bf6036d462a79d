// Shared by the files of the A1111 API. Loop thread.
#ifndef IMAGEND_A1111_H
#define IMAGEND_A1111_H

#include "app.h"
#include "input.h"

// ---- a1111_samplers.c ---------------------------------------------------------------------------

// The sampler selected by a request's sampler and scheduler names.
struct a1111_sampler {
    const char *engine;            // the engine's sampler name; NULL: the model's default sampler
    const char *missing_sampler;   // label of an A1111 sampler that the engine lacks, or NULL
    const char *missing_scheduler; // scheduler that this sampler does not support, or NULL
};

// sampler and scheduler are names, labels or aliases of A1111 or the engine, ignoring case and
// spacing; NULL, "" and Automatic: the model's default. False for an unknown sampler.
bool a1111_sampler_find(const struct model_info *m, const char *sampler, const char *scheduler,
                        struct a1111_sampler *out);
// A1111's label of an engine's sampler and, in *scheduler, of its schedule; NULL: the default
// schedule.
const char *a1111_sampler_label(const char *engine, const char **scheduler);

// ---- a1111_draw.c -------------------------------------------------------------------------------

enum a1111_resize { A1111_STRETCH, A1111_CROP, A1111_FILL, A1111_LATENT };

// The fields of txt2img and img2img; those of img2img are zero in txt2img.
struct a1111_fields {
    struct picture_request picture;
    const char *sampler, *sampler_index, *scheduler;
    int batch_size, n_iter, width, height, steps;
    float cfg_scale;
    bool send_images;
    // img2img
    float denoising_strength;
    int resize_mode; // enum a1111_resize
    int mask_blur, mask_blur_x, mask_blur_y, mask_invert, fill, padding;
    bool full_res, include_init_images;
};

extern const struct check_table a1111_txt2img_check, a1111_img2img_check;
void a1111_txt2img_post(struct call *c);
void a1111_img2img_post(struct call *c);
// The sampler that the request selects for a model. False for an unknown one.
bool a1111_sampler_of(const struct call *c, const char *model, struct a1111_sampler *out);

// ---- a1111_info.c -------------------------------------------------------------------------------

// Adds "info" of a response: a JSON string that contains JSON.
void a1111_add_info(struct buf *out, const struct call *c, const struct job *j);

// ---- a1111_jobs.c -------------------------------------------------------------------------------

// All jobs of a call are done; a failed one has answered the call already.
typedef void a1111_done_fn(struct call *c, struct job *const *jobs, int n);
// Waits for a job of the call.
void a1111_wait(struct call *c, struct job *job, a1111_done_fn *done);
struct a1111_image {
    struct input_file file;
    struct check_size size;
    char which[112]; // which one of a list, as the beginning of errors about it; or ""
};
// Submits n jobs, each with an input image, and waits for all of them. If one is refused or fails,
// the others are cancelled. Owner: the images stay the caller's.
void a1111_submit_all(struct call *c, const struct job_spec *specs,
                      const struct a1111_image *images, int n, a1111_done_fn *done);
// Takes an image of the request as input_take does, or responds with the error and returns false.
// v: where it is, or NULL for the field of that name. Sets the file and size of *out.
bool a1111_take_image(struct call *c, const char *name, const struct json_t *v,
                      struct a1111_image *out);

struct progress_fields {
    bool skip_current_image;
};
extern const struct check_table a1111_progress_check;
void a1111_progress_get(struct call *c);
void a1111_interrupt_post(struct call *c);

// ---- a1111_extras.c -----------------------------------------------------------------------------

// The name of the upscaler that is the model's super-resolution stages.
extern const char a1111_upscaler[];

struct a1111_extras_fields {
    int resize_mode, width, height;
    float factor;
    bool crop;
    const char *upscaler;
    const char *upscaler_2;
    float visibility_2, gfpgan, codeformer;
};

extern const struct check_table a1111_extra_single_check, a1111_extra_batch_check;
extern const struct check_table a1111_png_info_check;
void a1111_extra_single_post(struct call *c);
void a1111_extra_batch_post(struct call *c);
void a1111_png_info_post(struct call *c);

// ---- a1111_lists.c, a1111_samplers.c ------------------------------------------------------------

// Finds the model for a request: that of its override_settings, else the one that its API key has
// selected through the options, else the default. On error responds and returns false.
bool a1111_find_model(struct call *c, const char **model);
// The model that the request's API key has selected; NULL: the default.
const char *a1111_selected_model(const struct call *c);
void a1111_samplers_get(struct call *c);
void a1111_schedulers_get(struct call *c);
void a1111_upscalers_get(struct call *c);
void a1111_loras_get(struct call *c);
void a1111_options_get(struct call *c);
void a1111_options_post(struct call *c);
void a1111_sd_models_get(struct call *c);
void a1111_fixed_get(struct call *c);
void a1111_refresh_post(struct call *c);

#endif
