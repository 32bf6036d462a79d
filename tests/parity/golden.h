// The parity program: recomputes everything that diffusers and transformers wrote into a fixture
// folder and compares it with the manifest's tolerance, one line per comparison. A fixture, tensor
// or file that was not checked is a failure, unless it is listed as skipped.
#ifndef IMAGEND_GOLDEN_H
#define IMAGEND_GOLDEN_H

#include "json.h"
#include "ops.h"
#include "safetensors.h"

enum { GOLDEN_PATH = 1024 };

struct golden {
    const char *root;
    const struct json_t *manifest;
    struct ops_device *dev; // NULL: only what needs no device
    enum dtype dtype;       // f16: compare with atol_half
    double relative;        // no manifest: tolerance over the largest value
    bool quiet;             // print failures and skips only
    int passed, failed, skipped, fused;
    double worst; // largest error over tolerance
};

// One fixture file of tensors and which of them were used.
struct bundle {
    struct golden *g;
    char name[256];            // "if-tiny-I/reference_unet.safetensors"
    char dir[GOLDEN_PATH];     // the folder it lies in
    const struct json_t *meta; // the manifest's tensors
    struct safetensors *file;
    bool *seen; // per tensor
};

void golden_pass(struct golden *g, const char *fixture, const char *what, double ratio);
// With TEST_STOPS_AT_FAILURE set, also the end of the program.
void golden_fail(struct golden *g, const char *fixture, const char *what, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
void golden_skip(struct golden *g, const char *fixture, const char *why);
// A reference that is part of another one, which was compared.
void golden_fused(struct golden *g, const char *fixture, const char *what);

bool bundle_open(struct golden *g, const char *name, const struct json_t *fixture,
                 struct bundle *b);
// Fails for every tensor that nobody used.
void bundle_close(struct bundle *b);

const struct safetensor *bundle_find(struct bundle *b, const char *fmt, ...)
    __attribute__((format(printf, 2, 3))); // marks it as used; NULL: absent
// As f32; the caller frees. NULL when absent (no failure) or out of memory.
float *bundle_floats(struct bundle *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int64_t *bundle_ints(struct bundle *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Tolerance of a tensor from the manifest; < 0: compare exactly.
double bundle_tolerance(struct bundle *b, const char *name, double absmax);
// got has the reference's own shape.
void bundle_compare(struct bundle *b, const char *name, const float *got);
// got [n, c, h, w]; the reference holds the first samples and every k-th row and column.
struct shape4 {
    size_t n, c, h, w;
};
void bundle_compare_images(struct bundle *b, const char *name, const float *got,
                           struct shape4 shape);

// Activations at named points; points_keep is a tap, with the points as ctx.
struct points;
struct points *points_create(struct bundle *b); // NULL: no memory
void points_keep(void *ctx, struct ops *o, const char *name, const struct tensor *t);
void points_compare(struct points *p); // once the recording has run
void points_destroy(struct points **p);

// The checks, by kind of fixture file; each takes what the manifest lists under that name.
void check_tokens(struct golden *g, const char *name);
void check_normalization(struct golden *g, const char *name);
void check_captions(struct golden *g, const char *name);
void check_t5(struct golden *g, const char *name, const struct json_t *fixture);
void check_clip(struct golden *g, const char *name, const struct json_t *fixture);
void check_unet(struct golden *g, const char *name, const struct json_t *fixture);
void check_vae(struct golden *g, const char *name, const struct json_t *fixture);
// Against tensors in an open bundle: one forward of the U-Net, one run of the encoder, and the ids
// that the tokenizer in this folder gives prompts (their bytes as integers).
void check_forward(struct bundle *b, const char *unet_dir);
void check_encoder(struct bundle *b, const char *encoder_dir);
void check_prompts(struct bundle *b, const char *tokenizer_dir);
void check_pipeline(struct golden *g, const char *name, const struct json_t *fixture);
void check_resize_sizes(struct golden *g, const char *name);
void check_resize(struct golden *g, const char *name, const struct json_t *fixture);
void check_strength(struct golden *g, const char *name);
void check_betas(struct golden *g, const char *name, const struct json_t *fixture);
void check_timesteps(struct golden *g, const char *name);
void check_steps(struct golden *g, const char *name, const struct json_t *fixture);

// Text from the fixtures' utf8_hex; the caller frees it.
char *golden_hex(const char *hex, size_t *len);
// Path of a file under the fixture folder.
void golden_path(const struct golden *g, const char *name, const char *file, char *out);

#endif
