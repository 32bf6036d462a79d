// References of the norms: two passes in double, in the order of the definition. Used by tests/ops.
#include "ref_maps.h"

#include <math.h>

struct group {
    uint32_t c0, c;
    double mean, rstd;
};

static void group_statistics(const float *x, const struct ref_shape *s, double eps, struct group *g)
{
    size_t pixels = (size_t)s->h * s->w;
    double sum = 0, squares = 0;

    for (size_t i = 0; i < pixels; i++)
        for (uint32_t c = g->c0; c < g->c0 + g->c; c++)
            sum += x[i * s->c + c];
    g->mean = sum / (double)(pixels * g->c);
    for (size_t i = 0; i < pixels; i++) {
        for (uint32_t c = g->c0; c < g->c0 + g->c; c++) {
            double d = x[i * s->c + c] - g->mean;
            squares += d * d;
        }
    }
    g->rstd = 1 / sqrt(squares / (double)(pixels * g->c) + eps);
}

void ref_group_norm(const struct ref_group_norm_params *p, double *y)
{
    const struct ref_shape *s = &p->s;
    size_t pixels = (size_t)s->h * s->w;

    for (uint32_t n = 0; n < s->n; n++) {
        for (uint32_t k = 0; k < p->groups; k++) {
            struct group g = {.c = s->c / p->groups, .c0 = k * (s->c / p->groups)};
            size_t at = n * pixels * s->c;

            group_statistics(p->x + at, s, p->eps, &g);
            for (size_t i = 0; i < pixels * g.c; i++) {
                uint32_t c = g.c0 + (uint32_t)(i % g.c);
                size_t j = at + i / g.c * s->c + c;
                double v = (p->x[j] - g.mean) * g.rstd * p->gamma[c] + p->beta[c];
                if (p->scale_shift) {
                    const float *ss = p->scale_shift + (size_t)n * 2 * s->c;
                    v = v * (1 + ss[c]) + ss[s->c + c];
                }
                y[j] = ref_act(p->act, v);
            }
        }
    }
}

void ref_layer_norm(const float *x, struct ref_shape s, const float *gamma, const float *beta,
                    double eps, double *y)
{
    for (size_t i = 0; i < (size_t)s.n * s.h * s.w; i++, x += s.c, y += s.c) {
        double sum = 0, squares = 0;

        for (uint32_t c = 0; c < s.c; c++)
            sum += x[c];
        for (uint32_t c = 0; c < s.c; c++)
            squares += (x[c] - sum / s.c) * (x[c] - sum / s.c);
        for (uint32_t c = 0; c < s.c; c++) {
            double v = (x[c] - sum / s.c) / sqrt(squares / s.c + eps);
            y[c] = (v * gamma[c] + (beta ? beta[c] : 0));
        }
    }
}

void ref_rms_norm(const float *x, struct ref_shape s, const float *gamma, double eps, double *y)
{
    for (size_t i = 0; i < (size_t)s.n * s.h * s.w; i++, x += s.c, y += s.c) {
        double squares = 0;

        for (uint32_t c = 0; c < s.c; c++)
            squares += (double)x[c] * x[c];
        for (uint32_t c = 0; c < s.c; c++)
            y[c] = (x[c] / sqrt(squares / s.c + eps) * gamma[c]);
    }
}
