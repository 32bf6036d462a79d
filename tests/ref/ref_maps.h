// References of all operators other than matrix products; see ref.h.
#ifndef IMAGEND_REF_MAPS_H
#define IMAGEND_REF_MAPS_H

#include "ops.h"
#include "ref.h"

struct ref_group_norm_params {
    const float *x, *gamma, *beta, *scale_shift; // scale_shift [N, 2C] or NULL
    struct ref_shape s;
    uint32_t groups;
    double eps;
    int act;
};
void ref_group_norm(const struct ref_group_norm_params *p, double *y);
// Over the c values of each pixel; rms: no mean, no shift.
void ref_layer_norm(const float *x, struct ref_shape s, const float *gamma, const float *beta,
                    double eps, double *y);
void ref_rms_norm(const float *x, struct ref_shape s, const float *gamma, double eps, double *y);

void ref_mean_pixels(const float *x, struct ref_shape s, double *y);
void ref_avg_pool2(const float *x, struct ref_shape s, double *y);
void ref_upsample_nearest2(const float *x, struct ref_shape s, double *y);
// s: of x; oh, ow: of y.
void ref_upsample_bilinear(const float *x, struct ref_shape s, bool align_corners, uint32_t oh,
                           uint32_t ow, double *y);
void ref_pixel_unshuffle(const float *x, struct ref_shape s, uint32_t p, double *y);
// s: of x, with s.c a multiple of p*p.
void ref_pixel_shuffle(const float *x, struct ref_shape s, uint32_t p, double *y);

void ref_time_embed(const float *t, uint32_t n, uint32_t dim, bool flip, double freq_shift,
                    double *y);
// bias [L, L, heads].
void ref_relative_bias(const float *table, uint32_t buckets, uint32_t heads, uint32_t length,
                       uint32_t max_distance, double *bias);

void ref_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);
// The normal of one element of a lane's noise.
double ref_normal(const struct op_lane *lane, uint32_t element);
// Linear interpolation between closest ranks, as torch.quantile; sorts v. Rank in f32, as torch.
float ref_quantile(float *v, size_t n, float q);

// State of one slot, pixels*channels each; channels: 3 or 4. m [pixels, mc]; u: NULL when not
// guided. h1, h2: last x0s. Replaces x and writes x0.
struct ref_step_params {
    const struct op_lane *lane;
    uint32_t pixels, channels, mc;
    const float *u, *m, *h1, *h2, *z;
    float *x, *x0;
};
void ref_sampler_step(const struct ref_step_params *p);
uint8_t ref_to_u8(float x);

#endif
