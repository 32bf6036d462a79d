// Images generated without the engine: with separate code for noise (Philox in studio.c) and slots,
// a sampler per stage, and a text encoder with an empty cache. Only the networks and the arithmetic
// of one step are shared; the golden suite compares these with diffusers.
#ifndef IMAGEND_STUDIO_H
#define IMAGEND_STUDIO_H

#include "cascade.h"
#include "engine.h"
#include "stage.h"

enum { BASE = 16, SIZE = 64, RGB = 3 * SIZE * SIZE, STAGES = 2, LENGTH = 77 };

// How to sample one stage; zero: as in cascade_json, see complete.
struct how {
    const char *network; // folder
    const char *sampler; // NULL: the scheduler's own
    int steps;
    const char *named; // list of timesteps
    const int *timesteps;
    float guidance;
    int interval[2];
    int noise_level;
};

struct drawing {
    uint64_t seed;
    uint32_t picture, stage;
    struct check_size base; // of the first stage's image; 0x0: the square
    int pixels;
};

struct studio {
    struct ops_device *dev;
    char folder[256];
};

struct network_files {
    struct denoiser_config config;
    struct scheduler_config scheduler, noising;
    struct denoiser *denoiser;
};

// A stage of its own for one image.
struct easel {
    struct network_files n;
    struct stage *stage;
    int entry, steps;
};

// A text encoder that keeps the states of two prompts. Owner: the caller, text_close.
struct text *studio_text(struct studio *s);
// States of a prompt [L, D]. Owner: the caller.
float *studio_encode(struct studio *s, const char *prompt);
// Fills unset fields from the tests' cascade.json.
struct how studio_complete(struct how how, bool super);
// A stage with one image in it. low: of the stage before, or NULL; negative NULL: empty.
void studio_open(struct studio *s, const struct how *how, struct drawing *d, const float *low,
                 const float *text, const float *negative, struct easel *e);
void studio_close(struct easel *e);
// Draws the whole image, with hows[i] for stage i; returns its edge.
int studio_draw(struct studio *s, const struct picture_request *r, const struct how *hows,
                uint8_t *rgb);

// The engine's result of a request that runs alone.
struct result {
    uint8_t rgb[RGB];
    int edge, done, failed;
};
void studio_draw_with(struct engine *g, const struct picture_request *request, struct result *out);
// The engine's events into a struct result: the tag, or ctx without one.
void studio_event(void *ctx, const struct engine_event *ev);

#endif
